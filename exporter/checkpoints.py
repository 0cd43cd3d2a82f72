"""Copies the weights of a checkpoint into a reference network, and accounts for every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from torch import Tensor, nn

from ..arguments import check_arguments
from ..errors import CheckpointError
from .models.adapters import CLASSIFIER_WEIGHTS, STEP_COUNTER, TRAINING_HEADS, detect_source, foreign_names
from .models.registry import ARCHITECTURES
from .options import Source, SourceChoice
from .weight_files import WeightFile, some

#: Class of transformers, and the width of its first transformer → its network here.
HF_NETWORKS: Final = {
    ("MobileNetV2ForSemanticSegmentation", None): "deeplabv3_mobilenet_v2_hf",
    ("MobileViTForSemanticSegmentation", 144): "deeplabv3_mobilevit_small_hf",
    ("MobileViTForSemanticSegmentation", 96): "deeplabv3_mobilevit_x_small_hf",
    ("MobileViTForSemanticSegmentation", 64): "deeplabv3_mobilevit_xx_small_hf",
}


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a safetensors file (`__metadata__`), or what `config.json` of a folder of transformers says.

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


def describe_checkpoint(file: WeightFile, path: str | Path) -> CheckpointMetadata:
    """Read what a checkpoint says of its network: metadata of safetensors, or `config.json` of a folder.

    Raises:
        CheckpointError: its output stride is not a number, or its classes are not numbered from 0.
    """
    if file.config:
        return _describe_config(file.config, path)
    stated = file.metadata
    stride = stated.get("output_stride")
    if stride is not None and not stride.isdecimal():
        raise CheckpointError(f"{path}: invalid output_stride {stride!r} in the metadata; expected a number such as 16")
    classes = tuple(name.strip() for name in stated.get("classes", "").split(",") if name.strip())
    return CheckpointMetadata(stated.get("architecture"), classes, None if stride is None else int(stride))


def _describe_config(config: Mapping[str, Any], path: str | Path) -> CheckpointMetadata:
    """The network of a folder of transformers; empty where it is none of those that are known."""
    width = (config.get("hidden_sizes") or [None])[0]
    keys = ((name, width) for name in config.get("architectures") or ())
    known = [HF_NETWORKS[key] for key in keys if key in HF_NETWORKS]
    if not known:
        return CheckpointMetadata()
    stride, names = config.get("output_stride"), config.get("id2label") or {}
    try:
        classes = tuple(str(names[str(index)]) for index in range(len(names)))
    except (KeyError, TypeError) as exc:
        raise CheckpointError(f"{path}: the id2label of config.json does not number its classes from 0") from exc
    return CheckpointMetadata(known[0], classes, stride if isinstance(stride, int) else None)


@check_arguments
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
    raise CheckpointError(f"the checkpoint has no known classifier: expected one of {expected}; got {some(state_dict)}")


@check_arguments
def load_into(model: nn.Module, state_dict: Mapping[str, Tensor], *, source: SourceChoice = "auto") -> LoadReport:
    """Copy a state dict into a model, translating foreign key names and accounting for every key.

    Args:
        model: a reference network, or any `nn.Module` whose own key names the state dict uses.
        state_dict: key → tensor, as `read_weights` finds them.
        source: library whose key names the state dict uses; `auto` detects it by the classifier's key.

    Returns:
        The number of tensors copied, and the ignored keys.

    Raises:
        CheckpointError: the model computes something else than the source's, or keys are missing, unexpected or
            misshapen (named as in the state dict). The model is then unchanged.
    """
    check_source(source)
    origin = detect_source(state_dict) if source == "auto" else source
    names = foreign_names(model, origin, state_dict)
    if names is None:
        raise CheckpointError(_unfit(model, origin))
    own_keys = {}
    for own_key in model.state_dict():
        module, _, parameter = own_key.rpartition(".")
        if parameter != STEP_COUNTER:
            own_keys[f"{names[module]}.{parameter}" if module else parameter] = own_key
    dropped = _drop(state_dict, origin)
    kept = {key: value for key, value in state_dict.items() if key not in dropped}
    _check_keys(model, own_keys, kept)
    model.load_state_dict({own_keys[key]: value for key, value in kept.items()}, strict=False)
    return LoadReport(source=origin, loaded=len(kept), dropped=dropped)


def check_source(source: SourceChoice) -> None:
    """Raise `CheckpointError` for a project that is not known."""
    if source not in get_args(SourceChoice):
        raise CheckpointError(f"unknown source {source!r}; expected {', '.join(get_args(SourceChoice))}")


def _drop(state_dict: Mapping[str, Tensor], source: Source) -> dict[str, str]:
    dropped = {}
    prefix, reason = TRAINING_HEADS.get(source, ("", ""))
    for key in state_dict:
        if prefix and key.startswith(prefix):
            dropped[key] = reason
        elif key.rpartition(".")[2] == STEP_COUNTER:
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
            f"missing {some(missing)}" if missing else "",
            f"unexpected {some(unexpected)}" if unexpected else "",
            f"misshapen {some(_shapes(misshapen))}" if misshapen else "",
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


def _unfit(model: nn.Module, source: Source) -> str:
    fitting = ", ".join(name for name, entry in ARCHITECTURES.items() if source in entry.sources)
    return (
        f"{source} weights do not fit this {type(model).__name__}: its layers differ, or the order in which strides "
        f"become atrous rates. Build one of: {fitting}"
    )
