"""Export: a trained classifier as ONNX graphs that were compared with it; may be called."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, which `miko_clf.export(bundle)` calls; it is imported then, with torch."""

    def __call__(self, bundle: str | Path) -> Any:
        """Write the graphs of a bundle into it, and return how far they are from torch."""
        return import_module("miko_clf.export.onnx_export").export_bundle(bundle)


sys.modules[__name__].__class__ = _CallablePackage
