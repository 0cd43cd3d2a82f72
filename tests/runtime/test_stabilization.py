from __future__ import annotations

import math

import numpy as np
import pytest
from segmenters import on_cpu, picture

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import EvaluationError
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.stabilization import COLOR_SIGMA, SAME_COLOR, Flicker

SIZE = (48, 64)


@pytest.fixture
def frames(rng: np.random.Generator) -> list[np.ndarray]:
    """A still scene of a noisy camera."""
    scene = picture(SIZE).astype(int)
    return [np.clip(scene + rng.integers(-4, 5, scene.shape), 0, 255).astype(np.uint8) for _ in range(4)]


@pytest.fixture(params=[False, True], ids=["network", "crf"])
def segmenter(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Segmenter:
    crf = DenseCRF(CRFParams.deeplab_v2_resnet(), iterations=2, threads=1) if request.param else None
    return on_cpu(tiny_bundle, crf)


def test_off_is_what_it_was(segmenter: Segmenter, frames: list[np.ndarray]) -> None:
    for result, frame in zip(segmenter.stream(frames, stabilize=0), frames, strict=True):
        expected = segmenter(frame)
        assert np.array_equal(result.labels, expected.labels)
        assert np.array_equal(result.probabilities, expected.probabilities)


def test_the_definition(segmenter: Segmenter, frames: list[np.ndarray]) -> None:
    """The oracle: in double precision, frame by frame."""
    network = Segmenter(segmenter.bundle, segmenter.backend)
    before = None
    for result, frame in zip(segmenter.stream(frames, stabilize=0.6), frames, strict=True):
        expected = network(frame).probabilities.astype(np.float64)
        if before is not None:
            distance = ((frame.astype(float) - before[0]) ** 2).sum(axis=2)
            weight = 0.6 * np.exp(-distance / (2 * COLOR_SIGMA**2))
            mixed = np.maximum(expected, 1e-5) ** (1 - weight) * np.maximum(before[1], 1e-5) ** weight
            expected = mixed / mixed.sum(axis=0)
        if segmenter.crf is not None:
            expected = segmenter.crf(expected, frame)
        assert abs(result.probabilities - expected).max() < 1e-5
        assert np.array_equal(result.labels, result.probabilities.argmax(axis=0))
        assert result.timings_ms
        before = frame, expected


def test_less_flicker(segmenter: Segmenter, frames: list[np.ndarray]) -> None:
    found = {}
    for share in (0.0, 0.8):
        found[share] = Flicker()
        for result in segmenter.stream(frames, stabilize=share):
            found[share].add(result)
    assert 0 < found[0.8].share < 0.7 * found[0.0].share
    assert found[0.8].still_px == found[0.0].still_px


def test_other_colors_take_no_part(segmenter: Segmenter) -> None:
    frames = [np.full((*SIZE, 3), value, np.uint8) for value in (0, 255)]
    *_, last = segmenter.stream(frames, stabilize=0.9)
    (alone,) = segmenter.stream(frames[1:], stabilize=0.9)
    assert np.array_equal(last.labels, alone.labels)


def test_a_frame_of_another_size_begins_anew(segmenter: Segmenter, frames: list[np.ndarray]) -> None:
    small = frames[1][:40]
    *_, last = segmenter.stream([frames[0], small], stabilize=0.9)
    (alone,) = segmenter.stream([small], stabilize=0.9)
    assert np.array_equal(last.probabilities, alone.probabilities)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, math.nan])
def test_bad_shares(segmenter: Segmenter, share: float) -> None:
    with pytest.raises(EvaluationError, match="at least 0, below 1"):
        segmenter.stream([], stabilize=share)


class TestFlicker:
    def test_counts(self, color_bundle: Bundle) -> None:
        segmenter = on_cpu(color_bundle)
        red, green = (np.zeros((16, 16, 3), np.uint8) for _ in range(2))
        red[..., 0], green[..., 1] = 100, 100
        nearly = red + np.uint8(SAME_COLOR)
        found = Flicker()
        for frame in (red, nearly, green):
            found.add(segmenter(frame))
        assert (found.frames, found.still_px, found.changed_px) == (3, 256, 0)
        grey = np.full((16, 16, 3), 100, np.uint8)
        for frame in (grey + np.array([2, 0, 0], np.uint8), grey + np.array([0, 2, 0], np.uint8)):
            found.add(segmenter(frame))
        assert (found.still_px, found.changed_px) == (512, 256)
        assert found.share == 0.5

    def test_of_nothing(self) -> None:
        assert math.isnan(Flicker().share)
