"""Folders of posts to audit, and what an audit counted in them."""

from pathlib import Path
from typing import Any

from pictured import words

from miko_clf.data.audit.examine import examine
from miko_clf.data.audit.findings import Audit
from miko_clf.data.audit.verdicts import audit

Rows = list[dict[str, Any]]
LABELS = ("harmless", "harmful")


def plain(start: int, count: int, **more: object) -> Rows:
    """Return posts of their own text and image, labelled by turns."""
    return [
        {"id": f"p{row}", "text": words(row), "image": row, "label": LABELS[row % 2], **more}
        for row in range(start, start + count)
    ]


def audited(path: Path) -> Audit:
    """Return the audit of a folder."""
    return audit(examine(path))


def counts(found: Audit, key: str) -> tuple[int, int, int]:
    """Return groups, groups across splits and groups labelled differently."""
    each = next(each for each in found.overlaps if each.key == key)
    return each.num_groups, each.num_across, each.num_conflicts
