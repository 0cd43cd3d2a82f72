"""Configuration of a model that takes pictures and gives labels: its `config.pbtxt`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ...manifest import Manifest
from .options import TritonOptions
from .pbtxt import Message, Value, Word

#: Triton's types, by NumPy's names.
TRITON_TYPES: Final = {"uint8": Word("TYPE_UINT8"), "uint16": Word("TYPE_UINT16"), "float32": Word("TYPE_FP32")}
_BACKENDS: Final = {"python": "python", "cpp": "atrous"}
_MICROSECONDS: Final = 1000
_BYTE_LABELS: Final = 256


def segmenter_config(name: str, manifest: Manifest, identity: str, options: TritonOptions) -> Message:
    """Configuration of a bundle's model.

    Args:
        name: of the model.
        manifest: of the bundle.
        identity: SHA-256 of the manifest, which has those of all files.
        options: how it runs.
    """
    config: dict[str, Value] = {
        "name": name,
        "backend": _BACKENDS[options.flavour],
        "max_batch_size": options.max_batch,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": _inputs(manifest, options),
        "output": _outputs(manifest),
        "instance_group": [instance_group(options)],
        "dynamic_batching": _batching(options),
        "model_warmup": [_warm_up(manifest, size) for size in options.warm_up or (manifest.input.size.opt,)],
        "parameters": [
            {"key": key, "value": {"string_value": value}}
            for key, value in _parameters(name, manifest, identity, options).items()
        ],
    }
    if options.cache:
        config["response_cache"] = {"enable": True}
    return config


def instance_group(options: TritonOptions) -> Message:
    """Instances on the CPU, or on each GPU."""
    return {"count": options.instances, "kind": Word("KIND_GPU" if options.gpu else "KIND_CPU")}


def _image(manifest: Manifest) -> tuple[Word, int]:
    """Type and number of the bands of an image."""
    bands = manifest.input.bands
    return TRITON_TYPES["uint8" if bands is None else bands.dtype], manifest.input.channels


def _inputs(manifest: Manifest, options: TritonOptions) -> Sequence[Message]:
    kind, channels = _image(manifest)
    image: dict[str, Value] = {"name": "IMAGE", "data_type": kind, "dims": [-1, -1, channels]}
    if options.flavour == "cpp":  # libatrous decodes no files
        return [image]
    encoded: Message = {"name": "ENCODED", "data_type": TRITON_TYPES["uint8"], "dims": [-1], "optional": True}
    return [{**image, "optional": True}, encoded]


def _outputs(manifest: Manifest) -> Sequence[Message]:
    classes = len(manifest.classes)
    labels = TRITON_TYPES["uint8" if classes <= _BYTE_LABELS else "uint16"]
    return [
        {"name": "LABELS", "data_type": labels, "dims": [-1, -1]},
        {"name": "CONFIDENCE", "data_type": TRITON_TYPES["uint8"], "dims": [-1, -1]},
        {"name": "PROBABILITIES", "data_type": TRITON_TYPES["float32"], "dims": [classes, -1, -1]},
    ]


def _batching(options: TritonOptions) -> Message:
    """Batches of equal sizes where there is a batch axis, and a queue that refuses what it cannot hold in any case."""
    policy: dict[str, Value] = {"max_queue_size": options.queue, "timeout_action": Word("REJECT")}
    if options.queue_timeout_ms:
        policy["default_timeout_microseconds"] = options.queue_timeout_ms * _MICROSECONDS
    batching: dict[str, Value] = {"default_queue_policy": policy}
    if options.max_batch > 1:
        batching["preferred_batch_size"] = [options.max_batch]
        batching["max_queue_delay_microseconds"] = options.batch_delay_us
    return batching


def _warm_up(manifest: Manifest, size: tuple[int, int]) -> Message:
    """A black image: random bytes are no numbers as floats, and a warm-up that fails takes tritonserver 2.51 down."""
    kind, channels = _image(manifest)
    height, width = size
    image: Message = {"data_type": kind, "dims": [height, width, channels], "zero_data": True}
    return {"name": f"{height}x{width}", "batch_size": 1, "inputs": [{"key": "IMAGE", "value": image}]}


def _parameters(name: str, manifest: Manifest, identity: str, options: TritonOptions) -> dict[str, str]:
    """Texts for the model's code, and for whoever asks the server what it runs."""
    classes = [{"name": each.name, "color": each.color} for each in manifest.classes]
    return {
        "bundle": f"{name}.atrous",
        "bundle_sha256": identity,
        "backend": options.backend,
        "precision": options.precision,
        "crf": "true" if options.crf else "false",
        "threads": str(options.threads),
        "classes": json.dumps(classes, ensure_ascii=False),
    }
