"""Mean-field inference and the lattice's filter as differentiable functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from ..._native import PROBABILITY_FLOOR, DifferentiableMeanField, Filter
from ..compatibility import diagonal_if_possible
from ..kept_filters import KEPT_FILTERS, FilterOptions
from ..params import CRFParams
from .checks import check_finite


@dataclass(frozen=True)
class InferenceSettings:
    """All that inference depends on besides its tensors.

    Attributes:
        params: weights, of which those that are 0 leave their kernel out, and standard deviations.
        iterations: mean-field updates.
        threads: CPU threads; 0 for all cores.
        needs_pairs: gradients of pairs of different classes are wanted, too.
    """

    params: CRFParams
    iterations: int
    threads: int
    needs_pairs: bool

    def open_field(self, maps: torch.Tensor) -> DifferentiableMeanField:
        """Memory for the inference on one of the maps [N, C, H, W]."""
        _, classes, height, width = maps.shape
        return DifferentiableMeanField(height * width, classes, self.threads)

    def filters(self, image: NDArray[np.uint8]) -> list[Filter]:
        """The kernels on an image [H, W, 3], in the order of `DenseCRF`."""
        size = (image.shape[0], image.shape[1])
        filters = []
        if self.params.gaussian_weight != 0:
            options = FilterOptions.of_gaussian(self.params, size)
            filters.append(KEPT_FILTERS.gaussian(options, threads=self.threads))
        if self.params.bilateral_weight != 0:
            options = FilterOptions.of_bilateral(self.params, size)
            filters.append(KEPT_FILTERS.bilateral(image, options, threads=self.threads))
        return filters


class MeanFieldFunction(torch.autograd.Function):
    """Marginals [N, C, H, W] of probabilities, a temperature and the compatibilities [kernels, C, C].

    Nothing but these and the images is kept for the way back, which computes Q again and needs no more than about
    2√iterations of it at a time.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        probabilities: torch.Tensor,
        temperature: torch.Tensor,
        compatibilities: torch.Tensor,
        images: NDArray[np.uint8],
        settings: InferenceSettings,
    ) -> torch.Tensor:
        """Infer image by image."""
        ctx.save_for_backward(probabilities, temperature, compatibilities)
        ctx.images, ctx.settings = images, settings
        marginals = torch.empty_like(probabilities, memory_format=torch.contiguous_format)
        field = settings.open_field(probabilities)
        for index, image in enumerate(images):
            _load(field, probabilities[index], temperature, compatibilities, settings.filters(image))
            field.infer(settings.iterations)
            marginals[index] = torch.from_numpy(field.marginals()).view_as(marginals[index])
        return marginals

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's context
        marginal_gradient: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Back-propagate image by image through the same lattices."""
        check_finite(marginal_gradient, "the gradient of the marginals")
        probabilities, temperature, compatibilities = ctx.saved_tensors
        settings: InferenceSettings = ctx.settings
        unary_gradient = torch.empty_like(probabilities, memory_format=torch.contiguous_format)
        terms = np.zeros(compatibilities.shape)
        field = settings.open_field(probabilities)
        for index, image in enumerate(ctx.images):
            _load(field, probabilities[index], temperature, compatibilities, settings.filters(image))
            given = marginal_gradient[index].contiguous().numpy()
            logits, of_terms = field.differentiate(given, settings.iterations, settings.needs_pairs)
            unary_gradient[index] = torch.from_numpy(logits).view_as(unary_gradient[index])
            terms -= of_terms  # what is added to −U is −μ
        of_temperature = torch.zeros((), dtype=torch.float64)
        # One plane at a time, so that what is needed between takes no memory to speak of.
        for gradient, plane in zip(unary_gradient.flatten(0, 1), probabilities.flatten(0, 1), strict=True):
            clipped = plane.clamp(PROBABILITY_FLOOR, 1.0)
            of_temperature -= torch.sum(gradient * clipped.log(), dtype=torch.float64)
            gradient.div_(clipped.mul_(temperature))
            # The logarithm of a clipped probability is constant.
            gradient[(plane < PROBABILITY_FLOOR) | (plane > 1.0)] = 0.0
        of_temperature /= temperature.double().square()
        return unary_gradient, of_temperature.float(), torch.from_numpy(terms).float(), None, None


class FilterFunction(torch.autograd.Function):
    """Values [C, N] through a filter that is normalised on both sides or on none; back through its transpose."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, lattice: Filter, threads: int) -> torch.Tensor:  # noqa: ANN401
        """Filter."""
        ctx.lattice, ctx.threads = lattice, threads
        return torch.from_numpy(lattice.apply(values.detach().contiguous().numpy(), threads=threads))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Filter with the axes in reverse order."""
        check_finite(gradient, "the gradient of filtered values")
        values = gradient.contiguous().numpy()
        return torch.from_numpy(ctx.lattice.apply(values, is_transposed=True, threads=ctx.threads)), None, None


def _load(
    field: DifferentiableMeanField,
    probabilities: torch.Tensor,
    temperature: torch.Tensor,
    compatibilities: torch.Tensor,
    filters: Sequence[Filter],
) -> None:
    """Give a field the unaries of one image and its terms, or only their filters if it has terms already."""
    for term, each in enumerate(filters):
        if field.terms > term:
            field.replace_filter(term, each)
        else:
            field.add_term(each, diagonal_if_possible(compatibilities[term].numpy()))
    planes = probabilities.contiguous().numpy().reshape(len(probabilities), -1)
    field.set_unary_from_probabilities(planes, None, float(temperature))
