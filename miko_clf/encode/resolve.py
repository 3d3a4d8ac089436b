"""Where an encoder's name leads: a local folder first, then the hub."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from miko_clf.errors import EncoderError

FOLDERS = "MIKO_ENCODERS"
Built = TypeVar("Built")


def local(name: str) -> Path | None:
    """Return the folder that `name` leads to on this machine, or none."""
    return next((path for path in places(name) if path.is_dir()), None)


def places(name: str) -> list[Path]:
    """Return the folders that are looked at for `name`, in order.

    `name` itself, then in each folder on MIKO_ENCODERS the whole name and its last part.
    """
    listed = [Path(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    last = name.rstrip("/").rsplit("/", 1)[-1]
    inside = [folder / part for folder in listed for part in dict.fromkeys((name, last))]
    return [Path(name), *inside]


def build(name: str, make: Callable[[str], Built], library: str) -> Built:
    """Return `make(folder or name)`; raises `EncoderError` that says where it looked.

    The hub is asked, through the library's own client, only where no folder is found.
    """
    folder = local(name)
    try:
        return make(str(folder) if folder else name)
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        if folder:
            reason = str(error).strip().split("\n")[0][:200]
            raise EncoderError(f"{folder}: {library} cannot load this encoder: {reason}") from error
        looked = ", ".join(str(place) for place in places(name))
        advice = "" if os.environ.get(FOLDERS) else f"; {FOLDERS} may list folders of encoders"
        raise EncoderError(
            f"no encoder called {name!r}: looked at {looked} and, through {library}, on the hub, "
            f"which is offline or does not have it{advice}"
        ) from error
