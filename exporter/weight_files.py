"""Files of weights, as training scripts write them: what holds the tensors is found, and no code in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..arguments import check_arguments, describe
from ..errors import CheckpointError
from . import inert_pickle
from .inert_pickle import Array, Inert

#: Keys under which training scripts store the weights, the most wanted first.
WRAPPERS: Final = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema", "ema_model", "shadow"),
)
#: Prefixes that DataParallel, torch.compile, Lightning and averages of weights put before keys.
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema_model.", "ema.")
#: Keys of what training needs to go on, whose tensors are no weights of the network.
_TRAINING: Final = frozenset(("optimizer", "optimizer_states", "optimizers", "optim", "scheduler", "lr_schedulers"))
#: Names of the weights in a folder, the most wanted first.
_FOLDER: Final = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_ZIP_MAGIC: Final = b"PK"
_PICKLE_MAGIC: Final = b"\x80"
_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
#: Path of keys in the file, and key → tensor there.
_Found = tuple[tuple[str, ...], dict[str, Tensor]]
_MAX_DEPTH: Final = 64
_SHOWN: Final = 5
_RESAVE: Final = "Save the weights alone: torch.save(model.state_dict(), path), or safetensors.torch.save_file"


@dataclass(frozen=True)
class WeightFile:
    """Tensors of a file, under the names of the network that was trained.

    Attributes:
        weights: key → tensor on the CPU; floating-point tensors are float32.
        dropped: what else is in the file: key, or path of keys → reason why it is no weight.
        metadata: `__metadata__` of a safetensors file; empty for others.
        config: `config.json` of a folder of Hugging Face's transformers; empty for others.
    """

    weights: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@check_arguments
def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Read the weights of a file or folder; the format is detected by content, not by name.

    Takes safetensors, whole and in shards (the index, or a folder that holds one); what `torch.save` and `pickle.dump`
    write: a state dict, one nested in a training checkpoint, a whole module, NumPy arrays; TorchScript, whose program
    is not looked at; and a folder of transformers. A prefix that at least half of the keys have is removed if a
    training wrapper puts it there.

    Raises:
        CheckpointError: the file is missing or damaged, or holds no weights.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as exc:  # a name that no file can have
        raise CheckpointError(f"cannot read {describe(path)}: {exc}") from exc
    if is_folder:
        found = _read_folder(path)
    elif path.name.endswith(".index.json"):
        found = _read_shards(path)
    elif _is_safetensors(path):
        found = _read_safetensors(path)
    else:
        found = _read_torch(path)
    weights, dropped = _strip_prefixes(found.weights)
    floats = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    return WeightFile(floats, {**found.dropped, **dropped}, found.metadata, found.config)


def is_torchscript(path: Path) -> bool:
    """True for what `torch.jit.save` wrote."""
    return any(name.endswith("/constants.pkl") for name in _archive(path)) and not is_exported_program(path)


def is_exported_program(path: Path) -> bool:
    """True for what `torch.export.save` wrote."""
    names = _archive(path)
    return any(
        name.endswith("/models/model.json") or name.split("/")[-1] == "serialized_exported_program.json"
        for name in names
    )


def some(items: Iterable[object]) -> str:
    """The first few items, and the number of the rest."""
    listed = [str(item) for item in items]
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _archive(path: Path) -> list[str]:
    """Names in a zip archive; none if the file is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _is_safetensors(path: Path) -> bool:
    """True for safetensors, False for PyTorch, by the first bytes of the file."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except (OSError, ValueError) as exc:  # no file can have such a name
        raise CheckpointError(f"cannot read the checkpoint {path}: {getattr(exc, 'strerror', exc)}") from exc
    if not head:
        raise CheckpointError(f"{path} is empty; copy or download it again")
    if head.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)):
        return False
    # Eight bytes of header length, then the JSON header.
    if head[8:] == b"{":
        return True
    if head.startswith(b"version "):
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the weights; fetch them: git lfs pull")
    raise CheckpointError(
        f"{path} is neither a safetensors file nor a PyTorch checkpoint (it starts with {head!r}). {_RESAVE}"
    )


def _read_folder(folder: Path) -> WeightFile:
    """Read a folder of transformers: weights, whole or in shards, beside `config.json`."""
    for name in _FOLDER:
        if (folder / name).is_file():
            found = read_weights(folder / name)
            return WeightFile(found.weights, found.dropped, found.metadata, read_config(folder))
    raise CheckpointError(
        f"{folder} is a directory without weights; expected a weights file (.safetensors, .pt, .pth), or in the "
        f"directory one of {', '.join(_FOLDER)}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder; empty where there is none.

    Raises:
        CheckpointError: it is no JSON object.
    """
    return _read_json(folder / "config.json") if (folder / "config.json").exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise _damaged(path, exc) from exc
    if not isinstance(stated, dict):
        raise CheckpointError(f"{path} holds a {type(stated).__name__}; expected a JSON object")
    return stated


def _read_shards(index: Path) -> WeightFile:
    """Read all files that an index names; every key must be in the file that the index says."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} has no weight_map; expected an index of shards: key → file")
    weights: dict[str, Tensor] = {}
    for file in dict.fromkeys(places.values()):
        if Path(file).name != file:
            raise CheckpointError(f"{index} names the file {file!r}; expected files beside the index")
        if not (index.parent / file).exists():
            lost = [key for key, place in places.items() if place == file]
            raise CheckpointError(
                f"{index} needs {file}, which is not there: {len(lost)} of {len(places)} tensors are missing "
                f"({some(lost)}). Copy or download all of its files"
            )
        shard = index.parent / file
        found = _read_safetensors(shard) if _is_safetensors(shard) else _read_torch(shard)
        weights |= found.weights
    lost = [key for key in places if key not in weights]
    if lost:
        raise CheckpointError(
            f"{index} names {len(lost)} tensors that its files lack: {some(lost)}", missing=tuple(lost)
        )
    return WeightFile(weights)


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            return WeightFile(tensors, metadata=dict(file.metadata() or {}))
    except SafetensorError as exc:
        raise _damaged(path, exc) from exc


def _read_torch(path: Path) -> WeightFile:
    if is_exported_program(path):
        raise CheckpointError(f"{path} is a program of torch.export, not weights. Export it without an architecture")
    try:
        if is_torchscript(path):
            stored = _unpickle_script(path)
            tensors = dict(_script_tensors(stored, "", 0))
            if tensors:
                return WeightFile(tensors)
        else:
            stored = _unpickle(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as exc:
        raise _damaged(path, exc) from exc
    except (TypeError, KeyError, IndexError, AttributeError, AssertionError, MemoryError, RecursionError) as exc:
        # A pickle is a program, and a damaged one may do anything with what it finds.
        raise _damaged(path, exc) from exc
    return _find_weights(stored, path)


def _unpickle_script(path: Path) -> object:
    """The attributes of a TorchScript file; torch.jit.load would run its `__setstate__`, which may write files."""
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as out:
        for entry in archive.infolist():
            _, _, name = entry.filename.partition("/")
            if name == "data.pkl" or name.startswith("data/") or name in ("version", "byteorder"):
                if entry.file_size > entry.compress_size:
                    raise ValueError(f"{name} is compressed, which torch.jit.save never does")
                out.writestr(entry.filename, archive.read(entry))
    plain.seek(0)
    return torch.load(plain, map_location="cpu", weights_only=False, pickle_module=inert_pickle, encoding="latin1")


def _script_tensors(module: object, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """State dict of a module of TorchScript, whose attributes are its tensors and submodules."""
    for key, value in module.state.items() if isinstance(module, Inert) and depth < _MAX_DEPTH else ():
        tensor = _tensor(value)
        if tensor is not None:
            yield f"{prefix}{key}", tensor
        yield from _script_tensors(value, f"{prefix}{key}.", depth + 1)


def _unpickle(path: Path) -> object:
    with path.open("rb") as file:
        if file.read(2) == _ZIP_MAGIC:
            _check_archive(path)
        else:
            file.seek(0)
            first = inert_pickle.load(file, encoding="latin1")
            if first != _TORCH_MAGIC:
                return first  # by pickle.dump, without torch.save
        file.seek(0)
        # Not torch's own `weights_only`, which refuses a file for any class that it does not know.
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=inert_pickle, encoding="latin1")


def _check_archive(path: Path) -> None:
    """Raise if the archive unpacks to more than its own size: torch stores tensors as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as exc:
        raise ValueError(str(exc)) from exc
    if unpacked > path.stat().st_size:
        raise ValueError(f"{path.stat().st_size} bytes unpack to {unpacked}, which torch.save never writes")


def _damaged(path: Path, exc: BaseException) -> CheckpointError:
    reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    return CheckpointError(f"{path} is truncated or damaged ({reason}); copy or download it again")


def _find_weights(stored: object, path: Path) -> WeightFile:
    """The mapping of names to tensors in an object, wherever it is; the rest is dropped by name."""
    found = list(_state_dicts(stored, (), set()))
    if not found:
        raise CheckpointError(_without_weights(stored, path))
    where, chosen = min(found, key=lambda each: (_rank(each[0]), -len(each[1])))
    dropped = {
        ".".join(other): f"other weights; those of {'.'.join(where) or 'the file itself'} are taken"
        for other, _ in found
        if other != where[: len(other)]
    }
    node = stored
    for depth, step in enumerate((*where, None)):
        if _is_module(node):
            break
        for key, value in _entries(node).items():
            name = ".".join((*where[:depth], str(key)))
            if str(key) != step and not (step is None and key in chosen):
                dropped.setdefault(name, _not_a_weight(value))
        node = next((value for key, value in _entries(node).items() if str(key) == step), None)
    return WeightFile(chosen, dropped)


def _rank(where: tuple[str, ...]) -> int:
    """Order of preference: under a usual name of weights, then anywhere."""
    last = where[-1] if where else ""
    return WRAPPERS.index(last) if last in WRAPPERS else len(WRAPPERS)


def _state_dicts(value: object, where: tuple[str, ...], seen: set[int]) -> Iterator[_Found]:
    """(path, key → tensor) of every mapping or module that holds tensors; each object is looked at once."""
    if id(value) in seen or len(where) > _MAX_DEPTH:
        return
    seen.add(id(value))
    if _is_module(value):
        tensors = dict(_module_tensors(value, "", 0))
    else:
        read = {key: _tensor(item) for key, item in _entries(value).items() if isinstance(key, str)}
        tensors = {key: tensor for key, tensor in read.items() if tensor is not None}
        for key, item in _entries(value).items():
            if key not in _TRAINING:
                yield from _state_dicts(item, (*where, str(key)), seen)
    if tensors:
        yield where, tensors


def _is_module(value: object) -> TypeGuard[Inert]:
    return isinstance(value, Inert) and "_modules" in value.state


def _module_tensors(module: Inert, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """State dict of a pickled `nn.Module` whose classes are not at hand."""
    transient = module.state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        for key, value in _entries(module.state.get(kind)).items():
            tensor = _tensor(value)
            if tensor is not None and not (isinstance(transient, set) and key in transient):
                yield f"{prefix}{key}", tensor
    if depth < _MAX_DEPTH:
        for key, child in _entries(module.state.get("_modules")).items():
            if isinstance(child, Inert):
                yield from _module_tensors(child, f"{prefix}{key}.", depth + 1)


def _entries(value: object) -> Mapping[Any, object]:
    """Items of a mapping, or of what stands for one; attributes of what stands for another object."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Inert):
        return value.entries or value.state
    return {}


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Array) and value.array is not None:
        return torch.tensor(value.array.astype(value.array.dtype.newbyteorder("=")))
    return None


def _not_a_weight(value: object) -> str:
    if _tensor(value) is not None:
        return "a tensor beside the weights"
    return "a Python object, which is not read" if isinstance(value, Inert) else "not a tensor"


def _without_weights(stored: object, path: Path) -> str:
    if isinstance(stored, Mapping) and not stored:
        return f"{path} holds no state dict: no entries. {_RESAVE}"
    if not _entries(stored):
        kind = stored.kind if isinstance(stored, Inert) else type(stored).__name__
        return f"{path} holds a {kind}; expected a state dict. {_RESAVE}"
    return (
        f"{path} holds no tensors under names, at any depth: {some(_entries(stored))}. Expected a state dict, at the "
        f"top level or nested. {_RESAVE}"
    )


def _strip_prefixes(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Remove prefixes of training wrappers that at least half of the keys have; the keys without are dropped."""
    dropped: dict[str, str] = {}
    while True:
        for prefix in PREFIXES:
            inside = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
            if inside and 2 * len(inside) >= len(state_dict):
                outside = (key for key in state_dict if key not in inside)
                dropped |= dict.fromkeys(outside, f"outside of {prefix.removesuffix('.')}, which holds the network")
                state_dict = {key.removeprefix(prefix): value for key, value in inside.items()}
                break
        else:
            return state_dict, dropped
