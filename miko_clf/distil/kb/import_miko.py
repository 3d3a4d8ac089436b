"""MIKO's released material, taken into a knowledge base like any other.

The files are those of arXiv 2402.18169; they join MMSD2.0 on the id of the image.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.json_lines import parse_json_object
from miko_clf.data.post import RELATIONS, Post
from miko_clf.distil.kb.parse import MISSING_ANSWER, PUBLISHED_PROMPT
from miko_clf.distil.kb.store import JobOutcome, JudgeScore, KnowledgeBase, PostRow, make_post_row
from miko_clf.distil.relations import MIKO_RELATION_ORDER, place_sentences
from miko_clf.distil.response import CallStatus
from miko_clf.errors import DistilError, PostError
from miko_clf.manifest import hash_file
from miko_clf.progress import show_progress

PUBLISHED_SAMPLE = -1
"""The sample under which it stands: older than any that is asked for, and never mixed with one."""
PUBLISHED_JUDGE = "human:published"

_TEACHER, _SEER = "gpt-35-turbo", "llava"
# How the authors' scripts draw; of the descriptions they do not say, and nothing is made up.
_SAMPLING = {
    "description": {},
    "key_information": {"max_tokens": 300, "temperature": 1.0, "top_p": 1.0},
    "intentions": {"max_tokens": 300, "temperature": 0.7, "top_p": 1.0},
}
_MMSD = {0: "not_sarcastic", 1: "sarcastic"}
_BENCHMARK = {"image_name", "text", "intentions", "intention_labels"}
_ANSWERED = {"image_id", "text", "image_descrption", "keyinfo", "intention"}  # so they spell it
_DESCRIBED = {"image_id", "text", "image_descrption"}
_CHUNK = 256


class ReleasedPost(NamedTuple):
    """A post as it was released: raw `answers` by stage, `marks` 1 or 0 for each of ten numbers."""

    where: str
    image: str
    text: str
    answers: Mapping[str, str]
    marks: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The name of the image without its suffix."""
        return Path(self.image).stem


@dataclass
class ImportReport:
    """What was taken in. `odd` names each post whose answer is irregular, and how."""

    posts: int = 0
    answers: int = 0
    intentions: int = 0
    marks: int = 0
    labelled: int = 0
    odd: list[tuple[str, str]] = field(default_factory=list)

    def line(self) -> str:
        """Say it in one line."""
        posts = len({name for name, _ in self.odd})
        return (
            f"{self.posts:,} posts ({self.labelled:,} labelled), {self.answers:,} answers, "
            f"{self.intentions:,} intentions, {self.marks:,} marks by people; "
            f"{posts:,} posts are irregular"
        )


def import_release(
    kb: Path, files: Sequence[Path], *, labels: Path | None = None, images: Path | None = None
) -> ImportReport:
    """Take released files into a knowledge base, which may hold other posts, and say what came.

    Files are known by what is in them: the benchmark with the marks of people, key information
    with intentions, or descriptions alone. `labels` is a file of MMSD2.0 or the folder of its
    splits; `images` is where pictures lie, if they do. Doing it twice changes nothing. Raises
    `DistilError` for any other file, and before anything of it is kept.
    """
    classes = _read_labels(labels) if labels else {}
    for file in files:
        for _ in read_release(file):
            pass
    with KnowledgeBase(kb) as store:
        return asyncio.run(_import_release(store, files, classes, images))


def read_release(path: Path) -> Iterator[ReleasedPost]:
    """Yield the posts of a released file, in order; raises `DistilError` for any other file."""
    empty = True
    for where, row in _read_rows(path):
        empty = False
        yield _parse_row(where, row)
    if empty:
        raise DistilError(f"{path}: the file is empty")


async def _import_release(
    store: KnowledgeBase, files: Sequence[Path], classes: Mapping[str, str], images: Path | None
) -> ImportReport:
    report = ImportReport()
    for file in files:
        source = hash_file(file)
        items = show_progress(read_release(file), f"importing {file.name}")
        while chunk := list(islice(items, _CHUNK)):
            posts = {item.id: _make_post(item, classes, images) for item in chunk}
            await store.put_posts([_merge(store, posts[item.id], item.where) for item in chunk])
            await store.put_calls([call for item in chunk for call in _make_calls(item, source)])
            ends = [end for item in chunk if not store.has_outcome(end := _make_outcome(item))]
            await asyncio.gather(*(store.put_outcome(end) for end in ends))
            await store.put_scores([score for item in chunk for score in _make_scores(item)])
            for item in chunk:
                _count_post(report, item, posts[item.id])
    return report


def _read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON list, or of a file with one on each line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            if first.lstrip().startswith("["):
                yield from ((f"{path} row {n}", row) for n, row in enumerate(json.load(file), 1))
                return
            for number, line in enumerate(file, 1):
                yield f"{path}:{number}", parse_json_object(line)
    except OSError as error:
        raise DistilError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, PostError):
        raise _refuse_file(str(path)) from None


def _parse_row(where: str, row: Any) -> ReleasedPost:
    """Return the post of a row by the keys that the row has."""
    keys = set(row) if isinstance(row, dict) else set()
    if keys >= _BENCHMARK:
        marks, texts = row["intention_labels"], row["intentions"]
        is_whole = isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())
        is_whole = is_whole and isinstance(marks, list) and len(marks) == 10
        if not is_whole or any(mark not in (0, 1) for mark in marks):
            raise DistilError(f"{where}: ten marks of 0 or 1 and an object of texts are expected")
        answers = {"intentions": json.dumps(texts, ensure_ascii=False)}
        item = ReleasedPost(where, row["image_name"], row["text"], answers, tuple(marks))
    elif keys >= _DESCRIBED:
        answers = {"description": row["image_descrption"]}
        if keys >= _ANSWERED:
            answers |= {"key_information": row["keyinfo"], "intentions": row["intention"]}
        item = ReleasedPost(where, row["image_id"], row["text"], answers)
    else:
        raise _refuse_file(where)
    strings = (item.image, item.text, *item.answers.values())
    is_whole = all(isinstance(text, str) for text in strings)
    if not is_whole or not item.image or not item.text.strip():
        raise DistilError(f"{where}: an image name, a text and answers are expected as strings")
    return item


def _refuse_file(where: str) -> DistilError:
    return DistilError(
        f"{where}: none of MIKO's released files; MIKO_benchmark.json, "
        "*_intention_make_up.jsonl and keyinfo_*.jsonl are known, by what is in them"
    )


def _make_post(item: ReleasedPost, classes: Mapping[str, str], images: Path | None) -> Post:
    """Return the post. Those of one text are a group: some were released twice."""
    picture = images / item.image if images else None
    return Post(
        id=item.id,
        text=item.text,
        image=picture if picture and picture.is_file() else None,
        label=classes.get(item.id),
        group=f"text {sha256(item.text.encode()).hexdigest()[:16]}",
    )


def _merge(store: KnowledgeBase, post: Post, where: str) -> PostRow:
    """Return the row of a post; one that is known keeps what it has, and gains what it has not."""
    row, before = make_post_row(post, where, store.run), store.get_post(post.id)
    if before is None:
        return row
    fields = {**json.loads(row.record), **json.loads(before.record)}
    image = row.image if before.image is None else before.image
    return before._replace(record=json.dumps(fields, ensure_ascii=False), image=image)


def _make_key(item: ReleasedPost, stage: str) -> bytes:
    content = [PUBLISHED_PROMPT, stage, item.text, item.answers[stage]]
    return sha256(json.dumps(content, ensure_ascii=False).encode()).digest()


def _make_calls(item: ReleasedPost, source: str) -> list[tuple[Any, ...]]:
    """Return the rows of `calls`: raw texts as they were released, for which nothing was paid."""
    prompt, calls = f"{PUBLISHED_PROMPT}.1 {source[:16]}", []
    for stage, raw in item.answers.items():
        model = _SEER if stage == "description" else _TEACHER
        sampling = json.dumps(_SAMPLING[stage])
        status, reason = ("ok", "") if raw.strip() else ("invalid", "empty")
        calls.append((
            _make_key(item, stage), stage, prompt, model, "", "", sampling, PUBLISHED_SAMPLE, 0,
            status, reason, raw, "", 0, 0, 0, 0.0, 0, 0, "", 0.0, time.time(),
        ))  # fmt: skip
    return calls


def _make_outcome(item: ReleasedPost) -> JobOutcome:
    uses = tuple((stage, _make_key(item, stage)) for stage in item.answers)
    if "intentions" not in item.answers:
        return JobOutcome(item.id, "description", PUBLISHED_SAMPLE, "ok", "", uses)
    missing = len(RELATIONS) - len(place_sentences(item.answers["intentions"]).texts)
    reason = f"{missing} of {len(RELATIONS)} relations {MISSING_ANSWER}" if missing else ""
    status: CallStatus = "ok" if missing < len(RELATIONS) else "invalid"
    return JobOutcome(item.id, "intentions", PUBLISHED_SAMPLE, status, reason, uses)


def _make_scores(item: ReleasedPost) -> list[JudgeScore]:
    """Return the marks of people: each goes where the sentence of its number went.

    Marks of sentences that are not there are kept as they were given.
    """
    if not item.marks:
        return []
    numbers = place_sentences(item.answers["intentions"]).numbers
    scores = []
    for number, mark in enumerate(item.marks, 1):
        name = numbers.get(number, MIKO_RELATION_ORDER[number - 1])
        if number in numbers or name not in numbers.values():
            judge, plausibility = PUBLISHED_JUDGE, float(mark)
            scores.append(JudgeScore(item.id, name, PUBLISHED_SAMPLE, judge, plausibility, None))
    return scores


def _count_post(report: ImportReport, item: ReleasedPost, post: Post) -> None:
    report.posts += 1
    report.labelled += post.label is not None
    report.answers += sum(bool(raw.strip()) for raw in item.answers.values())
    report.marks += len(_make_scores(item))
    report.odd += [(item.id, f"{name} is empty") for name, raw in item.answers.items() if not raw]
    if raw := item.answers.get("intentions"):
        placed = place_sentences(raw)
        report.intentions += len(placed.texts)
        report.odd += [(item.id, reason) for reason in placed.odd]


def _read_labels(path: Path) -> dict[str, str]:
    """Return the classes of MMSD2.0 by image id."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    classes: dict[str, str] = {}
    try:
        for file in files:
            rows = json.loads(file.read_text(encoding="utf-8"))
            classes |= {str(row["image_id"]): _MMSD[row["label"]] for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        classes = {}
    if not classes:
        raise DistilError(f"{path}: not MMSD2.0, lists of image_id, text and label 0 or 1")
    return classes
