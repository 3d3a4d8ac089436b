"""Multimodal post classifiers that read what the author intends.

    bundle = miko_clf.fit("tiny", "runs/world/sarcasm", "runs/demo")
    miko_clf.export(bundle)
    scores = miko_clf.load(bundle).score([{"text": "lovely weather", "image": "rain.png"}])

A name is imported when it is first used: to score a post needs no torch.
"""

import os
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miko_clf.data.post import Post
    from miko_clf.distil import distil
    from miko_clf.experiment.compare import compare
    from miko_clf.export.onnx_export import export_bundle as export
    from miko_clf.hub import push_bundle as push
    from miko_clf.pipeline import fit
    from miko_clf.serve.offline import load

__all__ = ["Post", "__version__", "compare", "distil", "export", "fit", "load", "push"]

_HOMES = {  # module:name, or a package that may be called
    "Post": "miko_clf.data.post:Post",
    "compare": "miko_clf.experiment.compare:compare",
    "distil": "miko_clf.distil",
    "export": "miko_clf.export",
    "fit": "miko_clf.pipeline:fit",
    "load": "miko_clf.serve.offline:load",
    "push": "miko_clf.hub:push_bundle",
}

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when ONNX Runtime loads


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module only now: the base install has no torch."""
    if name == "__version__":
        return metadata.version("miko-clf")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path, _, attribute = _HOMES[name].partition(":")
    module = import_module(path)
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted(__all__)
