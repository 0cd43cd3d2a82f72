"""One channel under a sigmoid, from a bundle to labels, probabilities, the CRF, scores and precisions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import CRF, on_cpu, picture
from tiny_graphs import lesion_layers, local_layers, make_bundle
from tolerances import CUDA_CPU_ABS, HALF_LABEL_AGREEMENT, SIGMOID_ABS

import atrous
from atrous.bundle import Bundle
from atrous.crf import DenseCRF
from atrous.errors import BundleError
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify import synthetic_photo
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import SOFTMAX, Channels
from atrous.runtime.channels import label_logits, probability_logits, threshold_logit
from atrous.runtime.cpu.path import CpuPath
from atrous.runtime.evaluation import evaluate, pair_by_stem

SIZES = DynamicSize((16, 16), (64, 64), (96, 96), multiple=8)
IMAGE = picture((61, 83))
#: Larger than the bundle takes, so that it is tiled.
LARGE = picture((150, 170), seed=1)


@pytest.fixture(scope="module", params=[0.5, 0.1, 0.9])
def threshold(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory, threshold: float) -> Bundle:
    folder = tmp_path_factory.mktemp("lesions")
    return make_bundle(folder / "lesions.atrous", lesion_layers(4), sizes=SIZES, threshold=threshold)


def sigmoid_of(image: np.ndarray) -> np.ndarray:
    """p [H, W] float64 of what `lesion_layers(4)` sees in an image that is padded to multiples of 8."""
    height, width = (-(-length // 8) * 8 for length in image.shape[:2])
    padded = np.zeros((height, width))
    padded[: image.shape[0], : image.shape[1]] = image @ np.array([0.1, 0.003, -0.1], np.float32).astype(float)
    logits = torch.from_numpy(padded[None, None, ::4, ::4].copy())
    full = torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear")
    return full.sigmoid().numpy()[0, 0, : image.shape[0], : image.shape[1]]


def test_the_manifest_says_so(lesions: Bundle, threshold: float) -> None:
    assert lesions.manifest.output.channels == Channels("sigmoid", threshold)
    assert len(lesions.manifest.classes) == 2


def test_labels_and_probabilities(lesions: Bundle, threshold: float) -> None:
    result, p = on_cpu(lesions)(IMAGE), sigmoid_of(IMAGE)
    assert result.probabilities.shape == (2, *IMAGE.shape[:2])
    np.testing.assert_allclose(result.probabilities, np.stack([1 - p, p]), atol=SIGMOID_ABS)
    clear = np.abs(p - threshold) > SIGMOID_ABS
    assert set(np.unique(result.labels)) == {0, 1}
    np.testing.assert_array_equal(result.labels[clear], p[clear] > threshold)


def test_tiles_and_batches(lesions: Bundle, threshold: float) -> None:
    segmenter = on_cpu(lesions)
    tiled, alone = segmenter.batch([LARGE, IMAGE])
    np.testing.assert_array_equal(alone.labels, segmenter(IMAGE).labels)
    p = tiled.probabilities[1]
    clear = np.abs(p - threshold) > SIGMOID_ABS
    np.testing.assert_array_equal(tiled.labels[clear], p[clear] > threshold)


def test_the_crf_refines_both_and_then_the_threshold_decides(lesions: Bundle, threshold: float) -> None:
    plain, refined = on_cpu(lesions)(IMAGE), on_cpu(lesions, DenseCRF(CRF))(IMAGE)
    marginals = DenseCRF(CRF)(plain.probabilities, IMAGE)
    np.testing.assert_array_equal(refined.probabilities, marginals)
    np.testing.assert_array_equal(refined.labels, marginals[1] > np.float32(threshold))
    assert (refined.labels != plain.labels).any()


def test_evaluation_scores_two_classes(lesions: Bundle, tmp_path: Path) -> None:
    truth = on_cpu(lesions)(IMAGE).labels
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(truth).save(tmp_path / "masks" / "a.png")
    pairs = pair_by_stem([tmp_path / "a.png"], tmp_path / "masks")
    assert evaluate(on_cpu(lesions), pairs).scores.miou == 1
    Image.fromarray(np.zeros_like(truth)).save(tmp_path / "masks" / "a.png")
    assert evaluate(on_cpu(lesions), pairs).scores.miou < 0.6


def test_half_precision_int8_and_verification(tmp_path: Path, threshold: float) -> None:
    bundle = make_bundle(tmp_path / "a.atrous", local_layers(1), sizes=SIZES, threshold=threshold)
    # With what verification looks at, for the tolerance of INT8 is for the range that was calibrated.
    generator = np.random.default_rng(0)
    photos = [picture((64, 64), seed) for seed in range(4)] + [synthetic_photo(generator, (64, 64)) for _ in range(12)]
    bundle, _ = atrous.add_fp16(bundle, images=photos)
    bundle, report = atrous.quantize(bundle, images=photos)
    assert 0.9 < report.accuracy.agreement <= 1
    found = verify_bundle(bundle)
    assert found.passed
    labels = {
        precision: atrous.load(bundle, backend="onnxruntime", precision=precision)(IMAGE).labels
        for precision in ("fp32", "fp16", "int8")
    }
    assert np.mean(labels["fp32"] == labels["fp16"]) > 0.97
    assert np.mean(labels["fp32"] == labels["int8"]) > 0.9


def test_a_softmax_over_one_class_is_not_run(lesions: Bundle) -> None:
    manifest = lesions.manifest
    output = dataclasses.replace(manifest.output, channels=SOFTMAX)
    old = Bundle(lesions.path, dataclasses.replace(manifest, classes=manifest.classes[:1], output=output))
    with pytest.raises(BundleError, match="every label would be 0"):
        on_cpu(old)
    with pytest.raises(BundleError, match="every label would be 0"):
        CpuPath(old.manifest, lambda images: images, source="a test")


class TestLogits:
    def test_a_softmax_keeps_its_own(self) -> None:
        logits = np.ones((3, 2, 2), np.float32)
        assert label_logits(logits, SOFTMAX) is logits
        assert probability_logits(logits, SOFTMAX) is logits

    @pytest.mark.parametrize("threshold", [1e-6, 0.3, 0.5, 0.999])
    def test_the_threshold_is_a_logit(self, threshold: float) -> None:
        assert 1 / (1 + np.exp(-threshold_logit(threshold))) == pytest.approx(threshold, rel=1e-12)

    def test_at_the_threshold_the_label_is_0(self) -> None:
        logits = np.float32([[[[-1e-3, 0, 1e-3]]]])
        labels = label_logits(logits, Channels("sigmoid", 0.5)).argmax(axis=1)
        np.testing.assert_array_equal(labels, [[[0, 0, 1]]])


class TestGpu:
    """On the emulated device, against the segmenter of the CPU."""

    @pytest.mark.parametrize("size", [(1, 1), (61, 83), (150, 90)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_labels_and_probabilities(self, open_gpu, make_device, lesions, size, dtype) -> None:
        pixels = picture(size)
        got, expected = open_gpu(lesions, make_device, dtype=dtype)(pixels), on_cpu(lesions)(pixels)
        assert got.probabilities.shape == (2, *size)
        if dtype == np.float32:
            np.testing.assert_array_equal(got.labels, expected.labels)
            np.testing.assert_array_equal(got.probabilities, expected.probabilities)
        else:
            assert (got.labels == expected.labels).mean() >= HALF_LABEL_AGREEMENT

    def test_a_batch(self, open_gpu, make_device, lesions) -> None:
        pictures = [picture((40, 48), seed) for seed in range(3)]
        for got, expected in zip(
            open_gpu(lesions, make_device).batch(pictures), on_cpu(lesions).batch(pictures), strict=True
        ):
            np.testing.assert_array_equal(got.labels, expected.labels)
            np.testing.assert_array_equal(got.probabilities, expected.probabilities)

    @pytest.mark.slow
    def test_the_crf(self, open_gpu, make_device, lesions, threshold) -> None:
        crf, pixels = DenseCRF(CRF, iterations=3), picture((40, 52))
        got, expected = open_gpu(lesions, make_device, crf=crf)(pixels), on_cpu(lesions, crf)(pixels)
        assert np.abs(got.probabilities - expected.probabilities).max() <= CUDA_CPU_ABS
        clear = np.abs(expected.probabilities[1] - threshold) > CUDA_CPU_ABS
        np.testing.assert_array_equal(got.labels[clear], expected.labels[clear])
        np.testing.assert_array_equal(got.labels, got.probabilities[1] > np.float32(threshold))
