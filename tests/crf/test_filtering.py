from __future__ import annotations

import numpy as np
import pytest
from crf_oracles import exact_kernel, lattice_kernel, normalized
from tolerances import CRF_LATTICE_ABS

from atrous import _native
from atrous.crf import permutohedral_filter
from atrous.errors import ArgumentError, CRFError, ShapeError


@pytest.mark.parametrize("features", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("normalization", ["none", "symmetric", "before", "after"])
def test_equals_the_lattice_worked_out_step_by_step(rng, features, normalization):
    columns = rng.normal(size=(features, 37)).astype(np.float32)
    values = rng.normal(size=(3, 37)).astype(np.float32)
    got = permutohedral_filter(values, columns, sigmas=0.7, normalization=normalization)
    kernel = normalized(lattice_kernel((columns / np.float32(0.7)).T), 37, normalization)
    assert got == pytest.approx(kernel(values.T.astype(np.float64)).T, abs=CRF_LATTICE_ABS)


def test_means_are_near_the_exact_ones():
    """Smooth values over a grid: a Gaussian blur."""
    y, x = np.mgrid[:24, :30].astype(np.float32)
    values = np.stack([np.sin(x / 5), np.cos(y / 4)])
    got = permutohedral_filter(values, np.stack([x, y]), sigmas=(3, 2), normalization="after")
    features = np.stack([x / 3, y / 2], axis=-1).reshape(-1, 2)
    exact = normalized(exact_kernel(features), len(features), "after")(values.reshape(2, -1).T).T.reshape(values.shape)
    assert np.abs(got - exact).mean() <= 0.02
    assert got.shape == values.shape
    assert got.dtype == np.float32


def test_ones_keep_their_value_as_means(rng):
    features = rng.normal(size=(4, 50))
    assert permutohedral_filter(np.ones((1, 50)), features, normalization="after") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("features", [33, 40, 65, 300])
def test_more_than_32_features(rng, features):
    """Points far from each other are alone; equal ones share."""
    columns = rng.normal(size=(features, 6)).astype(np.float32) * 20
    columns[:, 3] = columns[:, 1]
    values = rng.normal(size=(2, 6)).astype(np.float32)
    got = permutohedral_filter(values, columns, normalization="after")
    expected = values.copy()
    expected[:, [1, 3]] = values[:, [1, 3]].mean(axis=1, keepdims=True)
    assert got == pytest.approx(expected, abs=1e-4)


def test_the_transposed_filter_is_the_transposed_matrix(rng):
    features = rng.normal(size=(3, 40)).astype(np.float32)
    for normalization in ("none", "symmetric"):
        lattice = _native.Filter()
        lattice.build_from_features(features, normalization)
        units = np.eye(40, dtype=np.float32)
        forward, back = lattice.apply(units), lattice.apply(units, is_transposed=True)
        assert np.abs(forward - back.T).max() <= CRF_LATTICE_ABS
        assert np.abs(forward - forward.T).max() > 1e-3  # the order of the axes matters


def test_a_filter_that_is_normalised_on_one_side_has_no_transpose(rng):
    lattice = _native.Filter()
    lattice.build_from_features(rng.normal(size=(2, 9)).astype(np.float32), "after")
    with pytest.raises(CRFError, match="normalised on one side"):
        lattice.apply(np.ones((1, 9), np.float32), is_transposed=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"values": np.ones((2, 5))},
            ShapeError,
            r"features must be of the same points: expected \[2, 5\], got \[2, 6\]",
        ),
        ({"values": np.ones(6)}, ShapeError, r"values must be numbers \[rows, points…\], got float64 \[6\]"),
        ({"values": np.full((1, 6), np.nan)}, ShapeError, r"values must be finite, got nan at \[0, 0\]"),
        ({"values": np.ones((1, 6), complex)}, ShapeError, "values must be numbers"),
        ({"features": np.full((2, 6), np.inf)}, ShapeError, "features must be finite"),
        ({"features": np.ones((2049, 6), np.float32)}, ShapeError, "up to 2048 features of a point, got 2049"),
        ({"features": np.arange(12.0).reshape(2, 6) * 1e9}, CRFError, "exceed 16 bits"),
        ({"sigmas": 0}, CRFError, "must be positive and finite, got 0.0"),
        ({"sigmas": (1, 2, 3)}, CRFError, r"one for each of 2 features, got shape \[3\]"),
        ({"sigmas": "abc"}, CRFError, "sigmas must be a number or one for each feature, got str"),
        ({"normalization": "both"}, CRFError, "normalization must be one of none, before, after, symmetric"),
        ({"normalization": 3}, ArgumentError, "normalization must be"),
        ({"threads": -1}, CRFError, "threads must be 0 to"),
    ],
)
def test_refuses(change, error, message):
    given = {"values": np.ones((1, 6)), "features": np.arange(12.0).reshape(2, 6), **change}
    with pytest.raises(error, match=message):
        permutohedral_filter(**given)
