"""The commands that look at data before training: their options and what they call."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import Namespace

from miko_clf.cli.parser import Command, Parser, parse_label_map


def _add_data_options(parser: Parser) -> None:
    say = "folder or file of posts; without it, the published layouts that are known are listed"
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help=say)
    say = "which of the tasks that a published data set has"
    parser.add_argument("--task", type=str, metavar="NAME", help=say)


def _run_data(given: Namespace, line: str) -> None:
    if given.data is None:
        _list_published_sets()
    else:
        _describe_folder(given.data, given.task)


def _list_published_sets() -> None:
    from miko_clf.data.dataset import PUBLISHED_SETS

    for each in PUBLISHED_SETS:
        print(f"{each.name}: {each.what}")
        print(f"  tasks   {', '.join(each.tasks)}")
        for split, count in each.splits.items():
            print(f"  {split:<12}  {count.line() if count else 'counts unknown'}")
        print(f"  known by  {each.files}")
        print(f"  tried on  {each.checked_on}")


def _describe_folder(path: Path, task: str | None) -> None:
    from miko_clf.data.dataset import open_folder
    from miko_clf.data.labels import flatten_label
    from miko_clf.data.readers import SkipReport

    report = SkipReport()
    data = open_folder(path, report=report, task=task)
    print(f"{path}: {data.kind}")
    for split in data.splits:
        posts = data.read(split)
        classes = Counter(name for post in posts for name in flatten_label(post.label))
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(classes.items()))
        images = sum(post.image is not None for post in posts)
        intended = sum(bool(post.intentions) for post in posts)
        print(f"  {split:<12}  {len(posts):,} posts: {shown or 'no labels'}")
        print(f"  {'':<12}  {images:,} with an image, {intended:,} with intentions")
    if len(report):
        print(f"  {len(report):,} rows cannot be used; the first: {': '.join(next(iter(report)))}")


DATA_COMMANDS: Mapping[str, Command] = {
    "data": Command(
        "List the published data sets that are read as they are, or say what is in a folder",
        "[DATA] [--task NAME]",
        "../data/harm-c",
        _add_data_options,
    ),
}
DATA_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"data": _run_data}


def _add_audit_options(parser: Parser) -> None:
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


def _run_audit(given: Namespace, line: str) -> None:
    from rich.console import Console

    from miko_clf import manifest
    from miko_clf.data.audit.audit import audit_posts
    from miko_clf.data.audit.clean import check_new_folder, write_clean_copy
    from miko_clf.data.audit.overlaps import read_compared_posts
    from miko_clf.data.audit.report import print_audit, render_audit_page

    if given.write_clean is not None:
        check_new_folder(given.write_clean)
    seen = read_compared_posts(
        given.data, label_map=parse_label_map(given.label_map), split_seed=given.split_seed
    )
    found = audit_posts(seen)
    out = given.out or Path(f"{found.data}.audit")
    as_json, as_html = given.json or out / "report.json", given.html or out / "report.html"
    manifest.write_json(as_json, found.model_dump(mode="json"))
    manifest.write_text(as_html, render_audit_page(found))
    print_audit(found, Console(soft_wrap=not sys.stdout.isatty()))
    print(f"report: {as_html} and {as_json}")
    if given.write_clean is not None:
        left_out = write_clean_copy(seen, given.write_clean)
        print(f"clean:  {given.write_clean}, {len(left_out):,} posts left out")
    sys.exit(bool(found.leaks))


AUDIT_COMMANDS: Mapping[str, Command] = {
    "audit": Command(
        "Look for leaks, shortcuts and faults in a folder of posts, and exit 1 on a leak",
        "DATA [--out DIR] [--write-clean DIR] [options]",
        "runs/world/sarcasm",
        _add_audit_options,
        "train",
    )
}
AUDIT_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"audit": _run_audit}
