"""Where the repository lies, and what lies beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MIKO_SHARED", ROOT.parent / "shared"))
