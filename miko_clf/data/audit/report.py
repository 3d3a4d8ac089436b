"""An audit on the terminal, and as one page that needs nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from rich.console import Console
from rich.table import Table

from miko_clf.data.audit.findings import (
    Audit,
    ContrastSets,
    Cue,
    Overlap,
    OverlapGroup,
    SplitSummary,
)

PAGE_CSS = """
:root{--ground:#fbfaf8;--card:#fff;--ink:#1d2126;--soft:#5d666f;--line:#e2dfd9;--bad:#a8321f;
--good:#23694a;--bar:#4a6fa5}
@media(prefers-color-scheme:dark){:root{--ground:#15181b;--card:#1c2024;--ink:#e6e4df;
--soft:#9aa3ab;--line:#31373d;--bad:#f0907e;--good:#7fcaa3;--bar:#7ea3d8}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:68rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0 .8rem;max-width:44rem}
.lead{color:var(--soft);margin:.2rem 0 1.4rem}
ul{margin:.3rem 0;padding-left:1.2rem}
li{margin:.25rem 0;overflow-wrap:anywhere}
small{color:var(--soft);font-size:.85em;white-space:nowrap}
.verdict{background:var(--card);border:1px solid var(--line);border-left:.3rem solid;
border-radius:.4rem;padding:.9rem 1.1rem}
.verdict h2{margin:0}
.verdict.bad{border-left-color:var(--bad)}.verdict.bad h2{color:var(--bad)}
.verdict.good{border-left-color:var(--good)}.verdict.good h2{color:var(--good)}
.wide{overflow-x:auto;margin:.6rem 0 1rem;background:var(--card);border:1px solid var(--line);
border-radius:.4rem}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .8rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:600}
thead th{white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
td b{color:var(--bad)}
.bar{display:inline-block;width:5rem;height:.5rem;border-radius:.25rem;background:var(--line);
overflow:hidden;vertical-align:middle}
.bar span{display:block;height:100%;background:var(--bar)}
details{border:1px solid var(--line);border-radius:.4rem;background:var(--card);margin:.4rem 0}
summary{cursor:pointer;padding:.5rem .8rem}
summary::first-letter{text-transform:uppercase}
details>p{padding:0 .8rem}
.groups{list-style:none;margin:0;padding:0 .8rem .6rem;font-size:.9rem}
.groups li{padding:.35rem 0;border-top:1px solid var(--line)}
.post{display:inline-block;margin-right:1rem}
.post b{color:var(--soft);font-weight:600}
.post i{font-style:normal;color:var(--soft)}
@media(max-width:40rem){main{padding:1.25rem .9rem 3rem}th,td{padding:.35rem .5rem}
table{font-size:.85rem}td:first-child{white-space:normal}.bar{width:2.6rem}
.wide small{display:block}
.post{display:block;margin:0}}
"""

_NUM_SHOWN_CLASSES = 3  # named in a row


def print_audit(found: Audit, console: Console) -> None:
    """Print what was found, the leaks last."""
    total = sum(split.posts for split in found.splits)
    console.print(f"{found.data}: {total:,} posts, read as {found.kind}", highlight=False)
    for table in (
        _tabulate_splits(found),
        _tabulate_overlaps(found),
        _tabulate_lookups(found),
        _tabulate_cues(found),
    ):
        if table.row_count:
            console.print(table)
            console.print()
    for line in found.warnings:
        console.print(f"[yellow]note:[/] {_escape_markup(line)}", highlight=False)
    for line in found.leaks:
        console.print(f"[red]leak:[/] {_escape_markup(line)}", highlight=False)
    if not found.leaks:
        console.print("[green]no leak[/]", highlight=False)


def _tabulate_splits(found: Audit) -> Table:
    table = _make_table("split", "posts", "classes", "no text", "no image", "unread", left=(0, 2))
    for split in found.splits:
        counts = (split.posts, split.without_text, split.without_image, split.refused)
        posts, *rest = (f"{count:,}" for count in counts)
        table.add_row(split.name, posts, _format_classes(split), *rest)
    return table


def _format_classes(split: SplitSummary) -> str:
    labelled = max(1, split.posts - split.unlabelled)
    common = sorted(split.labels, key=lambda name: -split.labels[name])
    shown = [
        f"{_escape_markup(name)} {split.labels[name] / labelled:.1%}"
        for name in common[:_NUM_SHOWN_CLASSES]
    ]
    return ", ".join(shown) + (", ..." if len(common) > _NUM_SHOWN_CLASSES else "")


def _tabulate_overlaps(found: Audit) -> Table:
    table = _make_table("posts with", "groups", "across splits", "labels differ")
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


def _tabulate_lookups(found: Audit) -> Table:
    table = _make_table("label looked up in train by", "found", "scores", "majority", "gain [95 %]")
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


def _tabulate_cues(found: Audit) -> Table:
    table = _make_table("cue alone", "AUROC", "by neighbours", "class", "verdict", left=(0, 3, 4))
    for cue in sorted(found.cues, key=lambda cue: cue.best, reverse=True):
        if cue.verdict in ("shortcut", "never feed this"):
            table.add_row(
                cue.name, _format_cue_auroc(cue), _format_number(cue.nearby), cue.label, cue.verdict
            )
    return table


def _format_cue_auroc(cue: Cue) -> str:
    """Return a cue's AUROC with its interval."""
    if cue.auroc is None:
        return "-"
    return f"{cue.auroc:.2f} ({cue.low:.2f}-{cue.high:.2f})"


def _format_number(value: float | None) -> str:
    """Return a number with two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def _make_table(*names: str, left: tuple[int, ...] = (0,)) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place in left else "right")
    return table


def _escape_markup(text: str) -> str:
    """Return text in which no bracket is markup."""
    return text.replace("[", "\\[")


_MAX_LISTED = 100
"""Groups, and posts of a group, that the page lists; the JSON has them all."""


def render_audit_page(found: Audit) -> str:
    """Return the page of an audit."""
    total = sum(split.posts for split in found.splits)
    parts = (
        f"<h1>{escape(found.data)}</h1>",
        f"<p class=lead>{total:,} posts, read as {escape(found.kind)}</p>",
        _render_verdict(found),
        _render_section("Splits", _render_splits(found), _render_shifts(found)),
        _render_section(
            "The same post twice", _render_overlaps(found), *_render_group_lists(found.overlaps)
        ),
        _render_section("What a look-up would score", _LOOKUP_INTRO, _render_lookups(found)),
        _render_section("Contrasts", _CONTRAST_INTRO, *map(_render_contrasts, found.confounders)),
        _render_section("Shortcuts", _SHORTCUT_INTRO, _render_cues(found.cues)),
        _render_section("Classes named by what was written about a post", _render_mentions(found)),
        _render_section("Posts that cannot be read", *_render_unread(found)),
        _render_section("Limits", _render_limits(found)),
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>Audit of {escape(found.data)}</title><style>{PAGE_CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


_LOOKUP_INTRO = (
    "<p>For each post that shares a part with train, train's label is the answer; the majority "
    "class otherwise. What that scores above the majority alone is what the overlap is worth.</p>"
)
_CONTRAST_INTRO = (
    "<p>Groups that share one part, differ in the other, and carry different labels. Hateful Memes "
    "is built of them on purpose: neither part is enough. They are no leak.</p>"
)
_SHORTCUT_INTRO = (
    "<p>How well one number alone tells the class from the rest, either way round, on train. "
    "<em>By neighbours</em> is the vote of the 25 posts with the nearest numbers, held out, which "
    "finds classes that come in runs.</p>"
)


def _render_verdict(found: Audit) -> str:
    state, title = ("bad", "Leaks") if found.leaks else ("good", "No leak")
    leaks = _render_items(found.leaks)
    notes = f"<h2>Notes</h2>{_render_items(found.warnings)}" if found.warnings else ""
    return f"<div class='verdict {state}'><h2>{title}</h2>{leaks}</div>{notes}"


def _render_splits(found: Audit) -> str:
    names = sorted({name for split in found.splits for name in split.labels})
    heads = ("split", "posts", *names, "no label", "no text", "no image", "unread")
    rows = []
    for split in found.splits:
        labelled = max(1, split.posts - split.unlabelled)
        shares = (
            f"{split.labels[name]:,} <small>{split.labels[name] / labelled:.1%}</small>"
            for name in names
        )
        lacks = (split.unlabelled, split.without_text, split.without_image, split.refused)
        rows.append((escape(split.name), f"{split.posts:,}", *shares, *map(str, lacks)))
    return _render_table([escape(head) for head in heads], rows)


def _render_shifts(found: Audit) -> str:
    """Return the classes whose share moves; a chi-square test says whether by chance."""
    moved = [
        (f"{escape(each.split)}: {escape(each.label)}", f"{each.train_share:.1%}",
         f"{each.share:.1%}", f"{each.p:.4f}")
        for each in found.shifts
        if each.warn
    ]  # fmt: skip
    if moved:
        return _render_table(("class that moves", "in train", "here", "p"), moved)
    return "<p>The classes have much the same shares in every split.</p>" if found.shifts else ""


def _render_overlaps(found: Audit) -> str:
    rows = [
        (escape(each.what), f"{each.num_groups:,}", f"{each.num_across:,}",
         f"{each.num_conflicts:,}")
        for each in found.overlaps
    ]  # fmt: skip
    return _render_table(("posts with", "groups", "across splits", "labels differ"), rows)


def _render_group_lists(overlaps: Sequence[Overlap]) -> Iterator[str]:
    """Yield the groups of each kind, folded; those labelled differently first a second time."""
    for each in overlaps:
        if each.groups:
            yield _render_folded(each.what, each.groups)
    last = overlaps[-1]
    conflicts = [group for group in last.groups if group.conflict]
    if conflicts:
        yield _render_folded(f"{last.what}, and labelled differently", conflicts)


def _render_contrasts(each: ContrastSets) -> str:
    if not each.groups:
        return f"<p>None that share the {each.shared}.</p>"
    return _render_folded(f"one {each.shared}, different labels", each.groups)


def _render_folded(title: str, groups: Sequence[OverlapGroup]) -> str:
    lines = "".join(f"<li>{_render_members(group)}</li>" for group in groups[:_MAX_LISTED])
    more = (
        f"<p>{len(groups) - _MAX_LISTED:,} more in the JSON.</p>"
        if len(groups) > _MAX_LISTED
        else ""
    )
    head = f"{escape(title)} <small>{len(groups):,}</small>"
    return f"<details><summary>{head}</summary><ul class=groups>{lines}</ul>{more}</details>"


def _render_members(group: OverlapGroup) -> str:
    shown = " ".join(
        f"<span class=post><b>{escape(each.split)}</b> {escape(each.id)} "
        f"<i>{escape(each.label or 'no label')}</i></span>"
        for each in group.members[:_MAX_LISTED]
    )
    more = len(group.members) - _MAX_LISTED
    return shown + (f" and {more:,} more" if more > 0 else "")


def _render_lookups(found: Audit) -> str:
    rows = [
        (f"{escape(each.part)}, {escape(each.split)}", f"{each.found:,} of {each.rows:,}",
         f"{each.accuracy:.1%}", f"{each.majority:.1%}",
         f"{100 * each.gain:+.1f} <small>[{100 * each.low:+.1f}, {100 * each.high:+.1f}]</small>",
         "<b>leak</b>" if each.leak else "")
        for each in found.lookups
        if each.found
    ]  # fmt: skip
    if not rows:
        return "<p>No post shares a part with train.</p>"
    return _render_table(("by", "found", "scores", "majority", "gain in points", ""), rows)


def _render_cues(cues: Iterable[Cue]) -> str:
    rows = [
        (escape(each.name), _render_bar(each), _format_cue_auroc(each), _format_number(each.nearby), _render_cue_verdict(each),
         escape(each.label or "-"),
         ", ".join(f"{escape(split)} {value:.2f}" for split, value in each.held.items()) or "-")
        for each in sorted(cues, key=lambda cue: cue.best, reverse=True)
    ]  # fmt: skip
    heads = ("cue", "", "AUROC", "by neighbours", "verdict", "class", "same way round on")
    return _render_table(heads, rows)


def _render_bar(cue: Cue) -> str:
    """Return how far the better area is on the way from chance to certainty."""
    share = max(0.0, 2 * cue.best - 1)
    return f"<span class=bar><span style='width:{100 * share:.0f}%'></span></span>"


def _render_cue_verdict(cue: Cue) -> str:
    strong = cue.verdict in ("shortcut", "never feed this")
    return f"<b>{cue.verdict}</b>" if strong else f"<small>{cue.verdict}</small>"


def _render_mentions(found: Audit) -> str:
    rows = [
        (escape(each.source), escape(each.label), f"{each.texts:,}", f"{each.own:.1%}",
         f"{each.any:.1%}")
        for each in found.namings
    ]  # fmt: skip
    if not rows:
        return "<p>No post has a description, intentions, or a rationale that may be read.</p>"
    return _render_table(("text", "of class", "texts", "name it", "name any class"), rows)


def _render_unread(found: Audit) -> Iterator[str]:
    if not found.refused:
        yield "<p>None.</p>"
        return
    yield _render_items(
        f"{each.split}: {each.where}: {each.why}" for each in found.refused[:_MAX_LISTED]
    )
    if len(found.refused) > _MAX_LISTED:
        yield f"<p>{len(found.refused) - _MAX_LISTED:,} more in the JSON.</p>"


def _render_limits(found: Audit) -> str:
    rows = [(name.replace("_", " "), f"{value:g}") for name, value in found.limits.items()]
    return _render_table(("from which something counts", ""), rows)


def _render_section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _render_items(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _render_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML; it scrolls sideways where it does not fit."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead>{body}</table></div>"
