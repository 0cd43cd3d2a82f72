"""The filters of a CRF as dense matrices, and mean field with them in float64, which autograd differentiates."""

from __future__ import annotations

import numpy as np
import torch
from crf_oracles import colour_features, exact_kernel, normalized, position_features

from atrous import _native
from atrous.crf import CRFParams


def matrix_of(lattice: _native.Filter) -> np.ndarray:
    """The filter's matrix [N, N] float64: what it makes of each unit vector."""
    units = np.eye(lattice.pixels, dtype=np.float32)
    return lattice.apply(units).T.astype(np.float64)


def gaussian_matrix(params: CRFParams, size: tuple[int, int], *, is_exact: bool = False) -> np.ndarray:
    """The smoothness kernel on images of this size: the lattice's, or the exact one."""
    if is_exact:
        return _exact(position_features(*size, params.gaussian_sigma_xy_px))
    lattice = _native.Filter()
    lattice.build_gaussian(*size, (params.gaussian_sigma_xy_px,) * 2)
    return matrix_of(lattice)


def bilateral_matrix(params: CRFParams, image: np.ndarray, *, is_exact: bool = False) -> np.ndarray:
    """The appearance kernel on an image: the lattice's, or the exact one."""
    if is_exact:
        return _exact(colour_features(image, params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb))
    lattice = _native.Filter()
    lattice.build_bilateral(image, (params.bilateral_sigma_xy_px,) * 2, (params.bilateral_sigma_rgb,) * 3)
    return matrix_of(lattice)


def _exact(features: np.ndarray) -> np.ndarray:
    pixels = len(features)
    return normalized(exact_kernel(features), pixels)(np.eye(pixels))


def oracle(
    logits: torch.Tensor,
    parameters: dict[str, torch.Tensor],
    kernels: list[list[torch.Tensor]],
    params: CRFParams,
    iterations: int,
) -> torch.Tensor:
    """Marginals [N, C, H, W] float64 of logits, with a Gaussian and a bilateral matrix for each image."""
    matrix = 0.5 * (parameters["compatibility"] + parameters["compatibility"].T)
    weights = (
        (params.gaussian_weight, parameters["gaussian"]),
        (params.bilateral_weight, parameters["bilateral"]),
    )
    terms = [weight * 0.5 * (f[:, None] + f[None, :]) * matrix for weight, f in weights]
    marginals = []
    for image, filters in zip(logits, kernels, strict=True):
        planes = image.flatten(1)
        minus_unary = torch.softmax(planes, 0).clamp(1e-5, 1.0).log() / parameters["temperature"]
        q = torch.softmax(minus_unary, 0)
        for _ in range(iterations):
            messages = [term @ (q @ each.T) for term, each in zip(terms, filters, strict=True)]
            q = torch.softmax(minus_unary - sum(messages), 0)
        marginals.append(q.reshape(image.shape))
    return torch.stack(marginals)
