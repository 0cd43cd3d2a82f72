"""Classes that are nowhere above a floor take no part: what that may change, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import photos
import pytest
from emulator.emulated_device import EmulatedDevice
from tolerances import CRF_LATTICE_ABS, CRF_SUM_ABS

from atrous import _native
from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.errors import CRFError, ShapeError
from atrous.exporter.classes import read_classes
from atrous.exporter.trained_model import load_trained
from atrous.runtime.postprocess import upsample_probabilities
from atrous.runtime.preprocess import Geometry

P1 = CRFParams.deeplab_v2_resnet()
SIZE = (60, 80)
FLOOR = 1e-3
#: What a class has in the result that was left out.
GIVEN_BACK = np.float32(1e-5)
TRAINED = Path(__file__).parents[2] / "examples" / "train_camvid"

Apply = Callable[[np.ndarray], np.ndarray]


def with_unlikely(likely: np.ndarray, unlikely: list[int], rng: np.random.Generator) -> np.ndarray:
    """`likely` [C, H, W] with classes in these places, in the result, whose probabilities stay below FLOOR."""
    classes = len(likely) + len(unlikely)
    maps = np.empty((classes, *likely.shape[1:]), np.float32)
    maps[unlikely] = rng.uniform(1e-7, FLOOR, size=(len(unlikely), *likely.shape[1:]))
    others = [c for c in range(classes) if c not in unlikely]
    maps[others] = likely * (1 - maps[unlikely].sum(axis=0))
    return maps


@pytest.fixture
def scene(make_scene, rng):
    """Eight likely classes and five that are not; of a row of eight, none of these has room."""
    likely, image = make_scene(8, *SIZE)
    return with_unlikely(likely, [0, 3, 4, 9, 12], rng), image


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_without_a_floor_every_bit_stays(scene, storage):
    probabilities, image = scene
    labels, marginals = DenseCRF(storage=storage).labels_and_marginals(probabilities, image)
    crf = DenseCRF(storage=storage, class_floor=0)
    assert np.array_equal(crf(probabilities, image), marginals)
    assert np.array_equal(crf.labels(probabilities, image), labels)
    assert crf.classes_refined == list(range(13))
    # A floor that all classes reach somewhere.
    assert np.array_equal(DenseCRF(storage=storage, class_floor=1e-9)(probabilities, image), marginals)


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_what_is_left_is_the_crf_of_the_likely_classes(scene, storage):
    probabilities, image = scene
    crf = DenseCRF(storage=storage, class_floor=FLOOR)
    labels, marginals = crf.labels_and_marginals(probabilities, image)
    assert crf.classes_refined == [1, 2, 5, 6, 7, 8, 10, 11]
    alone = DenseCRF(storage=storage)(probabilities[crf.classes_refined], image)
    assert np.array_equal(marginals[crf.classes_refined], alone * (1 - 5 * GIVEN_BACK))
    assert (marginals[[0, 3, 4, 9, 12]] == GIVEN_BACK).all()
    assert np.abs(marginals.sum(axis=0) - 1).max() <= CRF_SUM_ABS
    assert np.array_equal(labels, marginals.argmax(axis=0))
    assert np.array_equal(crf(probabilities, image), marginals)
    assert np.array_equal(crf.labels(probabilities, image), labels)


def test_rows_are_filled_with_the_likeliest_of_the_others(make_scene, rng):
    likely, image = make_scene(5, *SIZE)
    probabilities = with_unlikely(likely, [0, 2, 5, 7, 8, 9], rng)
    probabilities[[0, 2, 5, 7, 8, 9]] *= np.array([0.5, 0.9, 0.1, 0.8, 0.7, 0.2], np.float32)[:, None, None]
    crf = DenseCRF(iterations=1, class_floor=FLOOR)
    crf.labels(probabilities, image)
    assert crf.classes_refined == [1, 2, 3, 4, 6, 7, 8, 10]


def test_at_the_floor_is_above_it(scene):
    probabilities, image = scene
    probabilities[4, 7, 9] = FLOOR
    crf = DenseCRF(iterations=1, class_floor=float(np.float32(FLOOR)))
    crf.labels(probabilities, image)
    assert 4 in crf.classes_refined


def test_the_floor_is_no_more_than_half_an_equal_share():
    probabilities = np.full((200, 5, 6), 1 / 200, np.float32)
    image = np.zeros((5, 6, 3), np.uint8)
    crf = DenseCRF(iterations=2, class_floor=0.01)
    assert np.array_equal(crf(probabilities, image), DenseCRF(iterations=2)(probabilities, image))


def test_images_with_other_classes_follow_each_other(make_scene, rng):
    likely, image = make_scene(8, *SIZE)
    crf = DenseCRF(iterations=3, class_floor=FLOOR)
    for unlikely in ([0, 3, 4], [8, 9], [], [1, 2, 3, 4, 5], [0, 3, 4]):
        probabilities = with_unlikely(likely, unlikely, rng)
        expected = DenseCRF(iterations=3, class_floor=FLOOR)(probabilities, image)
        assert np.array_equal(crf(probabilities, image), expected)


def applied(kernel: _native.Filter) -> Apply:
    """K̂ of a built filter, read off one update of two classes: logit(Q) is the filter's response to the first."""

    def apply(values: np.ndarray) -> np.ndarray:
        field = _native.SteppedMeanField(values.size, 2)
        field.add_term(kernel, np.array([-1, 0], np.float32))
        field.set_unary(np.zeros((2, values.size), np.float32))
        field.set_marginals(np.stack([values, 1 - values]).astype(np.float32))
        field.run(1)
        q = field.marginals()[0].astype(np.float64)
        return np.log(q / (1 - q))

    return apply


def odds_times(share: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    raised = share * np.exp(exponent)
    return raised / (raised + 1 - share)


def bounds(probabilities, image, kept, params, iterations):
    """The bound of docs/crf.md: on Q of what is left out, and on |ΔQ| of the others, in each pixel."""
    height, width = image.shape[:2]
    gaussian, bilateral = _native.Filter(), _native.Filter()
    gaussian.build_gaussian(height, width, (params.gaussian_sigma_xy_px,) * 2)
    bilateral.build_bilateral(image, (params.bilateral_sigma_xy_px,) * 2, (params.bilateral_sigma_rgb,) * 3)
    terms = ((params.gaussian_weight, gaussian), (params.bilateral_weight, bilateral))

    def weighted(values: np.ndarray) -> np.ndarray:
        return sum(weight * applied(kernel)(values) for weight, kernel in terms)

    planes = np.clip(probabilities.reshape(len(probabilities), -1), 1e-5, 1).astype(np.float64)
    left_out = [c for c in range(len(planes)) if c not in kept]
    highest = (planes / planes.sum(axis=0))[left_out].max()
    most = weighted(np.ones(height * width)).max()
    root = highest
    for _ in range(100):
        root = highest * np.exp(most * root)
    field = _native.SteppedMeanField(height * width, len(kept))
    for weight, kernel in terms:
        field.add_term(kernel, np.full(len(kept), -weight, np.float32))
    field.set_unary(-np.log(planes[kept]).astype(np.float32))
    field.start()
    lost = len(left_out) * root
    error = np.full(height * width, lost)
    for _ in range(iterations):
        change = 2 * weighted(np.minimum(error, 1))
        field.run(1)
        shares = field.marginals().astype(np.float64)
        further = np.maximum(odds_times(shares, change) - shares, shares - odds_times(shares, -change)).max(axis=0)
        error = np.minimum(further + lost, 1)
    return root, (error + len(left_out) * GIVEN_BACK).reshape(height, width)


@pytest.mark.parametrize(
    "params", [P1, CRFParams.deeplab_v2_vgg(), CRFParams.pydensecrf_readme()], ids=["P1", "P2", "P3"]
)
@pytest.mark.parametrize("kind", ["random", "natural"])
def test_the_bound_holds(make_scene, rng, params, kind):
    if kind == "random":
        likely, image = make_scene(8, *SIZE)
    else:
        image = photos.photo("china.jpg", SIZE)
        likely = photos.network_like(8, SIZE)
    probabilities = with_unlikely(likely, [0, 3, 4, 9, 12], rng)
    crf = DenseCRF(params, class_floor=FLOOR)
    got = crf(probabilities, image)
    exact = DenseCRF(params)(probabilities, image)
    kept = crf.classes_refined
    root, error = bounds(probabilities, image, kept, params, 10)
    assert root <= 1.02 * FLOOR
    assert exact[[0, 3, 4, 9, 12]].max() <= root + CRF_LATTICE_ABS
    assert (np.abs(got - exact)[kept] <= error + CRF_LATTICE_ABS).all()
    assert error.min() <= 0.02  # it says something, though not where labels are nearly tied
    first, second = np.sort(got, axis=0)[[-1, -2]]
    changed = got.argmax(axis=0) != exact.argmax(axis=0)
    assert (first - second <= 2 * error + CRF_LATTICE_ABS)[changed].all()


def test_labels_of_a_trained_network_stay():
    """Parts of a photo where some classes are nowhere likely; the bound proves nearly all of their labels."""
    import torch

    trained = load_trained(TRAINED / "deeplab.safetensors", classes=read_classes(TRAINED / "classes.json"))
    normalization = trained.architecture.normalization
    image = photos.photo("china.jpg", (368, 480))
    scaled = ((image * normalization.scale - normalization.mean) / normalization.std).astype(np.float32)
    with torch.no_grad():
        logits = trained.model.eval()(torch.from_numpy(scaled.transpose(2, 0, 1)[None]))[0].numpy()
    geometry = Geometry((368, 480), (368, 480), "none")
    maps = upsample_probabilities(logits, geometry, align_corners=trained.architecture.align_corners)
    for left in (160, 320):
        probabilities, part = maps[:, :184, left : left + 160], np.ascontiguousarray(image[:184, left : left + 160])
        crf = DenseCRF(class_floor=0.01)
        got, exact = crf(probabilities, part), DenseCRF()(probabilities, part)
        assert len(crf.classes_refined) == 8
        changed = got.argmax(axis=0) != exact.argmax(axis=0)
        assert changed.mean() <= 1e-4
        _, error = bounds(np.ascontiguousarray(probabilities), part, crf.classes_refined, P1, 10)
        first, second = np.sort(got, axis=0)[[-1, -2]]
        assert (first - second > 2 * error).mean() >= 0.99
        assert (np.abs(got - exact)[crf.classes_refined] <= error + CRF_LATTICE_ABS).all()


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_equals_the_gpu(scene, storage):
    probabilities, image = (
        array[..., :20, :24] if array.ndim == 3 and array.shape[0] == 13 else array for array in scene
    )
    image = np.ascontiguousarray(image[:20, :24])
    crf = DenseCRF(iterations=3, storage=storage, class_floor=FLOOR)
    labels, marginals = crf.labels_and_marginals(probabilities, image)
    device = EmulatedDevice()
    on_gpu = CudaDenseCRF(iterations=3, storage=storage, class_floor=FLOOR, device=device)
    assert np.abs(on_gpu(probabilities, image) - marginals).max() <= CRF_LATTICE_ABS
    assert on_gpu.field.spec.classes == len(crf.classes_refined) == 8
    assert np.array_equal(on_gpu.labels(probabilities, image), labels)
    batch = on_gpu(probabilities[None], image[None])
    assert on_gpu.field.spec.classes == 13
    exact = CudaDenseCRF(iterations=3, storage=storage, device=device)(probabilities, image)
    assert np.array_equal(batch[0], exact)


@pytest.mark.parametrize(
    "make", [DenseCRF, lambda *args, **options: CudaDenseCRF(*args, device=EmulatedDevice(), **options)]
)
def test_what_breaks_the_bound_is_refused(make):
    for floor in (-1e-9, 0.011, float("nan")):
        with pytest.raises(CRFError, match=r"class_floor must be 0 to 0\.01, got"):
            make(class_floor=floor)
    with pytest.raises(CRFError, match="class_floor needs weights of 0 or more"):
        make(replace(P1, gaussian_weight=-1), class_floor=FLOOR)
    make(replace(P1, gaussian_weight=-1))


def test_a_compatibility_matrix_is_refused():
    with pytest.raises(CRFError, match="class_floor needs the Potts compatibility"):
        CudaDenseCRF(compatibility=np.eye(3), class_floor=FLOOR, device=EmulatedDevice())


def test_nan_in_an_unlikely_class_is_found(scene):
    probabilities, image = scene
    probabilities[3, 5, 6] = np.nan
    with pytest.raises(ShapeError, match="class 3, row 5, column 6"):
        DenseCRF(class_floor=FLOOR)(probabilities, image)
