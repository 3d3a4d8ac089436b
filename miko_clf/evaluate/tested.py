"""What a bundle scored on the test split, entered into its model card."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from miko_clf import manifest
from miko_clf.evaluate import words
from miko_clf.evaluate.report import Report, Row

START = "## On test"
_END = "\n## Use\n"


def enter(bundle: Path, report: Report) -> None:
    """Put the figures of a bundle's arms into its card: a table, and metadata that hubs read.

    What stood there of an earlier opening is replaced; how often test was opened is told. The card
    is written whole or not at all. Without a card nothing is done.
    """
    path = bundle / manifest.CARD
    rows = [row for row in report.rows if row.system == bundle.name]
    if not path.is_file() or not rows:
        return
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    data: Any = card.data
    data.model_name = bundle.name
    data.eval_results = [result for row in rows for result in _results(row, report)]
    before, _, after = card.text.partition(_END)
    before = before.partition(START)[0].rstrip()
    section = "\n\n".join([START, _told(report), _table(rows, report)])
    text = f"{before}\n\n{section}\n{_END}{after}" if after else f"{before}\n\n{section}\n"
    manifest.write_text(path, f"---\n{data.to_yaml()}\n---\n{text.lstrip()}")


def _told(report: Report) -> str:
    openings = report.findings.get("lockbox", {}).get("openings")
    times = f", which was opened {openings} time{'s' * (openings != 1)} for it" if openings else ""
    return (
        f"From the lockbox: {report.rows[0].rows:,} posts of {report.data}, split "
        f"{report.split}{times}. Fingerprint `{report.fingerprint[:16]}`. In brackets the "
        f"{100 * report.level:g} % interval over posts. Made by `{report.command}`."
    )


def _table(rows: Sequence[Row], report: Report) -> str:
    names = [name for name in words.TITLES if name in rows[0].metrics]
    titles = [words.title(name, report.positive) for name in names]
    lines = [f"| arm | {' | '.join(titles)} |", f"| --- |{' --- |' * len(names)}"]
    for row in rows:
        cells = [words.figures(*row.metrics[name]) for name in names]
        lines.append(f"| {row.arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _results(row: Row, report: Report) -> list[EvalResult]:
    """Return the metadata of an arm; hubs read macro-F1 as `f1`."""
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=Path(report.data).name,
            dataset_name=Path(report.data).name,
            dataset_split=report.split,
            dataset_config=row.arm,
            metric_type={"macro_f1": "f1", "auroc": "roc_auc"}.get(name, name),
            metric_name=words.title(name, report.positive),
            metric_value=round(row.metrics[name].value, 4),
        )
        for name in ("accuracy", "macro_f1", "auroc")
        if name in row.metrics and not math.isnan(row.metrics[name].value)
    ]
