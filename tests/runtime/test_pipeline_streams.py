"""The order of work on a device: what waits for what, and what is made once."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from segmenters import CRF, on_cpu, picture
from standins.onnx_device_backend import OnnxDeviceBackend

from atrous.bundle import Bundle
from atrous.crf import DenseCRF
from atrous.errors import DeviceError
from atrous.runtime.gpu.frame_program import FrameProgram, Lanes, Recipe
from atrous.runtime.gpu.frame_slot import FrameKey
from atrous.runtime.gpu.worker import MAX_PROGRAMS


def lazy_device() -> EmulatedDevice:
    return EmulatedDevice(is_bound=True, is_lazy=True)


def recipe_of(bundle: Bundle) -> Recipe:
    manifest = bundle.manifest
    return Recipe(
        manifest.input, manifest.output, manifest.logits_channels, len(manifest.classes), OnnxDeviceBackend(bundle)
    )


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
    @pytest.mark.slow
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
