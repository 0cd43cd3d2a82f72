from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from atrous.calibration.learn import Example, LearnedCRF, LearnOptions, Score, learn_crf
from atrous.crf import Compatibility, CRFParams, DenseCRF
from atrous.errors import ArgumentError, CRFError, ShapeError

PARAMS = CRFParams(
    bilateral_weight=2,
    bilateral_sigma_xy_px=6,
    bilateral_sigma_rgb=20,
    gaussian_weight=1,
    gaussian_sigma_xy_px=1.5,
)
#: Classes 0 and 2 go together.
TEACHER = Compatibility(
    bilateral=(1.0,) * 3, gaussian=(1.0,) * 3, matrix=((-1.0, 0.0, -0.7), (0.0, -1.0, 0.0), (-0.7, 0.0, -1.0))
)
OPTIONS = LearnOptions(
    iterations=3, epochs=4, learning_rate=0.1, batch_size=2, pull=0.001, balance=0.0, ignore=255, threads=1
)


def examples(seed: int, count: int) -> list[Example]:
    """Scenes of three classes, whose truth is what the CRF with the teacher's compatibility says."""
    rng = np.random.default_rng(seed)
    crf = DenseCRF(PARAMS, iterations=3, compatibility=TEACHER, threads=1)
    y, x = np.mgrid[:24, :30]
    regions = (x // 10 + 2 * (y // 12)) % 3
    made = []
    for _ in range(count):
        noise = rng.integers(-12, 12, (24, 30, 3))
        image = np.clip(regions[..., None] * np.array([30, 25, 40]) + 60 + noise, 0, 255).astype(np.uint8)
        logits = 0.8 * (regions == np.arange(3)[:, None, None]) + rng.normal(size=(3, 24, 30))
        probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
        mask = crf.labels(probabilities, image)
        mask[0, :3] = 255
        made.append(Example(probabilities, image, mask))
    return made


@pytest.fixture(scope="module")
def learned() -> LearnedCRF:
    return learn_crf(examples(1, 6), examples(2, 3), PARAMS, options=OPTIONS)


def mean_iou(crf: DenseCRF, scenes: list[Example]) -> float:
    confusion = np.zeros((3, 3))
    for scene in scenes:
        labels = crf.labels(scene.probabilities, scene.image)
        known = np.asarray(scene.mask) != 255
        np.add.at(confusion, (np.asarray(scene.mask)[known], labels[known]), 1)
    hits = np.diag(confusion)
    return float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean())


def test_finds_the_compatibility_that_made_the_truth(learned):
    """The two classes that go together attract each other, the others do not; images that nobody saw are right."""
    assert learned.is_better
    assert learned.best.held_out_miou > learned.history[0].held_out_miou + 0.2
    matrix = np.array(learned.compatibility.matrix)
    assert (matrix == matrix.T).all()
    assert matrix[0, 2] < -0.5
    assert min(matrix[0, 1], matrix[1, 2]) > 0
    deployed = DenseCRF(learned.params, iterations=learned.iterations, compatibility=learned.compatibility)
    fresh = examples(3, 4)
    assert mean_iou(deployed, fresh) > mean_iou(DenseCRF(PARAMS, iterations=3), fresh) + 0.2


def test_scores_are_those_of_what_is_deployed(learned):
    deployed = DenseCRF(learned.params, iterations=learned.iterations, compatibility=learned.compatibility)
    assert mean_iou(deployed, examples(2, 3)) == pytest.approx(learned.best.held_out_miou, abs=1e-9)


def test_history_and_progress_begin_at_the_start(learned):
    start = learned.history[0]
    assert (start.epoch, math.isnan(start.train_loss)) == (0, True)
    assert [score.epoch for score in learned.history] == list(range(len(learned.history)))
    assert start.held_out_miou == pytest.approx(mean_iou(DenseCRF(PARAMS, iterations=3), examples(2, 3)), abs=1e-9)
    seen: list[Score] = []
    again = learn_crf(
        examples(1, 6), examples(2, 3), PARAMS, options=dataclasses.replace(OPTIONS, epochs=1), progress=seen.append
    )
    assert seen == list(again.history)
    assert again.history[1] == learned.history[1]  # the same seed


def test_learns_only_what_is_asked_for():
    options = dataclasses.replace(OPTIONS, epochs=1, learn=("temperature",))
    result = learn_crf(examples(1, 2), examples(2, 1), PARAMS, options=options)
    assert result.compatibility == Compatibility(bilateral=(1.0,) * 3, gaussian=(1.0,) * 3)


def test_stops_early_and_keeps_the_start_where_nothing_is_better():
    """A rate that throws the parameters far away at once."""
    options = dataclasses.replace(OPTIONS, epochs=10, learning_rate=10.0, patience=2)
    result = learn_crf(examples(1, 2), examples(2, 1), PARAMS, options=options)
    assert len(result.history) == result.best.epoch + 3
    assert not result.is_better
    assert result.params == PARAMS


def test_an_interrupt_ends_it():
    def interrupt(_: Score) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_crf(examples(1, 1), examples(2, 1), PARAMS, options=OPTIONS, progress=interrupt)


def changed(**change):
    return [dataclasses.replace(examples(1, 1)[0], **change)]


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        ([], CRFError, "train has no labelled pixel"),
        (iter(examples(1, 1)), ArgumentError, "train must be a list of Example, or iterable more than once"),
        ([None], ArgumentError, "images must be Example objects; got NoneType"),
        (changed(mask=np.full((24, 30), 255, np.uint8)), CRFError, "train has no labelled pixel"),
        (changed(mask=np.full((24, 30), 3)), ShapeError, "labels must be 0 to 2, or 255 .* got 3 at row 0, column 0"),
        (changed(mask=np.full((24, 30), -1)), ShapeError, "got -1 at row 0"),
        (changed(mask=np.zeros((24, 31), int)), ShapeError, r"the mask must be integers \[24, 30\]"),
        (changed(mask=np.zeros((24, 30))), ShapeError, "the mask must be integers"),
        (changed(image=np.zeros((24, 30), np.uint8)), ShapeError, r"the image must be uint8 \[24, 30, 3\]"),
        (changed(probabilities=np.full((3, 24, 30), np.nan, np.float32)), ShapeError, "must be finite"),
        ([*examples(1, 1), *changed(probabilities=np.full((2, 24, 30), 0.5))], ShapeError, "as many classes"),
    ],
)
def test_refuses(train, error, message):
    with pytest.raises(error, match=message):
        learn_crf(train, examples(2, 1), PARAMS, options=OPTIONS)


def test_refuses_held_out_images_without_labels():
    with pytest.raises(CRFError, match="held_out has no labelled pixel"):
        learn_crf(examples(1, 1), [], PARAMS, options=OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learn": ("sigmas",)}, "learn must be some of weights, compatibility, temperature; got sigmas"),
        ({"learn": ()}, "learn must be some of"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be 0 to 10, got 0.0"),
        ({"pull": -1.0}, "pull must be 0 to"),
        ({"balance": 2.0}, "balance must be 0 to 1"),
    ],
)
def test_refuses_options(change, message):
    with pytest.raises(CRFError, match=message):
        LearnOptions(**change)
