"""Scores of a few counts are those of `atrous eval`."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.calibration.tune.areas import (
    class_iou,
    class_scores,
    classes_in_truth,
    count_rows,
    mean_score,
    trimap_band,
)
from atrous.calibration.tune.options import TRIMAP_PX
from atrous.runtime.masks import MaskPixels
from atrous.runtime.metrics import Tally, count

CLASSES = 5


@pytest.fixture(scope="module")
def pictures() -> list[tuple[MaskPixels, np.ndarray]]:
    """Masks with void and labels: blocks, some of whose labels are another; class 4 is in no mask."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in ((40, 56), (33, 47), (64, 30)):
        blocks = rng.integers(0, 4, (8, 8), np.uint8).repeat(8, 0).repeat(8, 1)[:height, :width]
        labels = np.where(rng.random((height, width)) < 0.15, rng.integers(0, 5, (height, width)), np.roll(blocks, 2))
        valid = rng.random((height, width)) < 0.9
        made.append((MaskPixels(np.where(valid, blocks, 0).astype(np.uint8), valid, 0), labels.astype(np.uint8)))
    return [(MaskPixels(np.pad(m.ids, 1), np.pad(m.valid, 1), 0), np.pad(lab, 1)) for m, lab in made]


@pytest.mark.parametrize("metric", ["miou", "trimap", "boundary-f"])
def test_scores_are_those_of_eval(pictures, metric):
    tally = Tally(CLASSES)
    rows = []
    for mask, labels in pictures:
        tally.add(count(mask.ids, labels, mask.valid, CLASSES))
        band = trimap_band(mask) if metric == "trimap" else None
        rows.append(count_rows(metric, mask, labels, CLASSES, band))
    images, scores = np.stack(rows), tally.scores()
    everything = np.ones(CLASSES, bool)
    assert class_iou(images) == pytest.approx(scores.iou, nan_ok=True)
    expected = {
        "miou": scores.miou,
        "trimap": scores.trimap_miou[TRIMAP_PX - 1],
        "boundary-f": scores.mean_boundary_f,
    }
    assert mean_score(class_scores(metric, images), everything) == pytest.approx(expected[metric])
    assert classes_in_truth(images).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("metric", ["miou", "trimap", "boundary-f"])
def test_weights_are_repetitions(pictures, metric):
    band = {"trimap": trimap_band}.get(metric, lambda _: None)
    images = np.stack([count_rows(metric, mask, labels, CLASSES, band(mask)) for mask, labels in pictures])
    weights = np.array([[1, 1, 1], [3, 0, 2]])
    found = class_scores(metric, images, weights)
    assert found[0] == pytest.approx(class_scores(metric, images), nan_ok=True)
    assert found[1] == pytest.approx(class_scores(metric, images[[0, 0, 0, 2, 2]]), nan_ok=True)
