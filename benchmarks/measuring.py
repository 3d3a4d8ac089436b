"""What a benchmark of distilling writes beside its figures: the machine, its load, the versions."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from miko_clf.manifest import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "distil"


def surroundings(command: str | None = None) -> dict[str, Any]:
    """Return what the figures were measured on; `command` made them, else the one that runs."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "command": command or f"PYTHONPATH=. python {' '.join(sys.argv)}",
        "revision": revision.stdout.strip(),
        "python": platform.python_version(),
        "openai": version("openai"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def write(name: str, found: dict[str, Any]) -> None:
    """Write a result, with the load that there is by now, and print it."""
    found["load_after"] = [round(load, 2) for load in os.getloadavg()]
    write_json(RESULTS / name, found)
    print(json.dumps(found, indent=2))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
