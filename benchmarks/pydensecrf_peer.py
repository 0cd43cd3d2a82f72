"""The dense CRF of pydensecrf, called as its users call it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atrous.crf import CRFParams


def peer(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], params: CRFParams, iterations: int
) -> NDArray[np.float32]:
    """Marginals [C, H, W] by pydensecrf, of probabilities [C, H, W] and an RGB image [H, W, 3]."""
    import pydensecrf.densecrf as dcrf
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = probabilities.shape
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=params.gaussian_sigma_xy_px, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sigma_xy_px, srgb=params.bilateral_sigma_rgb, rgbim=image, compat=params.bilateral_weight
    )
    return np.asarray(crf.inference(iterations), np.float32).reshape(probabilities.shape)
