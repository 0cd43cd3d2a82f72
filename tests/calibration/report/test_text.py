"""The text summary: what a terminal shows after a quantization."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from quantization_reports import make_report, without_masks

from atrous.calibration.report.model import Accuracy, BudgetStep, LayerResult
from atrous.calibration.report.text import (
    budget_outcome,
    change,
    decibels,
    headline,
    megabytes,
    most_sensitive,
    number,
    percent,
    render_text,
)


def test_the_summary_says_what_was_lost_and_why() -> None:
    report = make_report()
    text = render_text(report)
    for expected in (
        "points of mean IoU",
        "The budget of 0.5 points holds with 2 layers kept in FP16.",
        "36 of 40 layers are INT8; the graph takes 4.2 MB (FP32: 15.0 MB).",
        "Thresholds: entropy, from observing 128 images (seed 0). Total: 42 s.",
        "  node_conv_0: the first convolution",
        "  broken.jpg: it is truncated",
    ):
        assert expected in text
    assert "\n\n" not in text


def test_the_headline_with_masks_counts_mean_iou() -> None:
    report = make_report()
    assert report.accuracy.fp32 is not None
    assert report.accuracy.int8 is not None
    before, after = percent(report.accuracy.fp32.miou), percent(report.accuracy.int8.miou)
    assert headline(report).endswith(f"points of mean IoU: {before} → {after}, over 2 images.")


def test_the_headline_without_masks_counts_agreement() -> None:
    accuracy = Accuracy(images=1, agreement=0.9975)
    report = dataclasses.replace(without_masks(make_report()), accuracy=accuracy)
    assert headline(report) == "INT8 loses 0.25 points of agreement with FP32, over 1 image."


def test_a_gain_is_called_one() -> None:
    report = make_report()
    swapped = dataclasses.replace(report.accuracy, fp32=report.accuracy.int8, int8=report.accuracy.fp32)
    assert headline(dataclasses.replace(report, accuracy=swapped)).startswith("INT8 gains ")


@pytest.mark.parametrize(
    ("max_drop", "steps", "expected"),
    [
        (None, (), None),
        (0.5, (BudgetStep((), 0.2),), "The budget of 0.5 points holds with all layers in INT8."),
        (
            0.1,
            (BudgetStep((), 0.2), BudgetStep(("a", "b"), 0.05), BudgetStep(("a",), 0.08)),
            "The budget of 0.1 points holds with 1 layer kept in FP16.",
        ),
    ],
)
def test_the_budget(max_drop: float | None, steps: tuple[BudgetStep, ...], expected: str | None) -> None:
    assert budget_outcome(make_report(max_drop=max_drop, steps=steps)) == expected


def test_sections_without_content_are_left_out() -> None:
    layers = (LayerResult("a", "Conv"), LayerResult("b", "Conv"))
    text = render_text(make_report(layers=layers, skipped=(), max_drop=None, steps=()))
    assert "In FP16" not in text
    assert "skipped" not in text
    assert "budget" not in text
    assert "sensitive" not in text


def test_thresholds_of_an_earlier_calibration() -> None:
    assert "from an earlier calibration on 128 images" in render_text(make_report(reused=True))


def test_most_sensitive_orders_by_loss() -> None:
    drops = (0.1, None, 0.4, -0.2)
    layers = tuple(LayerResult(str(index), "Conv", alone_drop=drop) for index, drop in enumerate(drops))
    assert [layer.name for layer in most_sensitive(make_report(layers=layers), 2)] == ["2", "0"]


def test_numbers_read_well() -> None:
    assert percent(0.69472) == "69.47 %"
    assert percent(float("nan")) == "–"
    assert [number(value) for value in (0.254, -0.254, -0.004, None)] == ["0.25", "−0.25", "0.00", "–"]
    assert [change(value) for value in (0.254, -0.254, -0.004, float("nan"))] == ["+0.25", "−0.25", "0.00", "–"]
    assert [decibels(value) for value in (31.26, float("inf"), None)] == ["31.3", "∞", "–"]
    assert megabytes(15_047_827) == "15.0 MB"


def test_clipped_share_counts_the_bins_beyond_amax() -> None:
    tensor = dataclasses.replace(
        make_report().tensors[0], amax=2.0, bin_width=1.0, counts=np.array([5, 3, 1, 1], np.int64)
    )
    assert tensor.clipped_share == 0.2
    assert dataclasses.replace(tensor, counts=np.zeros(4, np.int64)).clipped_share == 0
