"""Intentions out to people in Label Studio; their scores, and a critic's, back in.

Format: labelstud.io/guide/task_format and labelstud.io/tags; no SDK is needed for files.
"""

import asyncio
import base64
import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image
from pydantic import Field

from miko_clf import manifest
from miko_clf.data.post import Intention, Post, Record, Relation
from miko_clf.distil.kb.query import iterate_knowledge
from miko_clf.distil.kb.store import JudgeScore, KnowledgeBase
from miko_clf.distil.relations import RELATION_MEANINGS
from miko_clf.errors import DistilError

_SCALE = 5
_NO_IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
_NOTHING = "(no further intention: leave it unrated)"
_CHUNK = 512  # posts whose scores are committed at a time
_READERS = {
    "plausible": lambda value: {"yes": True, "no": False}[value["choices"][0]],
    "typicality": lambda value: value["rating"],
}
_HUMAN_MEANS = """
SELECT relation, AVG(plausibility) FROM scores WHERE post = ? AND sample = ?
AND judge LIKE 'human:%' AND plausibility IS NOT NULL GROUP BY relation"""
_INTERFACE = """<View>
  <Image name="image" value="$image"/>
  <Text name="text" value="$text"/>
{questions}
</View>
"""
_QUESTIONS = """  <View style="border-top: 1px solid; padding-top: 1em">
    <Header value="$heading_{place}" size="5"/>
    <Text name="intention_{place}" value="$intention_{place}"/>
    <Header value="Could this be so for this post?" size="6"/>
    <Choices name="plausible_{place}" toName="intention_{place}" choice="single" showInLine="true">
      <Choice value="yes"/>
      <Choice value="no"/>
    </Choices>
    <Header value="How typical is it of people who post this? 1 hardly, {scale} very" size="6"/>
    <Rating name="typicality_{place}" toName="intention_{place}" maxRating="{scale}"/>
  </View>"""


class AnnotatorAnswer(Record):
    """What one annotator said of one intention; None where a question was left open.

    `position` is the place of the intention in its post, from 0; `typicality` is 1 to 5.
    """

    post: str
    position: int
    relation: Relation
    annotator: str
    plausible: bool | None = None
    typicality: int | None = Field(default=None, ge=1, le=_SCALE)


class JudgedPost(NamedTuple):
    """One post of a knowledge base with its intentions, the sample they are of, and how far
    people called each of them valid (None where nobody was asked)."""

    post: Post
    sample: int
    intentions: tuple[Intention, ...]
    valid: tuple[float | None, ...]


def make_annotations(
    posts: Iterable[Post], image_root: Path, *, prefill: bool = False
) -> list[dict[str, Any]]:
    """Return one task for each post that has intentions, as Label Studio imports them.

    Images become paths under `image_root`, which Label Studio must serve as local files
    (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, and a local storage in the project); encoded
    images travel inside the task. With `prefill`, what a judge already gave an intention stands
    as a prediction; raters who see it lean to it, so agreement is measured without. Raises
    `DistilError` for an image outside `image_root`.
    """
    posts = [post for post in posts if post.intentions]
    places = max((len(post.intentions) for post in posts), default=0)
    return [_make_annotation(post, places, image_root, prefill) for post in posts]


def make_labelling_config(places: int) -> str:
    """Return the labelling interface, XML: MIKO's two questions of each of `places` intentions."""
    questions = "\n".join(_QUESTIONS.format(place=place, scale=_SCALE) for place in range(places))
    return _INTERFACE.format(questions=questions)


def write_annotations(
    path: Path, posts: Iterable[Post], image_root: Path, *, prefill: bool = False
) -> int:
    """Write the tasks, and the interface beside them as `.xml`; return how many tasks there are.

    Raises `DistilError` where no post has an intention.
    """
    tasks = make_annotations(posts, image_root, prefill=prefill)
    if not tasks:
        raise DistilError(f"{path}: no post has an intention, so there is nothing to annotate")
    places = sum(key.startswith("intention_") for key in tasks[0]["data"])
    manifest.write_json(path, tasks)
    manifest.write_text(path.with_suffix(".xml"), make_labelling_config(places))
    return len(tasks)


def read_annotations(path: Path) -> list[AnnotatorAnswer]:
    """Return the answers in a JSON export of Label Studio (JSON, not JSON-MIN).

    Skipped annotations and intentions that were left unrated are passed over. Raises
    `DistilError` for a file that is no such export of our tasks.
    """
    try:
        exported = json.loads(path.read_text(encoding="utf-8"))
        return [answer for task in exported for answer in _read_answers(task)]
    except OSError as error:
        raise DistilError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DistilError(
            f"{path}: not a JSON export of Label Studio of tasks written here "
            f"({type(error).__name__}: {error})"
        ) from None


def tabulate_ratings(answers: Sequence[AnnotatorAnswer], question: str) -> np.ndarray:
    """Return (annotator, intention) float64 of `plausible` or `typicality`, NaN where not rated.

    Annotators and intentions are in sorted order; this is what `agreement` takes.
    """
    raters = sorted({answer.annotator for answer in answers})
    units = sorted({(answer.post, answer.position) for answer in answers})
    table = np.full((len(raters), len(units)), np.nan)
    row = {rater: place for place, rater in enumerate(raters)}
    column = {unit: place for place, unit in enumerate(units)}
    for answer in answers:
        value = getattr(answer, question)
        if value is not None:
            table[row[answer.annotator], column[answer.post, answer.position]] = value
    return table


def _make_annotation(post: Post, places: int, image_root: Path, prefill: bool) -> dict[str, Any]:
    image = _locate_image(post, image_root)
    data: dict[str, Any] = {"post": post.id, "text": post.text or "", "image": image}
    results: list[dict[str, Any]] = []
    for place in range(places):
        text, relation, heading = _NOTHING, "", ""
        if place < len(post.intentions):
            intention = post.intentions[place]
            text, relation = intention.text, intention.relation
            # A heading shows one field or fixed words, never both.
            heading = f"{relation}: {RELATION_MEANINGS[intention.relation]}"
            results += _make_prediction(place, intention)
        data[f"intention_{place}"] = text
        data[f"relation_{place}"] = relation
        data[f"heading_{place}"] = heading
    predictions = [{"model_version": "judge", "result": results}] if prefill and results else []
    return {"data": data, "predictions": predictions}


def _locate_image(post: Post, root: Path) -> str:
    """Return what Label Studio shows: a served file, the encoded image itself, or nothing."""
    if post.image is None:
        return _NO_IMAGE
    if isinstance(post.image, bytes):
        with Image.open(BytesIO(post.image)) as image:
            kind = Image.MIME[image.format or "JPEG"]
        return f"data:{kind};base64,{base64.b64encode(post.image).decode()}"
    try:
        place = post.image.resolve().relative_to(root.resolve())
    except ValueError:
        raise DistilError(
            f"post {post.id!r}: image {post.image} is not under {root}, the folder that Label "
            "Studio serves; name one that holds all images"
        ) from None
    return f"/data/local-files/?d={quote(place.as_posix())}"


def _make_prediction(place: int, intention: Intention) -> list[dict[str, Any]]:
    """Return a judge's figures, 0 to 1, as answers to the two questions."""
    results: list[dict[str, Any]] = []
    if intention.plausibility is not None:
        choice = "yes" if intention.plausibility >= 0.5 else "no"
        results.append(_make_result("plausible", "choices", place, [choice]))
    if intention.typicality is not None:
        stars = 1 + round(intention.typicality * (_SCALE - 1))
        results.append(_make_result("typicality", "rating", place, stars))
    return results


def _make_result(question: str, kind: str, place: int, value: object) -> dict[str, Any]:
    return {
        "id": f"{question}_{place}",
        "from_name": f"{question}_{place}",
        "to_name": f"intention_{place}",
        "type": kind,
        "value": {kind: value},
    }


def _read_answers(task: Mapping[str, Any]) -> list[AnnotatorAnswer]:
    data = task["data"]
    answers: dict[tuple[str, int], dict[str, Any]] = {}
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        # Exports name a user by number, by e-mail, or as an object.
        user = annotation["completed_by"]
        annotator = str(user.get("email") or user["id"] if isinstance(user, Mapping) else user)
        for result in annotation["result"]:
            question, _, place = result["from_name"].rpartition("_")
            if relation := data[f"relation_{place}"]:
                whose = {"position": int(place), "relation": relation, "annotator": annotator}
                fields = answers.setdefault((annotator, place), whose)
                fields[question] = _READERS[question](result["value"])
    return [AnnotatorAnswer(post=data["post"], **fields) for fields in answers.values()]


def load_judged_posts(db: sqlite3.Connection) -> Iterator[JudgedPost]:
    """Yield every post that has intentions, with the mean of what people said of each."""
    for known in iterate_knowledge(db):
        if known.intentions and known.sample is not None:
            means = dict(db.execute(_HUMAN_MEANS, (known.post.id, known.sample)).fetchall())
            valid = tuple(means.get(intention.relation) for intention in known.intentions)
            yield JudgedPost(known.filled(), known.sample, known.intentions, valid)


def draw_judged_posts(db: sqlite3.Connection, count: int | None) -> list[JudgedPost]:
    """Return some posts, the same ones whatever else is there: those of the least digests."""
    posts = load_judged_posts(db)
    if count is None:
        return list(posts)
    digest = lambda judged: sha256(judged.post.id.encode()).digest()  # noqa: E731
    return heapq.nsmallest(count, posts, key=digest)


def store_critic_scores(
    store: KnowledgeBase,
    judge: str,
    assess: Callable[[Sequence[JudgedPost]], Sequence[Sequence[float]]],
) -> int:
    """Keep what `assess` says of every intention as the plausibility of `judge`; return how many.

    It is given some posts at a time and answers with a number for each intention of each.
    """
    count = 0
    posts = load_judged_posts(store.db)
    while chunk := list(islice(posts, _CHUNK)):
        scores = [
            JudgeScore(judged.post.id, intention.relation, judged.sample, judge, float(value), None)
            for judged, values in zip(chunk, assess(chunk), strict=True)
            for intention, value in zip(judged.intentions, values, strict=True)
        ]
        asyncio.run(store.put_scores(scores))
        count += len(scores)
    return count


def store_annotations(store: KnowledgeBase, answers: Iterable[AnnotatorAnswer]) -> int:
    """Keep what people said in an annotation tool as scores of `human:NAME`; return how many."""
    samples = {judged.post.id: judged.sample for judged in load_judged_posts(store.db)}
    scores = [
        JudgeScore(
            answer.post,
            answer.relation,
            samples[answer.post],
            f"human:{answer.annotator}",
            None if answer.plausible is None else float(answer.plausible),
            None if answer.typicality is None else (answer.typicality - 1) / (_SCALE - 1),
        )
        for answer in answers
        if answer.post in samples
    ]
    asyncio.run(store.put_scores(scores))
    return len(scores)
