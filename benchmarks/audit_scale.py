"""How long an audit of many posts with images takes: python benchmarks/audit_scale.py

The posts are made on the spot, with duplicates planted among them; that is not timed. Every one
that was planted must be found, and nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from PIL import Image

from miko_clf import manifest

SIZE = (800, 600)
GRAIN = np.random.default_rng(0).normal(0, 8, (SIZE[1], SIZE[0], 1)).astype(np.int16)
EVERY = 50  # posts to a planted one


def sentence(seed: int) -> str:
    """Return a text of fifteen made-up words."""
    letters = np.random.default_rng(seed).integers(97, 123, (15, 6))
    return " ".join("".join(map(chr, word)) for word in letters)


def picture(seed: int) -> Image.Image:
    """Return a picture with soft blots and fine grain, as a photograph has."""
    chance = np.random.default_rng(seed)
    blots = Image.fromarray(chance.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(SIZE)
    grain = np.roll(GRAIN, chance.integers(0, SIZE[0]), axis=(0, 1))
    return Image.fromarray(np.clip(np.asarray(blots) + grain, 0, 255).astype(np.uint8))


def draw(folder: Path, number: int) -> None:
    """Write the picture of a post; a planted one is that of the post before, shrunk."""
    planted = number % EVERY == 1
    image = picture(number - planted)
    if planted:
        image = image.resize((SIZE[0] // 2, SIZE[1] // 2))
    image.save(folder / f"{number}.jpg", quality=85)


def write(folder: Path, posts: int) -> int:
    """Write train and test, and return how many posts of test were planted in train."""
    (folder / "images").mkdir()
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(draw, folder / "images"), range(posts), chunksize=50))
    with (folder / "train.jsonl").open("w") as train, (folder / "test.jsonl").open("w") as test:
        for number in range(posts):
            planted = number % EVERY == 1
            row = {
                "id": f"{np.random.default_rng(number).integers(2**60)}",
                "text": sentence(number - planted) + "!" * planted,
                "image": f"images/{number}.jpg",
                "label": "ab"[number // 2 % 2],
            }
            (test if planted else train).write(json.dumps(row) + "\n")
    return len(range(1, posts, EVERY))


def main() -> None:
    """Run it and write benchmarks/results/speed/audit.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=10_000)
    given = parser.parse_args()
    found: dict[str, Any] = measuring.surroundings()
    found["command"] = f"python {' '.join(sys.argv)}"
    del found["openai"]
    with tempfile.TemporaryDirectory() as name:
        data, out = Path(name) / "data", Path(name) / "out"
        data.mkdir()
        planted = write(data, given.posts)
        size = sum(file.stat().st_size for file in (data / "images").iterdir())
        words = [sys.executable, "-m", "miko_clf", "audit", str(data), "--out", str(out)]
        started = time.monotonic()
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=measuring.ROOT)
        assert process.stdout
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.stdout.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        report = json.loads((out / "report.json").read_text())
    groups = {each["key"]: each["num_across"] for each in report["overlaps"]}
    assert process.returncode == 1
    assert groups["near post"] == groups["near image"] == groups["text"] == planted, groups
    found |= {
        "posts": given.posts,
        "image_size": list(SIZE),
        "image_megabytes": round(size / 1e6, 1),
        "planted": planted,
        "found": groups["near post"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_megabytes": round(used.ru_maxrss * 1024 / 1e6, 1),
    }
    found["load_after"] = [round(load, 2) for load in os.getloadavg()]
    manifest.write_json(measuring.ROOT / "benchmarks" / "results" / "speed" / "audit.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
