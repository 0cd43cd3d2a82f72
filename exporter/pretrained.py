"""Published weights by name, through the caches of those who publish them: torchvision and Hugging Face."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from torch import hub

from ..errors import CheckpointError, importing
from ..manifest import ClassInfo
from .classes import describe_classes

#: Where torchvision's weights are published.
TORCHVISION_URL: Final = "https://download.pytorch.org/models/"
#: Architecture, whose name is torchvision's → file of its weights; the name ends in the beginning of its SHA-256.
TORCHVISION_FILES: Final = {
    "deeplabv3_resnet50": "deeplabv3_resnet50_coco-cd0a2569.pth",
    "deeplabv3_resnet101": "deeplabv3_resnet101_coco-586e9e4e.pth",
    "deeplabv3_mobilenet_v3_large": "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
}
#: Classes of PASCAL VOC, which all of torchvision's have.
_VOC: Final = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
_TORCHVISION_LICENSE: Final = (
    "BSD-3-Clause (torchvision); trained on images of COCO, whose terms of use apply to what is made of them"
)
_HF_FILES: Final = (
    *("config.json", "preprocessor_config.json", "README.md", "*.safetensors", "*.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model.bin.index.json"),
)
_REPO: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Pretrained:
    """Weights in a file or folder, and what is known of them.

    Attributes:
        path: file, or folder of transformers, for `load_trained`.
        architecture: name in `ARCHITECTURES`; None where the folder's `config.json` says it.
        classes: classes of the data set; None where the folder's `config.json` says them.
        license: terms of the weights, as their publisher states them; None where nothing is stated.
        origin: where they come from, for the bundle's record.
    """

    path: Path
    architecture: str | None = None
    classes: tuple[ClassInfo, ...] | None = None
    license: str | None = None
    origin: dict[str, str] = field(default_factory=dict)


def fetch_pretrained(name: str) -> Pretrained:
    """Find published weights in the cache of their library, or download them there, and check their hashes.

    Args:
        name: `torchvision:NAME`, or `hf:OWNER/REPO` with `@REVISION` if need be.

    Raises:
        CheckpointError: the name is unknown, the weights cannot be downloaded (the message says which file to put
            where), or they are not those that were published.
        MissingDependencyError: huggingface_hub is not installed.
    """
    library, _, entry = name.partition(":")
    if library == "torchvision" and entry in TORCHVISION_FILES:
        return _from_torchvision(entry)
    match = _REPO.fullmatch(entry)
    if library == "hf" and match:
        return _from_hub(match["repo"], match["revision"])
    known = ", ".join(f"torchvision:{each}" for each in TORCHVISION_FILES)
    raise CheckpointError(f"unknown pretrained weights {name!r}; expected one of {known}, or hf:OWNER/REPO")


def _from_torchvision(name: str) -> Pretrained:
    file = TORCHVISION_FILES[name]
    url, path = TORCHVISION_URL + file, Path(hub.get_dir()) / "checkpoints" / file
    beginning = path.stem.rpartition("-")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(url, str(path), hash_prefix=beginning, progress=False)
        except (OSError, RuntimeError) as exc:  # urllib's errors are OSErrors; a wrong hash is a RuntimeError
            raise CheckpointError(
                f"cannot download {url}: {exc}. Download it where there is a network, and put it at {path} (or in "
                f"hub/checkpoints of another TORCH_HOME), or export the file itself: atrous export {file} OUT --arch "
                f"{name}"
            ) from exc
    _check_hash(path, hashlib.sha256(), beginning)
    origin = {"pretrained": f"torchvision:{name}", "url": url, "sha256": _digest(path, hashlib.sha256())}
    return Pretrained(path, name, describe_classes(_VOC.split()), _TORCHVISION_LICENSE, origin)


def _from_hub(repo: str, revision: str | None) -> Pretrained:
    with importing("hub", purpose=f"hf:{repo}"):
        from huggingface_hub import ModelCard, constants, snapshot_download
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(_HF_FILES)))
    except Exception as exc:  # its errors and its client's have no common base that stays the same between versions
        raise CheckpointError(
            f"cannot download {repo} from Hugging Face: {exc}. Download it where there is a network (hf download "
            f"{repo}) and copy its folder in {constants.HF_HUB_CACHE}; or put config.json, preprocessor_config.json "
            "and model.safetensors into a folder, and export that: atrous export FOLDER OUT"
        ) from exc
    for path in sorted(folder.iterdir()):
        _check_blob(path)
    card = folder / "README.md"
    stated = ModelCard.load(card, ignore_metadata_errors=True).data if card.is_file() else {}
    terms = stated.get("license_name") or stated.get("license")
    origin = {"pretrained": f"hf:{repo}", "revision": folder.name}
    return Pretrained(folder, license=None if terms is None else str(terms), origin=origin)


def _check_blob(path: Path) -> None:
    """Compare a file of the hub's cache with its name there: the SHA-256 of large files, git's SHA-1 of others."""
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        _check_hash(path, hashlib.sha256(), name)
    elif re.fullmatch(r"[0-9a-f]{40}", name):
        size = path.stat().st_size
        _check_hash(path, hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False), name)


def _check_hash(path: Path, digest: hashlib._Hash, expected: str) -> None:
    found = _digest(path, digest)
    if not found.startswith(expected):
        raise CheckpointError(
            f"{path} is not what was published: its hash begins with {found[: len(expected)]}, expected {expected}. "
            "Delete it, and it is downloaded again"
        )


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
