"""All that is said of a system's errors, as one object of plain values."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from miko_clf.evaluate.errors.members import Words, enough, group_members, word_members
from miko_clf.evaluate.errors.mistakes import mistakes
from miko_clf.evaluate.errors.pairs import pairs
from miko_clf.evaluate.errors.slices import slices
from miko_clf.evaluate.subject import Subject


def examine(
    subject: Subject, *, images: bool = False, groups: Words | None = None
) -> dict[str, Any]:
    """Return findings by name; intervals are `Interval`, and what finds nothing is left out.

    `mistakes`, `slices` with `slices_left_out`, `groups` of the posts' own or of the word lists
    given, `groups_left_out` with how many posts these have, `suspects` and `pairs`. Groups need
    fairlearn and suspects cleanlab, which are an extra: where one is not installed its finding is
    left out and it stands in `not_installed`.
    """
    cuts, left_out = slices(subject)
    members = group_members(subject.posts)
    if groups is not None:
        members |= word_members(subject.posts, groups)
    asked: dict[str, tuple[str, tuple[Any, ...]]] = {
        "suspects": ("cleanlab", ()),
        "groups": ("fairlearn", (members,)),
    }
    if not members:
        del asked["groups"]
    absent = [library for library, _ in asked.values() if not find_spec(library)]
    found = {
        "mistakes": _plain(mistakes(subject, images=images)),
        "slices": _plain(cuts),
        "slices_left_out": left_out,
        "pairs": _plain(pairs(subject)),
        "groups_left_out": {
            name: int(inside.sum()) for name, inside in members.items() if not enough(inside)
        },
        "not_installed": absent,
    }
    for name, (library, given) in asked.items():
        if library not in absent:
            found[name] = _plain(_extra(name)(subject, *given))
    return {name: value for name, value in found.items() if value}


def _extra(name: str) -> Callable[..., Iterable[Any]]:
    """Return an analysis whose library is an extra, and takes seconds to load."""
    analysis: Callable[..., Iterable[Any]] = getattr(
        importlib.import_module(f"miko_clf.evaluate.errors.{name}"), name
    )
    return analysis


def _plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
