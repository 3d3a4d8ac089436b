"""Labels of posts: which questions they answer, and the answers as arrays."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.post import ClassNames, Label, Post
from miko_clf.errors import PostError
from miko_clf.questions import Question, Questions


def list_class_names(posts: Sequence[Post]) -> list[str]:
    """Return every class that a post is labelled with, a task's name before it where it has one."""
    return sorted({name for post in posts for name in flatten_label(post.label)})


def name_label(label: Label | None) -> str | None:
    """Return the one name under which a label counts; several names are one, in any order."""
    return None if label is None else " + ".join(sorted(flatten_label(label))) or "(none)"


class TaskLabels(NamedTuple):
    """What posts answer to one question.

    `span` is the place of its logits, `rows` are the posts that answer. `truth` is the index of
    the label (row,) for kind one, and 1 where a label holds (row, label) for kind many.
    """

    question: Question
    span: slice
    rows: NDArray[np.int64]
    truth: NDArray[np.int64]


class TrueLabels(NamedTuple):
    """The answers of posts: `given` (post, label), `known` (post, question)."""

    questions: Questions
    given: NDArray[np.bool_]
    known: NDArray[np.bool_]

    def parts(self) -> list[TaskLabels]:
        """Return the answers question by question, of the posts that answer it."""
        found = []
        for place, (question, span) in enumerate(self.questions.spans()):
            rows = np.flatnonzero(self.known[:, place])
            held = self.given[rows, span].astype(np.int64)
            found.append(
                TaskLabels(question, span, rows, held.argmax(1) if question.kind == "one" else held)
            )
        return found

    def choices(self) -> list[int]:
        """Return the index of each post's label where one is asked for, -1 where it has none."""
        assert self.questions.plain
        return np.where(self.known[:, 0], self.given.argmax(1), -1).tolist()


def list_answers(label: Label | None) -> dict[str, ClassNames]:
    """Return what a post answers to each question; where it is the only one its name is empty."""
    if label is None:
        return {}
    return dict(label) if isinstance(label, Mapping) else {"": label}


def flatten_label(label: Label | None) -> tuple[str, ...]:
    """Return every class of a post by a name of its own: `harmful`, or `harm: harmful`."""
    return tuple(
        f"{task}: {name}" if task else name
        for task, given in list_answers(label).items()
        for name in _list_names(given)
    )


def rename_label(label: Label | None, change: Callable[[str], str]) -> Label | None:
    """Return the label with each class renamed; classes that become one count once."""
    if label is None or isinstance(label, str):
        return label and change(label)
    if not isinstance(label, Mapping):
        return tuple(dict.fromkeys(map(change, label)))
    found: dict[str, ClassNames] = {}
    for task, given in label.items():
        names = rename_label(given, change)
        assert isinstance(names, str | tuple)
        found[task] = names
    return found


def find_questions(posts: Iterable[Post], positive: str | None = None) -> Questions:
    """Return the questions that training posts answer, by name.

    Of two labels the positive one stands second: the one that `positive` names (`NAME`, or
    `TASK=NAME,...` where there are tasks), else the rarer, at equal counts the first by name.
    Raises `PostError` where posts differ in the kind of their labels, or there is nothing to
    tell apart.
    """
    counts: dict[str, Counter[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for post in posts:
        for task, given in list_answers(post.label).items():
            kind = "one" if isinstance(given, str) else "many"
            first.setdefault((task, kind), post.id)
            counts.setdefault(task, Counter()).update(_list_names(given))
    _check_label_kinds(counts, first)
    chosen = _choose_positive(positive, counts)
    return Questions(
        tuple(
            _make_question(
                task, "one" if (task, "one") in first else "many", found, chosen.get(task)
            )
            for task, found in sorted(counts.items())
        )
    )


def encode_labels(
    posts: Sequence[Post], questions: Questions, where: str, known: str
) -> TrueLabels:
    """Return the answers of posts as arrays.

    Raises `PostError` for an answer that is none of the question's labels or of another kind;
    it begins with `where` and says `known` before the labels that there are.
    """
    given = np.zeros((len(posts), len(questions.names)), dtype=bool)
    here = np.zeros((len(posts), len(questions)), dtype=bool)
    spans = {one.name: (place, one, span) for place, (one, span) in enumerate(questions.spans())}
    for row, post in enumerate(posts):
        for task, answer in list_answers(post.label).items():
            say = f"{where}: post {post.id!r}"
            if task not in spans:
                raise PostError(
                    f"{say} {_describe_unasked(task)}; {known} {_describe_questions(questions)}"
                )
            place, question, span = spans[task]
            here[row, place] = True
            given[row, span] = _encode_answer(answer, question, say, known)
    return TrueLabels(questions, given, here)


def _encode_answer(answer: ClassNames, question: Question, say: str, known: str) -> list[bool]:
    names = ", ".join(question.labels)
    if isinstance(answer, str) != (question.kind == "one"):
        what = "one name" if isinstance(answer, str) else "a list of labels"
        raise PostError(f"{say} has {what}{_name_task(question.name)}; {known} {question.line()}")
    for name in _list_names(answer):
        if name not in question.labels:
            raise PostError(
                f"{say} is labelled {name!r}{_name_task(question.name)}; {known} {names} "
                "(--label-map renames labels)"
            )
    return [name in _list_names(answer) for name in question.labels]


def _check_label_kinds(
    counts: Mapping[str, Counter[str]], first: Mapping[tuple[str, str], str]
) -> None:
    for task in counts:
        if (task, "one") in first and (task, "many") in first:
            raise PostError(
                f"post {first[task, 'many']!r} has a list of labels{_name_task(task)} and post "
                f"{first[task, 'one']!r} one name; a task is one or the other"
            )
    if "" in counts and len(counts) > 1:
        bare = first.get(("", "one")) or first["", "many"]
        raise PostError(
            f"post {bare!r} is labelled without a task and others with "
            f"{', '.join(sorted(filter(None, counts)))}; write an object for each, or for none"
        )


def _make_question(
    task: str, kind: Literal["one", "many"], counts: Counter[str], positive: str | None
) -> Question:
    names = sorted(counts)
    if kind == "many":
        if not names:
            raise PostError(
                f"no training post has a label{_name_task(task)}; at least one is needed"
            )
        return Question(name=task, kind=kind, labels=tuple(names))
    if len(names) < 2:
        one = f"one label{_name_task(task)}, {names[0]!r}"
        raise PostError(f"the training posts have {one}; two are needed")
    if len(names) == 2:
        last = positive or min(names, key=lambda name: (counts[name], name))
        names.sort(key=lambda name: name == last)
    return Question(name=task, kind=kind, labels=tuple(names))


def _choose_positive(positive: str | None, counts: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Return the positive class that was chosen for each task."""
    if positive is None:
        return {}
    found = {"": positive}
    if "" not in counts:
        found = {task: name for task, _, name in (w.partition("=") for w in positive.split(","))}
    for task, name in found.items():
        if task not in counts:
            raise PostError(
                f"positive class {positive!r}: {task!r} is no task of the training posts; "
                f"write TASK=NAME with a task of {', '.join(sorted(counts))}"
            )
        if name not in counts[task]:
            known = ", ".join(sorted(counts[task]))
            raise PostError(
                f"no training post is labelled {name!r}{_name_task(task)}; labels: {known}"
            )
    return found


def _list_names(names: ClassNames) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _name_task(task: str) -> str:
    return f" for {task}" if task else ""


def _describe_unasked(task: str) -> str:
    return f"has a label for {task!r}" if task else "has a label that names no task"


def _describe_questions(questions: Questions) -> str:
    return "; ".join(one.line() for one in questions)
