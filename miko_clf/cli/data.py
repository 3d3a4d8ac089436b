"""The commands that look at data before training: their options and what they call."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from miko_clf.cli.parser import (
    LABEL_MAP_HELP,
    Command,
    Parser,
    add_split_options,
    parse_dated_split,
    parse_label_map,
    print_json,
)


def _add_world_options(parser: Parser) -> None:
    add = parser.add_option
    add("out OUT", Path, "folder for images/, sarcasm/, harm/ and both/")
    add("--seed N", NonNegativeInt, "", 0)
    add("--posts N", PositiveInt, "posts, a multiple of four", 3000)
    say = "write dated/posts.jsonl too: a year of posts whose words change from July on"
    add("--dated", bool, say)


def _run_world(args: Namespace, line: str) -> None:
    """Write the demo world: drawn posts of which it is known what tells their labels."""
    from miko_clf.data.demo.world import write_world
    from miko_clf.progress import show_progress

    watch = partial(show_progress, what="drawing")
    folder = write_world(args.out, seed=args.seed, num_posts=args.posts, progress=watch)
    print(f"demo world: {folder}")
    if args.dated:
        from miko_clf.data.demo.dated import write_dated_posts

        print(f"dated:      {write_dated_posts(folder, seed=args.seed, num_posts=args.posts)}")
    where = shlex.quote(str(folder / "sarcasm"))
    print(f"next:       miko-clf fit tiny --data {where} --out runs/demo")


def _add_data_options(parser: Parser) -> None:
    say = "folder or file of posts; without it, the published layouts that are known are listed"
    parser.add_option("data DATA", Path, say, nargs="?")
    parser.add_option("--task NAME", str, "which of the tasks that a published data set has")
    parser.add_option("--label-map A=B,C=B", str, LABEL_MAP_HELP)
    parser.add_json_option()


def _run_data(args: Namespace, line: str) -> None:
    """List the published data sets that are read as they are, or say what is in a folder.

    Opens every split of DATA, decodes every picture, and counts posts, classes, images and
    intentions; rows that cannot be used are counted, and do not end it.
    """
    from miko_clf.data.dataset import PUBLISHED_SETS

    if args.data is not None:
        facts = _describe_folder(args.data, args.task, parse_label_map(args.label_map))
        print_json(facts) if args.json else _print_folder(facts)
    elif args.json:
        print_json([_list_set_facts(published) for published in PUBLISHED_SETS])
    else:
        for published in PUBLISHED_SETS:
            _print_set(published)


def _list_set_facts(published: Any) -> dict[str, Any]:
    splits = {name: count and count._asdict() for name, count in published.splits.items()}
    return {**published._asdict(), "splits": splits}


def _print_set(published: Any) -> None:
    splits = {
        name: count.line() if count else "counts unknown"
        for name, count in published.splits.items()
    }
    facts = {"known by": published.files, "tried on": published.checked_on}
    print(_wrap(f"{published.name}: ", published.what))
    for name, text in {"tasks": ", ".join(published.tasks), **splits, **facts}.items():
        print(_wrap(f"  {name:<12}  ", text))


def _wrap(lead: str, text: str) -> str:
    indent = " " * (len(lead) if lead.startswith(" ") else 2)
    return fill(lead + text, 79, subsequent_indent=indent, break_on_hyphens=False)


def _describe_folder(path: Path, task: str | None, label_map: Mapping[str, str]) -> dict[str, Any]:
    from miko_clf.data.dataset import open_folder
    from miko_clf.data.labels import flatten_label
    from miko_clf.data.readers import SkipReport

    report = SkipReport()
    data = open_folder(path, label_map=label_map, report=report, task=task)
    splits = {}
    for split in data.splits:
        posts = data.read(split)
        classes = Counter(name for post in posts for name in flatten_label(post.label))
        splits[split] = {
            "posts": len(posts),
            "classes": dict(sorted(classes.items())),
            "with_image": sum(post.image is not None for post in posts),
            "with_intentions": sum(bool(post.intentions) for post in posts),
        }
    unusable = [{"where": where, "reason": reason} for where, reason in report]
    return {
        "path": str(path),
        "kind": data.kind,
        "splits": splits,
        "unusable": unusable,
        "reasons": report.summarise(),
        "notes": data.notes,
    }


def _print_folder(facts: Mapping[str, Any]) -> None:
    print(f"{facts['path']}: {facts['kind']}")
    for split, counts in facts["splits"].items():
        classes = ", ".join(f"{name} {count:,}" for name, count in counts["classes"].items())
        print(_wrap(f"  {split:<12}  ", f"{counts['posts']:,} posts: {classes or 'no labels'}"))
        images, intentions = counts["with_image"], counts["with_intentions"]
        print(f"  {'':<12}  {images:,} with an image, {intentions:,} with intentions")
    if unusable := facts["unusable"]:
        print(f"  {len(unusable):,} rows cannot be used:")
        for line in facts["reasons"]:
            print(f"  - {line}")


def _add_audit_options(parser: Parser) -> None:
    add = parser.add_option
    add("data DATA", Path, "folder or file of posts")
    add("--label-map A=B,C=B", str, LABEL_MAP_HELP)
    add_split_options(add)
    say = "folder of report.json and report.html (default: DATA's name + .audit, in this folder)"
    add("--out DIR", Path, say)
    say = "print the JSON on stdout and nothing else there; with FILE, write it to FILE instead"
    add("--json FILE", str, say, nargs="?", const="-")
    add("--html FILE", Path, "write the page here instead")
    say = (
        "new folder for a copy without the leak: a post that stands on two sides of a split "
        "stays in the later one, so test is kept whole and train gives way; what was left out, "
        "and why, is in dropped.jsonl. Posts that are alike and labelled differently within one "
        "split are listed in the report and kept, since nobody but you knows which label is right. "
        "Shortcuts are in the posts themselves and stay"
    )
    add("--write-clean DIR", Path, say)


def _run_audit(args: Namespace, line: str) -> None:
    """Look for leaks, shortcuts and faults in a folder of posts, and exit 1 on a leak.

    A leak makes results void, as a test post that stands in train does. A shortcut is a number
    that tells the label and should not, such as the size of a picture's file. Prints tables and
    writes the whole audit as a page and as JSON.
    """
    from rich.console import Console

    from miko_clf import manifest
    from miko_clf.data.audit.audit import audit_posts
    from miko_clf.data.audit.clean import check_new_folder, write_clean_copy
    from miko_clf.data.audit.overlaps import read_compared_posts
    from miko_clf.data.audit.report import print_audit, render_audit_page

    if args.write_clean is not None:
        check_new_folder(args.write_clean)
    posts = read_compared_posts(
        args.data,
        label_map=parse_label_map(args.label_map),
        split_seed=args.split_seed,
        dated=parse_dated_split(args),
    )
    audit = audit_posts(posts)
    out = args.out or Path(f"{audit.data}.audit")
    on_stdout = args.json == "-"
    json_file = out / "report.json" if args.json in (None, "-") else Path(args.json)
    page = args.html or out / "report.html"
    manifest.write_json(json_file, audit.model_dump(mode="json"))
    manifest.write_text(page, render_audit_page(audit))
    if on_stdout:
        print(json_file.read_text(encoding="utf-8"), end="")
    else:
        print_audit(audit, Console(soft_wrap=not sys.stdout.isatty()))
    notes = sys.stderr if on_stdout else sys.stdout
    print(f"report: {page} and {json_file}", file=notes)
    if args.write_clean is not None:
        dropped = write_clean_copy(posts, args.write_clean)
        print(f"clean:  {args.write_clean}, {len(dropped):,} posts left out", file=notes)
    sys.exit(bool(audit.leaks))


DATA_COMMANDS: dict[str, Command] = {
    "world": Command(
        "OUT [--seed N] [--posts N] [--dated]", "runs/world", _add_world_options, _run_world
    ),
    "data": Command(
        "[DATA] [--task NAME] [--json]", "../data/harm-c",
        _add_data_options, _run_data,
    ),
    "audit": Command(
        "DATA [--out DIR] [--write-clean DIR] [options]", "runs/world/sarcasm",
        _add_audit_options, _run_audit, "train",
    ),
}  # fmt: skip
