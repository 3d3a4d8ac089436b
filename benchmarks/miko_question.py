"""MIKO's question on MIKO's own text: does sarcasm show better with the intentions than without?

    python benchmarks/miko_question.py ../shared/data/mmsd2 ../shared/data/miko --out runs/miko

The posts whose intentions come from MIKO_benchmark.json and those of the two make-up files are
never pooled. What was run already is not run again, so a run that was stopped goes on.
"""

import argparse
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, surroundings
from rich.console import Console
from rich.progress import Progress
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedGroupKFold

from miko_clf import bundle
from miko_clf import recipe as recipes
from miko_clf.data.folder import DataFolder, open_folder
from miko_clf.data.post import Post
from miko_clf.evaluate import baselines
from miko_clf.evaluate.predict import Predictor
from miko_clf.manifest import write_json, write_text
from miko_clf.pipeline import Plan, fit

FOLDS = 5
RESAMPLES = 2000
LABELS = ("not_sarcastic", "sarcastic")
SOURCES = {
    "benchmark": ("MIKO_benchmark.json",),
    "make-up": (
        "missing_data_train_intention_make_up.jsonl",
        "missing_data_lost_intention_make_up.jsonl",
    ),
}
ARMS = ("without", "with", "shuffled", "intentions alone")
# The recipe that reads an arm, of a system that joins all texts, and of one with a reader.
SYSTEMS: Mapping[str, Mapping[str, str]] = {
    "MiniLM, joined": {
        "without": "miko-text-t-minilm",
        "with": "miko-text-ti-minilm",
        "shuffled": "miko-text-ti-minilm",
        "intentions alone": "miko-text-i-minilm",
    },
    "MiniLM, reader": {
        "without": "minilm-without",
        "with": "minilm-with",
        "shuffled": "minilm-with",
    },
}
Arms = dict[str, np.ndarray]  # (repeat, post): the probability of sarcasm, out of fold


def main() -> None:
    """Run what is missing and write every figure."""
    given = _arguments()
    started = time.monotonic()
    posts = [post for post in _data(given).read("train") if post.intentions]
    found: dict[str, Any] = {}
    for name, files in SOURCES.items():
        chosen = [post for post in posts if _file(post) in files]
        found[name] = _source(name, chosen, given)
    result = {
        **surroundings(f"python benchmarks/miko_question.py MMSD2 MIKO --repeats {given.repeats}"),
        "folds": FOLDS,
        "repeats": given.repeats,
        "resamples": RESAMPLES,
        "seconds_of_this_run": round(time.monotonic() - started),
        "sources": found,
    }
    write_json(ROOT / "benchmarks" / "results" / "systems" / "miko-question.json", result)
    print(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("mmsd2", type=Path, help="folder of MMSD2.0")
    parser.add_argument("miko", type=Path, help="folder of MIKO's files")
    parser.add_argument("--repeats", type=int, default=3, help="times that folds are drawn anew")
    parser.add_argument("--out", type=Path, required=True, help="folder of what was run")
    return parser.parse_args()


def _data(given: argparse.Namespace) -> DataFolder:
    """Return MMSD2.0 with MIKO's files laid beside it."""
    folder = given.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (("text_json_final", given.mmsd2 / "text_json_final"), ("miko", given.miko)):
        if not (folder / name).exists():
            (folder / name).symlink_to(path.resolve())
    return open_folder(folder)


def _source(name: str, posts: Sequence[Post], given: argparse.Namespace) -> dict[str, Any]:
    truth = np.array([post.label == LABELS[1] for post in posts])
    files = np.array([_file(post) for post in posts])
    found: dict[str, Any] = {
        "posts": len(posts),
        "sarcastic": int(truth.sum()),
        "by_file": {
            str(file): {"posts": count, "sarcastic": int(truth[files == file].sum())}
            for file, count in Counter(files).items()
        },
        "systems": {},
    }
    for system in ("TF-IDF + logistic", *SYSTEMS):
        arms = _arms(name, system, posts, truth, given)
        found["systems"][system] = _measured(arms, posts, truth, files)
    if len(set(files)) > 1:
        found["file_from"] = _telling_files(posts, files)
    return found


def _arms(
    name: str, system: str, posts: Sequence[Post], truth: np.ndarray, given: argparse.Namespace
) -> Arms:
    arms = ARMS if system not in SYSTEMS else tuple(SYSTEMS[system])
    found = {arm: np.full((given.repeats, len(posts)), np.nan) for arm in arms}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{name}, {system}", total=given.repeats * FOLDS * len(arms))
        for repeat in range(given.repeats):
            for fold, (learn, ask) in enumerate(_folds(posts, truth, repeat)):
                for arm in arms:
                    seen = _seen(posts, arm, (learn, ask), repeat)
                    path = given.out / _word(name) / _word(system) / f"{_word(arm)}-{repeat}-{fold}"
                    run = _tfidf if system not in SYSTEMS else _recipe
                    found[arm][repeat, ask] = run(seen, learn, ask, path, system, arm)
                    progress.advance(task)
    return found


def _folds(
    posts: Sequence[Post], truth: np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows to learn from and rows to ask; posts of one text never stand on both sides."""
    groups = [_plain(post.text) for post in posts]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(posts)), truth, groups))


def _seen(
    posts: Sequence[Post], arm: str, sides: tuple[np.ndarray, np.ndarray], seed: int
) -> list[Post]:
    """Return the posts as an arm sees them; shuffled ones keep to their side of the split."""
    if arm == "without":
        return [post.model_copy(update={"intentions": ()}) for post in posts]
    if arm != "shuffled":
        return list(posts)
    seen, random = list(posts), np.random.default_rng(seed)
    for side in sides:
        for row, other in zip(side, random.permutation(side), strict=True):
            seen[row] = posts[row].model_copy(update={"intentions": posts[other].intentions})
    return seen


def _tfidf(
    seen: Sequence[Post], learn: np.ndarray, ask: np.ndarray, path: Path, system: str, arm: str
) -> np.ndarray:
    texts = [
        " ".join(
            [
                "" if arm == "intentions alone" else post.text or "",
                *(i.text for i in post.intentions),
            ]
        )
        for post in seen
    ]
    truth = np.array([int(seen[row].label == LABELS[1]) for row in learn])
    learned, asked = ([texts[row] for row in rows] for rows in (learn, ask))
    scores: np.ndarray = baselines.tfidf_logistic(learned, truth, asked, 2)[:, 1]
    return scores


def _recipe(
    seen: Sequence[Post], learn: np.ndarray, ask: np.ndarray, path: Path, system: str, arm: str
) -> np.ndarray:
    kept = path.with_suffix(".json")
    if kept.exists():
        return np.array(json.loads(kept.read_text(encoding="utf-8")))
    val, train = learn[::8], np.delete(learn, np.arange(0, len(learn), 8))
    folder = path / "posts"
    for split, rows in (("train", train), ("val", val), ("test", ask)):
        lines = [_line(seen[row]) for row in rows]
        write_text(folder / f"{split}.jsonl", "".join(lines))
    data = open_folder(folder)
    recipe = recipes.load(SYSTEMS[system][arm])
    out, cache = path / "bundle", path.parents[2] / "features"
    fit(recipe, data, Plan(out, cache, positive=LABELS[1], overwrite=True, leaks=True))
    predictor = Predictor(bundle.read(out), data.read("test"), cache)
    scores = predictor.probabilities("without" if arm == "without" else "with")[:, 1]
    write_json(kept, scores.tolist())
    shutil.rmtree(path)
    return scores


def _line(post: Post) -> str:
    fields = post.model_dump(mode="json", exclude_defaults=True, exclude={"description"})
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _measured(
    arms: Arms, posts: Sequence[Post], truth: np.ndarray, files: np.ndarray
) -> dict[str, Any]:
    """Return each arm's AUROC, and differences with intervals over posts, within files too."""
    metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "auroc": lambda scores, rows: auroc(scores[rows], truth[rows]),
    }
    if len(set(files)) > 1:
        metrics["auroc within files"] = lambda scores, rows: within(
            scores[rows], truth[rows], files[rows]
        )
    groups = [_plain(post.text) for post in posts]
    drawn = _draws(groups)
    found: dict[str, Any] = {}
    for metric, measure in metrics.items():
        values = {arm: _over(scores, drawn, measure) for arm, scores in arms.items()}
        found[metric] = {
            "arms": {arm: _interval(value) for arm, value in values.items()},
            "differences": {
                f"{a} - {b}": _interval(values[a] - values[b])
                for a, b in (("with", "without"), ("with", "shuffled"), ("shuffled", "without"))
            },
        }
    return found


def _draws(groups: Sequence[str]) -> list[np.ndarray]:
    """Return all rows first, then resamples of whole groups."""
    names = sorted(set(groups))
    rows = {name: [] for name in names}
    for row, name in enumerate(groups):
        rows[name].append(row)
    random = np.random.default_rng(0)
    members = [rows[name] for name in names]
    drawn = [
        np.concatenate([members[one] for one in random.integers(len(members), size=len(members))])
        for _ in range(RESAMPLES)
    ]
    return [np.arange(len(groups)), *drawn]


def _over(
    scores: np.ndarray,
    drawn: Sequence[np.ndarray],
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> np.ndarray:
    """Return the metric of each draw, the mean over repeats."""
    return np.array([np.mean([measure(repeat, rows) for repeat in scores]) for rows in drawn])


def _interval(values: np.ndarray) -> dict[str, float]:
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of pairs of a sarcastic and another post that the scores order rightly."""
    wins, pairs = _wins(scores, truth)
    return wins / pairs if pairs else np.nan


def within(scores: np.ndarray, truth: np.ndarray, files: np.ndarray) -> float:
    """Return the same over pairs of posts of one file, so that the file itself is no cue."""
    counted = [_wins(scores[files == file], truth[files == file]) for file in sorted(set(files))]
    wins, pairs = (sum(each) for each in zip(*counted, strict=True))
    return wins / pairs if pairs else np.nan


def _wins(scores: np.ndarray, truth: np.ndarray) -> tuple[float, int]:
    count, pairs = int(truth.sum()), int(truth.sum()) * int((~truth).sum())
    if not pairs:
        return 0.0, 0
    return float(rankdata(scores)[truth].sum() - count * (count + 1) / 2), pairs


def _telling_files(posts: Sequence[Post], files: np.ndarray) -> dict[str, float]:
    """Return how well TF-IDF tells which file a post came from, by its text and its intentions."""
    first = files == sorted(set(files))[0]
    found = {}
    for what in ("text", "intentions"):
        texts = [
            post.text or "" if what == "text" else " ".join(one.text for one in post.intentions)
            for post in posts
        ]
        scores = np.full(len(posts), np.nan)
        for learn, ask in _folds(posts, first, 0):
            scores[ask] = baselines.tfidf_logistic(
                [texts[row] for row in learn], first[learn].astype(int),
                [texts[row] for row in ask], 2,
            )[:, 1]  # fmt: skip
        found[what] = auroc(scores, first)
    return found


def _file(post: Post) -> str:
    return str((post.intentions[0].provenance or {})["source"])


def _plain(text: str | None) -> str:
    return re.sub(r"\W+", " ", (text or "").casefold()).strip()


def _word(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


if __name__ == "__main__":
    main()
