"""Labels of posts: which questions they answer, and the answers as arrays."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.post import ClassNames, Label, Post
from miko_clf.errors import PostError, shorten_value
from miko_clf.questions import Question, Questions

FOLD = "*"  # the key of a label map by which every class is folded
_NO_LABEL = "-1"  # as many tables write it


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

    def split_by_question(self) -> list[TaskLabels]:
        """Return the answers question by question, of the posts that answer it."""
        answers = []
        for place, (question, span) in enumerate(self.questions.spans()):
            rows = np.flatnonzero(self.known[:, place])
            flags = self.given[rows, span].astype(np.int64)
            truth = flags.argmax(1) if question.kind == "one" else flags
            answers.append(TaskLabels(question, span, rows, truth))
        return answers

    def list_choices(self) -> list[int]:
        """Return the index of each post's label where one is asked for, -1 where it has none."""
        assert self.questions.plain
        return np.where(self.known[:, 0], self.given.argmax(1), -1).tolist()


def normalise_class(name: str | bool | int | float) -> str:
    """Return the one spelling of a class: `true`, `1` also for 1.0, and no blanks around it."""
    if isinstance(name, bool):
        return str(name).lower()
    text = str(int(name) if isinstance(name, float) else name).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def fold_class(name: str) -> str:
    """Return a class in lower case, with an underscore for blanks and hyphens: `not_harmful`."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def list_answers(label: Label | None) -> dict[str, ClassNames]:
    """Return what a post answers to each question; where it is the only one its name is empty."""
    if label is None:
        return {}
    return dict(label) if isinstance(label, Mapping) else {"": label}


def list_names(answer: ClassNames) -> tuple[str, ...]:
    """Return the classes of an answer, one or several."""
    return (answer,) if isinstance(answer, str) else answer


def flatten_label(label: Label | None) -> tuple[str, ...]:
    """Return every class of a post by a name of its own: `harmful`, or `harm: harmful`."""
    return tuple(
        f"{task}: {name}" if task else name
        for task, answer in list_answers(label).items()
        for name in list_names(answer)
    )


def compile_label_map(label_map: Mapping[str, str]) -> Callable[[str], str]:
    """Return what renames a class as a mapping says, to nothing where posts of it are left out.

    A mapping that holds `FOLD` folds every class and every name in it first.
    """
    spell = fold_class if FOLD in label_map else normalise_class
    names = {spell(old): new for old, new in label_map.items() if old != FOLD}
    return lambda name: names.get(spell(name), spell(name))


def rename_label(label: Label | None, change: Callable[[str], str]) -> Label | None:
    """Return the label with each class renamed; classes that become one count once.

    A class that becomes nothing is taken away, and with the last of them the label itself.
    """
    if label is None or isinstance(label, str):
        return (label and change(label)) or None
    if not isinstance(label, Mapping):
        names = tuple(dict.fromkeys(filter(None, map(change, label))))
        return names if names or not label else None
    renamed: dict[str, ClassNames] = {}
    for task, answer in label.items():
        left = rename_label(answer, change)
        if isinstance(left, str | tuple):
            renamed[task] = left
    return renamed or None


def list_label_notes(posts: Sequence[Post]) -> list[str]:
    """Return a line for classes that differ in spelling alone, and for one that may mean none."""
    counts = Counter(name for post in posts for name in flatten_label(post.label))
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(fold_class(name), []).append(name)
    lines = [
        f"labels {' and '.join(f'{name!r:.60} ({counts[name]:,})' for name in names)} differ in "
        "case, blanks, hyphens or underscores alone; --label-map fold makes one of them"
        for names in alike.values()
        if len(names) > 1
    ]
    for name in counts:
        if name.rpartition(": ")[2] == _NO_LABEL:
            lines.append(
                f"{counts[name]:,} posts are labelled {name!r}; where that says that there is no "
                f"label, --label-map={_NO_LABEL}= leaves them out"
            )
    return lines


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
        for task, answer in list_answers(post.label).items():
            key = task, "one" if isinstance(answer, str) else "many"
            first.setdefault(key, post.id)
            counts.setdefault(task, Counter()).update(list_names(answer))
    _check_label_kinds(counts, first)
    chosen = _choose_positive(positive, counts)
    questions = []
    for task, sizes in sorted(counts.items()):
        kind: Literal["one", "many"] = "one" if (task, "one") in first else "many"
        questions.append(_make_question(task, kind, sizes, chosen.get(task)))
    return Questions(tuple(questions))


def encode_labels(
    posts: Sequence[Post], questions: Questions, where: str, known: str
) -> TrueLabels:
    """Return the answers of posts as arrays.

    Raises `PostError` for an answer that is none of the question's labels or of another kind;
    it begins with `where` and says `known` before the labels that there are.
    """
    flags = np.zeros((len(posts), len(questions.names)), dtype=bool)
    answered = np.zeros((len(posts), len(questions)), dtype=bool)
    places = {
        question.name: (place, question, span)
        for place, (question, span) in enumerate(questions.spans())
    }
    for row, post in enumerate(posts):
        for task, answer in list_answers(post.label).items():
            subject = f"{where}: post {shorten_value(post.id)}"
            if task not in places:
                fault = f"a label for {task!r}" if task else "a label that names no task"
                asked = "; ".join(question.line() for question in questions)
                raise PostError(f"{subject} has {fault}; {known} {asked}")
            place, question, span = places[task]
            answered[row, place] = True
            flags[row, span] = _encode_answer(answer, question, subject, known)
    return TrueLabels(questions, flags, answered)


def _encode_answer(answer: ClassNames, question: Question, subject: str, known: str) -> list[bool]:
    task = _name_task(question.name)
    if isinstance(answer, str) != (question.kind == "one"):
        what = "one name" if isinstance(answer, str) else "a list of labels"
        raise PostError(f"{subject} has {what}{task}; {known} {question.line()}")
    given = [_find_label(name, question.labels) for name in list_names(answer)]
    if None in given:
        name = list_names(answer)[given.index(None)]
        alike = [label for label in question.labels if fold_class(label) == fold_class(name)]
        mend = (
            f"--label-map '{name}={alike[0]}' renames it"
            if alike
            else ("--label-map renames labels")
        )
        raise PostError(
            f"{subject} is labelled {shorten_value(name)}{task}; {known} "
            f"{', '.join(question.labels)} ({mend})"
        )
    return [name in given for name in question.labels]


def _find_label(name: str, labels: Sequence[str]) -> str | None:
    """Return the label that a class is: bundles of old may spell it `1.0` or `True`."""
    return name if name in labels else next((n for n in labels if normalise_class(n) == name), None)


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
            label = f"a label{_name_task(task)}"
            raise PostError(f"no training post has {label}; at least one is needed")
        return Question(name=task, kind=kind, labels=tuple(names))
    if len(names) < 2:
        label = f"one label{_name_task(task)}, {names[0]!r}"
        raise PostError(f"the training posts have {label}; two are needed")
    if len(names) == 2:
        last = positive or min(names, key=lambda name: (counts[name], name))
        names.sort(key=lambda name: name == last)
    return Question(name=task, kind=kind, labels=tuple(names))


def _choose_positive(positive: str | None, counts: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Return the positive class that was chosen for each task."""
    if positive is None:
        return {}
    chosen = {"": positive}
    if "" not in counts:
        chosen = {task: name for task, _, name in (w.partition("=") for w in positive.split(","))}
    for task, name in chosen.items():
        if task not in counts:
            raise PostError(
                f"positive class {positive!r}: {task!r} is no task of the training posts; "
                f"write TASK=NAME with a task of {', '.join(sorted(counts))}"
            )
        if name not in counts[task]:
            label, known = f"{name!r}{_name_task(task)}", ", ".join(sorted(counts[task]))
            raise PostError(f"no training post is labelled {label}; labels: {known}")
    return chosen


def _name_task(task: str) -> str:
    return f" for {task}" if task else ""
