"""What of this machine and its libraries is in order, and how to mend what is not."""

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

_EXTRAS = ("train", "distil", "serve", "ocr", "report", "explain", "sweep", "ray", "dev")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "on", "yes", "true")
# An ONNX graph of one Identity node, float32 [1] to float32 [1]: what a provider is tried with.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)

_State = Literal["ok", "missing", "broken"]
_Outcome = tuple[_State, str, str]  # of a `Diagnosis`, without what was looked at
_NO_TORCH = "pip install 'miko-clf[train]'"


class Diagnosis(NamedTuple):
    """One thing that was looked at; `mend` is the command, or the step, that changes it."""

    what: str
    state: _State
    detail: str
    mend: str


def diagnose_installation(cache: Path) -> list[Diagnosis]:
    """Return what was found; only a `broken` finding stands in the way of training or serving."""
    outcomes = {
        "miko-clf": _diagnose_program(),
        "machine": _diagnose_machine(),
        **_diagnose_extras(),
        "torch": _diagnose_torch(),
        "torchvision": _diagnose_torchvision(),
        "onnxruntime": _diagnose_onnxruntime(),
        "MIKO_ENCODERS": _diagnose_encoders(os.environ.get("MIKO_ENCODERS", "")),
        "cache": _diagnose_cache(cache),
        "hub": _diagnose_hub(),
    }
    return [Diagnosis(what, *outcome) for what, outcome in outcomes.items()]


def format_diagnoses(findings: list[Diagnosis]) -> str:
    """Return the findings as lines: state, what, detail, and below it how to mend it."""
    wide = max(len(finding.what) for finding in findings)
    screen = min(100, shutil.get_terminal_size().columns)
    fold = TextWrapper(screen, subsequent_indent=" " * (wide + 10), break_on_hyphens=False).wrap
    lines = []
    for what, state, detail, mend in findings:
        lines += fold(f"{state:8}{what:{wide}}  {detail}")
        if mend:
            lines.append(f"{'':{wide + 10}}mend: {mend}")
    broken = ", ".join(finding.what for finding in findings if finding.state == "broken")
    lines.append(f"broken: {broken}" if broken else "nothing is broken")
    return "\n".join(lines)


def dump_diagnoses(findings: list[Diagnosis]) -> str:
    """Return the findings as JSON; `healthy` says that nothing is broken."""
    healthy = all(finding.state != "broken" for finding in findings)
    rows = [finding._asdict() for finding in findings]
    return json.dumps({"healthy": healthy, "findings": rows}, indent=2)


def _diagnose_program() -> _Outcome:
    python = f"Python {platform.python_version()} at {sys.executable}"
    version = _find_version("miko-clf")
    if version is None:
        return "broken", f"not installed in {python}", "pip install . (in the project's folder)"
    return "ok", f"{version}, {python}", ""


def _diagnose_machine() -> _Outcome:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{platform.system()} {platform.machine()}"
    return "ok", f"{machine}, {len(os.sched_getaffinity(0))} CPU cores, {memory:.1f} GiB memory", ""


def _diagnose_extras() -> dict[str, _Outcome]:
    """Return for each extra the versions that are there and the libraries that are not."""
    try:
        lines = metadata.requires("miko-clf") or []
    except metadata.PackageNotFoundError:
        return {}
    return {extra: _diagnose_extra(extra, lines) for extra in ("base", *_EXTRAS)}


def _diagnose_extra(extra: str, lines: list[str]) -> _Outcome:
    there, absent, old = [], [], []
    for line in lines:
        marker = re.search(r"extra == ['\"](.+?)['\"]", line)
        if (marker[1] if marker else "base") != extra:
            continue
        requirement = line.partition(";")[0].strip()
        name = re.split(r"[^\w.-]", requirement)[0]
        version = _find_version(name)
        if version is None:
            absent.append(name)
        elif _satisfies(version, requirement):
            there.append(f"{name} {version}")
        else:
            old.append(requirement)
    if old:
        detail = f"not the version that is needed: {', '.join(old)}"
        return "broken", detail, f"pip install {shlex.join(old)}"
    if not absent:
        return "ok", ", ".join(there), ""
    detail = f"no {', '.join(absent)}"
    if extra == "base":
        return "broken", detail, "pip install miko-clf"
    return "missing", detail, f"pip install 'miko-clf[{extra}]'"


def _satisfies(version: str, requirement: str) -> bool:
    """Return whether a version lies in a requirement's >= and < bounds."""
    lower = re.search(r">=\s*([\d.]+)", requirement)
    upper = re.search(r"<\s*([\d.]+)", requirement)
    number = _parse_version(version)
    high_enough = lower is None or number >= _parse_version(lower[1])
    return high_enough and (upper is None or number < _parse_version(upper[1]))


def _parse_version(version: str) -> list[int]:
    release = re.match(r"[\d.]*\d", version)
    return [int(part) for part in release[0].split(".")] if release else []


def _find_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _diagnose_torch() -> _Outcome:
    if _find_version("torch") is None:
        return "missing", "needed to fit, compare and export", _NO_TORCH
    try:
        torch = import_module("torch")
    except Exception as error:
        mend = "pip install --force-reinstall torch torchvision"
        return "broken", f"cannot be imported: {_first_error_line(error)}", mend
    if not torch.cuda.is_available():
        return "ok", f"{torch.__version__}, no CUDA device", _advise_driver(torch)
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in devices)
    return "ok", f"{torch.__version__}, CUDA {torch.version.cuda}: {shown}", ""


def _advise_driver(torch: Any) -> str:
    """Return what to do where there is an NVIDIA driver that torch does not use."""
    if not Path("/proc/driver/nvidia/version").exists():
        return ""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"this torch is {built}; install one that the NVIDIA driver of this machine can run"


def _diagnose_torchvision() -> _Outcome:
    """Call an operator that is there only where torchvision was built for this very torch."""
    own, vision = _find_version("torch"), _find_version("torchvision")
    if own is None or vision is None:
        return "missing", "needed by the pretrained towers", _NO_TORCH
    versions = f"torch {own}, torchvision {vision}"
    try:
        torch, ops = import_module("torch"), import_module("torchvision.ops")
        kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
        assert kept.tolist() == [0]
    except Exception as error:
        mend = "pip install --force-reinstall torch torchvision (both from one index)"
        return "broken", f"{versions} do not match: {_first_error_line(error)}", mend
    return "ok", f"{versions} match", ""


def _diagnose_onnxruntime() -> _Outcome:
    there = [name for name in _RUNTIMES if _find_version(name)]
    if not there:
        mend = "pip install 'miko-clf[serve,cpu]' (with an NVIDIA GPU: 'miko-clf[serve,gpu]')"
        return "missing", "needed to export, score and serve", mend
    if len(there) > 1:
        mend = f"pip uninstall -y {' '.join(there)}, then pip install 'miko-clf[gpu]' or [cpu]"
        return "broken", f"{' and '.join(there)} overwrite each other", mend
    mend = f"pip install --force-reinstall {there[0]}"
    try:
        runtime = import_module("onnxruntime")
        compiled = runtime.get_available_providers()
        if "CUDAExecutionProvider" in compiled:
            runtime.preload_dlls()
        usable = [provider for provider in compiled if _runs_on(runtime, provider)]
    except Exception as error:
        return "broken", f"cannot be used: {_first_error_line(error)}", mend
    detail = f"{there[0]} {_find_version(there[0])}, usable: {', '.join(usable) or 'no provider'}"
    if "CUDAExecutionProvider" in compiled and "CUDAExecutionProvider" not in usable:
        mend = "no usable CUDA: see nvidia-smi, and install the CUDA and cuDNN libraries"
    elif usable:
        mend = ""
    return "ok" if usable else "broken", detail, mend


def _runs_on(runtime: Any, provider: str) -> bool:
    """Return whether a session that asks for a provider gets it."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(_IDENTITY, options, providers=[provider])
    except Exception:
        return False
    return provider in session.get_providers()


def _diagnose_encoders(listed: str) -> _Outcome:
    folders = [Path(folder) for folder in listed.split(os.pathsep) if folder]
    if not folders:
        return "ok", "not set; towers are looked for on the hub", ""
    gone = [str(folder) for folder in folders if not folder.is_dir()]
    if gone:
        return "broken", f"no folder {', '.join(gone)}", "set MIKO_ENCODERS to folders that exist"
    names = sorted(path.name for folder in folders for path in folder.iterdir() if path.is_dir())
    return "ok", f"{listed}: {', '.join(names) or 'empty'}", ""


def _diagnose_cache(folder: Path) -> _Outcome:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return "broken", f"{folder} cannot be written", "set MIKO_CACHE to a folder that can"
    return "ok", f"{folder}, {shutil.disk_usage(place).free / 2**30:.1f} GiB free", ""


def _diagnose_hub() -> _Outcome:
    closed = [name for name in _OFFLINE if os.environ.get(name, "").lower() in _TRUE]
    return "ok", f"offline by {', '.join(closed)}" if closed else "may be asked", ""


def _first_error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
