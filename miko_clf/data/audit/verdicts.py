"""What of the findings makes results void, and what a person should know all the same."""

from collections.abc import Iterator, Sequence

from miko_clf.data.audit import cues as limits
from miko_clf.data.audit import pictures, texts
from miko_clf.data.audit.cues import class_names, cues
from miko_clf.data.audit.examine import FEWEST_LETTERS, Examined
from miko_clf.data.audit.findings import Audit, Cue, Overlap, Refused, Shift, Split
from miko_clf.data.audit.glance import MARK
from miko_clf.data.audit.lookup import GAIN, Lookup
from miko_clf.data.audit.naming import namings
from miko_clf.data.audit.overlaps import confounders, lookups, overlaps
from miko_clf.data.audit.shares import MOVED, shifts, splits


def audit(seen: Examined) -> Audit:
    """Return every finding on the posts, leaks and warnings in a line each.

    A leak is a whole post on two sides of a split, a part whose label in train beats the
    majority elsewhere, or a shortcut in what a model reads. Parts that are shared without such a
    gain, as the confounders of Hateful Memes are, are listed and no leak.
    """
    same, looked, told = overlaps(seen), lookups(seen), cues(seen)
    held, moved = splits(seen), shifts(seen)
    return Audit(
        data=seen.path.resolve().name,
        kind=seen.kind,
        splits=held,
        shifts=moved,
        overlaps=same,
        lookups=looked,
        confounders=confounders(seen),
        cues=told,
        namings=namings(seen.posts, class_names(seen.posts)),
        refused=tuple(Refused(split=split, where=at, why=why) for split, at, why in seen.refused),
        leaks=tuple(_leaks(same, looked, told)),
        warnings=tuple(_warnings(same, told, held, moved)),
        limits={
            "jaccard": texts.JACCARD,
            "hash_bits": pictures.BITS,
            "grey_levels": pictures.GREY,
            "letters_of_a_post": FEWEST_LETTERS,
            "lookup_gain": GAIN,
            "auroc_of_a_mark": MARK,
            "auroc_of_a_length": limits.LENGTH,
            "auroc_of_what_no_model_sees": limits.UNSEEN,
            "shift": MOVED,
        },
    )


def _leaks(same: Sequence[Overlap], looked: Sequence[Lookup], told: Sequence[Cue]) -> Iterator[str]:
    groups = {overlap.key: overlap for overlap in same}
    if groups["near post"].num_across:
        whole = groups["near post"].num_across
        exact = groups["post"].num_across
        yield (
            f"{_many(whole, 'post')} on both sides of a split, alike in text and image "
            f"({exact} identical in both)"
        )
    for each in looked:
        if each.leak:
            yield each.line()
    for cue in told:
        if cue.verdict == "shortcut":
            yield (f"{cue.name} alone tells {cue.label} with AUROC {cue.best:.2f}")


def _warnings(
    same: Sequence[Overlap], told: Sequence[Cue], held: Sequence[Split], moved: Sequence[Shift]
) -> Iterator[str]:
    groups = {overlap.key: overlap for overlap in same}
    if groups["id"].num_across:
        yield f"{_many(groups['id'].num_across, 'id')} in more than one split; reading refuses them"
    if groups["group"].num_across:
        yield f"{_many(groups['group'].num_across, 'declared group')} in more than one split"
    if groups["near post"].num_conflicts:
        yield (
            f"{_many(groups['near post'].num_conflicts, 'group')} of posts with like text and "
            "image are labelled differently"
        )
    inside = groups["near post"].num_groups - groups["near post"].num_across
    if inside:
        yield f"{_many(inside, 'group')} of posts with like text and image within one split"
    for cue in told:
        if cue.verdict == "never feed this":
            yield (
                f"{cue.name} tells {cue.label} with AUROC {cue.best:.2f}: no model of miko_clf "
                "sees it; never feed it to one"
            )
    for shift in moved:
        if shift.warn:
            yield (
                f"{shift.label} is {shift.train_share:.1%} of train and {shift.share:.1%} of "
                f"{shift.split}"
            )
    refused = sum(split.refused for split in held)
    if refused:
        yield f"{_many(refused, 'post')} that cannot be read (missing or corrupt image, bad row)"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
