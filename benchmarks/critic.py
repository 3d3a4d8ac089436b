"""Assess the validity critic on MIKO's judged intentions: python benchmarks/critic.py --text TOWER.

MIKO_benchmark.json holds 1,000 posts with ten intentions each, marked valid or not by people.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from critic_scores import assess

from miko_clf import manifest
from miko_clf.distil.kb import parse
from miko_clf.distil.kb.import_miko import read_release
from miko_clf.encode import build
from miko_clf.recipe import sections
from miko_clf.train.critic_features import CriticExample

OUT = Path(__file__).parent / "results" / "distil" / "critic.json"


def examples_of(path: Path) -> list[CriticExample]:
    """Return the judged intentions of a released file; a sentence that is missing has none."""
    examples = []
    for item in read_release(path):
        told = parse.place_sentences(item.answers["intentions"])
        examples += [
            CriticExample(
                item.id, item.text, None, name, told.texts[name], float(item.marks[number - 1])
            )
            for number, name in told.numbers.items()
        ]
    return examples


def main() -> None:
    """Write the report, and print its rows."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", type=Path, required=True, help="MIKO_benchmark.json")
    asked.add_argument("--text", required=True, help="a text tower of transformers, folder or name")
    asked.add_argument("--out", type=Path, default=OUT)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    section = sections.TextTowerSection(source="transformers", name=given.text)
    start = time.monotonic()
    found = assess(examples_of(given.data), build.build_text_tower(section, []), seed=given.seed)
    facts = {
        "command": shlex.join(["python", *sys.argv]),
        "data": str(given.data),
        "digest": manifest.hash_file(given.data),
        "text": given.text,
        "seed": given.seed,
        "versions": manifest.collect_versions(),
        "seconds": round(time.monotonic() - start, 1),
    }
    manifest.write_json(given.out, {**facts, **found})
    for row in found["rows"]:
        auroc, kept = row["metrics"]["auroc"], row["metrics"]["kept_precision"]
        print("{:36} AUROC {:.3f} [{:.3f}, {:.3f}]".format(row["system"], *auroc.values()), end="")
        print("  kept {:.3f} [{:.3f}, {:.3f}]".format(*kept.values()))


if __name__ == "__main__":
    main()
