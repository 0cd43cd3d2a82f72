from __future__ import annotations

import pickle

import needs
import numpy as np
import pytest
from tolerances import CRF_FEATURE_PEER_ABS, CRF_LATTICE_ABS, CRF_SUM_ABS

from atrous.crf import CRFParams, DenseCRF, FeatureCRF, Kernel
from atrous.crf import pydensecrf as drop_in
from atrous.errors import ArgumentError, CRFError, ShapeError


def kernels_of(image: np.ndarray, params: CRFParams) -> list[Kernel]:
    """The two kernels of `DenseCRF`, in its order."""
    return [
        Kernel.of_positions(image.shape[:2], sigma=params.gaussian_sigma_xy_px, weight=params.gaussian_weight),
        Kernel.of_image(
            image.transpose(2, 0, 1),
            sigma=params.bilateral_sigma_xy_px,
            sigma_values=params.bilateral_sigma_rgb,
            weight=params.bilateral_weight,
        ),
    ]


@pytest.mark.parametrize("classes", [1, 3, 21])
def test_of_an_rgb_image_is_dense_crf_to_the_last_bit(make_scene, classes):
    probabilities, image = make_scene(classes, 13, 17)
    params = CRFParams.deeplab_v2_resnet()
    crf = FeatureCRF(kernels_of(image, params))
    assert (crf(probabilities) == DenseCRF(params)(probabilities, image)).all()
    assert (crf.labels(probabilities) == DenseCRF(params).labels(probabilities, image)).all()
    again = pickle.loads(pickle.dumps(crf))
    assert (again(probabilities) == crf(probabilities)).all()


@pytest.fixture
def volume(rng):
    """Probabilities [3, 5, 7, 6] and a volume [1, 5, 7, 6] of 16 bits."""
    z, y, x = np.mgrid[:5, :7, :6]
    inside = (z - 2) ** 2 + (y - 3) ** 2 + (x - 3) ** 2 < 6
    scan = 400 * inside + rng.integers(0, 50, inside.shape)
    probabilities = rng.dirichlet(np.ones(3), inside.shape).transpose(3, 0, 1, 2).astype(np.float32)
    return probabilities, scan[None].astype(np.uint16)


class TestVolumes:
    SPACING = (2.5, 0.7, 0.7)

    def kernels(self, scan):
        return [
            Kernel.of_positions(scan.shape[1:], sigma=1.5, spacing=self.SPACING, weight=2),
            Kernel.of_image(scan, sigma=4, sigma_values=60, spacing=self.SPACING, weight=3),
        ]

    def test_features_are_in_millimetres_over_sigma(self, volume):
        _, scan = volume
        kernel = self.kernels(scan)[1]
        x, y, z, value = kernel._scaled[:, 3, 4, 2]
        assert (x, y, z) == pytest.approx((2 * 0.7 / 4, 4 * 0.7 / 4, 3 * 2.5 / 4))
        assert value == pytest.approx(scan[0, 3, 4, 2] / 60)

    @needs.PYDENSECRF.importable("pydensecrf")
    @pytest.mark.parametrize("iterations", [1, 5])
    def test_equal_pydensecrf_with_the_same_features(self, volume, iterations):
        peer_module = needs.PYDENSECRF.load("pydensecrf.densecrf")
        probabilities, scan = volume
        kernels = self.kernels(scan)
        crf = FeatureCRF(kernels, iterations=iterations)
        peer = peer_module.DenseCRF(scan.size, 3)
        unary = -np.log(np.clip(probabilities.reshape(3, -1), 1e-5, 1))
        peer.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
        for kernel in kernels:
            features = np.ascontiguousarray(kernel._scaled.reshape(len(kernel._scaled), -1))
            peer.addPairwiseEnergy(features, compat=kernel.weight)
        expected = np.array(peer.inference(iterations)).reshape(probabilities.shape)
        assert np.abs(crf(probabilities) - expected).max() <= CRF_FEATURE_PEER_ABS

    def test_equal_the_drop_in(self, volume):
        probabilities, scan = volume
        kernels = self.kernels(scan)
        other = drop_in.densecrf.DenseCRF(scan.size, 3)
        other.setUnaryEnergy(-np.log(np.clip(probabilities.reshape(3, -1), 1e-5, 1)))
        for kernel in kernels:
            other.addPairwiseEnergy(kernel._scaled.reshape(len(kernel._scaled), -1), compat=kernel.weight)
        expected = np.asarray(other.inference(4)).reshape(probabilities.shape)
        assert FeatureCRF(kernels, iterations=4)(probabilities) == pytest.approx(expected, abs=CRF_LATTICE_ABS)

    def test_marginals_are_probabilities(self, volume):
        probabilities, scan = volume
        crf = FeatureCRF(self.kernels(scan))
        marginals = crf(probabilities)
        assert marginals.shape == probabilities.shape
        assert np.abs(marginals.sum(0) - 1).max() <= CRF_SUM_ABS
        assert (crf.labels(probabilities) == marginals.argmax(0)).all()
        assert len(crf.vertices) == 2
        assert crf.points == (5, 7, 6)


def test_bands_of_a_multispectral_image(rng):
    """Forty bands: pixels of the same spectrum agree."""
    spectra = rng.uniform(0, 1000, (2, 40))
    truth = (np.arange(12)[:, None] > 5).repeat(10, 1).astype(int)
    bands = spectra[truth].transpose(2, 0, 1)
    noisy = np.where(rng.uniform(size=truth.shape) < 0.2, 1 - truth, truth)
    probabilities = np.where(np.stack([noisy == 0, noisy == 1]), 0.7, 0.3)
    crf = FeatureCRF([Kernel.of_image(bands, sigma=20, sigma_values=100, weight=4)])
    assert (crf.labels(probabilities) == truth).all()


def test_compatibility_and_other_numbers_of_classes(make_scene):
    probabilities, image = make_scene(4, 8, 9)
    kernels = kernels_of(image, CRFParams.deeplab_v2_resnet())
    plain = FeatureCRF(kernels, iterations=3)
    assert (FeatureCRF(kernels, iterations=3, compatibility=-np.ones(4))(probabilities) == plain(probabilities)).all()
    matrix = FeatureCRF(kernels, iterations=3, compatibility=-np.eye(4))
    assert matrix(probabilities) == pytest.approx(plain(probabilities), abs=CRF_LATTICE_ABS)
    two = probabilities[:2] / probabilities[:2].sum(0)
    assert plain(two).shape == two.shape
    with pytest.raises(CRFError, match="the compatibility is for 4 classes; probabilities have 2"):
        matrix(two)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FeatureCRF([]), CRFError, "at least one kernel"),
        (lambda: FeatureCRF("kernels"), ArgumentError, "kernels must be a list of Kernel"),
        (
            lambda: FeatureCRF([Kernel.of_positions((3, 4), sigma=1), Kernel.of_positions((4, 3), sigma=1)]),
            ShapeError,
            r"expected \[2, 3, 4\], got \[2, 4, 3\]",
        ),
        (lambda: Kernel.of_positions((3, 0), sigma=1), ShapeError, "axes of 1 or more"),
        (lambda: Kernel.of_positions((3, 4), sigma=-1), CRFError, "must be positive and finite"),
        (
            lambda: Kernel.of_positions((3, 4), sigma=1, spacing=(1, 2, 3)),
            CRFError,
            "spacing must be a finite number or 2",
        ),
        (lambda: Kernel.of_positions((3, 4), sigma=1, spacing=0), CRFError, "spacing is a distance"),
        (lambda: Kernel(np.full((2, 4), np.nan)), ShapeError, "features must be finite"),
        (lambda: Kernel(np.ones((2, 4)), weight=np.nan), CRFError, "weight of a kernel must be a finite number"),
        (lambda: Kernel(np.ones((2, 4)), normalization="x"), CRFError, "normalization must be one of"),
        (lambda: Kernel.of_image(np.ones((3, 4, 4)), sigma=1, sigma_values=(1, 2)), CRFError, "sigma_values must be"),
        (lambda: FeatureCRF([Kernel(np.ones((2, 4)))], iterations=-1), CRFError, "iterations must be 0 to"),
        (
            lambda: FeatureCRF([Kernel(np.ones((2, 4)))])(np.ones((2, 5)) / 2),
            ShapeError,
            r"expected \[2, 4\], got \[2, 5\]",
        ),
        (
            lambda: FeatureCRF([Kernel(np.ones((2, 4)))])(np.ones((2, 4)) * 3),
            ShapeError,
            "apply softmax to logits first",
        ),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()
