"""Metrics against scikit-learn, SciPy and slow, obvious twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from atrous.errors import ShapeError
from atrous.runtime.metrics import (
    BOUNDARY_TOLERANCE,
    MAX_BAND_PX,
    Counts,
    Scores,
    Tally,
    boundary_f_scores,
    count,
    label_edges,
    squared_distances,
)

VOID = 255


def patches(size: tuple[int, int], classes: int, seed: int, *, patch: int = 9) -> NDArray[np.uint8]:
    """A map of square patches of random classes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, [-(-length // patch) for length in size], dtype=np.uint8)
    return coarse.repeat(patch, 0).repeat(patch, 1)[: size[0], : size[1]]


def scene(size: tuple[int, int], classes: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A truth with void, and labels that are like it, a few pixels off."""
    truth = patches(size, classes, seed)
    labels = np.roll(truth, (1, 3), (0, 1))
    truth[patches(size, 8, seed + 1, patch=5) == 0] = VOID
    labels[labels == VOID] = 0
    return truth, labels


def counts(truth: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Counts:
    return count(truth, labels, truth != VOID, classes)


def score(truth: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Scores:
    tally = Tally(classes)
    tally.add(counts(truth, labels, classes))
    return tally.scores()


class TestConfusion:
    @given(
        size=st.tuples(st.integers(1, 60), st.integers(1, 60)), classes=st.integers(2, 256), seed=st.integers(0, 2**32)
    )
    def test_equals_scikit_learn(self, size: tuple[int, int], classes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        truth, labels = rng.integers(0, classes, (2, *size), dtype=np.uint8)
        valid = rng.random(size) < 0.9
        valid.flat[0] = True  # scikit-learn refuses to compare nothing
        expected = confusion_matrix(truth[valid], labels[valid], labels=np.arange(classes))
        found = count(truth, labels, valid, classes).rings.sum(0)
        assert np.array_equal(found, expected)

    @pytest.mark.parametrize("seed", range(3))
    def test_scores_equal_scikit_learn(self, seed: int) -> None:
        truth, labels = scene((70, 90), 6, seed)
        valid = truth != VOID
        found = score(truth, labels, 6)
        assert found.iou == pytest.approx(jaccard_score(truth[valid], labels[valid], average=None), rel=1e-15)
        assert found.miou == pytest.approx(jaccard_score(truth[valid], labels[valid], average="macro"), rel=1e-15)
        assert found.pixel_accuracy == pytest.approx(accuracy_score(truth[valid], labels[valid]), rel=1e-15)

    def test_a_class_that_does_not_occur_has_no_score(self) -> None:
        truth = np.array([[0, 0, 2, 2]], np.uint8)
        found = score(truth, truth, 4)
        assert np.array_equal(found.iou, [1, np.nan, 1, np.nan], equal_nan=True)
        assert found.miou == 1

    def test_an_ignored_class_has_no_score_but_its_labels_are_wrong(self) -> None:
        truth, labels = np.array([[0, 1, 1, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8)
        tally = Tally(2, ignored=frozenset({0}))
        tally.add(count(truth, labels, truth != 0, 2))
        found = tally.scores()
        assert math.isnan(found.iou[0])
        assert math.isnan(found.boundary_f[0])
        assert found.iou[1] == found.miou == found.pixel_accuracy == 2 / 3

    def test_nothing_but_void(self) -> None:
        nothing = np.full((5, 7), VOID, np.uint8)
        found = score(nothing, np.zeros_like(nothing), 3)
        assert found.confusion.sum() == 0
        assert all(map(math.isnan, (found.miou, found.pixel_accuracy, found.mean_boundary_f)))
        assert np.isnan(found.trimap_miou).all()


class TestDistances:
    @pytest.mark.parametrize("reach", [1, 2, 7, 40, 181, 300])
    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (63, 47), (250, 190)])
    def test_equal_those_of_scipy(self, size: tuple[int, int], reach: int, rng: np.random.Generator) -> None:
        targets = rng.random(size) < 0.003
        targets[-1, 0] = True
        expected = np.rint(distance_transform_edt(~targets) ** 2).astype(int)
        found = squared_distances(targets, reach).astype(int)
        near = expected < reach**2
        assert np.array_equal(found[near], expected[near])
        assert (found[~near] >= reach**2).all()

    def test_without_targets_are_out_of_reach(self) -> None:
        assert (squared_distances(np.zeros((9, 12), np.bool_), 5) >= 25).all()


class TestTrimap:
    @pytest.mark.parametrize("size", [(1, 1), (2, 90), (120, 150)])
    def test_rings_equal_scikit_learn_on_the_bands_of_scipy(self, size: tuple[int, int]) -> None:
        truth = patches(size, 4, 0, patch=60)
        labels = patches(size, 4, 1, patch=7)
        truth[: size[0] // 3, : size[1] // 4] = VOID
        valid = truth != VOID
        edges = slow_edges(truth, np.ones_like(valid))
        distance = distance_transform_edt(~edges) if edges.any() else np.full(size, np.inf)
        rings = counts(truth, labels, 4).rings
        for width in range(1, MAX_BAND_PX + 1):
            band = valid & (distance < width)
            found = rings[:width].sum(0)
            assert found.sum() == np.count_nonzero(band)
            if band.any():
                expected = confusion_matrix(truth[band], labels[band], labels=np.arange(4))
                assert np.array_equal(found, expected)

    def test_mean_iou_by_band(self) -> None:
        """An error 3 px wide, 5 px from the only edge."""
        truth = np.zeros((20, 100), np.uint8)
        truth[:, 50:] = 1
        labels = truth.copy()
        labels[:, 55:58] = 0
        found = score(truth, labels, 2).trimap_miou
        assert (found[:5] == 1).all()
        for width, wrong in ((6, 1), (7, 2), (8, 3), (30, 3)):
            assert found[width - 1] == pytest.approx((width / (width + wrong) + (width - wrong) / width) / 2)

    def test_void_makes_edges_and_is_not_scored(self) -> None:
        truth = np.zeros((1, 9), np.uint8)
        truth[0, 4] = VOID
        rings = counts(truth, truth % VOID, 1).rings[:, 0, 0]
        assert rings[:4].tolist() == [2, 2, 2, 2]

    def test_a_truth_without_edges_has_no_bands(self) -> None:
        truth = np.zeros((50, 60), np.uint8)
        found = score(truth, truth, 2)
        assert np.isnan(found.trimap_miou).all()
        assert found.miou == 1


def slow_edges(labels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    height, width = labels.shape
    edges = np.zeros(labels.shape, np.bool_)
    for y, x in np.ndindex(height, width):
        for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= other[0] < height and 0 <= other[1] < width and valid[y, x] and valid[other]:
                edges[y, x] |= labels[y, x] != labels[other]
    return edges


def slow_boundary(truth: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> list[list[int]]:
    """`Counts.boundary` from the distances of all pairs of boundary pixels."""
    valid = truth != VOID
    limit = BOUNDARY_TOLERANCE * math.hypot(*truth.shape)
    rows = []
    for index in range(classes):
        own = [np.argwhere(slow_edges(each, valid) & (each == index)) for each in (labels, truth)]
        distance = np.sqrt(((own[0][:, None] - own[1][None]) ** 2).sum(-1))
        near = distance <= limit
        rows.append([near.any(1).sum(), len(own[0]), near.any(0).sum(), len(own[1])])
    return np.array(rows).T.tolist()


class TestBoundary:
    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 47), (150, 260)])
    def test_equals_the_comparison_of_all_pairs(self, size: tuple[int, int]) -> None:
        truth, labels = scene(size, 4, 3)
        assert counts(truth, labels, 4).boundary.tolist() == slow_boundary(truth, labels, 4)

    @pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)])
    def test_counts_what_is_off_by_less_than_the_tolerance(self, shift: int, expected: float) -> None:
        """A straight edge at 160×320: 0.75 % of the diagonal are 2.7 px."""
        truth, labels = np.zeros((2, 160, 320), np.uint8)
        truth[:, 100:], labels[:, 100 + shift :] = 1, 1
        assert score(truth, labels, 2).mean_boundary_f == expected

    def test_is_the_harmonic_mean_of_precision_and_recall(self) -> None:
        boundary = np.array([[3, 0, 0], [4, 5, 0], [1, 0, 0], [2, 0, 0]])
        found = boundary_f_scores(boundary)
        assert found[0] == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))
        assert found[1] == 0  # a class that the truth lacks
        assert math.isnan(found[2])  # and one that both do

    def test_is_averaged_over_the_pictures_with_the_class(self) -> None:
        tally = Tally(2)
        for right, truth in ((4, 4), (1, 4), (0, 0)):
            empty = np.zeros((MAX_BAND_PX + 1, 2, 2), np.int64)
            tally.add(Counts(empty, np.array([[right, 0], [truth, 0], [right, 0], [truth, 0]])))
        assert tally.scores().boundary_f[0] == (1 + 0.25) / 2

    def test_ends_at_void(self) -> None:
        truth = np.array([[0, 0, VOID, 1, 1]], np.uint8)
        labels = np.array([[0, 0, 0, 1, 1]], np.uint8)
        assert counts(truth, labels, 2).boundary.sum() == 0


def test_edges_are_on_both_sides() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    expected = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 1]], np.bool_)
    assert np.array_equal(label_edges(labels, np.ones_like(expected)), expected)


@pytest.mark.parametrize(
    ("truth", "labels", "said"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"three arrays \[H, W\]"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), r"three arrays \[H, W\]"),
        (np.full((4, 5), 3, np.uint8), np.zeros((4, 5), np.uint8), "ids from 0 to 2; got 3"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), 7, np.uint8), "ids from 0 to 2; got 7"),
    ],
)
def test_arrays_that_do_not_fit(truth: NDArray[np.uint8], labels: NDArray[np.uint8], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        counts(truth, labels, 3)
