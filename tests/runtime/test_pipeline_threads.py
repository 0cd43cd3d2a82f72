"""Threads, futures and the end of a pipeline."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from queue import Queue

import numpy as np
import pytest
from numpy.typing import NDArray
from segmenters import Pixels, on_cpu, picture
from standins.onnx_device_backend import OnnxDeviceBackend

from atrous.bundle import Bundle
from atrous.errors import EngineError, ImageError, ShapeError
from atrous.runtime.gpu.frame_slot import SLOTS
from atrous.runtime.gpu.pipeline import Pipeline
from atrous.runtime.result import Result
from atrous.runtime.segmenter import Segmenter


class Gated(OnnxDeviceBackend):
    """Computes nothing before its gate is open."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.gate = threading.Event()

    def run(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        self.gate.wait(20)
        return super().run(images)


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
        self.check(open_gpu(color_bundle, make_device, workers=2), color_bundle, threads=8, frames=10)


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

    def test_a_tiled_picture_is_done_later(self, tiny_bundle):
        backend = Gated(tiny_bundle)
        with closing(Segmenter(tiny_bundle, backend)) as segmenter:
            future = segmenter.submit(picture((130, 300)))
            assert not future.done()
            backend.gate.set()
            expected = on_cpu(tiny_bundle)(picture((130, 300))).labels
            np.testing.assert_array_equal(future.result().labels, expected)

    def test_tiled_pictures_of_a_batch(self, open_gpu, tiny_bundle):
        """With others between, and no more at once than a batch of whole ones is large."""
        segmenter = open_gpu(tiny_bundle)
        pictures = [picture(size, seed) for seed, size in enumerate([(130, 140), (32, 40)] * 3 + [(130, 300)])]
        for got, pixels in zip(segmenter.batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(tiny_bundle)(pixels).labels)

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
        assert "Do the work in another thread" in errors[0]
        segmenter.close()

    @pytest.mark.parametrize("shapes", [[], [(32, 32), (32, 40)]])
    def test_a_batch_that_is_none(self, open_gpu, color_bundle, shapes):
        with pytest.raises(ShapeError, match="all are of one size"):
            open_gpu(color_bundle)._path._pipeline.submit([picture(shape) for shape in shapes])


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
