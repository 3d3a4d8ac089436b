"""Multimodal post classifiers that read what the author intends."""

from importlib import import_module, metadata
from typing import Any

_HOMES = {
    "fit": "miko_clf.pipeline",
    "compare": "miko_clf.evaluate.compare",
    "score": "miko_clf.serve.shards",
    "load": "miko_clf.serve.engine",
}
__all__ = ["__version__", "compare", "fit", "load", "score"]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module only now: the base install has no torch."""
    if name == "__version__":
        return metadata.version("miko-clf")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
