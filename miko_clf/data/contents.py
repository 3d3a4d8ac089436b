"""What posts hold, as marks by which they are known again without being kept."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image

ContentMarks = Mapping[str, Sequence[str]]  # "text", "image" and "both", a mark a post, or ""
_LENGTH = 16  # of a mark: two of a million posts share one by chance once in 37 million times


def mark_contents(posts: Sequence[Post]) -> dict[str, list[str]]:
    """Return marks of the words, the picture, and both, of each post; "" of what it lacks.

    Words count without case and punctuation, pictures by their encoded bytes. A post that has but
    one of the two is known by that.
    """
    texts = [re.sub(r"\W+", " ", (post.text or "").casefold()).strip() for post in posts]
    images = ["" if post.image is None else digest_image(post.image) for post in posts]
    both = [f"{text}\0{image}" for text, image in zip(texts, images, strict=True)]
    return {
        "text": list(map(_mark, texts)),
        "image": list(map(_mark, images)),
        "both": list(map(_mark, both)),
    }


def _mark(content: str) -> str:
    if not content.strip("\0"):
        return ""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
