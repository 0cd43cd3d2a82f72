"""The GPU pipeline on an emulated device, with real inference, against the segmenter of the CPU."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from numpy.typing import NDArray
from standins.kernel_backend import KernelBackend, pixel_bundle
from standins.onnx_device_backend import OnnxDeviceBackend
from tiny_graphs import Conv, color_layers, local_layers, make_bundle
from tolerances import CRF_UNORM16_ABS, CUDA_CPU_ABS, HALF_LABEL_AGREEMENT, RESIZE_ORDER_AGREEMENT

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import CRFError, DeviceError, EngineError, ImageError, MissingDependencyError, ShapeError
from atrous.exporter.description import DynamicSize
from atrous.exporter.normalization import CAFFE
from atrous.gpu import Device, PyCudaDevice
from atrous.runtime.backends import DeviceBackend
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.frame_program import FrameProgram, Lanes, Recipe
from atrous.runtime.frame_slot import SLOTS, FrameKey
from atrous.runtime.pipeline import Pipeline
from atrous.runtime.result import Result
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.worker import MAX_PROGRAMS

SIZES = DynamicSize((16, 16), (64, 64), (256, 256), multiple=8)
CRF = CRFParams.deeplab_v2_resnet()

Pixels = NDArray[np.uint8]


def picture(size: tuple[int, int], seed: int = 0) -> Pixels:
    """Blocks of colour with some noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(30, 226, size=(size[0] // 9 + 1, size[1] // 11 + 1, 3))
    blocks = blocks.repeat(9, axis=0).repeat(11, axis=1)[: size[0], : size[1]]
    return np.clip(blocks + rng.integers(-12, 13, size=(*size, 3)), 0, 255).astype(np.uint8)


def on_cpu(bundle: Bundle, crf: DenseCRF | None = None) -> Segmenter:
    return Segmenter(bundle, OnnxRuntimeBackend(bundle), crf=crf)


def lazy_device() -> EmulatedDevice:
    return EmulatedDevice(is_bound=True, is_lazy=True)


def recipe_of(bundle: Bundle) -> Recipe:
    manifest = bundle.manifest
    return Recipe(manifest.input, manifest.output, len(manifest.classes), OnnxDeviceBackend(bundle))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def make_device(request: pytest.FixtureRequest) -> Callable[[], Device]:
    """Opens what runs kernels, for the calling thread: the emulator, or a GPU where there is one."""
    if request.param == "emulator":
        return lambda: EmulatedDevice(is_bound=True)
    try:
        PyCudaDevice()
    except (DeviceError, MissingDependencyError) as exc:
        pytest.skip(str(exc))
    return PyCudaDevice


class Opened:
    """Segmenters on the device, closed after the test."""

    def __init__(self) -> None:
        self.segmenters: list[Segmenter] = []

    def __call__(self, bundle: Bundle, *args, crf: DenseCRF | None = None, workers: int = 1, **options) -> Segmenter:
        backend = OnnxDeviceBackend(bundle, *args, **options)
        self.segmenters.append(Segmenter(bundle, backend, crf=crf, workers=workers))
        return self.segmenters[-1]


class Gated(OnnxDeviceBackend):
    """Computes nothing before its gate is open."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.gate = threading.Event()

    def run(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        self.gate.wait(20)
        return super().run(images)


@pytest.fixture
def open_gpu() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for segmenter in opened.segmenters:
        segmenter.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("atrous-gpu")]


def test_the_stand_in_is_a_device_backend(tiny_bundle):
    assert isinstance(OnnxDeviceBackend(tiny_bundle), DeviceBackend)
    assert not isinstance(OnnxRuntimeBackend(tiny_bundle), DeviceBackend)


class TestAgainstTheCpu:
    @pytest.mark.parametrize("size", [(1, 1), (32, 32), (64, 96), (77, 101), (128, 128), (300, 70)])
    def test_labels_and_probabilities_are_the_cpus_bit_for_bit(self, open_gpu, make_device, tiny_bundle, size):
        pixels = picture(size)
        got, expected = open_gpu(tiny_bundle, make_device)(pixels), on_cpu(tiny_bundle)(pixels)
        np.testing.assert_array_equal(got.labels, expected.labels)
        np.testing.assert_array_equal(got.probabilities, expected.probabilities)
        assert got.probabilities is got.probabilities
        np.testing.assert_array_equal(got.image, pixels)

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_other_normalizations_and_alignments(self, open_gpu, tmp_path, align_corners):
        options = {"sizes": SIZES, "normalization": CAFFE, "align_corners": align_corners}
        bundle = make_bundle(tmp_path / "x.atrous", local_layers(7), **options)
        pixels = picture((61, 90))
        np.testing.assert_array_equal(open_gpu(bundle)(pixels).labels, on_cpu(bundle)(pixels).labels)

    @pytest.mark.parametrize("size", [(64, 64), (300, 150), (20, 31)])
    def test_stretch(self, open_gpu, tmp_path, size):
        bundle = make_bundle(tmp_path / "x.atrous", local_layers(5), fixed=(64, 64), resize="stretch")
        pixels = picture(size)
        got, expected = open_gpu(bundle)(pixels).labels, on_cpu(bundle)(pixels).labels
        assert (got == expected).mean() >= (1 if size == (64, 64) else RESIZE_ORDER_AGREEMENT)

    def test_an_engine_in_half_precision(self, open_gpu, tiny_bundle):
        pixels = picture((120, 128))
        got = open_gpu(tiny_bundle, dtype=np.float16)(pixels).labels
        assert (got == on_cpu(tiny_bundle)(pixels).labels).mean() >= HALF_LABEL_AGREEMENT

    def test_without_a_graph(self, open_gpu, tiny_bundle):
        pixels = picture((64, 80))
        segmenter = open_gpu(tiny_bundle, capturable=False)
        np.testing.assert_array_equal(segmenter(pixels).labels, on_cpu(tiny_bundle)(pixels).labels)
        assert segmenter.backend.devices[0].replays == 0

    def test_an_engine_that_cannot_be_recorded_although_it_says_so(self, open_gpu, tiny_bundle, caplog):
        pixels = picture((64, 80))
        segmenter = open_gpu(tiny_bundle, through_host=True)
        np.testing.assert_array_equal(segmenter(pixels).labels, on_cpu(tiny_bundle)(pixels).labels)
        assert segmenter.backend.devices[0].replays == 0
        (record,) = caplog.records
        assert "model.fp32.onnx runs without a CUDA graph" in record.getMessage()

    def test_the_crf(self, open_gpu, make_device, tiny_bundle):
        crf, pixels = DenseCRF(CRF, iterations=3), picture((40, 52))
        got, expected = open_gpu(tiny_bundle, make_device, crf=crf)(pixels), on_cpu(tiny_bundle, crf)(pixels)
        np.testing.assert_array_equal(got.labels, expected.labels)
        assert np.abs(got.probabilities - expected.probabilities).max() <= CUDA_CPU_ABS

    def test_the_crf_keeps_its_precision(self, open_gpu, make_device, tiny_bundle):
        pixels, probabilities = picture((40, 52)), []
        for precision in ("fp32", "unorm16"):
            crf = DenseCRF(CRF, iterations=3, precision=precision)
            got, expected = open_gpu(tiny_bundle, make_device, crf=crf)(pixels), on_cpu(tiny_bundle, crf)(pixels)
            np.testing.assert_array_equal(got.labels, expected.labels)
            assert np.abs(got.probabilities - expected.probabilities).max() <= CRF_UNORM16_ABS
            probabilities.append(got.probabilities)
        assert (probabilities[0] != probabilities[1]).any()

    def test_a_batch_is_its_pictures(self, open_gpu, tiny_bundle):
        sizes = [(40, 52), (64, 64), (40, 52), (200, 190), (40, 52), (40, 52), (64, 64), (40, 52)]
        pictures = [picture(size, seed) for seed, size in enumerate(sizes)]
        expected = [on_cpu(tiny_bundle)(pixels) for pixels in pictures]
        results = open_gpu(tiny_bundle).batch(pictures)
        for got, one in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got.labels, one.labels)
            np.testing.assert_array_equal(got.image, one.image)
        np.testing.assert_array_equal(results[2].probabilities, expected[2].probabilities)

    def test_a_batch_with_the_crf(self, open_gpu, tiny_bundle):
        crf = DenseCRF(CRF, iterations=2)
        pictures = [picture((33, 40), seed) for seed in range(3)]
        for got, pixels in zip(open_gpu(tiny_bundle, crf=crf).batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(tiny_bundle, crf)(pixels).labels)

    def test_a_fixed_size_has_a_batch_of_one(self, open_gpu, tmp_path):
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), fixed=(64, 64))
        pictures = [picture((64, 64), seed) for seed in range(3)]
        for got, pixels in zip(open_gpu(bundle).batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(bundle)(pixels).labels)


class TestGraph:
    """A network that is one kernel, so that everything between the copies is one graph, on a GPU as well."""

    @pytest.mark.parametrize("crf", [None, DenseCRF(CRF, iterations=2)], ids=["labels", "crf"])
    def test_whole_frames_are_replayed(self, make_device, tmp_path, crf):
        bundle = pixel_bundle(tmp_path / "pixels.atrous")
        pictures = [picture((30, 41), seed) for seed in range(5)]
        segmenter = Segmenter(bundle, KernelBackend(bundle, make_device), crf=crf)
        for got, pixels in zip(segmenter.stream(pictures), pictures, strict=True):
            expected = on_cpu(bundle, crf)(pixels)
            np.testing.assert_array_equal(got.labels, expected.labels)
            assert min(got.timings_ms.values()) >= 0
        assert np.abs(got.probabilities - expected.probabilities).max() <= CUDA_CPU_ABS
        for got, pixels in zip(segmenter.batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(bundle, crf)(pixels).labels)
        segmenter.close()


class TestStreams:
    """On a lazy device only what is waited for is done, so that a wait that is missing gives another answer."""

    def test_every_wait_is_there(self, open_gpu, tiny_bundle):
        pictures = [picture(size, seed) for seed, size in enumerate([(40, 52)] * 5 + [(64, 64), (40, 52), (64, 64)])]
        expected = [on_cpu(tiny_bundle)(pixels).labels for pixels in pictures]
        for capturable in (True, False):
            segmenter = open_gpu(tiny_bundle, lazy_device, capturable=capturable)
            for got, labels in zip(segmenter.stream(pictures), expected, strict=True):
                np.testing.assert_array_equal(got.labels, labels)

    def test_every_wait_is_there_with_the_crf(self, open_gpu, tiny_bundle):
        crf = DenseCRF(CRF, iterations=1)
        pictures = [picture((24, 31), seed) for seed in range(4)]
        for got, pixels in zip(open_gpu(tiny_bundle, lazy_device, crf=crf).stream(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(tiny_bundle, crf)(pixels).labels)

    def test_the_next_frame_is_copied_while_one_is_computed(self, tiny_bundle):
        device = lazy_device()
        program = self.program(tiny_bundle, device)
        first, second = (program.launch([picture((40, 52), seed)]) for seed in range(2))
        device.launches.clear()
        second.upload[1].synchronize()
        assert not device.launches  # its pixels are there, and the first frame has not begun
        results = [program.collect(slot) for slot in (first, second)]
        assert device.launches["frame_labels_f32"] == 2
        for seed, result in enumerate(results):
            expected = on_cpu(tiny_bundle)(picture((40, 52), seed)).labels
            np.testing.assert_array_equal(result.labels[0], expected)

    def test_a_program_of_another_thread_is_refused(self, tiny_bundle):
        program = self.program(tiny_bundle, EmulatedDevice(is_bound=True))
        with ThreadPoolExecutor(1) as pool, pytest.raises(DeviceError, match="make one in each thread"):
            pool.submit(program.launch, [picture((40, 52))]).result()

    @staticmethod
    def program(bundle: Bundle, device: EmulatedDevice) -> FrameProgram:
        key = FrameKey(1, (40, 52), wants_probabilities=False)
        return FrameProgram(Lanes(device, None), recipe_of(bundle), key)


class TestSteadyState:
    @pytest.mark.parametrize("crf", [None, DenseCRF(CRF, iterations=1)], ids=["labels", "crf"])
    def test_nothing_is_made_after_the_first_frame_of_a_size(self, open_gpu, tiny_bundle, crf):
        segmenter = open_gpu(tiny_bundle, crf=crf)
        sizes = [(40, 52), (33, 44)]
        for size in sizes:
            segmenter(picture(size))
        (device,) = segmenter.backend.devices
        before = (device.allocations, device.made, device.used_bytes, device.replays)
        for result in segmenter.stream(picture(sizes[i % 2], i) for i in range(10)):
            assert result.labels.any()
        after = (device.allocations, device.made, device.used_bytes, device.replays)
        assert after == (*before[:3], before[3] + 10)

    def test_the_programs_of_a_worker_are_bounded(self, open_gpu, tiny_bundle):
        segmenter = open_gpu(tiny_bundle)
        for i in range(2 * MAX_PROGRAMS):
            segmenter(picture((32, 32 + i)))
        gc.collect()
        assert len(segmenter.backend.engines) == MAX_PROGRAMS

    @pytest.mark.parametrize("wants_probabilities", [False, True])
    def test_the_estimate_of_memory(self, tiny_bundle, wants_probabilities):
        device = EmulatedDevice()
        key = FrameKey(2, (120, 100), wants_probabilities)
        program = FrameProgram(Lanes(device, None), recipe_of(tiny_bundle), key)
        assert 0.95 <= device.used_bytes / program.estimate_bytes() <= 1.05

    def test_timings(self, open_gpu, tiny_bundle):
        result = open_gpu(tiny_bundle, crf=DenseCRF(CRF, iterations=1))(picture((40, 52)))
        stages = ["read", "upload", "preprocess", "inference", "postprocess", "crf", "download"]
        assert list(result.timings_ms) == stages
        assert min(result.timings_ms.values()) > 0

    def test_timings_of_a_batch_are_shares(self, open_gpu, tiny_bundle):
        results = open_gpu(tiny_bundle).batch([picture((40, 52), seed) for seed in range(4)])
        assert len({result.timings_ms["inference"] for result in results}) == 1


class TestThreads:
    def check(self, segmenter: Segmenter, bundle: Bundle, threads: int, frames: int) -> None:
        pictures = [picture((16 + 8 * (i % 3), 24), i) for i in range(20)]
        one = on_cpu(bundle)
        expected = [one(pixels).labels for pixels in pictures]

        def work(thread: int) -> None:
            for frame in range(frames):
                index = (7 * thread + frame) % len(pictures)
                np.testing.assert_array_equal(segmenter(pictures[index]).labels, expected[index])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    @pytest.mark.parametrize("workers", [1, 3])
    def test_threads_get_the_labels_of_one(self, open_gpu, color_bundle, workers):
        segmenter = open_gpu(color_bundle, workers=workers)
        self.check(segmenter, color_bundle, threads=8, frames=15)
        assert len(segmenter.backend.devices) == workers

    def test_eight_threads_of_two_hundred_frames(self, open_gpu, color_bundle):
        self.check(open_gpu(color_bundle, workers=2), color_bundle, threads=8, frames=200)

    def test_threads_on_a_gpu(self, open_gpu, make_device, color_bundle):
        self.check(open_gpu(color_bundle, make_device, workers=2), color_bundle, threads=4, frames=10)


class TestErrors:
    def test_too_little_memory_names_an_estimate_and_smaller_pictures_work(self, open_gpu, tiny_bundle):
        segmenter = open_gpu(tiny_bundle, lambda: EmulatedDevice(total_bytes=2**17, is_bound=True))
        small = picture((32, 32))
        expected = on_cpu(tiny_bundle)(small).labels
        np.testing.assert_array_equal(segmenter(small).labels, expected)
        future = segmenter.submit(picture((128, 128)))
        with pytest.raises(
            DeviceError, match=r"1×128×128 pixels need about 0.\d MiB of GPU memory .* 0.\d MiB are free"
        ):
            future.result()
        gc.collect()
        assert segmenter.backend.devices[0].used_bytes == 0  # whoever holds the error holds no memory
        np.testing.assert_array_equal(segmenter(small).labels, expected)

    def test_sizes_that_are_not_in_use_make_room(self, open_gpu, tiny_bundle):
        segmenter = open_gpu(tiny_bundle, lambda: EmulatedDevice(total_bytes=3 * 2**18, is_bound=True))
        for size in ((128, 128), (120, 128), (128, 120), (128, 128)):
            pixels = picture(size)
            np.testing.assert_array_equal(segmenter(pixels).labels, on_cpu(tiny_bundle)(pixels).labels)

    def test_a_size_outside_of_the_profile(self, open_gpu, tiny_bundle):
        pipeline = open_gpu(tiny_bundle)._gpu._pipeline
        with pytest.raises(EngineError, match="outside of its profile"):
            pipeline.submit([picture((400, 400))]).result()
        assert pipeline.submit([picture((40, 40))]).result().labels.shape == (1, 40, 40)

    @pytest.mark.parametrize("capturable", [True, False])
    def test_an_engine_that_fails(self, open_gpu, tiny_bundle, capturable):
        segmenter = open_gpu(tiny_bundle, capturable=capturable)
        if not capturable:  # it fails in the middle of a frame, not while it is prepared
            segmenter(picture((40, 52)))
        segmenter.backend.failures = 1
        with pytest.raises(EngineError, match="the engine refuses"):
            segmenter(picture((40, 52)))
        pixels = picture((40, 52), 1)
        np.testing.assert_array_equal(segmenter(pixels).labels, on_cpu(tiny_bundle)(pixels).labels)

    def test_logits_that_are_not_finite_are_located(self, open_gpu, tmp_path):
        """Half precision overflows beyond 65504."""
        weight = 1000 * np.eye(3, dtype=np.float32)[:, :, None, None]
        bundle = make_bundle(tmp_path / "x.atrous", [Conv(weight, stride=8)], sizes=SIZES)
        segmenter = open_gpu(bundle, dtype=np.float16)
        good, bad = np.full((2, 32, 40, 3), (0, 9, 0), np.uint8)
        bad[16, 24] = (0, 255, 0)
        assert (segmenter(good).labels == 1).all()
        with pytest.raises(ShapeError, match="picture 0 of the batch, class 1, row 2, column 3"):
            segmenter(bad)
        with pytest.raises(ShapeError, match="picture 2 of the batch, class 1, row 2, column 3"):
            segmenter.batch([good, good, bad])
        assert (segmenter(good).labels == 1).all()

    def test_another_number_of_classes(self, open_gpu, tmp_path):
        bundle = make_bundle(tmp_path / "x.atrous", local_layers(4), sizes=SIZES)
        manifest = replace(bundle.manifest, classes=bundle.manifest.classes[:3])
        with pytest.raises(EngineError, match="gives 4 classes; the manifest lists 3"):
            open_gpu(replace(bundle, manifest=manifest))(picture((40, 40)))

    def test_a_sigma_too_small_for_the_lattice(self, open_gpu, tiny_bundle):
        segmenter = open_gpu(tiny_bundle, crf=DenseCRF(replace(CRF, bilateral_sigma_rgb=1e-2), iterations=1))
        with pytest.raises(CRFError, match="sigma is too small"):
            segmenter(picture((32, 40)))
        flat = np.zeros((32, 40, 3), np.uint8)
        assert segmenter(flat).labels.shape == (32, 40)

    def test_pictures_with_more_vertices_than_room_are_done_again(self, open_gpu, tiny_bundle):
        """Each pixel of noise has vertices of its own: twice as many as there is room for at first."""
        crf = DenseCRF(CRF, iterations=1)
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(3)]
        for got, pixels in zip(open_gpu(tiny_bundle, crf=crf).stream(noise), noise, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(tiny_bundle, crf)(pixels).labels)

    @pytest.mark.parametrize("workers", [0, -1])
    def test_no_workers(self, tiny_bundle, workers):
        with pytest.raises(EngineError, match="workers must be 1 or more"):
            Segmenter(tiny_bundle, OnnxDeviceBackend(tiny_bundle), workers=workers)

    def test_a_device_that_does_not_open(self, open_gpu, tiny_bundle):
        def fail() -> Device:
            raise DeviceError("there is no GPU")

        with pytest.raises(DeviceError, match="there is no GPU"):
            open_gpu(tiny_bundle, fail, workers=2)


class TestFutures:
    def test_pictures_are_read_before_submit_returns(self, open_gpu, color_bundle):
        segmenter = open_gpu(color_bundle)
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[..., 2] = 200
        future = segmenter.submit(pixels)
        pixels[...] = 0
        assert (future.result().labels == 2).all()

    def test_what_is_wrong_with_a_picture_is_raised_at_once(self, open_gpu, color_bundle, tmp_path):
        with pytest.raises(ImageError, match="no such image"):
            open_gpu(color_bundle).submit(tmp_path / "absent.png")

    def test_a_tiled_picture_is_done_on_return(self, open_gpu, tiny_bundle):
        future = open_gpu(tiny_bundle).submit(picture((130, 300)))
        assert future.done()
        expected = on_cpu(tiny_bundle)(picture((130, 300))).labels
        np.testing.assert_array_equal(future.result().labels, expected)

    def test_a_stream_keeps_order_and_runs_ahead_by_what_is_in_work(self, open_gpu, color_bundle):
        read = []

        def pictures() -> Iterator[Pixels]:
            for i in range(8):
                read.append(i)
                yield np.full((32, 32, 3), np.eye(3, dtype=np.uint8)[i % 3] * 255, np.uint8)

        for i, result in enumerate(open_gpu(color_bundle).stream(pictures())):
            assert (result.labels == i % 3).all()
            assert len(read) <= i + SLOTS + 1

    def test_a_stream_on_the_cpu(self, color_bundle):
        pictures = [np.full((32, 32, 3), np.eye(3, dtype=np.uint8)[i % 3] * 255, np.uint8) for i in range(4)]
        labels = [int(result.labels[0, 0]) for result in on_cpu(color_bundle).stream(pictures)]
        assert labels == [0, 1, 2, 0]

    def test_an_error_comes_in_its_turn(self, open_gpu, color_bundle):
        stream = open_gpu(color_bundle).stream([picture((32, 32)), picture((32, 32)), "absent.png"])
        assert next(stream).labels.shape == (32, 32)
        with pytest.raises(ImageError):
            list(stream)

    def test_a_cancelled_future_is_left_out(self, color_bundle):
        backend = Gated(color_bundle)
        pipeline = Pipeline(color_bundle.manifest, backend)
        futures = [pipeline.submit([picture((32, 32))]) for _ in range(5)]
        assert futures[-1].cancel()
        backend.gate.set()
        pipeline.close()
        assert [future.cancelled() for future in futures] == [False] * 4 + [True]

    def test_a_callback_that_would_wait_for_itself_is_told_so(self, color_bundle):
        backend = Gated(color_bundle)
        segmenter = Segmenter(color_bundle, backend)
        errors, later = [], Queue()

        def callback(done: Future[Result]) -> None:
            for wait in (lambda: segmenter(picture((16, 16))), lambda: done.result().probabilities):
                try:
                    wait()
                except EngineError as exc:
                    errors.append(str(exc))
            later.put(segmenter.submit(picture((16, 16))))

        segmenter.submit(picture((16, 16))).add_done_callback(callback)
        backend.gate.set()
        assert later.get(timeout=20).result().labels.shape == (16, 16)
        assert len(errors) == 2
        assert "hand the work to another thread" in errors[0]
        segmenter.close()

    @pytest.mark.parametrize("shapes", [[], [(32, 32), (32, 40)]])
    def test_a_batch_that_is_none(self, open_gpu, color_bundle, shapes):
        with pytest.raises(ShapeError, match="all are of one size"):
            open_gpu(color_bundle)._gpu._pipeline.submit([picture(shape) for shape in shapes])


class TestEnd:
    def test_closing_waits_for_what_was_submitted_and_may_be_repeated(self, color_bundle):
        segmenter = Segmenter(color_bundle, OnnxDeviceBackend(color_bundle))
        futures = [segmenter.submit(picture((32, 32), seed)) for seed in range(5)]
        segmenter.close()
        segmenter.close()
        assert all(future.done() for future in futures)
        with pytest.raises(EngineError, match="the segmenter is closed"):
            segmenter(picture((32, 32)))

    def test_nothing_is_lost_that_is_submitted_while_it_closes(self, color_bundle):
        pipeline = Pipeline(color_bundle.manifest, OnnxDeviceBackend(color_bundle), workers=2)
        pixels = [picture((16, 16))]
        pipeline.submit(pixels).result()
        futures = []

        def submit() -> None:
            with suppress(EngineError):  # it is closed
                while True:
                    futures.append(pipeline.submit(pixels))
                    time.sleep(0.0005)

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(futures) < 20:
            time.sleep(0.001)
        pipeline.close()
        for thread in threads:
            thread.join()
        assert all(future.done() for future in futures)

    def test_a_forgotten_segmenter_gives_the_gpu_back(self, color_bundle):
        segmenter = Segmenter(color_bundle, OnnxDeviceBackend(color_bundle))
        segmenter(picture((32, 32)))
        (device,) = segmenter.backend.devices
        forgotten = weakref.ref(segmenter)
        del segmenter
        gc.collect()
        assert forgotten() is None
        deadline = time.monotonic() + 10
        while device.used_bytes and time.monotonic() < deadline:
            time.sleep(0.01)
        gc.collect()
        assert device.used_bytes == 0


def test_video(open_gpu, color_bundle, tmp_path: Path):
    av = pytest.importorskip("av")
    from atrous.runtime.video import segment_video

    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w") as writer:
        stream = writer.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(7):
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(picture((48, 64), seed), format="rgb24")))
        writer.mux(stream.encode(None))
    outputs = []
    for name, segmenter in (("gpu", open_gpu(color_bundle)), ("cpu", on_cpu(color_bundle))):
        target = tmp_path / f"{name}.mp4"
        assert segment_video(segmenter, source, target)[0] == 7
        outputs.append(target.read_bytes())
    assert outputs[0] == outputs[1]
