"""The C++ runtime takes the bands, and gives the labels of many classes, that the Python runtime does."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest
from band_bundles import ALL, FLOATS, GREY16, INFRARED, RGBN, make_band_bundle, scene
from cpp_library import ARGUMENT, BUNDLE, SHAPE, Band, BundleInfo, CppError
from tolerances import CPP_AGREEMENT, CPP_PROBABILITY_ABS

import atrous
from atrous.bundle import MANIFEST_FILE


def assert_same(library, bundle, image, *, crf: bool = False) -> None:
    expected = atrous.load(bundle, backend="openvino", crf=crf)(image)
    with library.segmenter(bundle.path, crf=int(crf)) as segment:
        actual = segment(image, probabilities=True)
        labels_only = segment(image)
    assert actual.labels.dtype == expected.labels.dtype
    assert (actual.labels == expected.labels).mean() >= CPP_AGREEMENT
    assert abs(actual.probabilities - expected.probabilities).max() <= CPP_PROBABILITY_ABS
    np.testing.assert_array_equal(labels_only.labels, actual.labels)


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
@pytest.mark.parametrize("bands", [*ALL.values(), INFRARED], ids=str)
def test_labels_are_pythons(library, tmp_path, bands, crf) -> None:
    bundle = make_band_bundle(tmp_path / "x.atrous", bands)
    for size in ((64, 96), (45, 83), (150, 200)):
        assert_same(library, bundle, scene(bands, size), crf=crf)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("bands", ALL.values(), ids=str)
def test_images_are_fitted(library, tmp_path, bands, resize) -> None:
    bundle = make_band_bundle(tmp_path / "x.atrous", bands, fixed=(64, 96), resize=resize)
    assert_same(library, bundle, scene(bands, (50, 130)))


def test_rows_may_lie_apart(library, tmp_path) -> None:
    bundle, image = make_band_bundle(tmp_path / "x.atrous", GREY16), scene(GREY16, (45, 83))
    wide = np.zeros((45, 100, 1), np.uint16)
    wide[:, :83] = image
    with library.segmenter(bundle.path) as segment:
        np.testing.assert_array_equal(segment(wide[:, :83]).labels, segment(image).labels)


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_more_than_256_classes(library, tmp_path, crf) -> None:
    bundle = make_band_bundle(tmp_path / "x.atrous", RGBN, classes=300)
    assert_same(library, bundle, scene(RGBN, (45, 83)), crf=crf)
    assert atrous.load(bundle)(scene(RGBN, (45, 83))).labels.max() > 255


def test_a_bundle_says_its_bands(library, tmp_path, tiny_bundle) -> None:
    bundle = make_band_bundle(tmp_path / "x.atrous", GREY16, classes=300)
    with library.bundle(bundle.path) as handle:
        info, band = library.info(handle), Band()
        assert (info.channels, info.dtype, info.label_dtype, info.has_bands) == (1, 1, 1, 1)
        library.check(library.c.atrous_bundle_get_band(handle, 0, ctypes.byref(band)))
        assert (band.name, band.low, band.high) == (b"grey", 0, 4095)
        with pytest.raises(CppError, match="there is no band 1; the bundle has 1"):
            library.check(library.c.atrous_bundle_get_band(handle, 1, ctypes.byref(band)))
    with library.bundle(tiny_bundle.path) as handle:
        info = library.info(handle)
        assert (info.channels, info.dtype, info.label_dtype, info.has_bands) == (3, 0, 0, 0)
        short = BundleInfo()
        short.struct_size = BundleInfo.channels.offset
        library.check(library.c.atrous_bundle_get_info(handle, ctypes.byref(short)))
        assert (short.class_count, short.channels) == (5, 0)
        with pytest.raises(CppError, match="takes RGB in bytes"):
            library.check(library.c.atrous_bundle_get_band(handle, 0, ctypes.byref(band)))


class TestRefused:
    def test_images_of_other_bands(self, library, tmp_path) -> None:
        bundle = make_band_bundle(tmp_path / "x.atrous", RGBN)
        wrong = {
            "3 channels of uint8": np.zeros((8, 9, 3), np.uint8),
            "4 channels of uint16": np.zeros((8, 9, 4), np.uint16),
            "1 channel of float32": np.zeros((8, 9, 1), np.float32),
        }
        with library.segmenter(bundle.path) as segment:
            for said, image in wrong.items():
                with pytest.raises(CppError, match=f"the picture has {said}; .* takes 4 channels of uint8") as caught:
                    segment(image)
                assert caught.value.status == SHAPE

    def test_floats_that_are_no_numbers(self, library, tmp_path) -> None:
        bundle, image = make_band_bundle(tmp_path / "x.atrous", FLOATS), scene(FLOATS, (45, 83))
        with library.segmenter(bundle.path) as segment:
            for value in (np.nan, np.inf):
                image[3, 4, 1] = value
                with pytest.raises(CppError, match=rf"has {value} at row 3, column 4 of 'vh'") as caught:
                    segment(image)
                assert caught.value.status == SHAPE

    @pytest.mark.parametrize(
        ("members", "status", "said"),
        [
            ({"channels": 0}, ARGUMENT, "1 to 32 channels; got 0"),
            ({"channels": 33}, ARGUMENT, "1 to 32 channels; got 33"),
            ({"dtype": 3}, ARGUMENT, "unknown dtype 3"),
            ({"dtype": -1}, ARGUMENT, "unknown dtype -1"),
            ({"format": 3}, ARGUMENT, "unknown format 3"),
            ({"format": 0}, ARGUMENT, "RGB and BGR have 3 channels"),
            ({"label_dtype": 2}, ARGUMENT, "labels are ATROUS_UINT8 or ATROUS_UINT16"),
            ({"label_dtype": 1}, SHAPE, "labels of 5 classes are ATROUS_UINT8"),
            ({"reserved2": 1}, ARGUMENT, "reserved must be 0"),
            ({"pixel_row_bytes": 167}, ARGUMENT, "expected a multiple of 2"),
        ],
    )
    def test_frames_that_contradict_themselves(self, library, tmp_path, members, status, said) -> None:
        bundle, image = make_band_bundle(tmp_path / "x.atrous", GREY16), scene(GREY16, (45, 83))
        with library.segmenter(bundle.path) as segment:
            frame, result = segment.frame(image)
            for name, value in members.items():
                setattr(frame, name, value)
            with pytest.raises(CppError, match=said) as caught:
                library.check(library.c.atrous_run(segment.handle, ctypes.byref(frame), ctypes.byref(result.timings)))
            assert caught.value.status == status

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"mean": [0.5] * 3}, "4 channels have as many means"),
            ({"color_order": "BGR"}, "color_order"),
            ({"colors": [4, 0, 1]}, "each of 4 bands"),
            ({"ranges": [[0, 1]] * 3}, "each of 4 bands"),
            ({"dtype": "int8"}, "dtype"),
        ],
    )
    def test_manifests(self, library, tmp_path, change, said) -> None:
        bundle = make_band_bundle(tmp_path / "x.atrous", RGBN)
        stored = json.loads((bundle.path / MANIFEST_FILE).read_text())
        inputs = stored["input"]
        (inputs if change.keys() & {"mean", "color_order"} else inputs["bands"]).update(change)
        (bundle.path / MANIFEST_FILE).write_text(json.dumps(stored))
        with pytest.raises(CppError, match=said) as caught, library.bundle(bundle.path):
            pass
        assert caught.value.status == BUNDLE
