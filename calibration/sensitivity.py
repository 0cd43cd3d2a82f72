"""Sensitivity of each layer: the accuracy drop with only that layer in INT8, and the gain with only that one kept.

N layers make N graphs and more. They are therefore compared on a few images of moderate size (`sensitivity_batches`),
on the first half of them alone where that settles the ranking; what lies in front of a layer is computed once for many
(`tails`); graphs are derived from one parsed graph without the checks of the final one, and run in parallel with one
thread each: on two busy cores this took half the time of running them in sequence with two threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..arrays import FloatArray, Labels
from ..exporter.activations.session import ActivationSession, input_name
from ..exporter.passes.base import pass_errors
from ..exporter.passes.nodes import node_name
from ..exporter.verify import photo_inputs
from ..manifest import InputSpec, OutputSpec
from ..runtime.band_images import Pixels, load_pixels
from ..runtime.image import ImageSource
from ..runtime.postprocess import upsample_labels
from ..runtime.preprocess import Geometry
from .parallel_map import parallel_map
from .plan import QuantizationPlan
from .qdq import InsertQdq
from .tails import TailSession, cut_in_front_of, tail_of

#: Images are cropped to this size if the graph allows it. Four crops of the demo's training images rank its layers by
#: `alone_drop` almost as four whole images do (Spearman's ρ is 0.97), in a third of the time.
CROP_PX: Final = 256
_MAX_IMAGES: Final = 4
_MAX_PIXELS: Final = 1 << 20
#: Cuts at which values are kept.
_CUTS: Final = 8
#: Layers at the front of the ranking whose `kept_gain` is measured.
_MAX_KEPT: Final = 8
#: Correlation that the ranking by half of the images must be expected to have with the ranking by all of them.
_SETTLED: Final = 0.97


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of one layer, in points of agreement with the FP32 labels.

    Attributes:
        sqnr_db: power of its output in FP32 over the power of the output's error in the INT8 graph, in dB.
        alone_drop: points lost with only this layer in INT8.
        kept_gain: points gained by removing only this layer from INT8; None where it was not measured, which is only
            done for the layers at the front of the ranking.
    """

    sqnr_db: float
    alone_drop: float
    kept_gain: float | None


def sensitivity_batches(images: Sequence[ImageSource], inputs: InputSpec) -> list[FloatArray]:
    """Choose up to four images, evenly spread over `images`, and preprocess them.

    Returns:
        Batches [1, bands, H, W] float32: the central 256×256 pixels of each image, or whole images if the graph does
        not take that size; then only as many as have a million pixels together, but at least one.
    """
    cut = inputs.resize == "none" and not inputs.size.is_fixed
    size = [
        min(high, max(low, CROP_PX)) if cut else high
        for low, high in zip(inputs.size.min, inputs.size.max, strict=True)
    ]
    count = min(_MAX_IMAGES, max(1, _MAX_PIXELS // math.prod(size)), len(images))
    chosen = [load_pixels(images[index * len(images) // count], inputs.bands) for index in range(count)]
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
        batches: preprocessed images [1, bands, H, W] float32.
        output: describes the logits.
        progress: called with the number of layers done.

    Returns:
        Layer → sensitivity, in the order of the plan.

    Raises:
        EngineError: ONNX Runtime fails.
    """
    bench = _Bench(graph, plan, amax, batches, output)
    noise = _output_sqnr_db(bench, plan)
    names = [layer.name for layer in plan.layers]
    half = -(-len(batches) // 2)
    drops = _drops_alone(bench, names, range(half), progress)
    images = half
    if _is_unsettled(drops, len(batches)):
        drops = np.concatenate([drops, _drops_alone(bench, names, range(half, len(batches)), lambda _: None)], axis=1)
        images = len(batches)
    alone = dict(zip(names, 100 * drops.mean(axis=1), strict=True))
    front = sorted(names, key=lambda name: -alone[name])[:_MAX_KEPT]
    gains = dict(zip(front, parallel_map(lambda name: bench.kept_gain(name, images), front), strict=True))
    return {name: Sensitivity(noise[name], float(alone[name]), gains.get(name)) for name in names}


def _drops_alone(
    bench: _Bench, names: Sequence[str], images: Sequence[int], progress: Callable[[int], None]
) -> NDArray[np.float64]:
    """Share of labels that change with only one layer in INT8: [layers, images]."""
    rows = []
    for number, row in enumerate(parallel_map(lambda name: bench.drops_alone(name, images), names), start=1):
        rows.append(row)
        progress(number)
    return np.array(rows)


def _is_unsettled(drops: NDArray[np.float64], images: int) -> bool:
    """True unless the ranking by these images is expected to be that by all, whose number is `images`.

    With a correlation r of the ranks by two images, means over k of them have a variance of r + (1 − r) / k, and the
    mean over a part correlates with the mean over all as the root of the ratio of their variances.
    """
    part = drops.shape[1]
    if part == images:
        return False
    if part < 2 or len(drops) < 3:
        return True
    ranks = np.argsort(np.argsort(drops, axis=0), axis=0).astype(np.float64)
    pairs = np.corrcoef(ranks.T)[np.triu_indices(part, k=1)]
    common = float(np.mean(pairs))
    variances = [common + (1 - common) / count for count in (images, part)]
    return not (common > 0 and math.sqrt(variances[0] / variances[1]) >= _SETTLED)


def rank_layers(found: Mapping[str, Sensitivity]) -> list[str]:
    """Names of the layers, by descending `alone_drop`.

    `kept_gain` is a difference of nearly equal numbers, and its order changes with the images (ρ = 0.4, against 0.97
    for `alone_drop`), so it only breaks ties.
    """
    return sorted(found, key=lambda name: (-found[name].alone_drop, -(found[name].kept_gain or 0)))


class _Bench:
    """Runs variants of one graph on the same images, each from the cut in front of the layer that makes it differ."""

    def __init__(
        self,
        graph: onnx.ModelProto,
        plan: QuantizationPlan,
        amax: Mapping[str, float],
        batches: Sequence[FloatArray],
        output: OutputSpec,
    ) -> None:
        self.batches = batches
        self._model = ir.from_proto(graph)
        self._plan = plan
        self._amax = amax
        self._align_corners = output.align_corners
        self._cuts = cut_in_front_of(self._model, [layer.name for layer in plan.layers], _CUTS)
        self._exact = self._values_at_cuts(None)
        self._labels = self._label(None, self._exact)

    def variant(self, plan: QuantizationPlan | None) -> onnx.ModelProto:
        """Apply a plan to the graph; None leaves it unchanged."""
        return ir.to_proto(self._changed(plan))

    def drops_alone(self, name: str, images: Sequence[int]) -> list[float]:
        """Share of labels of each image that change with only this layer in INT8."""
        labels = self._label(self._plan.only([name]), [self._exact[index] for index in images], self._cuts[name])
        return [float(np.mean(mine != self._labels[index])) for mine, index in zip(labels, images, strict=True)]

    def kept_gain(self, name: str, images: int) -> float:
        """Points gained on the first images by removing only this layer from INT8."""
        values, quantized = self._quantized
        labels = self._label(self._plan.without({name: ""}), values[:images], self._cuts[name])
        kept = _agreement(self._labels[:images], labels)
        return 100 * (kept - _agreement(self._labels[:images], quantized[:images]))

    @functools.cached_property
    def _quantized(self) -> tuple[list[dict[str, FloatArray]], list[Labels]]:
        """Values at the cuts and labels with the whole plan applied."""
        values = self._values_at_cuts(self._plan)
        return values, self._label(self._plan, values)

    def _changed(self, plan: QuantizationPlan | None) -> ir.Model:
        with pass_errors(InsertQdq.__name__):
            model = self._model.clone()
            if plan:
                InsertQdq(plan, self._amax)(model)
            return model

    def _values_at_cuts(self, plan: QuantizationPlan | None) -> list[dict[str, FloatArray]]:
        graph = self.variant(plan)
        names = dict.fromkeys((input_name(graph), *(name for values in self._cuts.values() for name in values)))
        session = ActivationSession(graph, list(names))
        return [session.run(batch) for batch in self.batches]

    def _label(
        self,
        plan: QuantizationPlan | None,
        values: Sequence[Mapping[str, FloatArray]],
        cut: Sequence[str] | None = None,
    ) -> list[Labels]:
        """Labels [H, W] of each image, from the values at a cut, or from the image."""
        model = self._changed(plan)
        image = str(model.graph.inputs[0].name)
        with pass_errors("cutting a graph"):
            tail = tail_of(model, (image,) if cut is None else cut)
        session = TailSession(tail)
        return [
            upsample_labels(
                session.run(each)[0],
                Geometry(each[image].shape[2:], each[image].shape[2:], "none"),
                align_corners=self._align_corners,
                threads=1,
            )
            for each in values
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


def _middle(image: Pixels, height: int, width: int) -> Pixels:
    top, left = (
        max(0, (length - wanted) // 2) for length, wanted in zip(image.shape[:2], (height, width), strict=True)
    )
    return image[top : top + height, left : left + width]
