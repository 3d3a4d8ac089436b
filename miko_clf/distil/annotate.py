"""Label Studio: intentions out to people who rate them, and what they answered back in.

Format: labelstud.io/guide/task_format and labelstud.io/tags; no SDK is needed for files.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from pydantic import Field

from miko_clf import manifest
from miko_clf.data.post import Intention, Post, Record, Relation
from miko_clf.distil.relations import MEANINGS
from miko_clf.errors import DistilError

SCALE = 5
_NO_IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
_NOTHING = "(no further intention: leave it unrated)"


class Answer(Record):
    """What one annotator said of one intention; None where a question was left open.

    `position` is the place of the intention in its post, from 0; `typicality` is 1 to 5.
    """

    post: str
    position: int
    relation: Relation
    annotator: str
    plausible: bool | None = None
    typicality: int | None = Field(default=None, ge=1, le=SCALE)


def tasks(
    posts: Iterable[Post], image_root: Path, *, prefill: bool = False
) -> list[dict[str, Any]]:
    """Return one task for each post that has intentions, as Label Studio imports them.

    Images become paths under `image_root`, which Label Studio must serve as local files
    (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, and a local storage in the project); encoded
    images travel inside the task. With `prefill`, what a judge already gave an intention stands
    as a prediction; raters who see it lean to it, so agreement is measured without. Raises
    `DistilError` for an image outside `image_root`.
    """
    kept = [post for post in posts if post.intentions]
    places = max((len(post.intentions) for post in kept), default=0)
    return [_task(post, places, image_root, prefill) for post in kept]


def labelling_config(places: int) -> str:
    """Return the labelling interface, XML, that asks two questions of each of some intentions.

    MIKO's two stages: is it plausible for this post, and how typical is it, 1 to 5.
    """
    questions = "\n".join(_QUESTIONS.format(place=place, scale=SCALE) for place in range(places))
    return _INTERFACE.format(questions=questions)


def write_tasks(
    path: Path, posts: Iterable[Post], image_root: Path, *, prefill: bool = False
) -> int:
    """Write the tasks, and the interface beside them as `.xml`; return how many tasks there are.

    Raises `DistilError` where no post has an intention.
    """
    made = tasks(posts, image_root, prefill=prefill)
    if not made:
        raise DistilError(f"{path}: no post has an intention, so there is nothing to annotate")
    places = sum(key.startswith("intention_") for key in made[0]["data"])
    manifest.write_json(path, made)
    manifest.write_text(path.with_suffix(".xml"), labelling_config(places))
    return len(made)


def read_annotations(path: Path) -> list[Answer]:
    """Return the answers in a JSON export of Label Studio (JSON, not JSON-MIN).

    Skipped annotations and intentions that were left unrated are passed over. Raises
    `DistilError` for a file that is no such export of our tasks.
    """
    try:
        exported = json.loads(path.read_text(encoding="utf-8"))
        return [answer for task in exported for answer in _answers_of_task(task)]
    except OSError as error:
        raise DistilError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DistilError(
            f"{path}: not a JSON export of Label Studio of tasks written here "
            f"({type(error).__name__}: {error})"
        ) from None


def ratings(answers: Sequence[Answer], question: str) -> np.ndarray:
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


def _task(post: Post, places: int, image_root: Path, prefill: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "post": post.id,
        "text": post.text or "",
        "image": _image(post, image_root),
    }
    for place in range(places):
        one = post.intentions[place] if place < len(post.intentions) else None
        data[f"intention_{place}"] = one.text if one else _NOTHING
        data[f"relation_{place}"] = one.relation if one else ""
        # A heading shows one field or fixed words, never both.
        data[f"heading_{place}"] = f"{one.relation}: {MEANINGS[one.relation]}" if one else ""
    results = [
        result for place, one in enumerate(post.intentions) for result in _judged(place, one)
    ]
    predictions = [{"model_version": "judge", "result": results}] if prefill and results else []
    return {"data": data, "predictions": predictions}


def _image(post: Post, root: Path) -> str:
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


def _judged(place: int, intention: Intention) -> list[dict[str, Any]]:
    """Return a judge's figures, 0 to 1, as answers to the two questions."""
    found: list[dict[str, Any]] = []
    if intention.plausibility is not None:
        choice = "yes" if intention.plausibility >= 0.5 else "no"
        found.append(_result("plausible", "choices", place, [choice]))
    if intention.typicality is not None:
        stars = 1 + round(intention.typicality * (SCALE - 1))
        found.append(_result("typicality", "rating", place, stars))
    return found


def _result(question: str, kind: str, place: int, value: object) -> dict[str, Any]:
    return {
        "id": f"{question}_{place}",
        "from_name": f"{question}_{place}",
        "to_name": f"intention_{place}",
        "type": kind,
        "value": {kind: value},
    }


def _answers_of_task(task: Mapping[str, Any]) -> list[Answer]:
    data = task["data"]
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        annotator = _annotator(annotation["completed_by"])
        for result in annotation["result"]:
            question, _, place = result["from_name"].rpartition("_")
            if data[f"relation_{place}"]:
                given = found.setdefault((annotator, int(place)), {})
                given[question] = _VALUE[question](result["value"])
    return [
        Answer(
            post=data["post"],
            position=place,
            relation=data[f"relation_{place}"],
            annotator=annotator,
            **given,
        )
        for (annotator, place), given in found.items()
    ]


def _annotator(who: int | str | Mapping[str, Any]) -> str:
    """Return who annotated: exports name a user by number, by e-mail, or as an object."""
    return str(who.get("email") or who["id"]) if isinstance(who, Mapping) else str(who)


_VALUE = {
    "plausible": lambda value: {"yes": True, "no": False}[value["choices"][0]],
    "typicality": lambda value: value["rating"],
}
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
