"""The GPU pipeline on an emulated device, with real inference, against the segmenter of the CPU."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from segmenters import CRF, SIZES, on_cpu, picture
from standins.kernel_backend import KernelBackend, pixel_bundle
from standins.onnx_device_backend import OnnxDeviceBackend
from tiny_graphs import color_layers, local_layers, make_bundle
from tolerances import CRF_UNORM16_ABS, CUDA_CPU_ABS, HALF_LABEL_AGREEMENT

from atrous.crf import DenseCRF
from atrous.exporter.normalization import CAFFE
from atrous.runtime.backends import DeviceBackend, open_reference
from atrous.runtime.segmenter import Segmenter


def test_the_stand_in_is_a_device_backend(tiny_bundle):
    assert isinstance(OnnxDeviceBackend(tiny_bundle), DeviceBackend)
    assert not isinstance(open_reference(tiny_bundle), DeviceBackend)


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
    def test_other_normalizations_and_alignments(self, open_gpu, make_device, tmp_path, align_corners):
        options = {"sizes": SIZES, "normalization": CAFFE, "align_corners": align_corners}
        bundle = make_bundle(tmp_path / "x.atrous", local_layers(7), **options)
        pixels = picture((61, 90))
        np.testing.assert_array_equal(open_gpu(bundle, make_device)(pixels).labels, on_cpu(bundle)(pixels).labels)

    @pytest.mark.parametrize("size", [(64, 64), (300, 150), (20, 31), (400, 90)])
    @pytest.mark.parametrize("resize", ["stretch", "letterbox"])
    def test_resized(self, open_gpu, make_device, tmp_path, size, resize):
        bundle = make_bundle(tmp_path / "x.atrous", local_layers(5), fixed=(64, 64), resize=resize)
        pixels = picture(size)
        np.testing.assert_array_equal(open_gpu(bundle, make_device)(pixels).labels, on_cpu(bundle)(pixels).labels)

    def test_an_engine_in_half_precision(self, open_gpu, make_device, tiny_bundle):
        pixels = picture((120, 128))
        got = open_gpu(tiny_bundle, make_device, dtype=np.float16)(pixels).labels
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

    @pytest.mark.slow
    def test_the_crf(self, open_gpu, make_device, tiny_bundle):
        crf, pixels = DenseCRF(CRF, iterations=3), picture((40, 52))
        got, expected = open_gpu(tiny_bundle, make_device, crf=crf)(pixels), on_cpu(tiny_bundle, crf)(pixels)
        np.testing.assert_array_equal(got.labels, expected.labels)
        assert np.abs(got.probabilities - expected.probabilities).max() <= CUDA_CPU_ABS

    @pytest.mark.slow
    def test_the_crf_keeps_its_storage(self, open_gpu, make_device, tiny_bundle):
        pixels, probabilities = picture((40, 52)), []
        for storage in ("fp32", "unorm16"):
            crf = DenseCRF(CRF, iterations=3, storage=storage)
            got, expected = open_gpu(tiny_bundle, make_device, crf=crf)(pixels), on_cpu(tiny_bundle, crf)(pixels)
            np.testing.assert_array_equal(got.labels, expected.labels)
            assert np.abs(got.probabilities - expected.probabilities).max() <= CRF_UNORM16_ABS
            probabilities.append(got.probabilities)
        assert (probabilities[0] != probabilities[1]).any()

    def test_a_batch_is_its_pictures(self, open_gpu, make_device, tiny_bundle):
        sizes = [(40, 52), (64, 64), (40, 52), (200, 190), (40, 52), (40, 52), (64, 64), (40, 52)]
        pictures = [picture(size, seed) for seed, size in enumerate(sizes)]
        expected = [on_cpu(tiny_bundle)(pixels) for pixels in pictures]
        results = open_gpu(tiny_bundle, make_device).batch(pictures)
        for got, one in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got.labels, one.labels)
            np.testing.assert_array_equal(got.image, one.image)
        np.testing.assert_array_equal(results[2].probabilities, expected[2].probabilities)

    def test_a_batch_with_the_crf(self, open_gpu, make_device, tiny_bundle):
        crf = DenseCRF(CRF, iterations=2)
        pictures = [picture((33, 40), seed) for seed in range(3)]
        segmenter = open_gpu(tiny_bundle, make_device, crf=crf)
        for got, pixels in zip(segmenter.batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(tiny_bundle, crf)(pixels).labels)

    def test_a_fixed_size_has_a_batch_of_one(self, open_gpu, make_device, tmp_path):
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), fixed=(64, 64))
        pictures = [picture((64, 64), seed) for seed in range(3)]
        for got, pixels in zip(open_gpu(bundle, make_device).batch(pictures), pictures, strict=True):
            np.testing.assert_array_equal(got.labels, on_cpu(bundle)(pixels).labels)


class TestGraph:
    """A network that is one kernel, so that everything between the copies is one graph, on a GPU as well."""

    @pytest.mark.slow
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


def test_video(open_gpu, color_bundle, tmp_path: Path):
    av = needs.PYAV.load("av")
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
