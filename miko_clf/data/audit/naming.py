"""How often what an LLM wrote about a post names a class."""

from collections.abc import Callable, Mapping, Sequence

from miko_clf.data.audit.findings import Naming
from miko_clf.data.label_words import label_words
from miko_clf.data.labels import flat
from miko_clf.data.post import Post

Reader = Callable[[Post], str | None]


def _rationale(post: Post) -> str | None:
    """Return a rationale that may be an input: one that saw the label is a target and no more."""
    return None if post.rationale is None or post.rationale.saw_label else post.rationale.text


SOURCES: Mapping[str, Reader] = {
    "description": lambda post: post.description,
    "intentions": lambda post: "\n".join(one.text for one in post.intentions) or None,
    "rationale": _rationale,
}


def named_in(texts: Sequence[str | None], label: str) -> list[float | None]:
    """Return for each text 1 if it names the class, in any inflection, 0 if not, None if absent."""
    words = label_words([_bare(label)])
    return [None if text is None else float(bool(words.search(text))) for text in texts]


def namings(posts: Sequence[Post], classes: Sequence[str]) -> tuple[Naming, ...]:
    """Return, for each kind of text and each class, how many posts of it name a class."""
    found = []
    any_class = label_words(map(_bare, classes))
    for source, read in SOURCES.items():
        for label in classes:
            mine = [post for post in posts if label in flat(post.label)]
            texts = [text for post in mine if (text := read(post)) is not None]
            if texts:
                own = sum(filter(None, named_in(texts, label)))
                some = sum(bool(any_class.search(text)) for text in texts)
                share = round(own / len(texts), 4), round(some / len(texts), 4)
                found.append(
                    Naming(source=source, label=label, texts=len(texts), own=share[0], any=share[1])
                )
    return tuple(found)


def _bare(label: str) -> str:
    """Return the name of a class without its task's."""
    return label.rpartition(": ")[2]
