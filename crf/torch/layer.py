"""The dense CRF as the last layer of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...arguments import MAX_THREADS, check_arguments
from ...arrays import MAX_CLASSES
from ...errors import CRFError, ShapeError
from ..compatibility import Compatibility, interaction
from ..dense_crf import DenseCRF
from ..params import MAX_ITERATIONS, CRFParams
from .checks import check_finite, checked_images, checked_maps
from .inference import InferenceSettings, MeanFieldFunction


class DenseCRFLayer(nn.Module):
    """Mean-field inference as a layer: the forward is `DenseCRF` on softmax(logits), to the last bit.

    Parameters, of type float32:
        bilateral: [C] factor of the appearance kernel's weight for each class; 1 at first.
        gaussian: [C] factor of the smoothness kernel's weight for each class; 1 at first.
        compatibility: [C, C] cost of each pair of classes, of which the symmetric part counts; −1 on the diagonal at
            first, the Potts model.
        temperature: T, which divides the unaries.

    See `Compatibility` for how they work together. Standard deviations are fixed. Gradients are those of the forward:
    the probabilities are clipped at 1e-5 before the logarithm, and what is clipped gets none. The CRF runs on the CPU.

    Args:
        params: weights and standard deviations of the kernels; a kernel of weight 0 is left out, and learns nothing.
        num_classes: C.
        iterations: mean-field updates. Gradients go through all of them.
        compatibility: where to start from instead of the Potts model.
        threads: CPU threads; 0 uses all cores. Results are bit-identical for any number.

    Raises:
        ArgumentError: an argument has the wrong type.
        CRFError: a number is out of range, or the compatibility is for another number of classes.
    """

    bilateral: nn.Parameter
    gaussian: nn.Parameter
    compatibility: nn.Parameter
    temperature: nn.Parameter

    @check_arguments
    def __init__(
        self,
        params: CRFParams | None = None,
        *,
        num_classes: int,
        iterations: int = 10,
        compatibility: Compatibility | None = None,
        threads: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least, most in (
            ("num_classes", num_classes, 1, MAX_CLASSES),
            ("iterations", iterations, 0, MAX_ITERATIONS),
            ("threads", threads, 0, MAX_THREADS),
        ):
            if not least <= value <= most:
                raise CRFError(f"{name} must be {least} to {most}, got {value}")
        if compatibility is not None and compatibility.classes != num_classes:
            raise CRFError(f"the compatibility is for {compatibility.classes} classes, num_classes is {num_classes}")
        self.params = params if params is not None else CRFParams.deeplab_v2_resnet()
        self.num_classes, self.iterations, self.threads = num_classes, iterations, threads
        start = compatibility
        ones = torch.ones(num_classes)
        self.bilateral = nn.Parameter(torch.tensor(start.bilateral) if start else ones.clone())
        self.gaussian = nn.Parameter(torch.tensor(start.gaussian) if start else ones.clone())
        self.compatibility = nn.Parameter(torch.tensor(start.matrix) if start else -torch.eye(num_classes))
        self.temperature = nn.Parameter(torch.tensor(self.params.unary_temperature))

    def forward(self, logits: torch.Tensor, images: torch.Tensor | NDArray[np.uint8]) -> torch.Tensor:
        """Refine the classes of images.

        Args:
            logits: [N, C, H, W] float32 on the CPU; full size, since the CRF works on pixels.
            images: [N, H, W, 3] uint8 RGB on the CPU, not normalized.

        Returns:
            Marginals [N, C, H, W] float32; they sum to 1 over the classes. Their logarithm is what a cross-entropy
            takes: `nll_loss(marginals.clamp_min(1e-6).log(), labels)`.

        Raises:
            ShapeError: shapes or dtypes are wrong.
            DeviceError: a tensor is not on the CPU.
            CRFError: logits or parameters are NaN or infinite, the temperature is not positive, or a sigma is too small
                for the image. The backward raises it for gradients that are NaN or infinite.
        """
        maps = checked_maps(logits, "logits")
        if maps.shape[1] != self.num_classes:
            expected, actual = f"{self.num_classes} classes", f"{maps.shape[1]} classes"
            raise ShapeError(f"logits must have {expected}, got {actual}", expected=expected, actual=actual)
        pixels = checked_images(images, maps)
        check_finite(maps.detach(), "logits")
        for name, parameter in self.named_parameters():
            check_finite(parameter.detach(), f"the layer's parameter {name}")
        if self.temperature.item() <= 0:
            raise CRFError(f"the layer's temperature must be positive, got {self.temperature.item():g}")
        matrix = self.compatibility.detach()
        has_pairs = bool(matrix.count_nonzero() > matrix.diagonal().count_nonzero())
        needs_pairs = has_pairs or self.compatibility.requires_grad
        settings = InferenceSettings(self.params, self.iterations, self.threads, needs_pairs=needs_pairs)
        probabilities = torch.softmax(maps, dim=1)
        function = cast("Any", MeanFieldFunction)  # torch does not annotate apply()
        return cast(
            "torch.Tensor",
            function.apply(probabilities, self.temperature, self._compatibilities(), pixels, settings),
        )

    def learned_params(self) -> CRFParams:
        """The parameters with the temperature that was learned."""
        return replace(self.params, unary_temperature=self.temperature.item())

    def learned_compatibility(self) -> Compatibility:
        """The learned interaction of classes, for `DenseCRF` and for bundles."""
        matrix = self.compatibility.detach()
        return Compatibility(
            bilateral=self.bilateral.tolist(),
            gaussian=self.gaussian.tolist(),
            matrix=(0.5 * (matrix + matrix.T)).tolist(),
        )

    def to_dense_crf(self) -> DenseCRF:
        """The CRF that runs what was learned: it gives the bits of this layer."""
        return DenseCRF(
            self.learned_params(),
            iterations=self.iterations,
            threads=self.threads,
            compatibility=self.learned_compatibility(),
        )

    def extra_repr(self) -> str:
        """Options, for `print`."""
        return f"{self.params}, num_classes={self.num_classes}, iterations={self.iterations}"

    def _compatibilities(self) -> torch.Tensor:
        """Compatibilities [kernels, C, C] of the kernels that there are."""
        params = self.params
        kernels = ((params.gaussian_weight, self.gaussian), (params.bilateral_weight, self.bilateral))
        terms: list[torch.Tensor] = [interaction(w, factors, self.compatibility) for w, factors in kernels if w != 0]
        return torch.stack(terms) if terms else self.compatibility.new_zeros((0, *self.compatibility.shape))
