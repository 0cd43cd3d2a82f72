from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import get_args

import needs
import numpy as np
import pytest
from crf_oracles import (
    colour_features,
    exact_kernel,
    lattice_kernel,
    mean_field,
    normalized,
    position_features,
    potts,
    softmax,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import CRF_EXACT_AGREEMENT, CRF_EXACT_MEAN_ABS, CRF_LATTICE_ABS, CRF_SUM_ABS

from atrous import _native
from atrous.crf import CRFParams, DenseCRF
from atrous.crf.params import Storage
from atrous.errors import ArgumentError, CRFError, ShapeError

STORAGES = get_args(Storage)
PARAMS = [CRFParams.deeplab_v2_resnet(), CRFParams.deeplab_v2_vgg()]


def reference(make_kernel, probabilities, image, params, iterations):
    classes, height, width = probabilities.shape
    pixels = height * width
    unary = -np.log(np.clip(probabilities.reshape(classes, pixels).T.astype(np.float64), 1e-5, 1.0))
    gaussian = make_kernel(position_features(height, width, params.gaussian_sigma_xy_px))
    bilateral = make_kernel(colour_features(image, params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb))
    terms = [
        (normalized(gaussian, pixels), potts(classes, params.gaussian_weight)),
        (normalized(bilateral, pixels), potts(classes, params.bilateral_weight)),
    ]
    return mean_field(unary, terms, iterations).T.reshape(classes, height, width)


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 3, 4), (2, 7, 9), (3, 1, 11), (5, 13, 1), (21, 17, 19)])
@pytest.mark.parametrize("iterations", [1, 10])
def test_equals_the_lattice_worked_out_step_by_step(make_scene, params, classes, height, width, iterations):
    probabilities, image = make_scene(classes, height, width)
    got = DenseCRF(params, iterations=iterations)(probabilities, image)
    expected = reference(lattice_kernel, probabilities, image, params, iterations)
    assert np.abs(got - expected).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("params", PARAMS)
def test_stays_near_the_exact_sum_over_all_pairs(make_scene, params):
    probabilities, image = make_scene(4, 24, 30)
    got = DenseCRF(params, iterations=5)(probabilities, image)
    expected = reference(exact_kernel, probabilities, image, params, 5)
    assert np.abs(got - expected).mean() <= CRF_EXACT_MEAN_ABS
    agreement = (got.argmax(0) == expected.argmax(0)).mean()
    assert agreement >= CRF_EXACT_AGREEMENT


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 8, 9, 24, 33, 65, 130, 256])
def test_every_number_of_classes(make_scene, classes):
    probabilities, image = make_scene(classes, 6, 7)
    got = DenseCRF(iterations=3)(probabilities, image)
    expected = reference(lattice_kernel, probabilities, image, PARAMS[0], 3)
    assert np.abs(got - expected).max() <= CRF_LATTICE_ABS
    assert np.abs(got.sum(axis=0) - 1).max() <= CRF_SUM_ABS


def test_one_pixel_sees_only_itself():
    """With symmetric normalisation a lone pixel's filter is the identity: Q ← softmax(−U + (4 + 3)·Q)."""
    probabilities = np.array([0.7, 0.3], np.float32).reshape(2, 1, 1)
    got = DenseCRF(iterations=1)(probabilities, np.zeros((1, 1, 3), np.uint8))
    expected = softmax(np.log([0.7, 0.3]) + 7.0 * np.array([0.7, 0.3]))
    assert got[:, 0, 0] == pytest.approx(expected, abs=CRF_LATTICE_ABS)


def test_pixels_too_different_to_see_each_other_are_lone_pixels():
    """Black beside white at σ_rgb = 3, and one pixel apart at σ_γ = 0.1: both kernels are the identity."""
    params = CRFParams(
        bilateral_weight=4,
        bilateral_sigma_xy_px=67,
        bilateral_sigma_rgb=3,
        gaussian_weight=3,
        gaussian_sigma_xy_px=0.1,
    )
    probabilities = np.array([[0.8, 0.3], [0.2, 0.7]], np.float32).reshape(2, 1, 2)
    image = np.array([0, 0, 0, 255, 255, 255], np.uint8).reshape(1, 2, 3)
    got = DenseCRF(params, iterations=1)(probabilities, image)[:, 0]
    alone = np.array([softmax(np.log(p) + 7.0 * np.array(p)) for p in ([0.8, 0.2], [0.3, 0.7])]).T
    assert got == pytest.approx(alone, abs=CRF_LATTICE_ABS)


def test_zero_weights_or_no_iterations_leave_the_unary(make_scene):
    probabilities, image = make_scene(3, 5, 6)
    nothing = CRFParams(
        bilateral_weight=0,
        bilateral_sigma_xy_px=10,
        bilateral_sigma_rgb=10,
        gaussian_weight=0,
        gaussian_sigma_xy_px=1,
    )
    for crf in (DenseCRF(nothing), DenseCRF(iterations=0)):
        assert crf(probabilities, image) == pytest.approx(probabilities, abs=CRF_LATTICE_ABS)


@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(1, 12), classes=st.integers(1, 6))
def test_marginals_are_probabilities_and_classes_may_be_renamed(seed, height, width, classes):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), size=(height, width)).transpose(2, 0, 1).astype(np.float32)
    crf = DenseCRF(iterations=4)
    got = crf(probabilities, image)
    assert (got >= 0).all()
    assert np.abs(got.sum(axis=0) - 1).max() <= CRF_SUM_ABS
    order = rng.permutation(classes)
    assert crf(probabilities[order], image) == pytest.approx(got[order], abs=CRF_LATTICE_ABS)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_result_has_the_same_bits_for_any_number_of_threads(make_scene, storage):
    probabilities, image = make_scene(21, 61, 83)
    one = DenseCRF(threads=1, storage=storage)(probabilities, image)
    for threads in (2, 3, 5, 0):
        assert (DenseCRF(threads=threads, storage=storage)(probabilities, image) == one).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_lattices_of_many_shares_of_the_pixels_give_the_same_bits(make_scene, storage):
    """Large enough that five threads build parts of the lattice; odd, so that pydensecrf's filler pixel exists."""
    probabilities, image = make_scene(3, 153, 141)
    one = DenseCRF(threads=1, iterations=3, storage=storage)(probabilities, image)
    for threads in (2, 3, 5):
        assert (DenseCRF(threads=threads, iterations=3, storage=storage)(probabilities, image) == one).all()
    vertices = set()
    for threads in (1, 2, 5):
        lattice = _native.Filter()
        lattice.build_bilateral(image, (67.0, 67.0), (3.0, 3.0, 3.0), threads=threads)
        vertices.add(lattice.vertices)
    assert len(vertices) == 1


def test_a_second_call_is_not_affected_by_the_first(make_scene):
    first, second, other_size = make_scene(5, 20, 31), make_scene(5, 20, 31), make_scene(4, 9, 40)
    crf = DenseCRF()
    for probabilities, image in (first, second, other_size, first):
        assert (crf(probabilities, image) == DenseCRF()(probabilities, image)).all()


def test_labels_are_the_first_of_the_largest_marginals(make_scene):
    probabilities, image = make_scene(6, 15, 22)
    crf = DenseCRF()
    labels = crf.labels(probabilities, image)
    assert labels.dtype == np.uint8
    assert (labels == crf(probabilities, image).argmax(axis=0)).all()
    even = np.full((3, 4, 5), 1 / 3, np.float32)
    assert (crf.labels(even, np.zeros((4, 5, 3), np.uint8)) == 0).all()


def test_labels_and_marginals_are_those_of_one_inference(make_scene):
    probabilities, image = make_scene(6, 15, 22)
    crf = DenseCRF()
    labels, marginals = crf.labels_and_marginals(probabilities, image)
    assert labels.dtype == np.uint8
    assert (labels == crf.labels(probabilities, image)).all()
    assert (marginals == crf(probabilities, image)).all()


def test_threads_that_share_an_instance_take_turns(make_scene):
    scenes = [make_scene(3, 30 + 7 * i, 40) for i in range(4)]
    crf = DenseCRF(threads=1)
    got: dict[int, np.ndarray] = {}
    workers = [threading.Thread(target=lambda i=i: got.update({i: crf(*scenes[i])})) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, scene in enumerate(scenes):
        assert (got[i] == DenseCRF(threads=1)(*scene)).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_lower_instruction_set_gives_the_same_bits(make_scene, tmp_path, storage):
    probabilities, image = make_scene(21, 33, 29)
    np.savez(tmp_path / "scene.npz", probabilities=probabilities, image=image)
    script = (
        "import sys, numpy as np, atrous._native as n\nfrom atrous.crf import DenseCRF\n"
        "s = np.load(sys.argv[1])\ncrf = DenseCRF(storage=sys.argv[3])\n"
        "np.save(sys.argv[2], crf(s['probabilities'], s['image']))\nprint(n.isa())"
    )
    here = DenseCRF(storage=storage)(probabilities, image)
    for isa in ("baseline", "avx2"):
        command = [sys.executable, "-c", script, str(tmp_path / "scene.npz"), str(tmp_path / "out.npy"), storage]
        run = subprocess.run(command, env={**os.environ, "ATROUS_ISA": isa}, capture_output=True, text=True)
        if "this CPU runs at most" in run.stderr:
            needs.OTHER_ISA.skip(f"no {isa}")
        assert run.stdout.strip() == isa, run.stderr
        assert (np.load(tmp_path / "out.npy") == here).all()


def test_float64_strided_and_read_only_input_is_converted(make_scene):
    probabilities, image = make_scene(3, 8, 10)
    expected = DenseCRF()(probabilities, image)
    strided = np.asfortranarray(probabilities.astype(np.float64))
    frozen = image[:, ::-1].copy()[:, ::-1]
    frozen.setflags(write=False)
    assert DenseCRF()(strided, frozen) == pytest.approx(expected, abs=CRF_LATTICE_ABS)


@pytest.mark.parametrize(
    ("maps_shape", "image_shape", "message"),
    [
        ((3, 4, 5), (5, 4, 3), "width and height swapped"),
        ((3, 4, 5), (4, 6, 3), "differs in size"),
        ((3, 4, 5), (4, 5), "wrong shape"),
        ((3, 4, 5), (4, 5, 4), "wrong shape"),
        ((4, 5), (4, 5, 3), "wrong shape"),
        ((1, 3, 4, 5), (4, 5, 3), "batch axis"),
        ((3, 0, 5), (0, 5, 3), "wrong shape"),
        ((65537, 4, 5), (4, 5, 3), "too many classes"),
    ],
)
def test_shapes_that_do_not_fit_are_named(maps_shape, image_shape, message):
    with pytest.raises(ShapeError, match=message):
        DenseCRF()(np.full(maps_shape, 0.5, np.float32), np.zeros(image_shape, np.uint8))


def test_dtypes_and_values_that_do_not_fit_are_named(make_scene):
    probabilities, image = make_scene(3, 4, 5)
    with pytest.raises(ShapeError, match="dtype"):
        DenseCRF()(probabilities, image.astype(np.float32))
    with pytest.raises(ShapeError, match="dtype"):
        DenseCRF()(np.ones((3, 4, 5), np.int64), image)
    with pytest.raises(ShapeError, match="apply softmax"):
        DenseCRF()(np.log(probabilities), image)
    for bad in (np.nan, np.inf):
        broken = probabilities.copy()
        broken[2, 1, 3] = bad
        with pytest.raises(ShapeError, match="class 2, row 1, column 3" if np.isnan(bad) else "lie in"):
            DenseCRF()(broken, image)


def test_an_image_beyond_memory_is_refused_with_an_estimate():
    probabilities = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 30000, 30000), (0, 0, 0))
    image = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (30000, 30000, 3), (0, 0, 0))
    with pytest.raises(CRFError, match="GiB"):
        DenseCRF()(probabilities, image)


def test_a_sigma_too_small_for_lattice_coordinates_is_refused(make_scene):
    tiny = CRFParams(
        bilateral_weight=4,
        bilateral_sigma_xy_px=67,
        bilateral_sigma_rgb=1e-3,
        gaussian_weight=3,
        gaussian_sigma_xy_px=1,
    )
    probabilities, image = make_scene(2, 6, 8)
    with pytest.raises(CRFError, match="sigma"):
        DenseCRF(tiny)(probabilities, image)


def test_a_colour_sigma_beyond_the_compact_keys_still_matches(make_scene):
    """At σ_rgb = 0.2 coordinates exceed 12 bits, and the lattice takes its wide keys."""
    fine = CRFParams(
        bilateral_weight=4,
        bilateral_sigma_xy_px=2,
        bilateral_sigma_rgb=0.2,
        gaussian_weight=3,
        gaussian_sigma_xy_px=1,
    )
    probabilities, image = make_scene(2, 6, 8)
    expected = reference(lattice_kernel, probabilities, image, fine, 2)
    assert np.abs(DenseCRF(fine, iterations=2)(probabilities, image) - expected).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("option", ["iterations", "threads"])
def test_negative_options_are_refused(option):
    with pytest.raises(CRFError, match=option):
        DenseCRF(**{option: -1})


def test_an_unknown_storage_is_refused():
    with pytest.raises(CRFError, match="storage must be one of fp32, unorm16, got 'fp16'"):
        DenseCRF(storage="fp16")


@pytest.mark.parametrize("name", ["iterations", "threads"])
def test_counts_are_whole_numbers(name):
    assert type(getattr(DenseCRF(**{name: np.int64(2)}), name)) is int
    for value in (-1, np.int64(-1)):
        with pytest.raises(CRFError, match=f"{name} must be 0 or more, got {value}"):
            DenseCRF(**{name: value})
    for value in (2.5, "2"):
        with pytest.raises(ArgumentError, match=f"{name} must be int; got"):
            DenseCRF(**{name: value})


def test_masked_values_are_refused(make_scene):
    probabilities, image = make_scene(3, 8, 8)
    with pytest.raises(ShapeError, match="probabilities must have values everywhere; got 1 masked ones"):
        DenseCRF()(np.ma.masked_array(probabilities, mask=np.arange(192).reshape(3, 8, 8) == 5), image)
    with pytest.raises(ShapeError, match="the image must have values everywhere; got 192 masked ones"):
        DenseCRF()(probabilities, np.ma.masked_array(image, mask=True))
