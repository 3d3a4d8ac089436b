"""Multimodal post classifiers that read what the author intends."""

from importlib import import_module, metadata
from operator import attrgetter
from typing import Any

_HOMES = {
    "gather": ("miko_clf.distil.run", "distil_posts"),
    "fit": ("miko_clf.pipeline", "fit"),
    "compare": ("miko_clf.evaluate.evaluator", "compare"),
    "score": ("miko_clf.serve.offline", "score"),
    "load": ("miko_clf.serve.engine", "Engine.open"),
}
__all__ = ["__version__", "compare", "fit", "gather", "load", "score"]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module only now: the base install has no torch."""
    if name == "__version__":
        return metadata.version("miko-clf")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, found = _HOMES[name]
    return attrgetter(found)(import_module(module))


def __dir__() -> list[str]:
    return sorted(__all__)
