"""Print report.json as the README's table: python benchmarks/table.py REPORT..."""

import json
import sys
from pathlib import Path

SHOWN = {"accuracy": "accuracy", "macro_f1": "macro-F1", "auroc": "AUROC", "ece": "ECE"}


def table(path: Path, *, alone: bool = True) -> str:
    """Return the rows of a report with value and interval of each metric shown.

    Without `alone` the rows of one kind of content alone are left out.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"| system | arm | {' | '.join(SHOWN.values())} |",
        f"| --- | --- |{' --- |' * len(SHOWN)}",
    ]
    for row in report["rows"]:
        if not alone and row["arm"].endswith("only"):
            continue
        cells = [row["system"], row["arm"]]
        for name in SHOWN:
            cells.append("{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["metrics"][name]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(table(Path(name)))
