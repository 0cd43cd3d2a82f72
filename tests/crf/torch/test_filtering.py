from __future__ import annotations

import numpy as np
import pytest
import torch
from tolerances import CRF_GRADIENT_RELATIVE

import atrous.crf
from atrous.crf.torch import permutohedral_filter
from atrous.errors import CRFError, DeviceError, ShapeError


@pytest.mark.parametrize("normalization", ["none", "symmetric", "before", "after"])
def test_values_and_gradient(rng, normalization):
    """Values are those of the NumPy function; the gradient is that of its matrix, which unit vectors give."""
    features = rng.normal(size=(3, 4, 5)).astype(np.float32)
    values = torch.from_numpy(rng.normal(size=(2, 4, 5)).astype(np.float32)).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(2, 4, 5)).astype(np.float32))
    options = {"sigmas": (1, 0.5, 2), "normalization": normalization}
    filtered = permutohedral_filter(values, torch.from_numpy(features), **options)
    assert (filtered.detach().numpy() == atrous.crf.permutohedral_filter(values.detach(), features, **options)).all()
    (gradient,) = torch.autograd.grad((filtered * weights).sum(), values)
    matrix = atrous.crf.permutohedral_filter(np.eye(20).reshape(20, 4, 5), features, **options).reshape(20, 20)
    expected = weights.reshape(2, 20).numpy().astype(np.float64) @ matrix.T
    assert np.abs(gradient.reshape(2, 20).numpy() - expected).max() <= CRF_GRADIENT_RELATIVE * np.abs(expected).max()


def test_refuses():
    values, features = torch.ones(1, 6), torch.ones(2, 6)
    with pytest.raises(CRFError, match=r"pass features\.detach\(\)"):
        permutohedral_filter(values, features.clone().requires_grad_())
    with pytest.raises(ShapeError, match=r"values must be float32 \[rows, points…\], got float64 \[1, 6\]"):
        permutohedral_filter(values.double(), features)
    with pytest.raises(ShapeError, match="values must be of the same points"):
        permutohedral_filter(values[:, :5], features)
    with pytest.raises(CRFError, match="values must be finite"):
        permutohedral_filter(values * torch.nan, features)
    with pytest.raises(DeviceError, match="values must be a dense tensor on the CPU"):
        permutohedral_filter(values.to("meta"), features)
    filtered = permutohedral_filter(values.requires_grad_(), features)
    with pytest.raises(CRFError, match="the gradient of filtered values must be finite"):
        (filtered * torch.inf).sum().backward()
