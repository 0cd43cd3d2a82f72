"""A temperature divides the unaries, on the CPU and on the GPU, and 1 changes no bit."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from tolerances import CRF_LATTICE_ABS, CUDA_CPU_ABS, CUDA_UNORM16_ABS

from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.pydensecrf import densecrf
from atrous.errors import CRFError

P1 = CRFParams.deeplab_v2_resnet()
SIZE = (30, 41)


def at(temperature: float) -> CRFParams:
    return dataclasses.replace(P1, unary_temperature=temperature)


@pytest.fixture
def scene(make_scene):
    return make_scene(5, *SIZE)


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_one_changes_no_bit(scene, storage):
    probabilities, image = scene
    expected = DenseCRF(P1, storage=storage)(probabilities, image)
    assert np.array_equal(DenseCRF(at(1.0), storage=storage)(probabilities, image), expected)


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_without_iterations_it_is_a_softmax(scene, temperature):
    probabilities, image = scene
    powers = np.clip(probabilities, 1e-5, 1).astype(float) ** (1 / temperature)
    found = DenseCRF(at(temperature), iterations=0)(probabilities, image)
    assert np.abs(found - powers / powers.sum(axis=0)).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_it_is_pydensecrf_with_divided_unaries(scene, temperature):
    probabilities, image = scene
    crf = densecrf.DenseCRF2D(SIZE[1], SIZE[0], 5)
    unary = -np.log(np.clip(probabilities, 1e-5, 1)) / np.float32(temperature)
    crf.setUnaryEnergy(unary.reshape(5, -1).astype(np.float32))
    crf.addPairwiseGaussian(P1.gaussian_sigma_xy_px, P1.gaussian_weight)
    crf.addPairwiseBilateral(P1.bilateral_sigma_xy_px, P1.bilateral_sigma_rgb, image, P1.bilateral_weight)
    expected = np.asarray(crf.inference(5)).reshape(probabilities.shape)
    found = DenseCRF(at(temperature), iterations=5)(probabilities, image)
    assert np.abs(found - expected).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_gpu_gives_the_same(make_scene, temperature, storage):
    probabilities, image = make_scene(5, 11, 14)
    options = {"iterations": 2, "storage": storage}
    expected = DenseCRF(at(temperature), **options)(probabilities, image)
    found = CudaDenseCRF(at(temperature), device=EmulatedDevice(), **options)(probabilities, image)
    assert np.abs(found - expected).max() <= (CUDA_CPU_ABS if storage == "fp32" else CUDA_UNORM16_ABS)


def test_the_floor_counts_for_what_the_temperature_makes_of_probabilities(rng):
    """p^(1/T) of a class that is left out stays below the floor."""
    probabilities = np.full((12, 8, 9), 1e-3, np.float32)
    probabilities[0] = 0.99
    likely = probabilities.copy()
    probabilities[3:] = 5e-5
    likely[3:] = 2e-4
    image = rng.integers(0, 256, (8, 9, 3), np.uint8)
    crf = DenseCRF(at(2.0), iterations=1, class_floor=0.01)
    crf(probabilities, image)
    assert crf.classes_refined == [0, 1, 2, 3]  # above 0.01² = 1e-4, and one for which there is room
    crf(likely, image)
    assert crf.classes_refined == list(range(12))
    # With 1e-5 for the lowest probability, p^(1/3) is at least 0.02: no class may be left out.
    crf = DenseCRF(at(3.0), iterations=1, class_floor=0.01)
    crf(np.where(probabilities == np.float32(5e-5), np.float32(0), probabilities), image)
    assert crf.classes_refined == list(range(12))
    cold = DenseCRF(at(0.5), iterations=1, class_floor=0.01)
    cold(likely, image)
    assert cold.classes_refined == [0, 1, 2, 3]  # as without a temperature


@pytest.mark.parametrize("value", [0, -1, 1e-4, 1001, float("nan")])
def test_other_temperatures_are_refused(value):
    with pytest.raises(CRFError, match="unary_temperature"):
        at(value)


def test_it_is_pickled(scene):
    probabilities, image = scene
    crf = DenseCRF(at(2.0), iterations=2)
    assert np.array_equal(pickle.loads(pickle.dumps(crf))(probabilities, image), crf(probabilities, image))
