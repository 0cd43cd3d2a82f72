"""Does it still compute the same? Logits of a candidate against those of a reference, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arrays import FloatArray
from ..errors import ExportError
from ..manifest import InputSpec, Precision, Size, Verification
from ..runtime.image import ImageSource, load_image
from ..runtime.preprocess import fit_size, plan_geometry, prepare_image

#: Prepared images [N, 3, H, W] float32 → scores [N, C, h, w] float32, or labels [N, h, w] uint8.
Infer = Callable[[FloatArray], NDArray[Any]]

_SEED: Final = 1606_00915


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same.

    Attributes:
        max_relative: largest absolute difference of logits, as a share of the reference's largest magnitude.
        min_agreement: share of coarse positions that must have the same class.
        max_miou_drop: mean IoU that may be lost where there are masks.
    """

    max_relative: float
    min_agreement: float
    max_miou_drop: float


#: FP32 against FP32: other summation orders only. Worst measured: see tests/tolerances.py.
FP32_TOLERANCE: Final = Tolerance(max_relative=1e-4, min_agreement=0.999, max_miou_drop=1e-3)
#: By the lower precision of the two that are compared. These catch what is broken; whether the accuracy of a quantized
#: model is good enough is for real pictures with masks to say. FP16, measured on the demo's network: on a synthetic
#: picture that is like nothing it was trained on, 3.4 % and 98.7 %; on CamVid's, 1.6 % and 99.95 %, and its mean IoU
#: changes by 0.009 points.
TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "fp32": FP32_TOLERANCE,
    "fp16": Tolerance(max_relative=0.1, min_agreement=0.97, max_miou_drop=5e-3),
    "int8": Tolerance(max_relative=0.3, min_agreement=0.9, max_miou_drop=2e-2),
}


def compare(
    candidate: Infer,
    reference: Infer,
    inputs: Iterable[FloatArray],
    *,
    artifact: str,
    against: str,
    tolerance: Tolerance = FP32_TOLERANCE,
) -> Verification:
    """Run both on every input [N, 3, H, W] and judge the differences.

    Both answer float scores [N, C, h, w], or both labels [N, h, w] uint8, whose `max_abs` is 0 by definition: the
    distance between two class ids says nothing, only the agreement counts.
    """
    max_abs, magnitude, same, positions = 0.0, 0.0, 0, 0
    shapes = []
    for batch in inputs:
        expected, actual = reference(batch), candidate(batch)
        shapes.append(batch.shape)
        # A NaN or an infinity on either side fails too: no difference can be taken, and max() would drop a NaN.
        if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
            return Verification(artifact, against, float("inf"), 0.0, passed=False, inputs=tuple(shapes))
        if np.issubdtype(expected.dtype, np.floating):
            max_abs = max(max_abs, float(np.abs(expected - actual).max()))
            magnitude = max(magnitude, float(np.abs(expected).max()))
            expected, actual = expected.argmax(axis=1), actual.argmax(axis=1)
        same += int((expected == actual).sum())
        positions += expected.size
    agreement = same / positions
    passed = max_abs <= tolerance.max_relative * magnitude and agreement >= tolerance.min_agreement
    return Verification(artifact, against, max_abs, agreement, passed=passed, inputs=tuple(shapes))


def require_passed(verification: Verification, tolerance: Tolerance = FP32_TOLERANCE) -> None:
    """Raise `ExportError` with the numbers when a comparison failed."""
    if verification.passed:
        return
    raise ExportError(
        f"{verification.artifact} does not compute what {verification.against} computes: largest difference "
        f"{verification.max_abs:.3g}, same class at {verification.argmax_agreement:.4%} of positions; allowed are "
        f"{tolerance.max_relative:g} of the largest logit and at least {tolerance.min_agreement:.2%}. "
        "Nothing was written. Does the model behave differently between calls, or depend on the values of its input?"
    )


def probe_inputs(inputs: InputSpec) -> list[FloatArray]:
    """Prepared synthetic pictures that exercise the sizes of a graph.

    A range of sizes: three of them (as far as it has three), the smallest and the optimal among them, and a batch of
    two. One size: three pictures of it, since the graph takes nothing else.
    """
    generator = np.random.default_rng(_SEED)
    policy = inputs.size
    if policy.is_fixed:
        return [_probe(generator, [policy.opt], inputs) for _ in range(3)]
    middle = tuple(
        min(high, fit_size((low + mid) // 2 + policy.multiple, policy.multiple, policy.offset))
        for low, mid, high in zip(policy.min, policy.opt, policy.max, strict=True)
    )
    shapes = [policy.min, policy.opt, (middle[0], policy.min[1]), (policy.min[0], middle[1]), policy.max]
    distinct = list(dict.fromkeys(shapes))[:3]
    batches = [*([shape] for shape in distinct), [distinct[-1]] * 2]
    return [_probe(generator, sizes, inputs) for sizes in batches]


def photo_inputs(images: Sequence[ImageSource], inputs: InputSpec) -> list[FloatArray]:
    """Prepared pictures of a user; what exceeds the maximum is cropped to it, since coarse logits are compared."""
    prepared = []
    for image in images:
        picture = load_image(image)
        if inputs.resize == "none":
            picture = picture[: inputs.size.max[0], : inputs.size.max[1]]
        geometry = plan_geometry((picture.shape[0], picture.shape[1]), inputs)
        prepared.append(prepare_image(picture, geometry.input_size, inputs)[None])
    return prepared


def _probe(generator: np.random.Generator, sizes: Sequence[Size], inputs: InputSpec) -> FloatArray:
    return np.stack([prepare_image(synthetic_photo(generator, size), size, inputs) for size in sizes])


def synthetic_photo(generator: np.random.Generator, size: Size) -> NDArray[np.uint8]:
    """Smooth shading, a few flat rectangles with hard edges, and a little noise: [H, W, 3] uint8."""
    height, width = size
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phase = generator.uniform(0, 2 * np.pi, (3, 2))
    waves = [np.sin(3 * rows + down) + np.cos(4 * columns + across) for down, across in phase]
    photo = 128 + 50 * np.stack(waves, axis=2)
    for _ in range(12):
        top, left = int(generator.integers(height)), int(generator.integers(width))
        bottom, right = top + height // 4 + 1, left + width // 4 + 1
        photo[top:bottom, left:right] = generator.uniform(0, 255, 3)
    photo += generator.normal(0, 6, photo.shape)
    return photo.clip(0, 255).astype(np.uint8)
