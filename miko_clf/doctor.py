"""What this machine has for training and serving, what is missing, and what mends it."""

import json
import os
import platform
import re
import shlex
import shutil
import sys
from importlib import import_module, metadata
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Literal, NamedTuple

_EXTRAS = ("train", "distil", "serve", "report", "explain", "sweep", "ray", "dev")
_RUNTIMES = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "on", "yes", "true")
# An ONNX graph of one Identity node, float32 [1] to float32 [1]: what a provider is tried with.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)

State = Literal["ok", "missing", "broken"]


class Finding(NamedTuple):
    """One thing that was looked at; `mend` is the command, or the step, that changes it."""

    what: str
    state: State
    detail: str
    mend: str = ""


def examine(cache: Path) -> list[Finding]:
    """Return what was found; only a `broken` finding stands in the way of training or serving."""
    return [
        _program(),
        _machine(),
        *_extras(),
        _torch(),
        _pair(),
        _onnxruntime(),
        _encoders(os.environ.get("MIKO_ENCODERS", "")),
        _cache(cache),
        _hub(),
    ]


def page(findings: list[Finding]) -> str:
    """Return the findings as lines: state, what, detail, and below it how to mend it."""
    wide = max(len(each.what) for each in findings)
    fold = TextWrapper(100, subsequent_indent=" " * (wide + 10), break_on_hyphens=False).wrap
    lines = []
    for what, state, detail, mend in findings:
        lines += fold(f"{state:8}{what:{wide}}  {detail}")
        if mend:
            lines.append(f"{'':{wide + 10}}mend: {mend}")
    broken = ", ".join(each.what for each in findings if each.state == "broken")
    lines.append(f"broken: {broken}" if broken else "nothing is broken")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """Return the findings as JSON; `healthy` says that nothing is broken."""
    healthy = all(each.state != "broken" for each in findings)
    found = {"healthy": healthy, "findings": [each._asdict() for each in findings]}
    return json.dumps(found, indent=2)


def _program() -> Finding:
    python = f"Python {platform.python_version()} at {sys.executable}"
    version = _version("miko-clf")
    if version is None:
        mend = "pip install . (in the project's folder)"
        return Finding("miko-clf", "broken", f"not installed in {python}", mend)
    return Finding("miko-clf", "ok", f"{version}, {python}")


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    detail = f"{platform.system()} {platform.machine()}, {cores} CPU cores, {memory:.1f} GiB memory"
    return Finding("machine", "ok", detail)


def _extras() -> list[Finding]:
    """Return for each extra the versions that are there and the libraries that are not."""
    try:
        lines = metadata.requires("miko-clf") or []
    except metadata.PackageNotFoundError:
        return []
    return [_extra("base", lines), *(_extra(extra, lines) for extra in _EXTRAS)]


def _extra(extra: str, lines: list[str]) -> Finding:
    there, absent, old = [], [], []
    for line in lines:
        marker = re.search(r"extra == ['\"](.+?)['\"]", line)
        if (marker[1] if marker else "base") != extra:
            continue
        requirement = line.partition(";")[0].strip()
        name = re.split(r"[^\w.-]", requirement)[0]
        version = _version(name)
        if version is None:
            absent.append(name)
        elif _allowed(version, requirement):
            there.append(f"{name} {version}")
        else:
            old.append(requirement)
    if old:
        detail = f"not the version that is needed: {', '.join(old)}"
        return Finding(extra, "broken", detail, f"pip install {shlex.join(old)}")
    if absent:
        state: State = "broken" if extra == "base" else "missing"
        mend = "pip install " + ("miko-clf" if extra == "base" else f"'miko-clf[{extra}]'")
        return Finding(extra, state, f"no {', '.join(absent)}", mend)
    return Finding(extra, "ok", ", ".join(there))


def _allowed(version: str, requirement: str) -> bool:
    """Return whether a version lies in a requirement's >= and < bounds."""
    lower = re.search(r">=\s*([\d.]+)", requirement)
    upper = re.search(r"<\s*([\d.]+)", requirement)
    number = _numbers(version)
    high_enough = lower is None or number >= _numbers(lower[1])
    return high_enough and (upper is None or number < _numbers(upper[1]))


def _numbers(version: str) -> list[int]:
    release = re.match(r"[\d.]*\d", version)
    return [int(part) for part in release[0].split(".")] if release else []


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> Finding:
    if _version("torch") is None:
        mend = "pip install 'miko-clf[train]'"
        return Finding("torch", "missing", "needed to fit, compare and export", mend)
    try:
        torch = import_module("torch")
    except Exception as error:
        mend = "pip install --force-reinstall torch torchvision"
        return Finding("torch", "broken", f"cannot be imported: {_line(error)}", mend)
    if not torch.cuda.is_available():
        return Finding("torch", "ok", f"{torch.__version__}, no CUDA device", _driver(torch))
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = ", ".join(f"{each.name} ({each.total_memory / 2**30:.0f} GiB)" for each in devices)
    return Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}: {shown}")


def _driver(torch: Any) -> str:
    """Return what to do where there is an NVIDIA driver that torch does not use."""
    if not Path("/proc/driver/nvidia/version").exists():
        return ""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"this torch is {built}; install one that the NVIDIA driver of this machine can run"


def _pair() -> Finding:
    """Call an operator that is there only where torchvision was built for this very torch."""
    versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    if _version("torch") is None or _version("torchvision") is None:
        mend = "pip install 'miko-clf[train]'"
        return Finding("torchvision", "missing", "needed by the pretrained towers", mend)
    try:
        torch, ops = import_module("torch"), import_module("torchvision.ops")
        kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
        assert kept.tolist() == [0]
    except Exception as error:
        mend = "pip install --force-reinstall torch torchvision (both from one index)"
        return Finding("torchvision", "broken", f"{versions} do not match: {_line(error)}", mend)
    return Finding("torchvision", "ok", f"{versions} match")


def _onnxruntime() -> Finding:
    there = [name for name in _RUNTIMES if _version(name)]
    if not there:
        mend = "pip install 'miko-clf[serve,cpu]' (with an NVIDIA GPU: 'miko-clf[serve,gpu]')"
        return Finding("onnxruntime", "missing", "needed to export, score and serve", mend)
    if len(there) > 1:
        mend = f"pip uninstall -y {' '.join(there)}, then pip install 'miko-clf[gpu]' or [cpu]"
        return Finding("onnxruntime", "broken", f"{' and '.join(there)} overwrite each other", mend)
    mend = f"pip install --force-reinstall {there[0]}"
    try:
        runtime = import_module("onnxruntime")
        compiled = runtime.get_available_providers()
        if "CUDAExecutionProvider" in compiled:
            runtime.preload_dlls()
        usable = [provider for provider in compiled if _runs(runtime, provider)]
    except Exception as error:
        return Finding("onnxruntime", "broken", f"cannot be used: {_line(error)}", mend)
    detail = f"{there[0]} {_version(there[0])}, usable: {', '.join(usable) or 'no provider'}"
    if "CUDAExecutionProvider" in compiled and "CUDAExecutionProvider" not in usable:
        advice = "no usable CUDA: see nvidia-smi, and install the CUDA and cuDNN libraries"
        return Finding("onnxruntime", "ok" if usable else "broken", detail, advice)
    return Finding("onnxruntime", "ok" if usable else "broken", detail, "" if usable else mend)


def _runs(runtime: Any, provider: str) -> bool:
    """Return whether a session that asks for a provider gets it."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(_IDENTITY, options, providers=[provider])
    except Exception:
        return False
    return provider in session.get_providers()


def _encoders(listed: str) -> Finding:
    folders = [Path(folder) for folder in listed.split(os.pathsep) if folder]
    if not folders:
        return Finding("MIKO_ENCODERS", "ok", "not set; towers are looked for on the hub")
    gone = [str(folder) for folder in folders if not folder.is_dir()]
    if gone:
        detail, mend = f"no folder {', '.join(gone)}", "set MIKO_ENCODERS to folders that exist"
        return Finding("MIKO_ENCODERS", "broken", detail, mend)
    found = sorted(path.name for folder in folders for path in folder.iterdir() if path.is_dir())
    return Finding("MIKO_ENCODERS", "ok", f"{listed}: {', '.join(found) or 'empty'}")


def _cache(folder: Path) -> Finding:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    if not place.is_dir() or not os.access(place, os.W_OK):
        detail, mend = f"{folder} cannot be written", "set MIKO_CACHE to a folder that can"
        return Finding("cache", "broken", detail, mend)
    return Finding("cache", "ok", f"{folder}, {free:.1f} GiB free")


def _hub() -> Finding:
    closed = [name for name in _OFFLINE if os.environ.get(name, "").lower() in _TRUE]
    return Finding("hub", "ok", f"offline by {', '.join(closed)}" if closed else "may be asked")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
