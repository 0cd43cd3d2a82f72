"""`DenseCRF(storage="unorm16")` against single precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crf_oracles import softmax
from emulator.emulated_device import EmulatedDevice
from hypothesis import given
from hypothesis import strategies as st
from tolerances import CRF_LATTICE_ABS, CRF_SUM_ABS, CRF_UNORM16_ABS

from atrous import _native
from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.errors import CRFError

P1 = CRFParams.deeplab_v2_resnet()
PARAMS = {"P1": P1, "P2": CRFParams.deeplab_v2_vgg(), "P3": CRFParams.pydensecrf_readme()}
SIZES = [(1, 1, 1), (2, 1, 13), (3, 7, 1), (5, 12, 16), (8, 9, 11), (21, 17, 19), (33, 6, 7), (130, 5, 5), (256, 4, 6)]


@pytest.mark.parametrize("iterations", [1, 10])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize(("classes", "height", "width"), SIZES)
def test_every_number_of_classes(make_scene, classes, height, width, params, iterations):
    probabilities, image = make_scene(classes, height, width)
    crf = DenseCRF(params, iterations=iterations, storage="unorm16")
    got = crf(probabilities, image)
    expected = DenseCRF(params, iterations=iterations)(probabilities, image)
    assert np.abs(got - expected).max() <= CRF_UNORM16_ABS
    assert np.abs(got.sum(axis=0) - 1).max() <= CRF_SUM_ABS
    assert (crf.labels(probabilities, image) == got.argmax(axis=0)).all()


@pytest.mark.parametrize("width", range(20, 28))
def test_every_remainder_of_the_number_of_pixels_by_four(make_scene, width):
    """Where there is one, vertices around the origin have no mass but what the blur brings; the corner is black."""
    probabilities, image = make_scene(4, 5, width)
    image[:2, :3] = 0
    got = DenseCRF(storage="unorm16")(probabilities, image)
    assert np.abs(got - DenseCRF()(probabilities, image)).max() <= CRF_UNORM16_ABS


def test_one_pixel_sees_only_itself():
    probabilities = np.array([0.7, 0.3], np.float32).reshape(2, 1, 1)
    got = DenseCRF(iterations=1, storage="unorm16")(probabilities, np.zeros((1, 1, 3), np.uint8))
    expected = softmax(np.log([0.7, 0.3]) + 7.0 * np.array([0.7, 0.3]))
    assert got[:, 0, 0] == pytest.approx(expected, abs=CRF_UNORM16_ABS)


def test_a_certain_class_stays_certain_where_vertices_sum_thousands_of_pixels():
    """1 is the largest fraction: what rounding adds to it would be lost, and with it the class."""
    probabilities = np.zeros((3, 200, 211), np.float32)
    probabilities[1] = 1
    got = DenseCRF(PARAMS["P2"], storage="unorm16")(probabilities, np.full((200, 211, 3), 90, np.uint8))
    assert np.abs(got - probabilities).max() <= CRF_UNORM16_ABS


@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(1, 12), classes=st.integers(1, 6))
def test_noise_stays_near_single_precision(seed, height, width, classes):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), size=(height, width)).transpose(2, 0, 1).astype(np.float32)
    got = DenseCRF(iterations=4, storage="unorm16")(probabilities, image)
    assert got == pytest.approx(DenseCRF(iterations=4)(probabilities, image), abs=CRF_UNORM16_ABS)


def test_without_updates_or_kernels_nothing_is_rounded(make_scene):
    probabilities, image = make_scene(3, 5, 6)
    for params, iterations in ((P1, 0), (replace(P1, bilateral_weight=0, gaussian_weight=0), 10)):
        got = DenseCRF(params, iterations=iterations, storage="unorm16")(probabilities, image)
        assert got == pytest.approx(probabilities, abs=CRF_LATTICE_ABS)


@pytest.mark.parametrize("leave_out", ["bilateral_weight", "gaussian_weight"])
def test_a_single_kernel(make_scene, leave_out):
    probabilities, image = make_scene(6, 14, 15)
    params = replace(P1, **{leave_out: 0.0})
    got = DenseCRF(params, storage="unorm16")(probabilities, image)
    assert np.abs(got - DenseCRF(params)(probabilities, image)).max() <= CRF_UNORM16_ABS


def test_an_instance_serves_one_picture_after_another(make_scene):
    crf = DenseCRF(storage="unorm16")
    for classes, height, width in ((5, 20, 30), (5, 20, 30), (7, 12, 9), (5, 20, 30)):
        scene = make_scene(classes, height, width)
        assert (crf(*scene) == DenseCRF(storage="unorm16")(*scene)).all()


@pytest.mark.parametrize("dimensions", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
@pytest.mark.parametrize("kind", ["potts", "vector", "matrix"])
def test_every_normalization_and_compatibility(make_scene, rng, dimensions, normalization, kind):
    classes, height, width = 5, 9, 10
    probabilities, _ = make_scene(classes, height, width)
    features = rng.normal(size=(dimensions, height * width)).astype(np.float32)
    square = rng.normal(size=(classes, classes)) - 2 * np.eye(classes)
    compatibility = {
        "potts": np.full(classes, -3.0),
        "vector": -rng.uniform(1, 4, size=classes),
        "matrix": (square + square.T) / 2,
    }[kind]
    if normalization == "none":  # sums that nothing divides grow with the number of pixels
        compatibility = compatibility * 0.05
    marginals = []
    for field, takes_fractions in (
        (_native.MeanField(height * width, classes), False),
        (_native.FractionMeanField(height * width, classes), True),
    ):
        kernel = _native.Filter(takes_fractions)
        kernel.build_from_features(features, normalization)
        field.add_term(kernel, compatibility.astype(np.float32))
        assert field.set_unary_from_probabilities(probabilities)
        field.infer(5)
        marginals.append(field.marginals())
    assert np.abs(marginals[1] - marginals[0]).max() <= CRF_UNORM16_ABS


@pytest.mark.parametrize("takes_fractions", [False, True])
def test_a_filter_for_other_rows_is_refused(rng, takes_fractions):
    kernel = _native.Filter(takes_fractions)
    kernel.build_from_features(rng.normal(size=(2, 12)).astype(np.float32))
    field = _native.MeanField(12, 2) if takes_fractions else _native.FractionMeanField(12, 2)
    field.add_term(kernel, np.full(2, -1, np.float32))
    assert field.set_unary_from_probabilities(np.full((2, 12), 0.5, np.float32))
    with pytest.raises(CRFError, match="rows of another type"):
        field.infer(1)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_the_gpu_rounds_as_much(make_scene, params):
    probabilities, image = make_scene(5, 40, 60)
    got = DenseCRF(params, storage="unorm16")(probabilities, image)
    there = CudaDenseCRF(params, storage="unorm16", device=EmulatedDevice())(probabilities, image)
    assert np.abs(got - there).max() <= CRF_UNORM16_ABS
    assert (got.argmax(axis=0) == there.argmax(axis=0)).all()
