"""An audit on the terminal, short enough for eighty columns."""

from rich.console import Console
from rich.table import Table

from miko_clf.data.audit.findings import Audit, Cue, Split

_CLASSES = 3  # named in a row


def show(found: Audit, console: Console) -> None:
    """Print what was found, the leaks last."""
    total = sum(split.posts for split in found.splits)
    console.print(f"{found.data}: {total:,} posts, read as {found.kind}", highlight=False)
    for table in (_splits(found), _overlaps(found), _lookups(found), _cues(found)):
        if table.row_count:
            console.print(table)
            console.print()
    for line in found.warnings:
        console.print(f"[yellow]note:[/] {_plain(line)}", highlight=False)
    for line in found.leaks:
        console.print(f"[red]leak:[/] {_plain(line)}", highlight=False)
    if not found.leaks:
        console.print("[green]no leak[/]", highlight=False)


def _splits(found: Audit) -> Table:
    table = _table("split", "posts", "classes", "no text", "no image", "unread", left=(0, 2))
    for split in found.splits:
        counts = (split.posts, split.without_text, split.without_image, split.refused)
        posts, *rest = (f"{count:,}" for count in counts)
        table.add_row(split.name, posts, _classes(split), *rest)
    return table


def _classes(split: Split) -> str:
    labelled = max(1, split.posts - split.unlabelled)
    common = sorted(split.labels, key=lambda name: -split.labels[name])
    shown = [f"{_plain(name)} {split.labels[name] / labelled:.1%}" for name in common[:_CLASSES]]
    return ", ".join(shown) + (", ..." if len(common) > _CLASSES else "")


def _overlaps(found: Audit) -> Table:
    table = _table("posts with", "groups", "across splits", "labels differ")
    for each in found.overlaps:
        if each.num_groups:
            numbers = (each.num_groups, each.num_across, each.num_conflicts)
            table.add_row(each.what, *(f"{number:,}" for number in numbers))
    for kind in found.confounders:
        if kind.groups:
            across = sum(group.across for group in kind.groups)
            what = f"one {kind.shared}, label by the rest"
            table.add_row(what, f"{len(kind.groups):,}", f"{across:,}", f"{len(kind.groups):,}")
    return table


def _lookups(found: Audit) -> Table:
    table = _table("label looked up in train by", "found", "scores", "majority", "gain [95 %]")
    for each in found.lookups:
        if each.found:
            table.add_row(
                f"{each.part}, on {each.split}",
                f"{each.found}/{each.rows}",
                f"{each.accuracy:.1%}",
                f"{each.majority:.1%}",
                f"{100 * each.gain:+.1f} \\[{100 * each.low:+.1f}, {100 * each.high:+.1f}]",
            )
    return table


def _cues(found: Audit) -> Table:
    table = _table("cue alone", "AUROC", "by neighbours", "class", "verdict", left=(0, 3, 4))
    for cue in sorted(found.cues, key=lambda cue: cue.best, reverse=True):
        if cue.verdict in ("shortcut", "never feed this"):
            table.add_row(cue.name, area(cue), number(cue.nearby), cue.label, cue.verdict)
    return table


def area(cue: Cue) -> str:
    """Return a cue's AUROC with its interval."""
    if cue.auroc is None:
        return "-"
    return f"{cue.auroc:.2f} ({cue.low:.2f}-{cue.high:.2f})"


def number(value: float | None) -> str:
    """Return a number with two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def _table(*names: str, left: tuple[int, ...] = (0,)) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place in left else "right")
    return table


def _plain(text: str) -> str:
    """Return text in which no bracket is markup."""
    return text.replace("[", "\\[")
