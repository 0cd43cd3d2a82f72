"""Dense CRF of a studio: parameters as a page sends them, and runs that can be a coarse preview."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...crf import Compatibility, CRFParams, DenseCRF
from ...crf.stored import DEFAULT_ITERATIONS, crf_from_stored, stored_crf
from ...errors import CRFError
from ...manifest import Manifest
from ...runtime.channels import refined_labels
from ...runtime.preprocess import color_image
from ...runtime.result import Result
from ..inference import confidence_of
from ..refusals import bad_request
from .kept import Outcome

#: Pixels of a preview, which two cores refine while a slider moves.
_COARSE_PIXELS: Final = 32_000
#: Iterations that a page may ask for: the CRF has settled long before.
MOST_ITERATIONS: Final = 100


@dataclass(frozen=True)
class Refinement:
    """Parameters of the CRF that a page asks for."""

    params: CRFParams
    iterations: int = DEFAULT_ITERATIONS

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Refinement:
        """Read them from JSON or from a query, where numbers are text.

        Raises:
            RefusedError: one is missing, unknown or unusable.
        """
        given = dict(values)
        iterations = _number("iterations", given.pop("iterations", DEFAULT_ITERATIONS))
        if not (iterations.is_integer() and 0 <= iterations <= MOST_ITERATIONS):
            raise bad_request(f"iterations must be a whole number from 0 to {MOST_ITERATIONS}; got {iterations:g}")
        try:
            params = CRFParams.from_dict({name: _number(name, value) for name, value in given.items()})
        except CRFError as exc:
            raise bad_request(str(exc)) from exc
        return cls(params, int(iterations))

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> Refinement:
        """Parameters that a bundle has, which `load(crf=True)` uses; raises `CRFError` where they are unusable."""
        crf = crf_from_stored(manifest.crf or {})
        return cls(crf.params, crf.iterations)

    def stored_in(self, manifest: Manifest) -> dict[str, Any]:
        """The CRF of a manifest with these parameters; costs of pairs of classes that were learned stay."""
        return stored_crf(self.params, self.iterations, learned_compatibility(manifest))


def learned_compatibility(manifest: Manifest) -> Compatibility | None:
    """Costs of classes and their pairs that a bundle's CRF has learned, or None."""
    return crf_from_stored(manifest.crf or {}).compatibility


def preview_step(height: int, width: int) -> int:
    """Step between the pixels that a preview is made of, along both axes; 1 for an image that is small enough."""
    return max(1, math.ceil(math.sqrt(height * width / _COARSE_PIXELS)))


def refine(result: Result, manifest: Manifest, refinement: Refinement, *, threads: int, step: int = 1) -> Outcome:
    """Refine the probabilities of a result on the CPU.

    Args:
        result: of the network, without the CRF.
        manifest: of its bundle.
        refinement: parameters.
        threads: of the CRF.
        step: 1 for every pixel, with the labels that `Segmenter` has with this CRF on the CPU. Above 1 every `step`-th
            pixel along both axes, with standard deviations in pixels as much smaller.

    Raises:
        RefusedError: a standard deviation is too small for the size of the image, or memory for it is too little.
    """
    start = time.perf_counter()
    pixels, probabilities = result.image, result.probabilities
    if step > 1:
        chosen = slice(step // 2, None, step)
        pixels = np.ascontiguousarray(pixels[chosen, chosen])
        probabilities = np.ascontiguousarray(probabilities[:, chosen, chosen])
    params = dataclasses.replace(
        refinement.params,
        bilateral_sigma_xy_px=refinement.params.bilateral_sigma_xy_px / step,
        gaussian_sigma_xy_px=refinement.params.gaussian_sigma_xy_px / step,
    )
    colors = color_image(pixels, manifest.input.bands, weighted=True)
    try:
        crf = DenseCRF(
            params,
            iterations=refinement.iterations,
            threads=threads,
            compatibility=learned_compatibility(manifest),
        )
        most_probable, marginals = crf.labels_and_marginals(probabilities, colors)
    except CRFError as exc:
        raise bad_request(str(exc)) from exc
    labels = refined_labels(most_probable, marginals, manifest.output.channels)
    timings = {**result.timings_ms, "crf": (time.perf_counter() - start) * 1e3}
    return Outcome(dataclasses.replace(result, labels=labels, timings_ms=timings), confidence_of(marginals))


def _number(name: str, value: object) -> float:
    """A number of JSON, or the text of one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise bad_request(f"{name[:40]} must be a finite number; got {str(value)[:40]!r}")
    return number
