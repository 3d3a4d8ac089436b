"""What doctor finds on this machine, and what it says of machines that lack something."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from miko_clf import doctor
from miko_clf.doctor import Diagnosis
from tests.support.command_line import run_command


def found(what: str, cache: Path = Path(".")) -> Diagnosis:
    return next(each for each in doctor.diagnose_installation(cache) if each.what == what)


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let libraries (with _ for -) seem installed in other versions, or absent for None."""
    real = metadata.version

    def version(name: str) -> str:
        key = name.replace("-", "_")
        if key not in versions:
            return real(name)
        if versions[key] is None:
            raise metadata.PackageNotFoundError(name)
        return str(versions[key])

    monkeypatch.setattr(metadata, "version", version)


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Let a library fail as it is imported."""
    real = doctor.import_module

    def load(name: str) -> object:
        if name == library:
            raise ImportError(f"lib{library}.so: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", load)


def test_a_machine_that_runs_the_tests_is_healthy(run_doctor: dict):
    assert run_doctor["healthy"] is True
    states = {each["what"]: each["state"] for each in run_doctor["findings"]}
    for what in ("miko-clf", "base", "train", "serve", "torch", "torchvision", "onnxruntime"):
        assert states[what] == "ok"


def test_the_json_names_every_library_with_its_version(run_doctor: dict):
    train = next(each for each in run_doctor["findings"] if each["what"] == "train")
    assert f"torch {metadata.version('torch')}, " in train["detail"]


@pytest.fixture(scope="module")
def run_doctor() -> dict:
    ended = run_command("doctor", "--json")
    assert ended.code == 0
    return json.loads(ended.out)


def test_doctor_without_json_prints_a_line_for_each_finding_and_a_verdict():
    ended = run_command("doctor")
    assert ended.code == 0
    assert ended.out.endswith("nothing is broken\n")
    assert [
        each.what for each in doctor.diagnose_installation(Path(".")) if each.what not in ended.out
    ] == []


def test_both_onnx_runtimes_at_once_are_broken_and_doctor_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
):
    pretend(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    ended = run_command("doctor")
    assert ended.code == 1
    assert "broken: onnxruntime\n" in ended.out
    assert "mend: pip uninstall -y onnxruntime onnxruntime-gpu" in ended.out


def test_a_provider_is_usable_only_where_a_session_gets_it(monkeypatch: pytest.MonkeyPatch):
    class Session:
        def __init__(self, graph: bytes, options: object, providers: list[str]) -> None:
            if providers == ["BrokenExecutionProvider"]:
                raise RuntimeError("no device")

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    names = ["CUDAExecutionProvider", "BrokenExecutionProvider", "CPUExecutionProvider"]
    runtime = SimpleNamespace(
        get_available_providers=lambda: names,
        preload_dlls=lambda: None,
        SessionOptions=SimpleNamespace,
        InferenceSession=Session,
    )
    monkeypatch.setattr(doctor, "import_module", lambda name: runtime)
    state, detail, mend = doctor._diagnose_onnxruntime()
    assert state == "ok"
    assert detail.endswith("usable: CPUExecutionProvider")
    assert "no usable CUDA" in mend


def test_a_library_that_is_absent_is_advice(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, torch=None, timm=None, onnxruntime=None, onnxruntime_gpu=None)
    assert found("train").state == found("torch").state == found("torchvision").state == "missing"
    assert found("train").detail == "no torch, timm"
    assert found("train").mend == "pip install 'miko-clf[train]'"
    assert found("onnxruntime").state == "missing"
    assert run_command("doctor").code == 0


def test_a_library_that_is_too_old_or_too_new_is_broken(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, torch="2.9.1+cu128", open_clip_torch="4.0.0")
    finding = found("train")
    assert finding.state == "broken"
    assert finding.mend.startswith("pip install 'torch>=2.13' 'open_clip_torch<4,>=3.3'")


def test_a_base_library_that_is_absent_is_broken(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, tokenizers=None)
    assert found("base") == Diagnosis("base", "broken", "no tokenizers", "pip install miko-clf")


@pytest.mark.parametrize(
    ("library", "what"),
    [("torch", "torch"), ("torchvision.ops", "torchvision"), ("onnxruntime", "onnxruntime")],
)
def test_a_library_that_cannot_be_imported_is_broken(
    monkeypatch: pytest.MonkeyPatch, library: str, what: str
):
    without(monkeypatch, library)
    finding = found(what)
    assert finding.state == "broken"
    assert "cannot open shared object file" in finding.detail
    assert "--force-reinstall" in finding.mend


def test_cuda_devices_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch):
    device = SimpleNamespace(name="H200", total_memory=139 * 2**30)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_properties=lambda index: device,
    )
    torch = SimpleNamespace(__version__="2", cuda=cuda, version=SimpleNamespace(cuda="13.2"))
    monkeypatch.setattr(doctor, "import_module", lambda name: torch)
    assert doctor._diagnose_torch()[1] == "2, CUDA 13.2: H200 (139 GiB)"


def test_encoder_folders_are_listed_and_one_that_is_gone_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    monkeypatch.setenv("MIKO_ENCODERS", str(tmp_path))
    assert found("MIKO_ENCODERS").detail == f"{tmp_path}: all-MiniLM-L6-v2"
    monkeypatch.setenv("MIKO_ENCODERS", f"{tmp_path}:{tmp_path / 'gone'}")
    assert found("MIKO_ENCODERS").state == "broken"


def test_the_cache_shows_free_space_and_may_not_be_a_file(tmp_path: Path):
    assert found("cache", tmp_path / "a" / "b").detail.endswith(" GiB free")
    (tmp_path / "file").write_text("")
    assert found("cache", tmp_path / "file" / "x").state == "broken"


def test_the_hub_is_closed_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert found("hub").detail == "may be asked"
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert found("hub").detail == "offline by TRANSFORMERS_OFFLINE"
