"""Load checkpoints without running code from them, and copy their weights into a reference network."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CheckpointError
from .models.adapters import CLASSIFIER_WEIGHTS, TRAINING_HEADS, detect_source, foreign_names
from .models.registry import ARCHITECTURES
from .options import Source, SourceChoice

# Keys under which training scripts store the state dict; the first match wins.
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "ema", "model_ema", "ema_state_dict")
# Prefixes that DataParallel, torch.compile and Lightning add to every key.
_PREFIXES: Final = ("module.", "_orig_mod.", "model.")
_COUNTER: Final = "num_batches_tracked"
_SHOWN: Final = 5
_ZIP_MAGIC: Final = b"PK"
_PICKLE_MAGIC: Final = b"\x80"
_RESAVE: Final = "Save the weights alone: torch.save(model.state_dict(), path), or safetensors.torch.save_file"


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a safetensors file (`__metadata__`).

    Attributes:
        architecture: name in `ARCHITECTURES`, or None.
        classes: class names in the order of the logits; may be empty.
        output_stride: output stride of the backbone, or None.
    """

    architecture: str | None = None
    classes: tuple[str, ...] = ()
    output_stride: int | None = None


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a state dict, key by key.

    Attributes:
        source: library whose key names the checkpoint uses.
        loaded: number of tensors copied into the model.
        dropped: key → reason why it was ignored.
    """

    source: Source
    loaded: int
    dropped: Mapping[str, str]


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file or a PyTorch checkpoint of plain weights.

    A state dict nested under a usual key (`state_dict`, `model`, …) is unwrapped, and a prefix that DataParallel,
    torch.compile or Lightning added to every key is removed. No code in the file is run (`weights_only=True`).

    Args:
        path: the file; the format is detected by content, not by name.

    Returns:
        Key → tensor on the CPU; floating-point tensors are float32.

    Raises:
        CheckpointError: the file is missing, or does not hold plain weights.
    """
    path = Path(path)
    if _is_safetensors(path):
        stored: object = _read_safetensors(path)
    else:
        stored = _read_torch(path)
    state_dict = _strip_prefixes(_unwrap(stored, path))
    return {key: value.float() if value.is_floating_point() else value for key, value in state_dict.items()}


def read_metadata(path: str | Path) -> CheckpointMetadata:
    """Read the metadata of a safetensors file; empty for other formats.

    Raises:
        CheckpointError: the file is missing or damaged, or its output stride is not a number.
    """
    path = Path(path)
    if not _is_safetensors(path):
        return CheckpointMetadata()
    try:
        with safe_open(path, framework="pt") as file:
            stated = file.metadata() or {}
    except SafetensorError as exc:
        raise _damaged(path, exc) from exc
    stride = stated.get("output_stride")
    if stride is not None and not stride.isdecimal():
        raise CheckpointError(f"{path}: invalid output_stride {stride!r} in the metadata; expected a number such as 16")
    classes = tuple(name.strip() for name in stated.get("classes", "").split(",") if name.strip())
    return CheckpointMetadata(stated.get("architecture"), classes, None if stride is None else int(stride))


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int:
    """Number of classes of a checkpoint: output channels of its last convolution.

    Raises:
        CheckpointError: no key is a known name of the last convolution.
    """
    for names in CLASSIFIER_WEIGHTS.values():
        for name in names:
            if name in state_dict:
                return int(state_dict[name].shape[0])
    expected = ", ".join(name for names in CLASSIFIER_WEIGHTS.values() for name in names)
    raise CheckpointError(
        f"the checkpoint has no known classifier: expected one of {expected}; got {_some(state_dict)}"
    )


def load_into(model: nn.Module, state_dict: Mapping[str, Tensor], *, source: SourceChoice = "auto") -> LoadReport:
    """Copy a state dict into a model, translating foreign key names and accounting for every key.

    Args:
        model: a reference network, or any `nn.Module` whose own key names the state dict uses.
        state_dict: key → tensor, as `load_checkpoint` returns it.
        source: library whose key names the state dict uses; `auto` detects it by the classifier's key.

    Returns:
        The number of tensors copied, and the ignored keys.

    Raises:
        CheckpointError: the model computes something else than the source's, or keys are missing, unexpected or
            misshapen (named as in the state dict). The model is then unchanged.
    """
    origin = detect_source(state_dict) if source == "auto" else source
    names = foreign_names(model, origin, state_dict)
    if names is None:
        raise CheckpointError(_unfit(model, origin))
    own_keys = {}
    for own_key in model.state_dict():
        module, _, parameter = own_key.rpartition(".")
        if parameter != _COUNTER:
            own_keys[f"{names[module]}.{parameter}" if module else parameter] = own_key
    dropped = _drop(state_dict, origin)
    kept = {key: value for key, value in state_dict.items() if key not in dropped}
    _check_keys(model, own_keys, kept)
    model.load_state_dict({own_keys[key]: value for key, value in kept.items()}, strict=False)
    return LoadReport(source=origin, loaded=len(kept), dropped=dropped)


def _is_safetensors(path: Path) -> bool:
    """True for safetensors, False for PyTorch, by the first bytes of the file."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; expected a weights file (.safetensors, .pt, .pth)")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as exc:
        raise CheckpointError(f"cannot read the checkpoint {path}: {exc.strerror}") from exc
    if not head:
        raise CheckpointError(f"{path} is empty; copy or download it again")
    if head.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)):
        return False
    # Eight bytes of header length, then the JSON header.
    if head[8:] == b"{":
        return True
    raise CheckpointError(
        f"{path} is neither a safetensors file nor a PyTorch checkpoint (it starts with {head!r}). {_RESAVE}"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as exc:
        raise _damaged(path, exc) from exc


def _read_torch(path: Path) -> object:
    try:
        # An open file, because torch chooses the format by the suffix of a path.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointError(
            f"{path} is a pickle of Python objects, not plain weights; loading it would run code from the file. "
            f"{_RESAVE}, on a machine that has the model's code"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as exc:
        raise _damaged(path, exc) from exc


def _damaged(path: Path, exc: Exception) -> CheckpointError:
    reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    return CheckpointError(f"{path} is truncated or damaged ({reason}); copy or download it again")


def _unwrap(stored: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{path} holds a {type(stored).__name__}; expected a state dict. {_RESAVE}")
    for name in _WRAPPERS:
        if isinstance(stored.get(name), Mapping):
            return _unwrap(stored[name], path)
    foreign = [key for key, value in stored.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign or not stored:
        found = f"entries that are not tensors: {_some(foreign)}" if foreign else "no entries"
        known = ", ".join(_WRAPPERS)
        raise CheckpointError(
            f"{path} holds no state dict: {found}. Expected names and tensors, at the top level or under one of "
            f"{known}. {_RESAVE}"
        )
    return dict(stored)


def _strip_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state_dict):
            return _strip_prefixes({key.removeprefix(prefix): value for key, value in state_dict.items()})
    return state_dict


def _drop(state_dict: Mapping[str, Tensor], source: Source) -> dict[str, str]:
    dropped = {}
    prefix, reason = TRAINING_HEADS.get(source, ("", ""))
    for key in state_dict:
        if prefix and key.startswith(prefix):
            dropped[key] = reason
        elif key.rpartition(".")[2] == _COUNTER:
            dropped[key] = "batch normalization's step counter, used only in training"
    return dropped


def _check_keys(model: nn.Module, own_keys: Mapping[str, str], state_dict: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    missing = tuple(key for key in own_keys if key not in state_dict)
    unexpected = tuple(key for key in state_dict if key not in own_keys)
    misshapen = {}
    for key, value in state_dict.items():
        if key in own_keys and own[own_keys[key]].shape != value.shape:
            misshapen[key] = (tuple(own[own_keys[key]].shape), tuple(value.shape))
    if not (missing or unexpected or misshapen):
        return
    classes = None if missing or unexpected else _classes_mismatch(misshapen)
    if classes:
        message = f"the checkpoint has {classes[1]} classes, the model has {classes[0]}. Build it with {classes[1]}"
    else:
        found = [
            f"missing {_some(missing)}" if missing else "",
            f"unexpected {_some(unexpected)}" if unexpected else "",
            f"misshapen {_some(_shapes(misshapen))}" if misshapen else "",
        ]
        message = (
            f"the checkpoint does not fit {type(model).__name__}: {'; '.join(filter(None, found))}. "
            f"{len(state_dict) - len(unexpected)} of {len(own_keys)} expected keys are present. "
            "Check the architecture of the checkpoint"
        )
    raise CheckpointError(message, missing=missing, unexpected=unexpected, misshapen=misshapen)


def _classes_mismatch(misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int] | None:
    """(classes of the model, of the checkpoint) if they differ only in the classifier's output channels, else None."""
    if any(needed[1:] != found[1:] for needed, found in misshapen.values()):
        return None
    counts = {(needed[0], found[0]) for needed, found in misshapen.values()}
    classifiers = {name for names in CLASSIFIER_WEIGHTS.values() for name in names}
    return counts.pop() if len(counts) == 1 and classifiers & misshapen.keys() else None


def _shapes(misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
    return [f"{key} (model {list(needed)}, checkpoint {list(found)})" for key, (needed, found) in misshapen.items()]


def _some(items: Iterable[object]) -> str:
    """The first few items, and the number of the rest."""
    listed = [str(item) for item in items]
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _unfit(model: nn.Module, source: Source) -> str:
    fitting = ", ".join(name for name, entry in ARCHITECTURES.items() if source in entry.sources)
    return (
        f"{source} weights do not fit this {type(model).__name__}: its layers differ, or the order in which strides "
        f"become atrous rates. Build one of: {fitting}"
    )
