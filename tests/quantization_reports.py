"""A report of a quantization that never was, with everything in it that a report can show."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from atrous.calibration.report.model import (
    Accuracy,
    BudgetStep,
    LayerResult,
    QuantizationReport,
    Sample,
    SkippedImage,
    TensorResult,
)
from atrous.manifest import ClassInfo
from atrous.runtime.metrics import Scores, Tally, count

CLASSES = (
    ClassInfo(0, "road", (128, 64, 128)),
    ClassInfo(1, "building", (128, 0, 0)),
    ClassInfo(2, "sky", (128, 128, 128)),
    ClassInfo(3, "bicyclist", (0, 128, 192)),
)
_MOST_CLASSES = 3  # no bicyclist anywhere: its IoU is NaN


def make_report(**changes: Any) -> QuantizationReport:
    """A network of 40 layers on pictures of 96×144, quantized with a budget of half a point."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, _MOST_CLASSES, (6, 9)), np.ones((16, 16), int)).astype(np.uint8)
    samples = tuple(_sample(rng, f"street{index}.jpg", truth) for index in range(2))
    report = QuantizationReport(
        name="street",
        created_by="atrous 0.1.0",
        classes=CLASSES,
        method="entropy",
        seed=0,
        images=128,
        reused=False,
        skipped=(SkippedImage("broken.jpg", "it is truncated"),),
        model_sha256="5e" * 32,
        data_sha256="d1" * 32,
        rest="fp16",
        fp32_bytes=15_047_827,
        int8_bytes=4_200_000,
        accuracy=Accuracy(
            images=len(samples),
            agreement=float(np.mean([sample.fp32_labels == sample.int8_labels for sample in samples])),
            fp32=_scores(truth, [sample.fp32_labels for sample in samples]),
            int8=_scores(truth, [sample.int8_labels for sample in samples]),
        ),
        sensitivity_images=2,
        tensors=tuple(_tensor(rng, f"features_{index}") for index in range(15)),
        layers=_layers(rng),
        max_drop=0.5,
        steps=(
            BudgetStep((), 0.81),
            BudgetStep(("node_conv_7",), 0.52),
            BudgetStep(("node_conv_7", "node_conv_21"), 0.43),
        ),
        samples=samples,
        seconds=41.7,
        versions={"atrous": "0.1.0", "onnxruntime": "1.31.1"},
    )
    return dataclasses.replace(report, **changes)


def without_masks(report: QuantizationReport) -> QuantizationReport:
    """The same, had there been no masks."""
    return dataclasses.replace(report, accuracy=dataclasses.replace(report.accuracy, fp32=None, int8=None))


def _sample(rng: np.random.Generator, title: str, truth: np.ndarray) -> Sample:
    fp32 = np.where(rng.random(truth.shape) < 0.05, (truth + 1) % _MOST_CLASSES, truth).astype(np.uint8)
    int8 = np.where(rng.random(truth.shape) < 0.02, (fp32 + 1) % _MOST_CLASSES, fp32).astype(np.uint8)
    image = (truth[..., None] * 60 + rng.integers(0, 60, (*truth.shape, 3))).astype(np.uint8)
    return Sample(title, image, fp32, int8)


def _scores(truth: np.ndarray, labels: list[np.ndarray]) -> Scores:
    tally = Tally(len(CLASSES))
    for each in labels:
        tally.add(count(truth, each, np.ones(truth.shape, bool), len(CLASSES)))
    return tally.scores()


def _tensor(rng: np.random.Generator, name: str) -> TensorResult:
    magnitudes = np.abs(rng.laplace(scale=rng.uniform(0.2, 1.5), size=20_000))
    counts, _ = np.histogram(magnitudes, bins=2048, range=(0, 32))
    amax = float(np.quantile(magnitudes, 0.9995))
    return TensorResult(
        name, amax, float(magnitudes.max()), float(rng.uniform(24, 42)), counts.astype(np.int64), 1 / 64
    )


def _layers(rng: np.random.Generator) -> tuple[LayerResult, ...]:
    reasons = {0: "the first convolution", 39: "the classifier"}
    reasons |= dict.fromkeys((7, 21), "to hold the budget")
    return tuple(
        LayerResult(
            name=f"node_conv_{index}",
            op="Conv",
            sqnr_db=float(38 - index / 4 + rng.normal()),
            alone_drop=None if index in (0, 39) else float(rng.exponential(0.05)),
            kept_gain=None if index in (0, 39) else float(rng.normal(0.03, 0.03)),
            reason=reasons.get(index),
            module=f"backbone.layer{index}.conv2" if index % 2 else None,
        )
        for index in range(40)
    )
