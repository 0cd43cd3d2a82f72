"""Small ONNX graphs with known answers, made in milliseconds, and bundles of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atrous.bands import Bands
from atrous.bundle import MANIFEST_FILE, Bundle
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.normalization import Normalization
from atrous.exporter.options import PackOptions
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import ResizePolicy, Size, SizePolicy

#: `logits == pixels`: what enters the graph is what leaves it.
PLAIN = Normalization(color_order="RGB", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)


@dataclass(frozen=True)
class Conv:
    """One convolution: weight [out, in, k, k] float32, padded so that only the stride changes the size."""

    weight: NDArray[np.float32]
    stride: int = 1
    dilation: int = 1
    relu: bool = False


def color_layers(stride: int) -> list[Conv]:
    """Logits = every `stride`-th pixel: class 0, 1 or 2 is the channel that is largest there."""
    return [Conv(np.eye(3, dtype=np.float32)[:, :, None, None], stride=stride)]


def local_layers(classes: int, *, halvings: int = 3, dilation: int = 1, bands: int = 3) -> list[Conv]:
    """A random network of stride 2^halvings; beyond its strided layers it sees `dilation` cells to each side."""
    rng = np.random.default_rng(1)
    channels = 8

    def weight(outputs: int, inputs: int, size: int) -> NDArray[np.float32]:
        return (rng.standard_normal((outputs, inputs, size, size)) / np.sqrt(inputs * size**2)).astype(np.float32)

    layers = [Conv(weight(channels, bands if i == 0 else channels, 3), stride=2, relu=True) for i in range(halvings)]
    context = Conv(weight(channels, channels, 3), dilation=dilation, relu=True)
    head = weight(classes, channels, 1)
    return [*layers, context, Conv(head - head.mean(axis=1, keepdims=True))]


def lesion_layers(stride: int) -> list[Conv]:
    """One channel: every `stride`-th pixel's red above its blue, a logit between −25.5 and 26.3.

    A little green keeps grey pixels, of which photos have many, off the threshold 0.5, where rounding decides.
    """
    weight = np.array([0.1, 0.003, -0.1], np.float32)
    return [Conv(weight[None, :, None, None], stride=stride)]


def save_graph(path: Path, layers: Sequence[Conv], *, size: Size | None = None) -> Path:
    """Write the layers as an ONNX file: [1, bands, *size], or any [N, bands, H, W] where `size` is None."""
    nodes, tensors, value = [], [], "image"
    for index, layer in enumerate(layers):
        tensors.append(numpy_helper.from_array(layer.weight, f"w{index}"))
        padding = layer.dilation * (layer.weight.shape[2] // 2)
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"w{index}"],
                [f"c{index}"],
                strides=[layer.stride] * 2,
                dilations=[layer.dilation] * 2,
                pads=[padding] * 4,
            )
        )
        value = f"c{index}"
        if layer.relu:
            nodes.append(helper.make_node("Relu", [value], [f"r{index}"]))
            value = f"r{index}"
    bands = layers[0].weight.shape[1]
    shape = ["N", bands, "H", "W"] if size is None else [1, bands, *size]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", len(layers[-1].weight), "h", "w"])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def make_bundle(
    path: Path,
    layers: Sequence[Conv],
    *,
    fixed: Size | None = None,
    sizes: DynamicSize | None = None,
    normalization: Normalization = PLAIN,
    resize: ResizePolicy = "none",
    align_corners: bool = False,
    threshold: float | None = None,
    bands: Bands | None = None,
) -> Bundle:
    """Pack the layers, through the real `pack`, as `path`; `fixed` or `sizes` says what the graph takes.

    Bands are normalized by their ranges, and `normalization` is that of RGB.

    One channel is a sigmoid's, with two classes.
    """
    graph = save_graph(path.with_suffix(".onnx"), layers, size=fixed)
    return pack(
        graph,
        path,
        classes=[f"class {index}" for index in range(max(2, len(layers[-1].weight)))],
        size=sizes,
        preprocessing=Preprocessing(normalization if bands is None else None, resize),
        align_corners=align_corners,
        options=PackOptions(threshold=threshold),
        bands=bands,
    )


def put_logits_on_pixels(bundle: Bundle) -> Bundle:
    """The bundle, rewritten as for a network of sizes k · multiple + 1; strided convolutions answer k + 1 there."""
    inputs = bundle.manifest.input
    low, mid, high = ((height + 1, width + 1) for height, width in (inputs.size.min, inputs.size.opt, inputs.size.max))
    size = SizePolicy(low, mid, high, inputs.size.multiple, offset=1)
    manifest = dataclasses.replace(bundle.manifest, input=dataclasses.replace(inputs, size=size))
    (bundle.path / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(bundle.path)
