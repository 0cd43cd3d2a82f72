"""Two slow, obvious dense CRFs in float64: the exact sum over all pairs, and the permutohedral lattice step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

Kernel = Callable[[np.ndarray], np.ndarray]
"""Filters values [N, C] over the pixels."""


def position_features(height: int, width: int, sigma_px: float) -> np.ndarray:
    """(x, y) / σ of every pixel, [N, 2]."""
    y, x = np.mgrid[:height, :width]
    return (np.stack([x, y], axis=-1).reshape(-1, 2) / sigma_px).astype(np.float32)


def colour_features(image: np.ndarray, sigma_xy_px: float, sigma_rgb: float) -> np.ndarray:
    """(x, y, r, g, b), each over its σ, [N, 5]."""
    position = position_features(*image.shape[:2], sigma_xy_px)
    return np.concatenate([position, (image.reshape(-1, 3) / sigma_rgb).astype(np.float32)], axis=1)


def exact_kernel(features: np.ndarray) -> Kernel:
    """Σ_j exp(−|f_i − f_j|² / 2) · v_j over all pairs, the self term included."""
    features = features.astype(np.float64)
    squared = ((features[:, None] - features[None]) ** 2).sum(-1)
    weights = np.exp(-0.5 * squared)
    return lambda values: weights @ values


def lattice_kernel(features: np.ndarray) -> Kernel:
    """Splat, blur and slice on the permutohedral lattice (Adams, Baek & Davis 2010), with a dictionary of points."""
    vertices: dict[tuple[int, ...], int] = {}
    simplices = [_simplex(pixel) for pixel in features]
    for corners in simplices:
        for point, _ in corners:
            vertices.setdefault(point, len(vertices))
    if len(features) % 4:  # pydensecrf pads the pixels to fours with zero features: vertices without a value
        for point, _ in _simplex(np.zeros_like(features[0])):
            vertices.setdefault(point, len(vertices))
    splat = np.zeros((len(vertices), len(simplices)))
    for pixel, corners in enumerate(simplices):
        for point, weight in corners:
            splat[vertices[point], pixel] += weight
    d = features.shape[1]
    alpha = 1.0 / (1.0 + 2.0**-d)

    def apply(values: np.ndarray) -> np.ndarray:
        on_lattice = splat @ values
        for axis in range(d + 1):
            on_lattice = _blur(on_lattice, vertices, axis)
        return alpha * (splat.T @ on_lattice)

    return apply


def _simplex(feature: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The d + 1 lattice points around one feature vector and their barycentric weights.

    The position is computed in float32 like the code under test: which simplex a pixel on a border belongs to, and so
    where its mass goes, is decided by the last bit.
    """
    d = len(feature)
    elevated = np.zeros(d + 1, np.float32)
    total = np.float32(0)
    for j in range(d, 0, -1):
        scaled = np.float32(feature[j - 1]) * np.float32(
            float(np.float32(np.sqrt(2 / 3) * (d + 1))) / np.sqrt(j * (j + 1))
        )
        elevated[j] = total - np.float32(j) * scaled
        total += scaled
    elevated[0] = total

    nearest = np.rint(elevated * (np.float32(1) / np.float32(d + 1))).astype(int)
    origin = nearest * (d + 1)
    distance = elevated - origin.astype(np.float32)
    rank = np.zeros(d + 1, int)
    for i, j in itertools.combinations(range(d + 1), 2):
        rank[i if distance[i] < distance[j] else j] += 1
    rank += nearest.sum()
    origin += np.where(rank < 0, d + 1, 0) - np.where(rank > d, d + 1, 0)
    rank %= d + 1

    sorted_distance = np.zeros(d + 1)
    sorted_distance[rank] = (elevated.astype(np.float64) - origin) / (d + 1)
    corners = []
    for remainder in range(d + 1):
        point = origin + np.where(rank <= d - remainder, remainder, remainder - (d + 1))
        if remainder == 0:
            weight = 1.0 - sorted_distance[0] + sorted_distance[d]
        else:
            weight = sorted_distance[d - remainder] - sorted_distance[d - remainder + 1]
        corners.append((tuple(int(c) for c in point), float(weight)))
    return corners


def _blur(values: np.ndarray, vertices: dict[tuple[int, ...], int], axis: int) -> np.ndarray:
    """v' = v + ½(v₊ + v₋) along one axis; a point that does not exist counts as 0."""
    out = values.copy()
    for point, index in vertices.items():
        for sign in (-1, 1):
            step = np.full(len(point), sign)
            step[axis] -= sign * len(point)
            neighbour = vertices.get(tuple(int(c) for c in np.asarray(point) + step))
            if neighbour is not None:
                out[index] += 0.5 * values[neighbour]
    return out


def normalized(kernel: Kernel, pixels: int, kind: str = "symmetric") -> Kernel:
    """The kernel scaled by its response to ones, before and/or after."""
    norm = kernel(np.ones((pixels, 1))) + 1e-20
    if kind == "none":
        return kernel
    if kind == "before":
        return lambda values: kernel(values / norm)
    if kind == "after":
        return lambda values: kernel(values) / norm
    return lambda values: kernel(values / np.sqrt(norm)) / np.sqrt(norm)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def mean_field(unary: np.ndarray, terms: Sequence[tuple[Kernel, np.ndarray]], iterations: int) -> np.ndarray:
    """Q ← softmax(−U − Σ_k μ_k(K_k Q)): unary [N, C]; terms of kernel and compatibility matrix [C, C]."""
    marginals = softmax(-unary)
    for _ in range(iterations):
        marginals = softmax(-unary - sum(kernel(marginals) @ matrix for kernel, matrix in terms))
    return marginals


def potts(classes: int, weight: float) -> np.ndarray:
    """−w on the diagonal."""
    return -weight * np.eye(classes)
