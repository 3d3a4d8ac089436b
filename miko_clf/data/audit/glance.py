"""What can be told of a text without reading it: its marks, and its form without them."""

import re
import unicodedata
from collections.abc import Mapping

from miko_clf.data.labels import flat
from miko_clf.data.post import Label

MARK = 0.55
"""AUROC from which a mark, a missing part or a class named in a text is a shortcut."""
# Published texts write placeholders where a mark stood, and blanks within one.
MARKS: Mapping[str, re.Pattern[str]] = {
    "hashtag": re.compile(r"#\s?\w|<hashtag>", re.IGNORECASE),
    "emoji": re.compile(
        r"[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf]|\bemoji_?\d+\b", re.IGNORECASE
    ),
    "@user": re.compile(r"(?<!\w)@\s?\w|<user>|\buser_mention\b", re.IGNORECASE),
    "URL": re.compile(r"\bhttps?\b|\bwww\.|<url>|\bhttpurl\b", re.IGNORECASE),
}
# Letters, digits, and the planes of emoji and symbols stay.
_DROPPED = re.compile(r"[^\w\u2190-\u2bff\U0001f000-\U0001faff]+|_")


def normal(text: str | None) -> str:
    """Return a text in lower case without punctuation and white space; an absent one is empty."""
    return _DROPPED.sub("", unicodedata.normalize("NFKC", text or "").casefold())


def named(label: Label | None) -> str | None:
    """Return the one name under which a label counts; several names are one, in any order."""
    return None if label is None else " + ".join(sorted(flat(label))) or "(none)"
