"""Images of bands, and labels of 16 bits, on the device, against their twins on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from band_bundles import ALL, FLOATS, GREY16, INFRARED, RGBN, make_band_bundle, scene
from frames import DTYPES, Frames, planned
from segmenters import on_cpu

from atrous._native import Geometry
from atrous.bands import Bands
from atrous.crf import DenseCRF
from atrous.errors import CRFError, ShapeError
from atrous.manifest import InputSpec, OutputSpec, SizePolicy
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.postprocess import upsample_labels, upsample_probabilities
from atrous.runtime.preprocess import color_image, prepare_image

BANDS = [*ALL.values(), Bands.of(7), Bands.of(3, "uint16"), Bands.of(5, "float32")]


@pytest.fixture
def frames(device) -> Frames:
    return Frames(device)


def spec(bands: Bands, resize) -> InputSpec:
    low, high = np.array(bands.ranges).T
    mean, std = low + 0.3 * (high - low), (high - low) * np.linspace(0.2, 0.4, len(low))
    policy = SizePolicy((8, 8), (40, 56), (512, 512), 8)
    pad = tuple(np.round(low + 0.6 * (high - low)))
    return InputSpec(policy, mean=tuple(mean), std=tuple(std), scale=1.0, pad_value=pad, bands=bands, resize=resize)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bands", BANDS, ids=str)
@pytest.mark.parametrize(
    ("size", "resize"),
    [((40, 56), "none"), ((13, 22), "none"), ((1, 1), "none"), ((60, 31), "stretch"), ((90, 40), "letterbox")],
)
def test_inputs_are_the_cpus_bit_for_bit(frames, bands, size, resize, dtype):
    inputs, batch = spec(bands, resize), np.stack([scene(bands, size, seed) for seed in range(2)])
    memory = frames.preprocessed(batch, inputs, Geometry(size, (40, 56), resize), dtype)
    got = frames.fetched(memory["input"], (2, len(bands.names), 40, 56), dtype)
    for one, image in zip(got, batch, strict=True):
        np.testing.assert_array_equal(one, prepare_image(image, (40, 56), inputs).astype(dtype))


@pytest.mark.parametrize("bands", [*BANDS, INFRARED, replace(FLOATS, colors=(1, 0), crf_weights=(1, 0.5))], ids=str)
def test_colours_are_the_cpus(frames, bands):
    batch = np.stack([scene(bands, (13, 22), seed) for seed in range(2)])
    layout = EngineLayout(DTYPES[0], (2, 1, 1, 1), DTYPES[0])
    plan = planned(Geometry((13, 22), (13, 22), "none"), None, layout, spec(bands, "none"), OutputSpec(1))
    memory = frames.run(plan, "colors", pictures=batch)
    for one, image in zip(frames.fetched(memory["colors"], (2, 13, 22, 3), np.uint8), batch, strict=True):
        np.testing.assert_array_equal(one, color_image(image, bands, weighted=True))
    assert "swap" not in plan.sequences


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("align_corners", [False, True])
def test_labels_of_many_classes_are_the_cpus(frames, rng, dtype, align_corners):
    maps = rng.normal(size=(2, 300, 3, 4)).astype(dtype)
    geometry = Geometry((17, 23), (24, 32), "none")
    layout = EngineLayout(DTYPES[0], maps.shape, maps.dtype)
    plan = planned(
        geometry, None, layout, InputSpec(SizePolicy((8, 8), (8, 8), (8, 8), 8)), OutputSpec(1, align_corners)
    )
    memory = frames.run(plan, "labels", output=maps)
    got = frames.fetched(memory["labels"], (2, 17, 23), np.uint16)
    for one, logits in zip(got, maps, strict=True):
        np.testing.assert_array_equal(one, upsample_labels(logits, geometry, align_corners=align_corners))
    assert got.max() > 255
    memory = frames.run(plan, "probabilities", output=maps)
    got = frames.fetched(memory["probabilities"], (2, 300, 17, 23), np.float32)
    for one, logits in zip(got, maps, strict=True):
        np.testing.assert_array_equal(one, upsample_probabilities(logits, geometry, align_corners=align_corners))


class TestPipeline:
    @pytest.mark.parametrize("bands", ALL.values(), ids=str)
    @pytest.mark.parametrize("size", [(64, 96), (45, 83), (200, 150)])
    def test_results_are_the_cpus(self, open_gpu, make_device, tmp_path, bands, size):
        bundle, image = make_band_bundle(tmp_path / "x.atrous", bands), scene(bands, size)
        got, expected = open_gpu(bundle, make_device)(image), on_cpu(bundle)(image)
        np.testing.assert_array_equal(got.labels, expected.labels)
        np.testing.assert_array_equal(got.probabilities, expected.probabilities)
        np.testing.assert_array_equal(got.overlay(), expected.overlay())

    @pytest.mark.parametrize("bands", [RGBN, GREY16, INFRARED], ids=str)
    def test_the_crf_compares_the_same_colours(self, open_gpu, tmp_path, bands):
        bundle, image = make_band_bundle(tmp_path / "x.atrous", bands), scene(bands, (40, 56))
        crf = DenseCRF(iterations=2)
        got, expected = open_gpu(bundle, crf=crf)(image), on_cpu(bundle, crf=crf)(image)
        assert (got.labels == expected.labels).mean() >= 0.999

    def test_many_classes(self, open_gpu, tmp_path):
        bundle, image = make_band_bundle(tmp_path / "x.atrous", RGBN, classes=300), scene(RGBN, (64, 96))
        got, expected = open_gpu(bundle)(image), on_cpu(bundle)(image)
        assert got.labels.dtype == np.uint16
        np.testing.assert_array_equal(got.labels, expected.labels)
        with pytest.raises((CRFError, ShapeError), match="256"):
            open_gpu(bundle, crf=DenseCRF(iterations=1))(image)
