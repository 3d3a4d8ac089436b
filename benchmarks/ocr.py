"""How well words on real memes are read, what it takes, and what a classifier makes of them.

    OMP_NUM_THREADS=1 python benchmarks/ocr.py runs/ocr

The texts that Harm-C gives were read by another engine, from larger pictures than those here, and
have mistakes of their own: a rate of errors against them is how far two engines are apart. Every
picture that was read is kept in OUT/lines.jsonl, so a run that was stopped goes on.
"""

import argparse
import json
import os
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, surroundings
from rapidfuzz.distance import Levenshtein

from miko_clf.bundle import load_bundle
from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.ocr import LEAST_LINE_SCORE, RecognisedLine, join_lines, open_picture_reader
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory
from miko_clf.evaluate.bootstrap import bootstrap_paired_difference, bootstrap_scores
from miko_clf.evaluate.predictions import Predictor
from miko_clf.manifest import write_json
from miko_clf.pipeline import fit
from miko_clf.progress import show_progress

RECIPE = "text-only-minilm"
LIMITS = (0.5, 0.6, 0.7, LEAST_LINE_SCORE, 0.9)
SEED, FOR_LIMIT, SAMPLE = 1, 40, 300  # posts of train: to choose the limit by, and to learn from
RESAMPLES = 2000
PARTS = ("limit", "val", "train", "test")  # the first are the posts of train to choose the limit by

Lines = dict[str, list[RecognisedLine]]


def main() -> None:
    """Read what was not read yet, and write benchmarks/results/ocr/harm-c.json."""
    given = _arguments()
    os.environ.setdefault("MIKO_ENCODERS", str(given.shared / "encoders"))
    data = open_folder(given.shared / "data" / "harm-c")
    parts = {name: posts for name, posts in _choose_posts(data).items() if name in given.parts}
    which = "" if len(parts) == len(PARTS) else f" --parts {' '.join(parts)}"
    found = surroundings(f"OMP_NUM_THREADS=1 python benchmarks/ocr.py OUT{which}")
    del found["openai"]
    lines, times = _read_lines(parts, given.out / "lines.jsonl")
    result = {
        **found,
        **{name: version(name) for name in ("rapidocr", "onnxruntime", "rapidfuzz")},
        "engine": open_picture_reader(1).engine,
        "least_line_score": LEAST_LINE_SCORE,
        "agreement": {
            name: {str(limit): measure_agreement(posts, lines, limit) for limit in LIMITS}
            for name, posts in parts.items()
        },
        "milliseconds": {name: _describe_times(posts, times) for name, posts in parts.items()},
    }
    if not given.reading_only:
        result["classifier"] = _classify(data, parts, lines, given.out)
        result["load_after"] = [round(load, 2) for load in os.getloadavg()]
        write_json(ROOT / "benchmarks" / "results" / "ocr" / "harm-c.json", result)
        print("\n\n".join(make_tables(result)))
    else:
        print(json.dumps(result, indent=2))


def make_tables(result: Mapping[str, Any]) -> list[str]:
    """Return what docs/results.md shows: agreement with the given texts, AUROC, and differences."""
    limit, agreement = str(result["least_line_score"]), result["agreement"]
    lines = [
        "| posts | CER | CER of the median post | words found | words right | nothing found "
        "| ms a picture |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, limits in agreement.items():
        row, times = limits[limit], result["milliseconds"][name]
        lines.append(
            f"| {name}, {row['posts']} | {row['cer']:.3f} | {row['cer_of_the_median_post']:.3f} "
            f"| {row['words_found']:.3f} | {row['words_right']:.3f} | {row['nothing_found']} "
            f"| {times['processor_mean']:.0f} |"
        )
    chosen = agreement["limit"]
    limits = [
        "| least score of a line | CER | words found | words right |",
        "| --- | --- | --- | --- |",
        *(
            f"| {limit} | {row['cer']:.3f} | {row['words_found']:.3f} | {row['words_right']:.3f} |"
            for limit, row in chosen.items()
        ),
    ]
    classifier = result["classifier"]
    scores = ["| learned from, scored on | AUROC |", "| --- | --- |"]
    scores += [f"| {name} | {_format(row)} |" for name, row in classifier["auroc"].items()]
    differences = ["| difference | AUROC |", "| --- | --- |"]
    differences += [
        f"| {name} | {_format(row, '+')} |" for name, row in classifier["differences"].items()
    ]
    return ["\n".join(table) for table in (lines, limits, scores, differences)]


def _format(interval: Sequence[float], sign: str = "") -> str:
    value, low, high = (format(number, f"{sign}.3f") for number in interval)
    return f"{value} [{low}, {high}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of what was read and trained")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--reading-only", action="store_true", help="train and write nothing")
    return parser.parse_args()


def _choose_posts(data: DataFolder) -> dict[str, list[Post]]:
    """Return val and test, posts of train to learn from, and others to choose the limit by."""
    train = data.read("train")
    random.Random(SEED).shuffle(train)
    others = train[FOR_LIMIT : FOR_LIMIT + SAMPLE]
    posts = (train[:FOR_LIMIT], data.read("val"), others, data.read("test"))
    return dict(zip(PARTS, posts, strict=True))


def _read_lines(
    parts: Mapping[str, Sequence[Post]], path: Path
) -> tuple[Lines, dict[str, tuple[float, float]]]:
    """Return the lines on each picture, and the milliseconds of the processor and of the clock.

    One thread reads, and a picture counts from its encoded bytes to the lines.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {row["id"] for row in rows}
    missing = [p for posts in parts.values() for p in posts if p.id not in known]
    reader: Any = open_picture_reader(1)
    if missing:
        reader.read_lines(missing[0].image)  # what is loaded once is not a picture's
    with path.open("a") as file:
        for post in show_progress(missing, "reading"):
            assert isinstance(post.image, Path)
            worked, started = time.process_time(), time.perf_counter()
            lines = reader.read_lines(post.image)
            spent = [time.process_time() - worked, time.perf_counter() - started]
            row = {"id": post.id, "milliseconds": [1000 * each for each in spent], "lines": lines}
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    lines = {row["id"]: [RecognisedLine(*line) for line in row["lines"]] for row in rows}
    return lines, {row["id"]: tuple(row["milliseconds"]) for row in rows}


def measure_agreement(
    posts: Iterable[Post], lines: Mapping[str, Sequence[RecognisedLine]], limit: float
) -> dict[str, Any]:
    """Return how far the texts of pictures are from those given, in characters and in words.

    White space is one blank, and case counts nothing but in `cer_with_case`. The rate of errors is
    the edits over all posts by the characters of the given texts. Words are counted as often as
    they stand there, in any order. Posts whose text is the word null, by which Harm-C writes that
    there is none, are left out.
    """
    edits = with_case = characters = nothing = not_given = 0
    rates, common, wanted, read = [], 0, 0, 0
    confidences = []
    for post in posts:
        if (post.text or "null") == "null":
            not_given += 1
            continue
        text, confidence = join_lines(lines[post.id], limit)
        theirs, ours = (" ".join((words or "").split()) for words in (post.text, text))
        if confidence is None:
            nothing += 1
        else:
            confidences.append(confidence)
        distance = Levenshtein.distance(theirs.casefold(), ours.casefold())
        edits += distance
        with_case += Levenshtein.distance(theirs, ours)
        characters += len(theirs)
        rates.append(distance / max(1, len(theirs)))
        counts = [Counter(re.findall(r"\w+", words.casefold())) for words in (theirs, ours)]
        common += (counts[0] & counts[1]).total()
        wanted += counts[0].total()
        read += counts[1].total()
    return {
        "posts": len(rates),
        "left_out": not_given,
        "nothing_found": nothing,
        "characters_given": characters,
        "cer": round(edits / characters, 4),
        "cer_with_case": round(with_case / characters, 4),
        "cer_of_the_median_post": round(statistics.median(rates), 4),
        "posts_with_cer_under_0.1": sum(rate < 0.1 for rate in rates),
        "words_given": wanted,
        "words_found": round(common / wanted, 4),
        "words_right": round(common / read, 4),
        "mean_confidence": round(statistics.mean(confidences), 4),
    }


def _describe_times(
    posts: Iterable[Post], times: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    worked, elapsed = np.array([times[post.id] for post in posts]).T
    return {
        "processor_mean": round(float(worked.mean()), 1),
        "processor_median": round(float(np.median(worked)), 1),
        "processor_95th": round(float(np.quantile(worked, 0.95)), 1),
        "clock_mean": round(float(elapsed.mean()), 1),
    }


def _classify(
    data: DataFolder, parts: Mapping[str, list[Post]], lines: Lines, out: Path
) -> dict[str, Any]:
    """Return the AUROC on val by what the texts of train and those of val are."""
    val, few = parts["val"], parts.get("train", [])
    sources = {"given": val, "ocr": _with_ocr(val, lines)}
    learned = {"all given": data.read("train")}
    if few:
        learned |= {"300 given": few, "300 ocr": _with_ocr(few, lines)}
    scores: dict[str, Any] = {}
    truth = np.array([post.label == "harmful" for post in val], dtype=np.int64)
    for name, train in learned.items():
        # Of either kind of text there is val with texts of that kind, for what is fitted there.
        own = sources[name.split()[-1]]
        place = out / name.replace(" ", "-")
        if not place.exists():
            posts = PostsInMemory(data.path, {"train": train, "val": own})
            fit(RECIPE, posts, place, cache=out / "features", positive="harmful", hold_val=True)
        opened = load_bundle(place)
        assert opened.labels[1] == "harmful"
        for source, posts in sources.items():
            predictor = Predictor(opened, posts, out / "features")
            scores[f"{name}, scored on {source}"] = predictor.probabilities("without")
    return {
        "recipe": RECIPE,
        "posts": len(val),
        "harmful": int(truth.sum()),
        "val_posts_without_ocr_text": sum(post.text is None for post in sources["ocr"]),
        "train_posts_without_ocr_text": sum(post.text is None for post in _with_ocr(few, lines)),
        "resamples": RESAMPLES,
        **_compare_scores(scores, truth),
    }


def _compare_scores(
    scores: Mapping[str, np.ndarray], truth: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """Return the AUROC of each, and of pairs the difference on the same posts."""
    aurocs = {
        name: _interval(bootstrap_scores(rows, truth, positive=1, num_resamples=RESAMPLES)["auroc"])
        for name, rows in scores.items()
    }
    pairs = [
        ("all given, scored on ocr", "all given, scored on given"),
        ("300 given, scored on ocr", "300 given, scored on given"),
        ("300 ocr, scored on ocr", "300 given, scored on given"),
        ("300 ocr, scored on ocr", "300 given, scored on ocr"),
    ]
    differences = {
        f"{a}, minus {b}": _interval(
            bootstrap_paired_difference(
                scores[a], scores[b], truth, positive=1, metric="auroc", num_resamples=RESAMPLES
            )
        )
        for a, b in pairs
        if {a, b} <= scores.keys()
    }
    return {"auroc": aurocs, "differences": differences}


def _with_ocr(posts: Iterable[Post], lines: Lines) -> list[Post]:
    return [post.model_copy(update={"text": join_lines(lines[post.id]).text}) for post in posts]


def _interval(interval: Any) -> list[float]:
    return [round(float(number), 4) for number in interval[:3]]


if __name__ == "__main__":
    main()
