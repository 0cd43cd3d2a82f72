"""Sensitivity of each layer: the accuracy drop with only that layer in INT8, and the gain with only that one kept.

N layers make 2 N graphs. They are therefore compared on a few images of moderate size (`sensitivity_batches`), derived
from one parsed graph without the checks of the final graph, and run in parallel with one thread each: on two busy cores
this took half the time of running them in sequence with two threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..arrays import FloatArray, Labels
from ..exporter.activations.session import ActivationSession
from ..exporter.passes.base import pass_errors
from ..exporter.passes.nodes import node_name
from ..exporter.verify import photo_inputs
from ..manifest import InputSpec, OutputSpec
from ..runtime.backends.onnxruntime import OnnxSession
from ..runtime.image import ImageSource, load_image
from ..runtime.postprocess import upsample_labels
from .parallel_map import parallel_map
from .plan import QuantizationPlan
from .qdq import InsertQdq

#: Images are cropped to this size if the graph allows it. Four crops of the demo's training images rank its layers by
#: `alone_drop` almost as four whole images do (Spearman's ρ is 0.97), in a third of the time.
CROP_PX: Final = 256
_MAX_IMAGES: Final = 4
_MAX_PIXELS: Final = 1 << 20


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of one layer, in points of agreement with the FP32 labels.

    Attributes:
        sqnr_db: power of its output in FP32 over the power of the output's error in the INT8 graph, in dB.
        alone_drop: points lost with only this layer in INT8.
        kept_gain: points gained by removing only this layer from INT8.
    """

    sqnr_db: float
    alone_drop: float
    kept_gain: float


def sensitivity_batches(images: Sequence[ImageSource], inputs: InputSpec) -> list[FloatArray]:
    """Choose up to four images, evenly spread over `images`, and preprocess them.

    Returns:
        Batches [1, 3, H, W] float32: the central 256×256 pixels of each image, or whole images if the graph does not
        take that size; then only as many as have a million pixels together, but at least one.
    """
    cut = inputs.resize == "none" and not inputs.size.is_fixed
    size = [
        min(high, max(low, CROP_PX)) if cut else high
        for low, high in zip(inputs.size.min, inputs.size.max, strict=True)
    ]
    count = min(_MAX_IMAGES, max(1, _MAX_PIXELS // math.prod(size)), len(images))
    chosen = [load_image(images[index * len(images) // count]) for index in range(count)]
    return list(photo_inputs([_middle(image, *size) for image in chosen] if cut else chosen, inputs))


def measure_sensitivity(
    graph: onnx.ModelProto,
    plan: QuantizationPlan,
    amax: Mapping[str, float],
    batches: Sequence[FloatArray],
    output: OutputSpec,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Sensitivity]:
    """Measure the sensitivity of every layer of a plan.

    Args:
        graph: the FP32 graph.
        plan: a plan with usable ranges, see `usable_plan`.
        amax: tensor → magnitude that maps to 127.
        batches: preprocessed images [1, 3, H, W] float32.
        output: describes the logits.
        progress: called with the number of layers done.

    Returns:
        Layer → sensitivity, in the order of the plan.

    Raises:
        EngineError: ONNX Runtime fails.
    """
    bench = _Bench(graph, amax, batches, output)
    expected = bench.label(None)
    quantized = _agreement(expected, bench.label(plan))
    noise = _output_sqnr_db(bench, plan)

    def measure(name: str) -> Sensitivity:
        alone = _agreement(expected, bench.label(plan.only([name])))
        kept = _agreement(expected, bench.label(plan.without({name: ""})))
        return Sensitivity(noise[name], 100 * (1 - alone), 100 * (kept - quantized))

    names = [layer.name for layer in plan.layers]
    found = {}
    for number, (name, sensitivity) in enumerate(zip(names, parallel_map(measure, names), strict=True), start=1):
        found[name] = sensitivity
        progress(number)
    return found


def rank_layers(found: Mapping[str, Sensitivity]) -> list[str]:
    """Names of the layers, by descending `alone_drop`.

    `kept_gain` is a difference of nearly equal numbers, and its order changes with the images (ρ = 0.4, against 0.97
    for `alone_drop`), so it only breaks ties.
    """
    return sorted(found, key=lambda name: (-found[name].alone_drop, -found[name].kept_gain))


class _Bench:
    """Runs variants of one graph on the same images."""

    def __init__(
        self, graph: onnx.ModelProto, amax: Mapping[str, float], batches: Sequence[FloatArray], output: OutputSpec
    ) -> None:
        self.batches = batches
        self._model = ir.from_proto(graph)
        self._amax = amax
        self._align_corners = output.align_corners

    def variant(self, plan: QuantizationPlan | None) -> onnx.ModelProto:
        """Apply a plan to the graph; None leaves it unchanged."""
        with pass_errors(InsertQdq.__name__):
            model = self._model.clone()
            if plan:
                InsertQdq(plan, self._amax)(model)
            return ir.to_proto(model)

    def label(self, plan: QuantizationPlan | None) -> list[Labels]:
        """Labels [H, W] of each image."""
        session = OnnxSession(self.variant(plan).SerializeToString(), name="a graph under comparison", threads=1)
        return [
            upsample_labels(session.run(batch)[0], batch.shape[2:], align_corners=self._align_corners, threads=1)
            for batch in self.batches
        ]

    def output_of(self, layers: Sequence[str]) -> dict[str, str]:
        """Layer → name of its output."""
        wanted = set(layers)
        found = ((node_name(node), node.outputs[0].name or "") for node in self._model.graph)
        return {name: output for name, output in found if name in wanted}


def _output_sqnr_db(bench: _Bench, plan: QuantizationPlan) -> dict[str, float]:
    """Layer → SQNR in dB of its output with the whole plan applied, errors of the layers before it included."""
    outputs = bench.output_of([layer.name for layer in plan.layers])
    exact, quantized = (ActivationSession(bench.variant(each), list(outputs.values())) for each in (None, plan))
    powers = np.zeros((2, len(outputs)))
    for batch in bench.batches:
        powers += np.array(list(_powers(exact.run(batch), quantized.run(batch)))).T
    return {name: _decibels(*power) for name, power in zip(outputs, powers.T, strict=True)}


def _powers(exact: Mapping[str, FloatArray], quantized: Mapping[str, FloatArray]) -> Iterator[tuple[float, float]]:
    """Sums of squares of each value and of its error."""
    for name, expected in exact.items():
        error = expected - quantized[name]
        yield float(np.vdot(expected, expected)), float(np.vdot(error, error))


def _decibels(signal: float, noise: float) -> float:
    """Ratio in dB; infinite without noise."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.float64(signal) / noise)) if noise else float("inf")


def _agreement(expected: Sequence[Labels], actual: Sequence[Labels]) -> float:
    """Share of pixels with the same label, 0–1."""
    same = sum(int(np.count_nonzero(one == other)) for one, other in zip(expected, actual, strict=True))
    return same / sum(labels.size for labels in expected)


def _middle(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    top, left = (
        max(0, (length - wanted) // 2) for length, wanted in zip(image.shape[:2], (height, width), strict=True)
    )
    return image[top : top + height, left : left + width]
