"""Gaussian filtering over any features, as a differentiable function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from numpy.typing import ArrayLike

from ..._native import Filter
from ...arguments import check_arguments_besides
from ...errors import CRFError
from ..filtering import build_lattice, check_options, check_points, filter_norms, finite_rows, scaled_features
from ..params import Normalization
from .checks import check_finite, checked_tensor
from .inference import FilterFunction


@check_arguments_besides("values", "features", "sigmas")
def permutohedral_filter(
    values: torch.Tensor,
    features: torch.Tensor | ArrayLike,
    *,
    sigmas: float | Sequence[float] = 1.0,
    normalization: Normalization = "none",
    threads: int = 0,
) -> torch.Tensor:
    """Filter as `atrous.crf.permutohedral_filter` does, with gradients for `values`.

    Args:
        values: [C, ...] float32 on the CPU.
        features: [F, ...] of the same points, on the CPU. They get no gradient: a tensor that requires one is refused.
        sigmas: standard deviation of all features, or one for each.
        normalization: as in `atrous.crf.permutohedral_filter`.
        threads: CPU threads; 0 uses all cores.

    Returns:
        The filtered values, float32, in the shape of `values`.

    Raises:
        ArgumentError: an argument has the wrong type.
        ShapeError: tensors are not finite, or are of different points.
        DeviceError: a tensor is not on the CPU.
        CRFError: a standard deviation or an option is invalid, or features require a gradient.
    """
    tensor = checked_tensor(values, "values")
    check_finite(tensor.detach(), "values")
    if isinstance(features, torch.Tensor):
        if features.requires_grad:
            raise CRFError("features get no gradient from the lattice; pass features.detach()")
        features = checked_tensor(features, "features").numpy()
    columns = scaled_features(features, sigmas)
    check_points(finite_rows(tensor.detach().numpy(), "values"), "values", columns.shape[1:])
    check_options(normalization, threads)
    lattice = build_lattice(columns, "symmetric" if normalization == "symmetric" else "none", threads)
    flat = tensor.reshape(len(tensor), -1)
    if normalization in ("before", "after"):
        norms = torch.from_numpy(filter_norms(lattice, threads))
        if normalization == "before":
            return apply_filter(flat / norms, lattice, threads).reshape(tensor.shape)
        return (apply_filter(flat, lattice, threads) / norms).reshape(tensor.shape)
    return apply_filter(flat, lattice, threads).reshape(tensor.shape)


def apply_filter(values: torch.Tensor, lattice: Filter, threads: int) -> torch.Tensor:
    """Filter values [C, N] float32; the gradient goes back through the transposed filter."""
    return cast("torch.Tensor", cast("Any", FilterFunction).apply(values, lattice, threads))
