"""Memory that the CRF on the CPU keeps for the next call: pages, and lattices of images that come again."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from atrous import _native
from atrous.crf import DenseCRF, release_memory
from atrous.crf import pydensecrf as densecrf
from atrous.crf.kept_filters import KEPT_FILTERS, FilterOptions, KeptFilters
from atrous.errors import CRFError

#: An image whose buffers come from the pool.
SIZE = (120, 160)


@pytest.fixture(autouse=True)
def nothing_kept():
    release_memory()
    yield
    release_memory()


@pytest.fixture
def scene(make_scene):
    return make_scene(5, *SIZE)


def options(**changed):
    given = {"size": SIZE, "sigma_xy_px": (67.0, 67.0), "sigma_rgb": (3.0, 3.0, 3.0)}
    return FilterOptions(**{**given, **changed})


def drop_in(probabilities, image):
    classes, height, width = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(classes, -1))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return crf.inference(3)


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def held_bytes():
    in_use, kept, _ = _native.pool_bytes()
    return in_use + kept


@pytest.mark.parametrize("refine", [drop_in, lambda *scene: DenseCRF(iterations=3)(*scene)], ids=["drop-in", "kept"])
def test_a_call_takes_the_memory_of_the_one_before(scene, refine):
    probabilities, image = scene
    held = []
    for shift in range(8):
        refine(probabilities, np.roll(image, shift, axis=0).copy())
        held.append(held_bytes())
    assert 0 < held[-1] <= 1.1 * held[2]  # from the third on, as many lattices as ever are kept


def test_memory_goes_back_to_the_system(scene):
    probabilities, image = (np.tile(array, tiles) for array, tiles in zip(scene, ((1, 4, 4), (4, 4, 1)), strict=True))
    others = _native.pool_bytes()[0]  # what other tests still hold
    DenseCRF(iterations=1)(probabilities, image)
    assert _native.pool_bytes()[1] > 20 << 20
    before = resident_bytes()
    released = release_memory()
    assert released > 20 << 20
    in_use, kept, _ = _native.pool_bytes()
    assert in_use <= others
    assert kept == 0
    assert before - resident_bytes() > 0.8 * released
    assert release_memory() == 0


def test_results_outlive_what_is_released(scene):
    marginals = DenseCRF(iterations=3)(*scene)
    copy = marginals.copy()
    release_memory()
    DenseCRF(iterations=1)(scene[0][::-1], scene[1])
    assert np.array_equal(marginals, copy)


def test_what_is_kept_is_bounded():
    _, _, limit = _native.pool_bytes()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < limit <= physical // 8
    field = _native.MeanField(limit // 16, 1)  # two arrays of a quarter of the limit each
    del field
    field = _native.MeanField(limit // 4, 1)
    del field
    assert _native.pool_bytes()[1] <= limit


def test_calls_of_many_sizes_at_once(make_scene):
    scenes = [make_scene(3 + place % 4, 90 + 17 * place, 150 - 9 * place) for place in range(6)]
    expected = [DenseCRF(iterations=2)(*scene) for scene in scenes]
    release_memory()
    stop = threading.Event()

    def keep_releasing():
        while not stop.wait(0.001):
            release_memory()

    releaser = threading.Thread(target=keep_releasing)
    releaser.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda scene: DenseCRF(iterations=2)(*scene), scenes * 4))
    finally:
        stop.set()
        releaser.join()
    for place, marginals in enumerate(got):
        assert np.array_equal(marginals, expected[place % len(scenes)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_while_threads_take_memory(scene):
    expected = DenseCRF(iterations=2)(*scene)
    stop = threading.Event()

    def keep_taking():
        while not stop.is_set():
            _native.MeanField(200_000, 1)

    taker = threading.Thread(target=keep_taking)
    taker.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                is_equal = np.array_equal(DenseCRF(iterations=2)(*scene), expected)
                os._exit(0 if is_equal else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        taker.join()
    assert np.array_equal(DenseCRF(iterations=2)(*scene), expected)


def test_lattices_of_the_same_image_are_built_once(scene):
    _, image = scene
    kept = KeptFilters()
    first = kept.bilateral(image, options())
    assert kept.bilateral(image.copy(), options()) is first
    assert kept.bilateral(image, options(sigma_rgb=(3.0, 3.0, 4.0))) is not first
    assert kept.bilateral(image, options(normalization="before")) is not first
    assert kept.gaussian(options(sigma_rgb=None)) is kept.gaussian(options(sigma_rgb=None))


@pytest.mark.parametrize("refine", [drop_in, lambda *scene: DenseCRF(iterations=3)(*scene)], ids=["drop-in", "kept"])
def test_an_image_that_changes_in_place_is_another(scene, refine):
    probabilities, image = scene
    refine(probabilities, image)
    image[40:60, 50:90] //= 2
    got = refine(probabilities, image)
    KEPT_FILTERS.clear()
    assert np.array_equal(got, refine(probabilities, image))


def test_a_kept_crf_follows_its_images(scene):
    probabilities, image = scene
    other = image[::-1].copy()
    crf = DenseCRF(iterations=3)
    expected = [DenseCRF(iterations=3)(probabilities, each) for each in (image, other)]
    for each in (0, 1, 0, 0, 1):
        assert np.array_equal(crf(probabilities, (image, other)[each]), expected[each])


def test_few_lattices_are_kept(scene):
    _, image = scene
    kept = KeptFilters()
    gaussian = kept.gaussian(options(sigma_rgb=None))
    for shift in range(5):
        kept.bilateral(np.roll(image, shift, axis=0).copy(), options())
        assert kept.gaussian(options(sigma_rgb=None)) is gaussian
    assert len(kept._kept) == 4
    kept.clear()
    assert kept.gaussian(options(sigma_rgb=None)) is not gaussian


def test_large_lattices_are_not_kept(scene):
    _, image = scene
    first = KeptFilters().bilateral(image, options())
    kept = KeptFilters(max_bytes=first.nbytes)  # without the image's own
    assert kept.bilateral(image, options()) is not kept.bilateral(image, options())


def test_a_lattice_that_cannot_be_built_is_not_kept(scene):
    probabilities, image = scene
    crf = DenseCRF(iterations=3)
    expected = crf(probabilities, image)
    for _ in range(2):
        with pytest.raises(CRFError, match="too small"):
            KEPT_FILTERS.gaussian(options(sigma_rgb=None, sigma_xy_px=(1e-9, 1e-9)))
    assert np.array_equal(crf(probabilities, image), expected)
