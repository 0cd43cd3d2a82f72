"""Image in, labels out, through real bundles in real engines."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_graphs import PLAIN, color_layers, make_bundle, put_logits_on_pixels
from tolerances import BATCH_ABSOLUTE, PROBABILITY_SUM

import atrous
from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import BundleError, CRFError, EngineError, ImageError, ShapeError
from atrous.exporter.normalization import CAFFE, Normalization
from atrous.exporter.sizes import DynamicSize
from atrous.runtime.backends import open_backend
from atrous.runtime.segmenter import Segmenter, load

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIZES = DynamicSize((16, 16), (64, 64), (256, 256), multiple=8)


@pytest.fixture(scope="session", params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "openvino":
        needs.OPENVINO.load(name)
    return name


@pytest.fixture
def tiny(tiny_bundle: Bundle, backend: str) -> Segmenter:
    return load(tiny_bundle.path, backend=backend)


def noise(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def flag(first: int, second: int) -> NDArray[np.uint8]:
    """45×61: red rows up to `first`, green ones up to `second`, blue ones below."""
    picture = np.zeros((45, 61, 3), np.uint8)
    picture[:first], picture[first:second], picture[second:] = RED, GREEN, BLUE
    return picture


class TestCall:
    @pytest.mark.parametrize("size", [(1, 1), (32, 32), (64, 96), (77, 101), (128, 128), (129, 40), (300, 270)])
    def test_labels_and_probabilities_have_the_size_of_the_picture(
        self, tiny: Segmenter, size: tuple[int, int]
    ) -> None:
        picture = noise(size)
        result = tiny(picture)
        assert (result.labels.shape, result.labels.dtype) == (size, np.uint8)
        assert (result.probabilities.shape, result.probabilities.dtype) == ((5, *size), np.float32)
        assert np.abs(result.probabilities.sum(axis=0) - 1).max() <= PROBABILITY_SUM
        np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.labels)
        np.testing.assert_array_equal(result.image, picture)
        assert list(result.timings_ms) == ["preprocess", "inference", "postprocess"]
        assert min(result.timings_ms.values()) > 0

    def test_a_bundle_that_is_open_is_taken_as_it_is(self, tiny_bundle: Bundle, tiny: Segmenter, backend: str) -> None:
        segmenter = load(tiny_bundle, backend=backend)
        assert segmenter.bundle is tiny_bundle
        np.testing.assert_array_equal(segmenter(noise((40, 50))).labels, tiny(noise((40, 50))).labels)

    def test_the_known_answer(self, color_bundle: Bundle, backend: str) -> None:
        """Bands lie on cells of 8 pixels, so that upsampling puts their edges where they are."""
        labels = load(color_bundle.path, backend=backend)(flag(16, 32)).labels
        np.testing.assert_array_equal(labels, flag(16, 32).argmax(axis=2))

    def test_paths_pil_images_and_arrays_are_the_same_picture(self, tiny: Segmenter, tmp_path: Path) -> None:
        picture = noise((50, 70))
        path = tmp_path / "photo.png"
        Image.fromarray(picture).save(path)
        with Image.open(path) as pil:
            results = [tiny(source) for source in (picture, path, str(path), pil)]
        for result in results[1:]:
            np.testing.assert_array_equal(result.labels, results[0].labels)

    @pytest.mark.parametrize("normalization", [PLAIN, Normalization("BGR", 1.0, (0.0,) * 3, (1.0,) * 3)])
    def test_colour_order(self, tmp_path: Path, normalization: Normalization) -> None:
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), sizes=SIZES, normalization=normalization)
        labels = load(bundle.path)(np.full((20, 20, 3), RED, np.uint8)).labels
        assert (labels == (0 if normalization.color_order == "RGB" else 2)).all()

    def test_normalization_is_applied(self, tmp_path: Path) -> None:
        """Grey 120 minus Caffe's means (blue 104, green 117, red 123) is largest for blue."""
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), sizes=SIZES, normalization=CAFFE)
        assert (load(bundle.path)(np.full((20, 20), 120, np.uint8)).labels == 0).all()

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_a_ramp_is_interpolated_as_the_manifest_says(self, tmp_path: Path, align_corners: bool) -> None:
        """Red and green are equal at pixel 43.3; a sample at 8k is shown there, or with aligned edges at 8k + 3.5."""
        extra = int(align_corners)
        bundle = make_bundle(
            tmp_path / "x.atrous",
            color_layers(8),
            sizes=DynamicSize((16, 16), (64, 64), (256, 256), multiple=8),
            align_corners=align_corners,
        )
        if align_corners:
            bundle = put_logits_on_pixels(bundle)
        ramp = np.arange(64 + extra, dtype=np.uint8)
        picture = np.zeros((17, 64 + extra, 3), np.uint8)
        picture[..., 0], picture[..., 1] = 130 - 2 * ramp, ramp
        labels = load(bundle.path)(picture).labels
        assert (labels[0] == 0).sum() == (44 if align_corners else 47)

    def test_stretch_resizes_and_covers_the_picture(self, tmp_path: Path, backend: str) -> None:
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), fixed=(64, 64), resize="stretch")
        picture = np.zeros((300, 1000, 3), np.uint8)
        picture[:, :500], picture[:, 500:] = RED, BLUE
        labels = load(bundle.path, backend=backend)(picture).labels
        assert labels.shape == (300, 1000)
        assert (labels[:, :450] == 0).all()
        assert (labels[:, 570:] == 2).all()

    def test_a_fixed_size_pads_and_tiles(self, tmp_path: Path, backend: str) -> None:
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), fixed=(64, 64))
        segmenter = load(bundle.path, backend=backend)
        assert (segmenter(np.full((10, 30, 3), BLUE, np.uint8)).labels == 2).all()
        assert (segmenter(np.full((200, 90, 3), GREEN, np.uint8)).labels == 1).all()

    @pytest.mark.parametrize(
        ("source", "error"),
        [(np.zeros((4, 4, 3), np.float32), ShapeError), ("no/such/file.png", ImageError), (Path(), ImageError)],
    )
    def test_bad_pictures(self, tiny: Segmenter, source: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            tiny(source)

    def test_eight_threads_give_the_labels_of_one(self, tiny: Segmenter) -> None:
        pictures = [noise((40 + 17 * (index % 3), 90), index) for index in range(8)]
        expected = [tiny(picture).labels for picture in pictures]
        actual: list[Any] = [None] * len(pictures)

        def work(index: int) -> None:
            for _ in range(3):
                actual[index] = tiny(pictures[index]).labels

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(pictures))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for left, right in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(left, right)


class TestBatch:
    def test_equals_single_calls_in_order(self, tiny: Segmenter) -> None:
        sizes = [(50, 70), (64, 96), (50, 70), (200, 150), (1, 1), *[(64, 90)] * 9]
        pictures = [noise(size, seed) for seed, size in enumerate(sizes)]
        results = tiny.batch(pictures)
        assert len(results) == len(pictures)
        for picture, result in zip(pictures, results, strict=True):
            single = tiny(picture)
            np.testing.assert_array_equal(result.image, picture)
            assert np.abs(result.probabilities - single.probabilities).max() <= BATCH_ABSOLUTE
            assert (result.labels == single.labels).mean() >= 0.999  # but for ties
            assert list(result.timings_ms) == ["preprocess", "inference", "postprocess"]

    def test_a_fixed_size_has_batches_too(self, tmp_path: Path) -> None:
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), fixed=(64, 64))
        results = load(bundle.path).batch([np.full((20, 20, 3), color, np.uint8) for color in (RED, GREEN, BLUE)])
        assert [int(result.labels[0, 0]) for result in results] == [0, 1, 2]

    def test_stretched_pictures_share_an_input_and_keep_their_sizes(self, tmp_path: Path, backend: str) -> None:
        bundle = make_bundle(tmp_path / "x.atrous", color_layers(8), sizes=SIZES, resize="stretch")
        segmenter = load(bundle.path, backend=backend)
        pictures = [noise(size, seed) for seed, size in enumerate([(50, 70), (300, 20), (64, 64)])]
        for picture, result in zip(pictures, segmenter.batch(pictures), strict=True):
            assert result.labels.shape == picture.shape[:2]
            assert (result.labels == segmenter(picture).labels).mean() >= 0.999  # but for ties

    def test_nothing_in_nothing_out(self, tiny: Segmenter) -> None:
        assert tiny.batch([]) == []

    def test_a_bad_picture_raises(self, tiny: Segmenter) -> None:
        with pytest.raises(ImageError):
            tiny.batch([noise((40, 40)), "missing.png"])


class TestCRF:
    def test_marginals_are_probabilities_and_labels_follow_them(self, tiny_bundle: Bundle) -> None:
        picture = noise((60, 80))
        result = load(tiny_bundle.path, crf=True)(picture)
        assert np.abs(result.probabilities.sum(axis=0) - 1).max() <= PROBABILITY_SUM
        np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.labels)
        assert list(result.timings_ms) == ["preprocess", "inference", "postprocess", "crf"]

    def test_it_moves_an_edge_to_where_the_colours_change(self, color_bundle: Bundle) -> None:
        """Samples every 8 pixels put the edges at rows 16 and 32; the picture has them at 13 and 30."""
        bands = flag(13, 30).argmax(axis=2)
        soft = flag(13, 30) // 64 + 100  # logits that differ by 3, which leaves the CRF something to decide
        plain = load(color_bundle.path)(soft)
        refined = load(
            color_bundle.path,
            crf=CRFParams(
                bilateral_weight=4,
                bilateral_sigma_xy_px=20,
                bilateral_sigma_rgb=1,
                gaussian_weight=1,
                gaussian_sigma_xy_px=1,
            ),
        )(soft)
        np.testing.assert_array_equal(plain.labels, flag(16, 32).argmax(axis=2))
        np.testing.assert_array_equal(refined.labels, bands)

    def test_the_bundles_parameters_are_used(self, tiny_bundle: Bundle) -> None:
        segmenter = load(tiny_bundle.path, crf=True)
        assert segmenter.crf is not None
        assert segmenter.crf.params.to_dict() == tiny_bundle.manifest.crf
        assert load(tiny_bundle.path).crf is None

    def test_a_crf_of_ones_own_is_used_as_it_is(self, tiny_bundle: Bundle) -> None:
        crf = DenseCRF(iterations=2, threads=1, storage="unorm16")
        segmenter = load(tiny_bundle.path, crf=crf)
        assert segmenter.crf is crf
        picture = noise((60, 80))
        plain = load(tiny_bundle.path)(picture)
        np.testing.assert_array_equal(segmenter(picture).labels, crf.labels(plain.probabilities, picture))

    @pytest.mark.parametrize("crf", ["yes", 1, None, {"bilateral_weight": 4}])
    def test_anything_else_is_refused(self, tiny_bundle: Bundle, crf: object) -> None:
        with pytest.raises(CRFError, match=r"crf must be True, False, a CRFParams or a DenseCRF, got "):
            load(tiny_bundle.path, crf=crf)

    def test_a_tiled_picture_is_refined_whole(self, tiny_bundle: Bundle) -> None:
        result = load(tiny_bundle.path, crf=True)(noise((150, 200)))
        assert result.labels.shape == (150, 200)
        assert np.abs(result.probabilities.sum(axis=0) - 1).max() <= PROBABILITY_SUM

    def test_unusable_parameters_in_a_bundle(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        path = Path(shutil.copytree(tiny_bundle.path, tmp_path / "x.atrous"))
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text().replace("bilateral_weight", "weight"))
        load(path)  # they are looked at when asked for
        with pytest.raises(CRFError, match="bilateral_weight"):
            load(path, crf=True)


class TestLoad:
    def test_it_is_the_public_one(self) -> None:
        assert atrous.load is load

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"backend": "tflite"}, r"unknown backend 'tflite'; expected auto, tensorrt, .*openvino, onnxruntime"),
            ({"precision": "int8"}, r"no int8 ONNX graph.*it has: fp32"),
            ({"threads": -1}, r"threads must be 0 \(all cores\) or more; got -1"),
        ],
    )
    def test_wrong_options_say_what_there_is(
        self, tiny_bundle: Bundle, backend: str, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(EngineError, match=message):
            load(tiny_bundle.path, **{"backend": backend, **options})

    def test_no_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="not an atrous bundle"):
            load(tmp_path)

    def test_a_graph_of_other_classes_than_the_manifest_lists(self, tiny_bundle: Bundle, backend: str) -> None:
        fewer = dataclasses.replace(tiny_bundle.manifest, classes=tiny_bundle.manifest.classes[:4])
        bundle = Bundle(tiny_bundle.path, fewer)
        with pytest.raises(EngineError, match=r"gives 5 channels; the manifest says 4"):
            Segmenter(bundle, open_backend(bundle, backend=backend))(noise((40, 40)))

    def test_a_wrong_stride_in_the_manifest_is_found_in_tiling(self, tiny_bundle: Bundle, backend: str) -> None:
        output = dataclasses.replace(tiny_bundle.manifest.output, stride=16)
        bundle = Bundle(tiny_bundle.path, dataclasses.replace(tiny_bundle.manifest, output=output))
        with pytest.raises(EngineError, match="stride is wrong"):
            Segmenter(bundle, open_backend(bundle, backend=backend))(noise((200, 200)))
