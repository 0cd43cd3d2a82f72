"""The drop-in against pydensecrf itself where it is installed, and against the step-by-step lattice everywhere."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from decimal import Decimal

import needs
import numpy as np
import pytest
from crf_oracles import colour_features, lattice_kernel, mean_field, normalized, position_features, potts, softmax
from tolerances import CRF_LATTICE_ABS, CRF_PEER_ABS, CRF_PEER_KL_RELATIVE

from atrous.crf.pydensecrf import densecrf, eigen, utils
from atrous.errors import CRFError, ShapeError

CLASSES, HEIGHT, WIDTH = 4, 11, 14
PIXELS = HEIGHT * WIDTH
NORMALIZATIONS = {
    "none": densecrf.NO_NORMALIZATION,
    "before": densecrf.NORMALIZE_BEFORE,
    "after": densecrf.NORMALIZE_AFTER,
    "symmetric": densecrf.NORMALIZE_SYMMETRIC,
}
VECTOR = np.array([-3, -1, -2, 0.5], np.float32)
MATRIX = np.array([[-2, 1, 0, 0], [0, -3, 0.5, 0], [0.5, 0, -1, 0], [0, 0, 1, -2]], np.float32)


@pytest.fixture
def scene(make_scene):
    """Energies [C, N] and an image."""
    probabilities, image = make_scene(CLASSES, HEIGHT, WIDTH)
    return utils.unary_from_softmax(probabilities), image


def full_matrix(compat):
    if np.ndim(compat) == 0:
        return potts(CLASSES, compat)
    return np.diag(compat) if np.ndim(compat) == 1 else (compat + compat.T) / 2


def twin(energy, terms, iterations):
    """terms: features [N, D], compatibility, kind of normalisation."""
    kernels = [(normalized(lattice_kernel(f), len(f), kind), full_matrix(compat)) for f, compat, kind in terms]
    return mean_field(energy.T.astype(np.float64), kernels, iterations).T


def crf_with(energy):
    crf = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    crf.setUnaryEnergy(energy)
    return crf


@pytest.mark.parametrize("iterations", [0, 1, 5])
@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("compat", [3, VECTOR, MATRIX], ids=["potts", "vector", "matrix"])
def test_inference_equals_the_lattice_step_by_step(scene, compat, kind, iterations):
    energy, image = scene
    # Unnormalised responses grow with the number of pixels: with weights of order one they saturate everything.
    compat = compat * 0.05 if kind == "none" else compat
    crf = crf_with(energy)
    crf.addPairwiseGaussian(sxy=(2, 3), compat=compat, normalization=NORMALIZATIONS[kind])
    crf.addPairwiseBilateral(sxy=20, srgb=(13, 9, 11), rgbim=image, compat=compat, normalization=NORMALIZATIONS[kind])
    gaussian = position_features(HEIGHT, WIDTH, 1) / np.array([2, 3], np.float32)
    bilateral = colour_features(image, 20, 1) / np.array([1, 1, 13, 9, 11], np.float32)
    expected = twin(energy, [(gaussian, compat, kind), (bilateral, compat, kind)], iterations)
    assert np.abs(crf.inference(iterations) - expected).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5, 6, 8, 9, 12, 32, 33, 65])
def test_any_number_of_features(scene, rng, dimensions):
    pixels = PIXELS if dimensions <= 12 else 5  # the oracle is slow
    energy = scene[0][:, :pixels]
    features = rng.normal(size=(dimensions, pixels)).astype(np.float32)
    crf = densecrf.DenseCRF(pixels, CLASSES)
    crf.setUnaryEnergy(energy)
    crf.addPairwiseEnergy(features, compat=2)
    expected = twin(energy, [(features.T, 2, "symmetric")], 3)
    assert np.abs(crf.inference(3) - expected).max() <= CRF_LATTICE_ABS


def test_features_made_by_the_utils_have_row_before_column(scene):
    energy, image = scene
    gaussian = utils.create_pairwise_gaussian((3, 2), (HEIGHT, WIDTH))
    assert gaussian.dtype == np.float32
    assert (gaussian.reshape(2, HEIGHT, WIDTH)[0, :, 0] == np.arange(HEIGHT, dtype=np.float32) / 3).all()
    bilateral = utils.create_pairwise_bilateral((20, 20), (13, 9, 11), image, chdim=2)
    assert bilateral.shape == (5, PIXELS)
    assert bilateral[2:] == pytest.approx(image.reshape(-1, 3).T / np.array([[13], [9], [11]]), rel=1e-6)
    grey = utils.create_pairwise_bilateral((20, 20), 7, image[..., 0])
    assert grey[2] == pytest.approx(image[..., 0].ravel() / 7, rel=1e-6)
    crf = crf_with(energy)
    crf.addPairwiseEnergy(bilateral, compat=4)
    expected = twin(energy, [(bilateral.T, 4, "symmetric")], 2)
    assert np.abs(crf.inference(2) - expected).max() <= CRF_LATTICE_ABS


def test_steps_by_hand_equal_inference_and_lower_the_divergence(scene):
    energy, image = scene
    crf = crf_with(energy)
    crf.addPairwiseBilateral(20, 13, image, 2)
    marginals, first, second = crf.startInference()
    assert marginals == pytest.approx(softmax(-energy.T).T, abs=CRF_LATTICE_ABS)
    divergences = [crf.klDivergence(marginals)]
    for _ in range(4):
        crf.stepInference(marginals, first, second)
        divergences.append(crf.klDivergence(marginals))
    assert (marginals == crf.inference(4)).all()
    assert divergences[-1] < divergences[0]


def test_kl_divergence_is_the_sum_in_the_paper(scene):
    energy, image = scene
    crf = crf_with(energy)
    crf.addPairwiseBilateral(20, 13, image, MATRIX)
    q = crf.inference(2).astype(np.float64)
    kernel = normalized(lattice_kernel(colour_features(image, 20, 13)), PIXELS)
    pairwise = (q.T * (kernel(q.T) @ full_matrix(MATRIX))).sum()
    expected = (q * np.log(np.maximum(q, 1e-20))).sum() + (energy * q).sum() + pairwise
    assert crf.klDivergence(q) == pytest.approx(expected, rel=CRF_PEER_KL_RELATIVE)


def test_without_a_unary_inference_starts_uniform_and_start_gives_zeros():
    crf = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    assert (crf.startInference()[0] == 0).all()
    assert crf.inference(0) == pytest.approx(1 / CLASSES, abs=CRF_LATTICE_ABS)


def test_unaries_are_energies_given_or_by_regression(scene, rng):
    energy, _ = scene
    weights, features = rng.normal(size=(CLASSES, 3)), rng.normal(size=(3, PIXELS))
    crf = densecrf.DenseCRF(PIXELS, CLASSES)
    crf.setUnary(densecrf.ConstUnary(energy))
    assert crf.inference(0) == pytest.approx(softmax(-energy.T).T, abs=CRF_LATTICE_ABS)
    crf.setUnary(densecrf.LogisticUnary(weights, features))
    expected = softmax(-(weights @ features).T).T
    assert crf.inference(0) == pytest.approx(expected, abs=CRF_LATTICE_ABS)
    crf.setUnaryEnergy(weights, features)
    assert crf.inference(0) == pytest.approx(expected, abs=CRF_LATTICE_ABS)


def test_kernel_types_do_not_change_inference(scene):
    energy, image = scene
    results = []
    for kernel in (densecrf.CONST_KERNEL, densecrf.DIAG_KERNEL, densecrf.FULL_KERNEL):
        crf = crf_with(energy)
        crf.addPairwiseBilateral(20, 13, image, 4, kernel=kernel)
        results.append(crf.inference(2))
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_what_pydensecrf_rejects_but_is_safe_is_accepted(scene):
    energy, image = scene
    expected = crf_with(energy)
    expected.addPairwiseBilateral(20, 13, image, 4)
    odd_energy = np.asfortranarray(energy.astype(np.float64))
    frozen = image[::-1].copy()[::-1]
    frozen.setflags(write=False)
    crf = crf_with(odd_energy)
    crf.addPairwiseBilateral(20, 13, frozen, 4)
    assert (crf.inference(2) == expected.inference(2)).all()


def test_what_pydensecrf_swallows_is_refused(scene):
    energy, _ = scene
    crf = crf_with(energy)
    unary = densecrf.ConstUnary(energy)
    crf.setUnary(unary)
    with pytest.raises(CRFError, match="already belongs to another CRF"):
        densecrf.DenseCRF(PIXELS, CLASSES).setUnary(unary)
    for compat in (np.ones(3), np.ones((4, 3)), np.ones((3, 3)), np.full(4, np.nan)):
        with pytest.raises(ShapeError, match="compatibility"):
            crf.addPairwiseGaussian(3, compat)
    bad = energy.copy()
    bad[1, 7] = np.nan
    with pytest.raises(ShapeError, match=r"\[1, 7\]"):
        crf.setUnaryEnergy(bad)
    with pytest.raises(ShapeError, match="of this CRF"):
        crf.klDivergence(np.zeros((CLASSES, PIXELS + 1)))
    other = densecrf.DenseCRF(PIXELS + 1, CLASSES).startInference()
    with pytest.raises(ShapeError, match="of this CRF"):
        crf.stepInference(*other)
    with pytest.raises(ShapeError, match="writeable"):
        crf.stepInference(np.zeros((CLASSES, PIXELS)), None, None)


def test_sizes_and_options_that_do_not_fit_are_named(scene):
    energy, image = scene
    crf = crf_with(energy)
    with pytest.raises(ShapeError, match="swapped"):
        crf.addPairwiseBilateral(20, 13, image.transpose(1, 0, 2), 4)
    with pytest.raises(ShapeError, match="uint8"):
        crf.addPairwiseBilateral(20, 13, image.astype(np.float32), 4)
    with pytest.raises(ShapeError, match="unary"):
        crf.setUnaryEnergy(energy[:, :-1])
    with pytest.raises(ShapeError, match="a matrix"):
        crf.setUnaryEnergy(energy[0])
    with pytest.raises(ShapeError, match="features"):
        crf.addPairwiseEnergy(np.zeros((2, 3)), 4)
    with pytest.raises(ShapeError, match="multiply"):
        densecrf.LogisticUnary(np.zeros((4, 3)), np.zeros((2, 5)))
    for sxy in (0, -1, (1,), "33", None, float("nan")):
        with pytest.raises(CRFError, match="sxy"):
            crf.addPairwiseGaussian(sxy, 4)
    with pytest.raises(CRFError, match="sigma"):
        crf.addPairwiseGaussian(1e-6, 4)
    with pytest.raises(CRFError, match="NormalizationType"):
        crf.addPairwiseGaussian(3, 4, normalization=9)
    with pytest.raises(CRFError, match="iterations"):
        crf.inference(-1)
    for count in ("3", None, [3], float("nan"), float("inf")):
        with pytest.raises(CRFError, match="niter must be a whole number"):
            crf.inference(count)
    for compat in ("3", None, 2j, [[1, 2], [3]]):
        with pytest.raises(ShapeError, match="compatibility must be an array of numbers"):
            crf.addPairwiseGaussian(3, compat)
    with pytest.raises(CRFError, match="1 to 2048 features"):
        densecrf.DenseCRF(2, CLASSES).addPairwiseEnergy(np.zeros((2049, 2)), 4)
    for sizes in ((0, 3, 2), (3, 0, 2), (3, 3, 0)):
        with pytest.raises(CRFError, match="at least one"):
            densecrf.DenseCRF2D(*sizes)


def test_two_crfs_run_in_parallel_and_one_is_safe_to_share(scene):
    energy, image = scene
    crf = crf_with(energy)
    crf.addPairwiseBilateral(20, 13, image, 4)
    expected = crf.inference(5)
    got = []
    workers = [threading.Thread(target=lambda: got.append(crf.inference(5))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((result == expected).all() for result in got)


def test_numbers_of_any_kind_are_counts_and_weights(scene):
    energy, image = scene
    expected = crf_with(energy)
    expected.addPairwiseBilateral((20, 20), (13, 13, 13), image, 4)
    crf = densecrf.DenseCRF2D(float(WIDTH), np.int64(HEIGHT), CLASSES + 0.5, "ignored", ignored=True)
    crf.setUnaryEnergy(energy)
    crf.addPairwiseBilateral(np.float32(20), [13, 13, 13, 1], image, Decimal(4), kernel=1.0, normalization=3.0)
    for iterations in (2.0, 2.9, np.float32(2), np.int64(2), Decimal(2)):
        assert (crf.inference(iterations) == expected.inference(2)).all()


def test_infinite_energies_exclude_labels(scene):
    energy, image = scene
    energy[1, :40] = energy[3, 70:] = np.inf
    crf = crf_with(energy)
    crf.addPairwiseBilateral(20, 13, image, 4)
    for iterations in (0, 5):
        marginals = crf.inference(iterations)
        assert (marginals[1, :40] == 0).all()
        assert (marginals[3, 70:] == 0).all()
        assert marginals.sum(axis=0) == pytest.approx(1, abs=1e-5)
    energy[:, 9] = np.inf
    with pytest.raises(ShapeError, match="all of variable 9"):
        crf.setUnaryEnergy(energy)
    energy[2, 9] = -np.inf
    with pytest.raises(ShapeError, match=r"-inf at \[2, 9\]"):
        crf.setUnaryEnergy(energy)


def test_eigen_makes_arrays():
    matrix, vector = eigen.matrixXf([[1, 2], [3, 4]]), eigen.vectorXf(np.arange(3))
    assert isinstance(matrix, eigen.MatrixXf)
    assert isinstance(vector, eigen.VectorXf)
    assert (matrix.dtype, vector.dtype) == (np.float32, np.float32)
    assert matrix.tolist() == [[1, 2], [3, 4]]
    assert vector.tolist() == [0, 1, 2]
    assert (eigen.MatrixXf(3, 4).shape, eigen.VectorXf(3).shape) == ((0, 0), (0,))
    for values, make in ((np.zeros(3), eigen.matrixXf), (np.zeros((1, 3)), eigen.vectorXf), (None, eigen.vectorXf)):
        with pytest.raises(ShapeError, match="arr must"):
            make(values)


def test_unary_from_labels():
    got = utils.unary_from_labels(np.array([[0, 1], [2, 2]]), 2, gt_prob=0.8)
    assert got == pytest.approx(-np.log([[0.5, 0.8, 0.2, 0.2], [0.5, 0.2, 0.8, 0.8]]), rel=1e-6)
    got = utils.unary_from_labels([0, 2], 3, gt_prob=0.6, zero_unsure=False)
    assert got == pytest.approx(-np.log([[0.6, 0.2], [0.2, 0.2], [0.2, 0.6]]), rel=1e-6)
    for labels, unsure in (([3], True), ([-1], True), ([2], False), ([-1], False)):
        with pytest.raises(CRFError, match="must lie in"):
            utils.unary_from_labels(labels, 2, 0.7, zero_unsure=unsure)
    with pytest.raises(CRFError, match="gt_prob"):
        utils.unary_from_labels([1], 2, gt_prob=1.0)
    with pytest.raises(CRFError, match="must be integers"):
        utils.unary_from_labels([1.5], 2, gt_prob=0.7)


def test_older_names_log_that_they_are_deprecated(caplog):
    labels, probabilities = np.array([0, 1, 2]), np.array([[0.25, 0], [0.75, 1]])
    assert (utils.compute_unary(labels, 2) == utils.unary_from_labels(labels, 2, 0.5)).all()
    assert utils.softmax_to_unary(probabilities)[0, 1] == np.inf
    assert (utils.softmax_to_unary(probabilities, 0.7) == utils.unary_from_softmax(probabilities, 0.7, clip=None)).all()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_unary_from_softmax():
    probabilities = np.array([[0.0, 0.25], [1.0, 0.75]]).reshape(2, 1, 2)
    got = utils.unary_from_softmax(probabilities)
    assert got.dtype == np.float32
    assert got == pytest.approx(-np.log([[1e-5, 0.25], [1, 0.75]]), rel=1e-6)
    scaled = utils.unary_from_softmax(probabilities, scale=0.5, clip=None)
    assert scaled == pytest.approx(-np.log([[0.25, 0.375], [0.75, 0.625]]), rel=1e-6)
    with pytest.raises(CRFError, match="scale"):
        utils.unary_from_softmax(probabilities, scale=0)


needs_peer = needs.PYDENSECRF.importable("pydensecrf")


def run_script(module, helpers, probabilities, image, compat, kind, iterations):
    """The same calls on either implementation: marginals, and their divergence."""
    classes, height, width = probabilities.shape
    crf = module.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(helpers.unary_from_softmax(probabilities))
    normalization = getattr(module, NORMALIZATIONS[kind].name)
    crf.addPairwiseGaussian(sxy=1, compat=3, kernel=module.FULL_KERNEL)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=compat, normalization=normalization)
    marginals = np.array(crf.inference(iterations))
    state = crf.startInference()
    for _ in range(iterations):
        crf.stepInference(*state)
    assert np.abs(np.array(state[0]) - marginals).max() <= CRF_PEER_ABS
    return marginals, crf.klDivergence(state[0])


@needs_peer
@pytest.mark.parametrize("iterations", [1, 5, 10])
@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("compat", [4, VECTOR, MATRIX], ids=["potts", "vector", "matrix"])
def test_equals_pydensecrf(make_scene, compat, kind, iterations):
    compat = compat * 0.05 if kind == "none" else compat
    peer, peer_utils = importlib.import_module("pydensecrf.densecrf"), importlib.import_module("pydensecrf.utils")
    probabilities, image = make_scene(CLASSES, 47, 61)  # a number of pixels that four does not divide
    got, divergence = run_script(densecrf, utils, probabilities, image, compat, kind, iterations)
    expected, peer_divergence = run_script(peer, peer_utils, probabilities, image, compat, kind, iterations)
    assert np.abs(got - expected).max() <= CRF_PEER_ABS
    assert (got.argmax(axis=0) == expected.argmax(axis=0)).all()
    assert divergence == pytest.approx(peer_divergence, rel=CRF_PEER_KL_RELATIVE)


@needs_peer
def test_helpers_equal_those_of_pydensecrf(make_scene, rng):
    peer = importlib.import_module("pydensecrf.utils")
    probabilities, image = make_scene(CLASSES, 9, 12)
    labels = rng.integers(0, CLASSES + 1, size=(9, 12))
    for name, arguments in {
        "unary_from_softmax": (probabilities, 0.9),
        "unary_from_labels": (labels, CLASSES, 0.7),
        "create_pairwise_gaussian": ((3, 2), (9, 12)),
        "create_pairwise_bilateral": ((30, 20), (13, 13, 13), image, 2),
        "compute_unary": (labels, CLASSES),
        "softmax_to_unary": (probabilities, 0.9),
    }.items():
        expected = getattr(peer, name)(*arguments)
        assert getattr(utils, name)(*arguments) == pytest.approx(expected, rel=1e-6)


@needs_peer
@pytest.mark.parametrize("schan", [7, 7.5, np.float32(7), (7, 8, 9), np.array([7, 8, 9]), [7, 8], (7,), (7, 8, 9, 10)])
@pytest.mark.parametrize("sdims", [(3, 2), (3,), (3, 2, 1)])
@pytest.mark.parametrize("chdim", [0, 2])
def test_bilateral_features_equal_those_of_pydensecrf(make_scene, schan, sdims, chdim):
    peer = importlib.import_module("pydensecrf.utils")
    image = make_scene(CLASSES, 9, 12)[1]
    image = image.transpose(2, 0, 1) if chdim == 0 else image
    try:
        expected = peer.create_pairwise_bilateral(sdims, schan, image, chdim)
    except IndexError:
        with pytest.raises(ShapeError, match="more entries"):
            utils.create_pairwise_bilateral(sdims, schan, image, chdim)
    else:
        assert (utils.create_pairwise_bilateral(sdims, schan, image, chdim) == expected).all()


@needs_peer
@pytest.mark.parametrize("dimensions", [64, 128, 257])
def test_many_features_equal_pydensecrf(rng, dimensions):
    features = rng.normal(size=(dimensions, 13)).astype(np.float32)
    energy = rng.uniform(0, 4, (CLASSES, 13)).astype(np.float32)
    results = []
    for module in (densecrf, importlib.import_module("pydensecrf.densecrf")):
        crf = module.DenseCRF(13, CLASSES)
        crf.setUnaryEnergy(energy)
        crf.addPairwiseEnergy(features, 2)
        results.append(np.array(crf.inference(3)))
    assert np.abs(results[0] - results[1]).max() <= CRF_PEER_ABS


@needs_peer
@pytest.mark.parametrize("name", ["densecrf", "eigen", "utils"])
def test_has_every_public_name_of_pydensecrf(name):
    peer = importlib.import_module(f"pydensecrf.{name}")
    ours = importlib.import_module(f"atrous.crf.pydensecrf.{name}")
    assert public_names(peer) <= public_names(ours)
    for each in public_names(peer):
        if isinstance(getattr(peer, each), type):
            assert public_names(getattr(peer, each)) <= public_names(getattr(ours, each))


def public_names(where):
    return {name for name in dir(where) if not name.startswith("_")}


#: What random scripts draw from: (name of the call, arguments). The CRF is of CLASSES labels on HEIGHT×WIDTH.
def draw_call(rng):
    def sigma(count):
        return [float(rng.uniform(1, 30)), tuple(rng.uniform(1, 30, count).tolist()), rng.uniform(1, 30, count + 1)]

    def pick(options):
        return options[rng.integers(len(options))]

    compat = pick([2, 0.7, np.float32(3), Decimal(1), True, VECTOR, MATRIX, VECTOR.astype(float), "3", None, 2j])
    options = {"kernel": pick([0, 1, 2, 1.0, "x"]), "normalization": pick([1, 2, 3, 3.0, None])}
    options = pick([{}, {}, options])
    features = rng.normal(size=(pick([1, 2, 3, 7, 33, 60]), pick([PIXELS] * 4 + [PIXELS - 1]))).astype(np.float32)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, pick([3, 3, 3, 4])), dtype=np.uint8)
    energy = rng.uniform(0, 4, (pick([CLASSES] * 4 + [3]), PIXELS)).astype(np.float32)
    if rng.random() < 0.3:
        energy[0, rng.random(PIXELS) < 0.2] = np.inf
    return pick(
        [
            ("setUnaryEnergy", (energy,), {}),
            ("addPairwiseGaussian", (pick([*sigma(2), (3,), "3"]), compat), options),
            ("addPairwiseBilateral", (pick(sigma(2)), pick([*sigma(3), (3, 4)]), image, compat), options),
            ("addPairwiseEnergy", (features, compat), options),
            ("inference", (pick([0, 1, 3, 2.0, 2.7, np.float32(2), "2", None]),), {}),
            ("steps", (int(rng.integers(4)),), {}),
        ]
    )


def run_call(crf, name, arguments, options):
    """What a call returns as an array, or None where it raises."""
    try:
        if name != "steps":
            got = getattr(crf, name)(*arguments, **options)
            return np.array([] if got is None else got)
        state = crf.startInference()
        for _ in range(arguments[0]):
            crf.stepInference(*state)
        return np.array(state[0])
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def is_more_than_pydensecrf_takes(name, arguments):
    """Whether a call is one of those that docs/migrating-from-pydensecrf.md says are accepted here only."""
    return name.startswith("add") and isinstance(arguments[-1], np.ndarray) and arguments[-1].dtype == np.float64


@needs_peer
@pytest.mark.parametrize("seed", range(60))
def test_random_scripts_do_the_same_in_pydensecrf(seed):
    peer = importlib.import_module("pydensecrf.densecrf")
    rng = np.random.default_rng(seed)
    theirs, ours = peer.DenseCRF2D(WIDTH, HEIGHT, CLASSES), densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
    for _ in range(12):
        name, arguments, options = draw_call(rng)
        if is_more_than_pydensecrf_takes(name, arguments):
            continue
        expected = run_call(theirs, name, arguments, options)
        got = run_call(ours, name, arguments, options)
        assert (got is None) == (expected is None), (name, arguments, options)
        if expected is not None:
            assert got.shape == expected.shape
            assert np.abs(got - expected).max(initial=0) <= CRF_PEER_ABS, (name, arguments, options)
