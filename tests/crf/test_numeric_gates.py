"""The promises of the dense CRF, on real photos: pydensecrf's labels, every one of them; nearly all with fractions."""

from __future__ import annotations

import importlib

import needs
import numpy as np
import pytest
from photos import NAMES, network_like
from photos import photo as load_photo
from tolerances import CRF_PEER_ABS, CRF_UNORM16_PHOTO_ABS, CRF_UNORM16_PHOTO_FLIPS

from atrous.crf import CRFParams, DenseCRF

pytestmark = pytest.mark.slow  # in sum

needs.SCIKIT_LEARN.load("sklearn.datasets")

CLASSES = 21
#: An even number of pixels, and one that four does not divide: pydensecrf pads those.
SIZES = [(214, 320), (213, 321)]
SETS = {
    "P1": CRFParams.deeplab_v2_resnet(),
    "P2": CRFParams.deeplab_v2_vgg(),
    "P3": CRFParams.pydensecrf_readme(),
}


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.fixture(scope="module", params=NAMES)
def photo(request: pytest.FixtureRequest, size: tuple[int, int]) -> np.ndarray:
    return load_photo(request.param, size)


@pytest.fixture(scope="module")
def probabilities(size: tuple[int, int]) -> np.ndarray:
    return network_like(CLASSES, size)


@pytest.mark.parametrize("iterations", [1, 5, 10])
@pytest.mark.parametrize("params", SETS.values(), ids=SETS)
def test_same_labels_as_pydensecrf(
    photo: np.ndarray, probabilities: np.ndarray, params: CRFParams, iterations: int
) -> None:
    peer = needs.PYDENSECRF.load("pydensecrf.densecrf")
    height, width = photo.shape[:2]
    crf = peer.DenseCRF2D(width, height, CLASSES)
    crf.setUnaryEnergy(importlib.import_module("pydensecrf.utils").unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=params.gaussian_sigma_xy_px, compat=params.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sigma_xy_px, srgb=params.bilateral_sigma_rgb, rgbim=photo, compat=params.bilateral_weight
    )
    expected = np.asarray(crf.inference(iterations), np.float32).reshape(probabilities.shape)
    got = DenseCRF(params, iterations=iterations)(probabilities, photo)
    assert np.abs(got - expected).max() <= CRF_PEER_ABS
    assert (got.argmax(axis=0) != expected.argmax(axis=0)).sum() == 0


@pytest.mark.parametrize("iterations", [1, 5, 10])
@pytest.mark.parametrize("params", SETS.values(), ids=SETS)
def test_nearly_the_same_labels_with_fractions(
    photo: np.ndarray, probabilities: np.ndarray, params: CRFParams, iterations: int
) -> None:
    expected = DenseCRF(params, iterations=iterations)(probabilities, photo)
    got = DenseCRF(params, iterations=iterations, storage="unorm16")(probabilities, photo)
    assert np.abs(got - expected).max() <= CRF_UNORM16_PHOTO_ABS
    assert (got.argmax(axis=0) != expected.argmax(axis=0)).mean() <= CRF_UNORM16_PHOTO_FLIPS
