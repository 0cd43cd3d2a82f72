"""The whole of `CudaDenseCRF` against the CPU core and the float64 lattice."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from crf_oracles import colour_features, lattice_kernel, mean_field, normalized, position_features
from emulator.emulated_device import BACKWARDS, FORWARDS, SHUFFLED, EmulatedDevice
from tolerances import CRF_LATTICE_ABS, CRF_SUM_ABS, CUDA_CPU_ABS, CUDA_UNORM16_ABS

from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF, DeviceArray
from atrous.crf.cuda_queue import Queue
from atrous.errors import CRFError, DeviceError, ShapeError

pytestmark = pytest.mark.slow  # in sum

P1, P2 = CRFParams.deeplab_v2_resnet(), CRFParams.deeplab_v2_vgg()
P3 = CRFParams(
    bilateral_weight=10,
    bilateral_sigma_xy_px=80,
    bilateral_sigma_rgb=13,
    gaussian_weight=3,
    gaussian_sigma_xy_px=3,
)
SIZES = [(1, 1, 1), (2, 1, 13), (3, 7, 1), (5, 12, 16), (8, 9, 11), (21, 17, 19), (33, 6, 7), (130, 5, 5), (256, 4, 6)]


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
@pytest.mark.parametrize(("classes", "height", "width"), SIZES)
def test_equals_the_cpu(device, make_scene, storage, classes, height, width):
    probabilities, image = make_scene(classes, height, width)
    got = CudaDenseCRF(storage=storage, device=device)(probabilities, image)
    expected = DenseCRF()(probabilities, image)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= (CUDA_CPU_ABS if storage == "fp32" else CUDA_UNORM16_ABS)
    assert np.abs(got.sum(axis=0) - 1).max() <= CRF_SUM_ABS


@pytest.mark.parametrize("params", [P1, P2, P3])
@pytest.mark.parametrize("iterations", [0, 1, 5, 10])
def test_equals_the_cpu_with_every_parameter_set(device, make_scene, params, iterations):
    probabilities, image = make_scene(5, 40, 60)
    expected = DenseCRF(params, iterations=iterations)(probabilities, image)
    got = CudaDenseCRF(params, iterations=iterations, device=device)(probabilities, image)
    assert np.abs(got - expected).max() <= CUDA_CPU_ABS
    assert (got.argmax(axis=0) == expected.argmax(axis=0)).all()
    narrow = CudaDenseCRF(params, iterations=iterations, storage="unorm16", device=device)(probabilities, image)
    assert np.abs(narrow - expected).max() <= CUDA_UNORM16_ABS
    assert (narrow.argmax(axis=0) == expected.argmax(axis=0)).all()


@pytest.mark.parametrize("leave_out", ["bilateral_weight", "gaussian_weight", "both"])
def test_a_kernel_of_weight_0_is_left_out(device, make_scene, leave_out):
    names = ["bilateral_weight", "gaussian_weight"] if leave_out == "both" else [leave_out]
    params = replace(P1, **dict.fromkeys(names, 0.0))
    probabilities, image = make_scene(3, 9, 14)
    got = CudaDenseCRF(params, device=device)(probabilities, image)
    assert np.abs(got - DenseCRF(params)(probabilities, image)).max() <= CUDA_CPU_ABS


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
@pytest.mark.parametrize("kind", ["potts", "vector", "matrix"])
@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", CRF_LATTICE_ABS), ("unorm16", CUDA_UNORM16_ABS)])
def test_every_normalization_and_compatibility(device, make_scene, rng, normalization, kind, storage, tolerance):
    classes, height, width = 4, 8, 9
    probabilities, image = make_scene(classes, height, width)
    compatibility = {
        "potts": None,
        "vector": -rng.uniform(0.2, 1, size=classes),
        "matrix": rng.normal(scale=0.4, size=(classes, classes)) - np.eye(classes),
    }[kind]
    params = replace(P1, bilateral_weight=0.5, gaussian_weight=0.4)  # sums that nothing divides stay moderate
    options = {"normalization": normalization, "compatibility": compatibility, "storage": storage}
    crf = CudaDenseCRF(params, iterations=3, **options, device=device)
    pixels = height * width
    matrix = -np.eye(classes) if kind == "potts" else np.diag(compatibility) if kind == "vector" else compatibility
    terms = [
        (
            normalized(lattice_kernel(position_features(height, width, 1)), pixels, normalization),
            0.4 * (matrix + matrix.T) / 2,
        ),
        (
            normalized(lattice_kernel(colour_features(image, 67, 3)), pixels, normalization),
            0.5 * (matrix + matrix.T) / 2,
        ),
    ]
    unary = -np.log(np.clip(probabilities.reshape(classes, pixels).T.astype(float), 1e-5, 1))
    expected = mean_field(unary, terms, 3).T.reshape(probabilities.shape)
    assert np.abs(crf(probabilities, image) - expected).max() <= tolerance


def test_labels_are_those_of_the_marginals(device, make_scene):
    probabilities, image = make_scene(6, 15, 22)
    crf = CudaDenseCRF(device=device)
    labels = crf.labels(probabilities, image)
    assert labels.dtype == np.uint8
    assert (labels == crf(probabilities, image).argmax(axis=0)).all()
    assert (labels == DenseCRF().labels(probabilities, image)).all()


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_a_batch_is_its_images(device, make_scene, storage):
    scenes = [make_scene(4, 11, 13) for _ in range(3)]
    crf = CudaDenseCRF(storage=storage, device=device)
    got = crf(np.stack([p for p, _ in scenes]), np.stack([image for _, image in scenes]))
    assert got.shape == (3, 4, 11, 13)
    for one, scene in zip(got, scenes, strict=True):
        expected = DenseCRF()(*scene)
        assert np.abs(one - expected).max() <= (CUDA_CPU_ABS if storage == "fp32" else CUDA_UNORM16_ABS)
    labels = crf.labels(np.stack([p for p, _ in scenes]), np.stack([image for _, image in scenes]))
    assert (labels == got.argmax(axis=1)).all()


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_the_same_bits_in_every_order_of_threads_and_blocks(make_scene, storage):
    probabilities, image = make_scene(5, 31, 37)
    one, *others = (
        CudaDenseCRF(storage=storage, device=EmulatedDevice(order=order))(probabilities, image)
        for order in (FORWARDS, BACKWARDS, SHUFFLED)
    )
    assert all((other == one).all() for other in others)


def test_the_same_bits_run_after_run(device, make_scene):
    first, second, other_size = make_scene(5, 20, 31), make_scene(5, 20, 31), make_scene(4, 9, 40)
    crf = CudaDenseCRF(device=device)
    for probabilities, image in (first, second, first, other_size, first):
        assert (crf(probabilities, image) == CudaDenseCRF(device=device)(probabilities, image)).all()


def test_after_the_first_call_nothing_is_allocated_or_recorded(make_scene):
    device = EmulatedDevice()
    crf = CudaDenseCRF(device=device)
    crf(*make_scene(5, 20, 31))
    allocations, replays = device.allocations, device.replays
    device.launches.clear()
    crf(*make_scene(5, 20, 31))
    assert device.allocations == allocations
    assert device.replays == replays + 1
    assert device.launches["crf_embed_gaussian"] == 0  # it depends on the size alone
    assert device.launches["crf_embed_bilateral"] == 1
    assert device.launches["crf_step_f32"] + device.launches["crf_last_step_f32"] == 11
    assert device.launches["crf_blur_f32"] == 10 * (3 + 6)


def test_another_size_frees_the_memory_of_the_last(make_scene):
    device = EmulatedDevice()
    crf = CudaDenseCRF(device=device)
    crf(*make_scene(2, 8, 8))
    small = device.used_bytes
    crf(*make_scene(2, 40, 40))
    assert device.used_bytes > small
    crf(*make_scene(2, 8, 8))
    assert device.used_bytes == small


def test_noise_grows_the_lattice_once(device, rng):
    """Each pixel of noise has vertices of its own: twice as many as there is room for at first."""
    image = rng.integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(3), size=(40, 60)).transpose(2, 0, 1).astype(np.float32)
    crf = CudaDenseCRF(iterations=2, device=device)
    got = crf(probabilities, image)
    assert crf.vertices["bilateral"] > 3 * 40 * 60
    assert np.abs(got - DenseCRF(iterations=2)(probabilities, image)).max() <= CUDA_CPU_ABS
    grown = crf._field
    assert (crf(probabilities, image) == got).all()
    assert crf._field is grown


class OnDevice:
    """A foreign array in device memory."""

    def __init__(self, device, array: np.ndarray, **changes: object) -> None:
        self._buffer = device.allocate(array.nbytes)
        stream = device.stream()
        device.upload(self._buffer, np.ascontiguousarray(array), stream)
        stream.synchronize()
        data = (self._buffer.address, True)
        shape, typestr = array.shape, array.dtype.str
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": data, "version": 3, **changes}


def fetched(device, array: DeviceArray) -> np.ndarray:
    interface = array.__cuda_array_interface__
    out = np.empty(interface["shape"], interface["typestr"])
    device.download(out, array.buffer, device.stream())
    return out


def test_arrays_on_the_device_stay_there(device, make_scene):
    probabilities, image = make_scene(3, 10, 12)
    crf = CudaDenseCRF(device=device)
    expected, labels = crf(probabilities, image), crf.labels(probabilities, image)
    there = OnDevice(device, probabilities), OnDevice(device, image)
    assert (crf(*there) == expected).all()
    assert (crf(probabilities, there[1]) == expected).all()
    assert (fetched(device, crf.marginals_on_device(*there)) == expected).all()
    assert (fetched(device, crf.labels_on_device(*there)) == labels).all()


def test_waits_for_arrays_that_may_still_be_written(make_scene):
    device = EmulatedDevice()
    probabilities, image = make_scene(3, 10, 12)
    crf = CudaDenseCRF(device=device)
    for changes, waits in (({"stream": None}, 0), ({"stream": 7}, 2), ({"version": 2}, 2)):
        device.waits = 0
        crf(OnDevice(device, probabilities, **changes), OnDevice(device, image, **changes))
        assert device.waits == waits


@pytest.mark.parametrize(
    "changes", [{"typestr": "<f8"}, {"strides": (480, 4, 40)}, {"mask": object()}], ids=["dtype", "strides", "mask"]
)
def test_arrays_on_the_device_are_taken_as_they_are_or_refused(device, make_scene, changes):
    probabilities, image = make_scene(3, 10, 12)
    with pytest.raises(ShapeError, match="on the GPU must be float32, C-contiguous"):
        CudaDenseCRF(device=device)(OnDevice(device, probabilities, **changes), image)
    contiguous = OnDevice(device, probabilities, strides=(480, 48, 4))
    CudaDenseCRF(device=device)(contiguous, image)


def test_float64_strided_and_read_only_input_is_converted(device, make_scene):
    probabilities, image = make_scene(3, 8, 10)
    crf = CudaDenseCRF(device=device)
    expected = crf(probabilities, image)
    frozen = image[:, ::-1].copy()[:, ::-1]
    frozen.setflags(write=False)
    assert (crf(np.asfortranarray(probabilities.astype(np.float64)), frozen) == expected).all()


@pytest.mark.parametrize(
    ("maps_shape", "image_shape", "message"),
    [
        ((3, 4, 5), (5, 4, 3), "width and height swapped"),
        ((3, 4, 5), (4, 6, 3), "differs in size"),
        ((3, 4, 5), (4, 5), "wrong shape"),
        ((3, 4, 5), (1, 4, 5, 3), "wrong shape"),
        ((2, 3, 4, 5), (3, 4, 5, 3), "differs in batch size"),
        ((4, 5), (4, 5, 3), "wrong shape"),
        ((3, 0, 5), (0, 5, 3), "wrong shape"),
        ((257, 4, 5), (4, 5, 3), "too many classes"),
        ((65, 1, 2, 2), (65, 2, 2, 3), "too many images"),
    ],
)
def test_shapes_that_do_not_fit_are_named(device, maps_shape, image_shape, message):
    with pytest.raises(ShapeError, match=message):
        CudaDenseCRF(device=device)(np.full(maps_shape, 0.5, np.float32), np.zeros(image_shape, np.uint8))


def test_dtypes_and_values_that_do_not_fit_are_named(device, make_scene):
    probabilities, image = make_scene(3, 4, 5)
    crf = CudaDenseCRF(device=device)
    with pytest.raises(ShapeError, match="dtype"):
        crf(probabilities, image.astype(np.float32))
    with pytest.raises(ShapeError, match="dtype"):
        crf(np.ones((3, 4, 5), np.int64), image)
    for wrong in (np.log(probabilities), probabilities + 0.1):
        with pytest.raises(ShapeError, match="apply softmax"):
            crf(wrong, image)
    for bad in (np.nan, np.inf):
        broken = probabilities.copy()
        broken[2, 1, 3] = bad
        with pytest.raises(ShapeError, match="class 2, row 1, column 3"):
            crf(broken, image)
        with pytest.raises(ShapeError, match="image 1, class 2, row 1, column 3"):
            crf(np.stack([probabilities, broken]), np.stack([image, image]))
    expected = DenseCRF()(probabilities, image)
    assert np.abs(crf(probabilities, image) - expected).max() <= CUDA_CPU_ABS  # a failure leaves no trace


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bilateral_sigma_rgb": 1e-2}, "sigma is too small"),
        ({"gaussian_sigma_xy_px": 1e-6}, "sigma of 1e-06 px"),
    ],
)
def test_a_sigma_too_small_for_lattice_coordinates_is_refused(device, make_scene, changes, message):
    with pytest.raises(CRFError, match=message):
        CudaDenseCRF(replace(P1, **changes), device=device)(*make_scene(2, 6, 8))


def test_keys_reach_six_times_as_far_as_coordinates_of_as_many_bits(device, make_scene):
    """At σ_rgb = 0.2 coordinates exceed the 12 bits that the CPU's compact keys have."""
    params = replace(P1, bilateral_sigma_xy_px=2, bilateral_sigma_rgb=0.2)
    probabilities, image = make_scene(2, 6, 8)
    got = CudaDenseCRF(params, device=device)(probabilities, image)
    assert np.abs(got - DenseCRF(params)(probabilities, image)).max() <= CUDA_CPU_ABS


def test_an_image_beyond_indices_or_memory_is_refused_with_an_estimate():
    def untouched(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))

    device = EmulatedDevice(total_bytes=2**30)
    crf = CudaDenseCRF(device=device)
    with pytest.raises(CRFError, match=r"needs about [\d.]+ GiB.*million pixels"):
        crf(untouched((1, 30000, 30000), np.float32), untouched((30000, 30000, 3), np.uint8))
    with pytest.raises(DeviceError, match=r"needs about [\d.]+ GiB of GPU memory, but 1.00 GiB are free"):
        crf(untouched((21, 2000, 2000), np.float32), untouched((2000, 2000, 3), np.uint8))
    assert device.allocations == 0


def test_the_estimate_covers_what_is_allocated(make_scene):
    device = EmulatedDevice()
    crf = CudaDenseCRF(device=device)
    crf(*make_scene(5, 64, 64))
    assert device.used_bytes <= 1.2 * crf._field.spec.estimate_bytes()
    assert device.used_bytes >= 0.8 * crf._field.spec.estimate_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations"),
        ({"storage": "int8"}, "storage"),
        ({"normalization": "both"}, "normalization"),
        ({"storage": "fp16"}, "storage must be one of fp32, unorm16"),
        ({"compatibility": np.ones((2, 3))}, "square"),
        ({"compatibility": np.ones(0)}, "vector"),
        ({"compatibility": [np.nan, 1.0]}, "finite"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(CRFError, match=message):
        CudaDenseCRF(device=EmulatedDevice(), **options)


def test_a_compatibility_for_another_number_of_classes_is_refused(make_scene):
    with pytest.raises(CRFError, match="for 4 classes, but the probabilities have 3"):
        CudaDenseCRF(compatibility=-np.ones(4), device=EmulatedDevice())(*make_scene(3, 4, 5))


def test_threads_that_share_an_instance_take_turns(make_scene):
    scenes = [make_scene(3, 30 + 7 * i, 10) for i in range(3)]
    crf = CudaDenseCRF(iterations=2, device=EmulatedDevice())
    got: dict[int, np.ndarray] = {}
    workers = [threading.Thread(target=lambda i=i: got.update({i: crf(*scenes[i])})) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, scene in enumerate(scenes):
        assert (got[i] == CudaDenseCRF(iterations=2, device=EmulatedDevice())(*scene)).all()


SANITIZED = """
import numpy as np
from emulator.emulated_device import EmulatedDevice
from atrous.crf.cuda import CudaDenseCRF
rng = np.random.default_rng(0)
for shape in ((1, 1, 1, 1), (2, 5, 7, 9), (1, 33, 3, 13), (1, 130, 2, 2)):
    images, classes, height, width = shape
    probabilities = rng.dirichlet(np.ones(classes), size=(images, height, width)).transpose(0, 3, 1, 2)
    pictures = rng.integers(0, 256, size=(images, height, width, 3), dtype=np.uint8)
    for storage in ("fp32", "unorm16"):
        for matrix in (None, -np.eye(classes)):
            crf = CudaDenseCRF(
                iterations=2, storage=storage, compatibility=matrix, device=EmulatedDevice(sanitize=True)
            )
            crf.labels(probabilities, pictures)
            assert abs(crf(probabilities, pictures).sum(axis=1) - 1).max() < 1e-5
print("clean")
"""


@pytest.mark.slow
def test_kernels_stay_within_their_memory_under_the_address_sanitizer(run_sanitized):
    """And free of undefined behaviour."""
    run_sanitized(SANITIZED)


class TestUnreadableArrays:
    """What NumPy, or the interface of arrays on a GPU, raises becomes an error of atrous."""

    def test_rows_of_different_lengths(self, device, make_scene):
        _, image = make_scene(3, 8, 8)
        for crf in (CudaDenseCRF(device=device), DenseCRF()):
            with pytest.raises(ShapeError, match="probabilities must be an array; got list, which NumPy cannot read"):
                crf([[1.0], [2.0, 3.0]], image)
        with pytest.raises(CRFError, match=r"compatibility must be numbers \[C\] or \[C, C\]; got list"):
            CudaDenseCRF(compatibility=[[1], [2, 3]], device=device)

    def test_tensors_with_gradients(self, device, make_scene):
        torch = pytest.importorskip("torch")
        probabilities, image = make_scene(3, 8, 8)
        tensor = torch.tensor(probabilities, requires_grad=True)
        for crf in (CudaDenseCRF(device=device), DenseCRF()):
            with pytest.raises(ShapeError, match=r"got Tensor, which NumPy cannot read: .*detach"):
                crf(tensor, image)

    def test_an_interface_that_fails(self, device, make_scene):
        class Broken:
            @property
            def __cuda_array_interface__(self):
                raise RuntimeError("requires grad")

        _, image = make_scene(3, 8, 8)
        with pytest.raises(ShapeError, match="probabilities on the GPU cannot be read: requires grad"):
            CudaDenseCRF(device=device)(Broken(), image)


def test_a_field_of_no_pixels_is_refused(device):
    crf = CudaDenseCRF(device=device)
    for sizes in ((0, 3, 8, 8), (1, 0, 8, 8), (1, 3, 0, 8), (1, 3, 8, -1), (65, 3, 8, 8), (1, 3, 8, 2**21)):
        with pytest.raises(CRFError, match=r"(images|classes|height|width) must be 1 to \d+, got"):
            crf.open_field(Queue(device, device.stream()), *sizes)
