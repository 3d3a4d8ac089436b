"""A graph in ONNX Runtime, on exactly the provider that was asked for."""

import os
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library loads

import onnxruntime
from onnxruntime import InferenceSession, SessionOptions

from miko_clf.errors import BundleError, DeviceError

Provider = Literal["cpu", "cuda"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# What a GPU is asked for. Shape arithmetic is left to the CPU, where ONNX Runtime prefers it,
# which is why `session.disable_cpu_ep_fallback` would refuse any graph of varying batch size.
_HEAVY = frozenset({"Attention", "Conv", "Gemm", "LayerNormalization", "MatMul", "Softmax"})
_ERROR = 3  # severity from which ONNX Runtime speaks


def open_session(
    graph: Path, provider: Provider, *, allow_cpu: bool = False, threads: int | None = None
) -> InferenceSession:
    """Return a session that computes on `provider`, or on the CPU where that is allowed instead.

    Raises `DeviceError` where the provider is not to be had, `BundleError` for a bad graph.
    """
    onnxruntime.set_default_logger_severity(_ERROR)
    if provider == "cpu":
        return _create(graph, [_CPU], threads)
    if _CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
        session = _create(graph, [(_CUDA, {"use_tf32": "0"})], threads)
        reason = _not_on_gpu(session)
    else:
        reason = "this onnxruntime has no CUDA provider; install miko-clf[gpu]"
    if not reason:
        return session
    if allow_cpu:
        return _create(graph, [_CPU], threads)
    offered = ", ".join(sorted(onnxruntime.get_available_providers()))
    raise DeviceError(
        f"cuda was asked for and is not in use: {reason} (available: {offered}); "
        "add --allow-cpu to take the CPU instead"
    )


def provider_of(session: InferenceSession) -> Provider:
    """Return the provider that a session computes on."""
    return "cuda" if session.get_providers()[0] == _CUDA else "cpu"


def heavy_on_cpu(session: InferenceSession) -> list[str]:
    """Return the kinds of heavy operators that a session computes on the CPU."""
    return sorted(
        {
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name == _CPU
            for node in part.get_nodes()
            if node.op_type in _HEAVY
        }
    )


def _not_on_gpu(session: InferenceSession) -> str:
    if provider_of(session) != "cuda":
        return "its libraries or its device are missing"
    left = heavy_on_cpu(session)
    return f"it left {', '.join(left)} to the CPU" if left else ""


def _create(graph: Path, providers: list[Any], threads: int | None) -> InferenceSession:
    options = SessionOptions()
    options.log_severity_level = _ERROR
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        return InferenceSession(graph, options, providers, enable_fallback=0)
    except Exception:  # the library raises a dozen types, and quotes the graph in them
        raise BundleError(f"{graph}: ONNX Runtime cannot load this graph") from None
