"""An audit as one page that needs nothing else: no script, no picture, no other file."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from miko_clf.data.audit.findings import Audit, Confounders, Cue, Group, Overlap
from miko_clf.data.audit.show import area, number
from miko_clf.data.audit.style import STYLE

MOST = 100
"""Groups, and posts of a group, that the page lists; the JSON has them all."""


def page(found: Audit) -> str:
    """Return the page of an audit."""
    total = sum(split.posts for split in found.splits)
    parts = (
        f"<h1>{escape(found.data)}</h1>",
        f"<p class=lead>{total:,} posts, read as {escape(found.kind)}</p>",
        _verdict(found),
        _section("Splits", _splits(found), _shifts(found)),
        _section("The same post twice", _overlaps(found), *_lists(found.overlaps)),
        _section("What a look-up would score", _LOOKUP, _lookups(found)),
        _section("Contrasts", _CONTRAST, *map(_contrasts, found.confounders)),
        _section("Shortcuts", _SHORTCUT, _cues(found.cues)),
        _section("Classes named by what was written about a post", _namings(found)),
        _section("Posts that cannot be read", *_refused(found)),
        _section("Limits", _limits(found)),
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>Audit of {escape(found.data)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


_LOOKUP = (
    "<p>For each post that shares a part with train, train's label is the answer; the majority "
    "class otherwise. What that scores above the majority alone is what the overlap is worth.</p>"
)
_CONTRAST = (
    "<p>Groups that share one part, differ in the other, and carry different labels. Hateful Memes "
    "is built of them on purpose: neither part is enough. They are no leak.</p>"
)
_SHORTCUT = (
    "<p>How well one number alone tells the class from the rest, either way round, on train. "
    "<em>By neighbours</em> is the vote of the 25 posts with the nearest numbers, held out, which "
    "finds classes that come in runs.</p>"
)


def _verdict(found: Audit) -> str:
    state, title = ("bad", "Leaks") if found.leaks else ("good", "No leak")
    leaks = _items(found.leaks)
    notes = f"<h2>Notes</h2>{_items(found.warnings)}" if found.warnings else ""
    return f"<div class='verdict {state}'><h2>{title}</h2>{leaks}</div>{notes}"


def _splits(found: Audit) -> str:
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
    return _table([escape(head) for head in heads], rows)


def _shifts(found: Audit) -> str:
    """Return the classes whose share moves; a chi-square test says whether by chance."""
    moved = [
        (f"{escape(each.split)}: {escape(each.label)}", f"{each.train_share:.1%}",
         f"{each.share:.1%}", f"{each.p:.4f}")
        for each in found.shifts
        if each.warn
    ]  # fmt: skip
    if moved:
        return _table(("class that moves", "in train", "here", "p"), moved)
    return "<p>The classes have much the same shares in every split.</p>" if found.shifts else ""


def _overlaps(found: Audit) -> str:
    rows = [
        (escape(each.what), f"{each.num_groups:,}", f"{each.num_across:,}",
         f"{each.num_conflicts:,}")
        for each in found.overlaps
    ]  # fmt: skip
    return _table(("posts with", "groups", "across splits", "labels differ"), rows)


def _lists(overlaps: Sequence[Overlap]) -> Iterator[str]:
    """Yield the groups of each kind, folded; those labelled differently first a second time."""
    for each in overlaps:
        if each.groups:
            yield _folded(each.what, each.groups)
    last = overlaps[-1]
    conflicts = [group for group in last.groups if group.conflict]
    if conflicts:
        yield _folded(f"{last.what}, and labelled differently", conflicts)


def _contrasts(each: Confounders) -> str:
    if not each.groups:
        return f"<p>None that share the {each.shared}.</p>"
    return _folded(f"one {each.shared}, different labels", each.groups)


def _folded(title: str, groups: Sequence[Group]) -> str:
    lines = "".join(f"<li>{_members(group)}</li>" for group in groups[:MOST])
    more = f"<p>{len(groups) - MOST:,} more in the JSON.</p>" if len(groups) > MOST else ""
    head = f"{escape(title)} <small>{len(groups):,}</small>"
    return f"<details><summary>{head}</summary><ul class=groups>{lines}</ul>{more}</details>"


def _members(group: Group) -> str:
    shown = " ".join(
        f"<span class=post><b>{escape(each.split)}</b> {escape(each.id)} "
        f"<i>{escape(each.label or 'no label')}</i></span>"
        for each in group.members[:MOST]
    )
    more = len(group.members) - MOST
    return shown + (f" and {more:,} more" if more > 0 else "")


def _lookups(found: Audit) -> str:
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
    return _table(("by", "found", "scores", "majority", "gain in points", ""), rows)


def _cues(cues: Iterable[Cue]) -> str:
    rows = [
        (escape(each.name), _bar(each), area(each), number(each.nearby), _word(each),
         escape(each.label or "-"),
         ", ".join(f"{escape(split)} {value:.2f}" for split, value in each.held.items()) or "-")
        for each in sorted(cues, key=lambda cue: cue.best, reverse=True)
    ]  # fmt: skip
    heads = ("cue", "", "AUROC", "by neighbours", "verdict", "class", "same way round on")
    return _table(heads, rows)


def _bar(cue: Cue) -> str:
    """Return how far the better area is on the way from chance to certainty."""
    share = max(0.0, 2 * cue.best - 1)
    return f"<span class=bar><span style='width:{100 * share:.0f}%'></span></span>"


def _word(cue: Cue) -> str:
    strong = cue.verdict in ("shortcut", "never feed this")
    return f"<b>{cue.verdict}</b>" if strong else f"<small>{cue.verdict}</small>"


def _namings(found: Audit) -> str:
    rows = [
        (escape(each.source), escape(each.label), f"{each.texts:,}", f"{each.own:.1%}",
         f"{each.any:.1%}")
        for each in found.namings
    ]  # fmt: skip
    if not rows:
        return "<p>No post has a description, intentions, or a rationale that may be read.</p>"
    return _table(("text", "of class", "texts", "name it", "name any class"), rows)


def _refused(found: Audit) -> Iterator[str]:
    if not found.refused:
        yield "<p>None.</p>"
        return
    yield _items(f"{each.split}: {each.where}: {each.why}" for each in found.refused[:MOST])
    if len(found.refused) > MOST:
        yield f"<p>{len(found.refused) - MOST:,} more in the JSON.</p>"


def _limits(found: Audit) -> str:
    rows = [(name.replace("_", " "), f"{value:g}") for name, value in found.limits.items()]
    return _table(("from which something counts", ""), rows)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _items(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML; it scrolls sideways where it does not fit."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead>{body}</table></div>"
