"""Bundles on the Hugging Face hub: pushed to a repository, and fetched from one."""

import os
import re
import shutil
from pathlib import Path

import huggingface_hub

from miko_clf.bundle import load_bundle
from miko_clf.errors import BundleError
from miko_clf.manifest import CARD_FILE, MANIFEST_FILE, read_manifest, write_atomically

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def push_bundle(
    bundle: str | Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a bundle to `user/name` on the hub, made if need be, and return its address.

    Only what the manifest vouches for is uploaded, with the manifest and the model card; other
    files that the repository holds are deleted from it. The token is by default that of
    `hf auth login`, or HF_TOKEN. Raises `BundleError` where the bundle was changed, or the hub
    refuses.
    """
    opened = load_bundle(Path(bundle))
    api = huggingface_hub.HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=opened.path,
            allow_patterns=[*opened.manifest["files"], MANIFEST_FILE, CARD_FILE],
            delete_patterns="*",
            commit_message=f"{opened.recipe.name} by miko-clf",
        )
    except Exception as error:  # of the library or of the HTTP client that its version has
        raise BundleError(f"cannot push to {repo_id}: {_first_line(error)}") from None
    return str(address)


def find_bundle(
    bundle: str | Path, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the folder of a bundle: a path, or `user/name` on the hub where no such path exists.

    A bundle of the hub is downloaded once for each of its revisions, every file checked against
    its manifest, and copied to `XDG_CACHE_HOME/miko_clf/hub`, as the hub's own cache holds links.
    A `Path`, and a string that names something here, never reach the network. Raises `BundleError`
    where the hub has no such bundle.
    """
    if not isinstance(bundle, str) or Path(bundle).exists() or not _REPOSITORY.fullmatch(bundle):
        return Path(bundle)
    try:
        snapshot = Path(huggingface_hub.snapshot_download(bundle, revision=revision, token=token))
    except (OSError, ValueError) as error:
        reason = _first_line(error)
        raise BundleError(f"{bundle}: no such folder, and not on the hub: {reason}") from None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "miko_clf", "hub")
    folder = home / bundle.replace("/", "--") / snapshot.name  # the commit
    if not folder.exists():
        with write_atomically(folder) as beside:
            shutil.copytree(snapshot, beside)
            try:
                read_manifest(beside)
            except BundleError as error:
                reason = str(error).replace(str(beside), f"{bundle} on the hub")
                raise BundleError(reason) from None
    return folder


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
