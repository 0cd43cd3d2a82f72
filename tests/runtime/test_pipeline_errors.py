"""What goes wrong in a pipeline, and that it goes on afterwards."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from segmenters import CRF, SIZES, on_cpu, picture
from standins.onnx_device_backend import OnnxDeviceBackend
from tiny_graphs import Conv, local_layers, make_bundle

from atrous.crf import DenseCRF
from atrous.errors import CRFError, DeviceError, EngineError, ShapeError
from atrous.gpu import Device
from atrous.runtime.segmenter import Segmenter


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
        segmenter = open_gpu(tiny_bundle)
        segmenter.backend.sizes = replace(segmenter.backend.sizes, max=(64, 96))  # fewer than the manifest says
        pipeline = segmenter._path._pipeline
        with pytest.raises(EngineError, match="outside of its profile"):
            pipeline.submit([picture((100, 100))]).result()
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

    def test_logits_that_are_not_finite_are_located(self, open_gpu, make_device, tmp_path):
        """Half precision overflows beyond 65504."""
        weight = 1000 * np.eye(3, dtype=np.float32)[:, :, None, None]
        bundle = make_bundle(tmp_path / "x.atrous", [Conv(weight, stride=8)], sizes=SIZES)
        segmenter = open_gpu(bundle, make_device, dtype=np.float16)
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
        with pytest.raises(EngineError, match="gives 4 channels; the manifest says 3"):
            open_gpu(replace(bundle, manifest=manifest))(picture((40, 40)))

    def test_a_sigma_too_small_for_the_lattice(self, open_gpu, make_device, tiny_bundle):
        crf = DenseCRF(replace(CRF, bilateral_sigma_rgb=1e-2), iterations=1)
        segmenter = open_gpu(tiny_bundle, make_device, crf=crf)
        with pytest.raises(CRFError, match="sigma is too small"):
            segmenter(picture((32, 40)))
        flat = np.zeros((32, 40, 3), np.uint8)
        assert segmenter(flat).labels.shape == (32, 40)

    def test_pictures_with_more_vertices_than_room_are_done_again(self, open_gpu, make_device, tiny_bundle):
        """Each pixel of noise has vertices of its own: twice as many as there is room for at first."""
        crf = DenseCRF(CRF, iterations=1)
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(3)]
        segmenter = open_gpu(tiny_bundle, make_device, crf=crf)
        for got, pixels in zip(segmenter.stream(noise), noise, strict=True):
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
