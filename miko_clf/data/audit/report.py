"""An audit on the terminal, and as one page that needs nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources

from rich.console import Console
from rich.table import Table

from miko_clf.data.audit import findings
from miko_clf.data.audit.findings import Audit
from miko_clf.tables import make_text_table, print_table

PAGE_CSS = resources.files("miko_clf.data.audit").joinpath("report.css").read_text(encoding="utf-8")
_OVERLAP_HEADS = ("posts with", "groups", "across splits", "labels differ")
_STRONG_VERDICTS = ("shortcut", "never feed this")
_DRIFT_HEADS = (
    "told from train, AUROC", "words not in train", "of a fifth of train", "of distinct words",
)  # fmt: skip
_NUM_SHOWN_CLASSES = 3  # named in a row
_NUM_SHOWN_WORDS = 5
_MAX_LISTED = 100
"""Groups, and posts of a group, that the page lists; the JSON has them all."""


def print_audit(audit: Audit, console: Console) -> None:
    """Print what was found, the leaks last."""
    total = sum(split.posts for split in audit.splits)
    console.print(f"{audit.data}: {total:,} posts, read as {audit.kind}", highlight=False)
    for tabulate in _TABULATORS:
        print_table(tabulate(audit), console)
    for line in audit.warnings:
        console.print(f"[yellow]note:[/] {_escape_markup(line)}", highlight=False)
    for line in audit.leaks:
        console.print(f"[red]leak:[/] {_escape_markup(line)}", highlight=False)
    if not audit.leaks:
        console.print("[green]no leak[/]", highlight=False)


def _tabulate_splits(audit: Audit) -> Table:
    names = ("split", "posts", "classes", "no text", "no image", "unread")
    table = make_text_table("", names, (), left=(0, 2))
    for split in audit.splits:
        counts = (split.posts, split.without_text, split.without_image, split.refused)
        posts, *rest = (f"{count:,}" for count in counts)
        table.add_row(split.name, posts, _format_classes(split), *rest)
    return table


def _format_classes(split: findings.SplitSummary) -> str:
    labelled = max(1, split.posts - split.unlabelled)
    common = sorted(split.labels, key=lambda name: -split.labels[name])
    shown = [
        f"{_escape_markup(name)} {split.labels[name] / labelled:.1%}"
        for name in common[:_NUM_SHOWN_CLASSES]
    ]
    return ", ".join(shown) + (", ..." if len(common) > _NUM_SHOWN_CLASSES else "")


def _tabulate_drifts(audit: Audit) -> Table:
    table = make_text_table("", ("drift from train", *_DRIFT_HEADS, "risen", "fallen"), ())
    for drift in audit.drifts:
        words = (
            ", ".join(_escape_markup(shift.word) for shift in shifts[:_NUM_SHOWN_WORDS]) or "-"
            for shifts in (drift.risen, drift.fallen)
        )
        table.add_row(drift.split, *_format_drift(drift), *words)
    return table


def _format_drift(drift: findings.Drift) -> list[str]:
    """Return the figures of a drift under its heads, `-` for what cannot be said."""
    told = f"{drift.auroc:.2f} ({drift.low:.2f}-{drift.high:.2f})" if drift.auroc else "-"
    new = (
        "-"
        if drift.unseen_tokens is None
        else f"{drift.unseen_tokens:.1%} ({drift.unseen_low:.1%}-{drift.unseen_high:.1%})"
    )
    shares = (drift.unseen_within, drift.unseen_words)
    return [told, new, *("-" if share is None else f"{share:.1%}" for share in shares)]


def _tabulate_overlaps(audit: Audit) -> Table:
    table = make_text_table("", _OVERLAP_HEADS, ())
    for overlap in audit.overlaps:
        if overlap.num_groups:
            table.add_row(overlap.what, *_count_groups(overlap))
    for sets in audit.contrast_sets:
        if sets.groups:
            across = sum(group.across for group in sets.groups)
            count, what = f"{len(sets.groups):,}", f"one {sets.shared}, label by the rest"
            table.add_row(what, count, f"{across:,}", count)
    return table


def _count_groups(overlap: findings.Overlap) -> list[str]:
    counts = (overlap.num_groups, overlap.num_across, overlap.num_conflicts)
    return [f"{count:,}" for count in counts]


def _tabulate_lookups(audit: Audit) -> Table:
    names = ("label looked up in train by", "found", "scores", "majority", "gain [95 %]")
    table = make_text_table("", names, ())
    for lookup in audit.lookups:
        if lookup.found:
            found, gain = f"{lookup.found}/{lookup.rows}", " ".join(_format_gain(lookup))
            shares = (f"{share:.1%}" for share in (lookup.accuracy, lookup.majority))
            by = f"{lookup.part}, on {lookup.split}"
            table.add_row(by, found, *shares, _escape_markup(gain))
    return table


def _format_gain(lookup: findings.Lookup) -> tuple[str, str]:
    """Return the gain of a look-up in points, and its interval."""
    low, high = 100 * lookup.low, 100 * lookup.high
    return f"{100 * lookup.gain:+.1f}", f"[{low:+.1f}, {high:+.1f}]"


def _tabulate_cues(audit: Audit) -> Table:
    names = ("cue alone", "AUROC", "by neighbours", "class", "verdict")
    table = make_text_table("", names, (), left=(0, 3, 4))
    for cue in _sort_cues(audit):
        if cue.verdict in _STRONG_VERDICTS:
            table.add_row(cue.name, *_format_aurocs(cue), cue.label, cue.verdict)
    return table


def _sort_cues(audit: Audit) -> list[findings.Cue]:
    return sorted(audit.cues, key=lambda cue: cue.best, reverse=True)


def _format_aurocs(cue: findings.Cue) -> tuple[str, str]:
    """Return a cue's AUROC with its interval, and that of its neighbours' vote."""
    auroc = "-" if cue.auroc is None else f"{cue.auroc:.2f} ({cue.low:.2f}-{cue.high:.2f})"
    return auroc, "-" if cue.nearby is None else f"{cue.nearby:.2f}"


def _escape_markup(text: str) -> str:
    """Return text in which no bracket is markup."""
    return text.replace("[", "\\[")


def render_audit_page(audit: Audit) -> str:
    """Return the page of an audit."""
    total = sum(split.posts for split in audit.splits)
    limits = [(name.replace("_", " "), f"{value:g}") for name, value in audit.limits.items()]
    sections = (
        f"<h1>{escape(audit.data)}</h1>",
        f"<p class=lead>{total:,} posts, read as {escape(audit.kind)}</p>",
        _render_verdict(audit),
        _render_section("Splits", _render_splits(audit), _render_shifts(audit)),
        _render_section("Drift", _DRIFT_INTRO, *_render_drifts(audit)),
        _render_section("The same post twice", *_render_overlaps(audit.overlaps)),
        _render_section("What a look-up would score", _LOOKUP_INTRO, _render_lookups(audit)),
        _render_section("Contrasts", _CONTRAST_INTRO, *map(_render_contrasts, audit.contrast_sets)),
        _render_section("Shortcuts", _SHORTCUT_INTRO, _render_cues(audit)),
        _render_section("Classes named by what was written about a post", _render_mentions(audit)),
        _render_section("Posts that cannot be read", _render_unread(audit)),
        _render_section("Limits", _render_table(("from which something counts", ""), limits)),
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        '<meta name=color-scheme content="light dark">'
        f"<title>Audit of {escape(audit.data)}</title><style>{PAGE_CSS}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


_TABULATORS = (
    _tabulate_splits, _tabulate_drifts, _tabulate_overlaps, _tabulate_lookups, _tabulate_cues,
)  # fmt: skip
_DRIFT_INTRO = (
    "<p>How far each split is from train, without its labels: the AUROC with which held-out posts "
    "are told from those of train by their words (0.5 where nothing tells them), the share of "
    "running words that train does not have, beside that of a fifth of train that the rest of it "
    "does not have, and that of distinct words.</p>"
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


def _render_verdict(audit: Audit) -> str:
    state, title = ("bad", "Leaks") if audit.leaks else ("good", "No leak")
    leaks = _render_items(audit.leaks)
    notes = f"<h2>Notes</h2>{_render_items(audit.warnings)}" if audit.warnings else ""
    return f"<div class='verdict {state}'><h2>{title}</h2>{leaks}</div>{notes}"


def _render_splits(audit: Audit) -> str:
    names = sorted({name for split in audit.splits for name in split.labels})
    heads = ("split", "posts", *names, "no label", "no text", "no image", "unread")
    rows = []
    for split in audit.splits:
        labelled = max(1, split.posts - split.unlabelled)
        shares = (
            f"{split.labels[name]:,} <small>{split.labels[name] / labelled:.1%}</small>"
            for name in names
        )
        lacks = (split.unlabelled, split.without_text, split.without_image, split.refused)
        rows.append((escape(split.name), f"{split.posts:,}", *shares, *map(str, lacks)))
    return _render_table([escape(head) for head in heads], rows)


def _render_shifts(audit: Audit) -> str:
    """Return the classes whose share moves; a chi-square test says whether by chance."""
    rows = [
        (f"{escape(shift.split)}: {escape(shift.label)}", f"{shift.train_share:.1%}",
         f"{shift.share:.1%}", f"{shift.p:.4f}")
        for shift in audit.shifts
        if shift.warn
    ]  # fmt: skip
    if rows:
        return _render_table(("class that moves", "in train", "here", "p"), rows)
    return "<p>The classes have much the same shares in every split.</p>" if audit.shifts else ""


def _render_drifts(audit: Audit) -> Iterator[str]:
    """Yield how far each split is from train, then the words and pictures that moved."""
    rows = [(escape(drift.split), *_format_drift(drift)) for drift in audit.drifts]
    if not rows:
        yield "<p>There is no train to compare with.</p>"
        return
    yield _render_table(("split", *_DRIFT_HEADS), rows)
    for drift in audit.drifts:
        words = [
            (f"{escape(drift.split)}: {escape(shift.word)}", f"{shift.train_share:.1%}",
             f"{shift.share:.1%}", f"{shift.z:+.1f}")
            for shift in (*drift.risen, *drift.fallen)
        ]  # fmt: skip
        if words:
            heads = ("word, by posts that hold it", "in train", "here", "z")
            yield _render_table(heads, words)
        pictures = [
            (f"{escape(drift.split)}: {escape(shift.name)}", f"{shift.train:,.4g}",
             f"{shift.here:,.4g}",
             f"{shift.difference:+,.3g} <small>[{shift.low:+,.3g}, {shift.high:+,.3g}]</small>")
            for shift in drift.pictures
        ]  # fmt: skip
        if pictures:
            yield _render_table(("pictures, mean", "in train", "here", "difference"), pictures)


def _render_overlaps(overlaps: Sequence[findings.Overlap]) -> Iterator[str]:
    """Yield counts, then the groups of each kind, folded; those labelled differently once more."""
    rows = [(escape(overlap.what), *_count_groups(overlap)) for overlap in overlaps]
    yield _render_table(_OVERLAP_HEADS, rows)
    for overlap in overlaps:
        if overlap.groups:
            yield _render_folded(overlap.what, overlap.groups)
    last = overlaps[-1]
    conflicts = [group for group in last.groups if group.conflict]
    if conflicts:
        yield _render_folded(f"{last.what}, and labelled differently", conflicts)


def _render_contrasts(sets: findings.ContrastSets) -> str:
    if not sets.groups:
        return f"<p>None that share the {sets.shared}.</p>"
    return _render_folded(f"one {sets.shared}, different labels", sets.groups)


def _render_folded(title: str, groups: Sequence[findings.OverlapGroup]) -> str:
    lines = "".join(f"<li>{_render_members(group)}</li>" for group in groups[:_MAX_LISTED])
    more = _count_unlisted(groups)
    head = f"{escape(title)} <small>{len(groups):,}</small>"
    return f"<details><summary>{head}</summary><ul class=groups>{lines}</ul>{more}</details>"


def _count_unlisted(entries: Sequence[object]) -> str:
    more = len(entries) - _MAX_LISTED
    return f"<p>{more:,} more in the JSON.</p>" if more > 0 else ""


def _render_members(group: findings.OverlapGroup) -> str:
    shown = " ".join(
        f"<span class=post><b>{escape(member.split)}</b> {escape(member.id)} "
        f"<i>{escape(member.label or 'no label')}</i></span>"
        for member in group.members[:_MAX_LISTED]
    )
    more = len(group.members) - _MAX_LISTED
    return shown + (f" and {more:,} more" if more > 0 else "")


def _render_lookups(audit: Audit) -> str:
    rows = [
        (f"{escape(lookup.part)}, {escape(lookup.split)}", f"{lookup.found:,} of {lookup.rows:,}",
         f"{lookup.accuracy:.1%}", f"{lookup.majority:.1%}",
         "{} <small>{}</small>".format(*_format_gain(lookup)),
         "<b>leak</b>" if lookup.leak else "")
        for lookup in audit.lookups
        if lookup.found
    ]  # fmt: skip
    if not rows:
        return "<p>No post shares a part with train.</p>"
    return _render_table(("by", "found", "scores", "majority", "gain in points", ""), rows)


def _render_cues(audit: Audit) -> str:
    rows = []
    for cue in _sort_cues(audit):
        share = max(0.0, 2 * cue.best - 1)  # of the way from chance to certainty
        bar = f"<span class=bar><span style='width:{100 * share:.0f}%'></span></span>"
        strength = "b" if cue.verdict in _STRONG_VERDICTS else "small"
        verdict = f"<{strength}>{cue.verdict}</{strength}>"
        held = ", ".join(f"{escape(split)} {value:.2f}" for split, value in cue.held.items())
        label = escape(cue.label or "-")
        rows.append((escape(cue.name), bar, *_format_aurocs(cue), verdict, label, held or "-"))
    heads = ("cue", "", "AUROC", "by neighbours", "verdict", "class", "same way round on")
    return _render_table(heads, rows)


def _render_mentions(audit: Audit) -> str:
    rows = [
        (escape(mention.source), escape(mention.label), f"{mention.texts:,}",
         f"{mention.own:.1%}", f"{mention.any:.1%}")
        for mention in audit.class_mentions
    ]  # fmt: skip
    if not rows:
        return "<p>No post has a description, intentions, or a rationale that may be read.</p>"
    return _render_table(("text", "of class", "texts", "name it", "name any class"), rows)


def _render_unread(audit: Audit) -> str:
    if not audit.refused:
        return "<p>None.</p>"
    unread = audit.refused[:_MAX_LISTED]
    lines = (f"{post.split}: {post.where}: {post.why}" for post in unread)
    return _render_items(lines) + _count_unlisted(audit.refused)


def _render_section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _render_items(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _render_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML; it scrolls sideways where it does not fit."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead>{body}</table></div>"
