"""The words that `audit` takes, and what it calls."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import Namespace

from miko_clf.cli.parser import Command, Parser, label_map


def _words(parser: Parser) -> None:
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder or file of posts")
    say = "rename or merge labels as posts are read"
    add("--label-map", type=str, metavar="A=B,C=B", help=say)
    say = "audit the train, val and test (80/10/10, by group) that fit would make of unsplit posts"
    add("--split-seed", type=int, metavar="N", help=say)
    say = "folder of report.json and report.html (default: DATA's name + .audit, in this folder)"
    add("--out", type=Path, metavar="DIR", help=say)
    add("--json", type=Path, metavar="FILE", help="write the JSON here instead")
    add("--html", type=Path, metavar="FILE", help="write the page here instead")
    say = (
        "new folder for a copy without the leak: a post that stands on two sides of a split "
        "stays in the later one, so test is kept whole and train gives way; what was left out, "
        "and why, is in dropped.jsonl. Posts that are alike and labelled differently within one "
        "split are listed in the report and kept, since nobody but you knows which label is right. "
        "Shortcuts are in the posts themselves and stay"
    )
    add("--write-clean", type=Path, metavar="DIR", help=say)


def _audit(given: Namespace, line: str) -> None:
    from rich.console import Console

    from miko_clf import manifest
    from miko_clf.data.audit.clean import check_new, write_clean
    from miko_clf.data.audit.examine import examine
    from miko_clf.data.audit.page import page
    from miko_clf.data.audit.show import show
    from miko_clf.data.audit.verdicts import audit

    if given.write_clean is not None:
        check_new(given.write_clean)
    seen = examine(given.data, label_map=label_map(given.label_map), split_seed=given.split_seed)
    found = audit(seen)
    out = given.out or Path(f"{found.data}.audit")
    as_json, as_html = given.json or out / "report.json", given.html or out / "report.html"
    manifest.write_json(as_json, found.model_dump(mode="json"))
    manifest.write_text(as_html, page(found))
    show(found, Console(soft_wrap=not sys.stdout.isatty()))
    print(f"report: {as_html} and {as_json}")
    if given.write_clean is not None:
        left_out = write_clean(seen, given.write_clean)
        print(f"clean:  {given.write_clean}, {len(left_out):,} posts left out")
    sys.exit(bool(found.leaks))


COMMANDS: Mapping[str, Command] = {
    "audit": Command(
        "Look for leaks, shortcuts and faults in a folder of posts, and exit 1 on a leak",
        "DATA [--out DIR] [--write-clean DIR] [options]",
        "runs/world/sarcasm",
        _words,
        "train",
    )
}
ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"audit": _audit}
