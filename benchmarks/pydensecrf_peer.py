"""The dense CRF of pydensecrf, called as its users call it."""

from __future__ import annotations

import importlib

import numpy as np
from numpy.typing import NDArray

from atrous.crf import CRFParams


def peer(
    probabilities: NDArray[np.float32],
    image: NDArray[np.uint8],
    params: CRFParams,
    iterations: int,
    *,
    package: str = "pydensecrf",
) -> NDArray[np.float32]:
    """Marginals [C, H, W] by pydensecrf or a drop-in, of probabilities [C, H, W] and an RGB image [H, W, 3]."""
    dcrf = importlib.import_module(f"{package}.densecrf")
    utils = importlib.import_module(f"{package}.utils")

    classes, height, width = probabilities.shape
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(utils.unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=params.gaussian_sigma_xy_px, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sigma_xy_px, srgb=params.bilateral_sigma_rgb, rgbim=image, compat=params.bilateral_weight
    )
    return np.asarray(crf.inference(iterations), np.float32).reshape(probabilities.shape)
