"""Networks for other bands from an image to its labels, on the CPU."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
import torch
from band_bundles import ALL, GREY16, INFRARED, RGBN, make_band_bundle, make_largest_bundle, scene
from PIL import Image
from torch import nn

import atrous
from atrous.bands import Bands
from atrous.crf import DenseCRF
from atrous.errors import BundleError, ExportError, ShapeError
from atrous.exporter.normalization import Normalization, normalize_ranges
from atrous.manifest import InputSpec
from atrous.runtime.postprocess import upsample_labels
from atrous.runtime.preprocess import color_image, plan_geometry, prepare_image


class Small(nn.Module):
    """Logits [N, 5, H/4, W/4] of any bands."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(bands, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 5, 3, stride=2, padding=1)
            )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.layers(image)
        return 20 * (logits - logits.mean(dim=(2, 3), keepdim=True))


@pytest.fixture(scope="module", params=["rgbn", "grey16"])
def exported(request, tmp_path_factory):
    """The bands, the module and its bundle, which is verified against it."""
    bands = ALL[request.param]
    network = Small(len(bands.names)).eval()
    path = tmp_path_factory.mktemp("bands") / "x.atrous"
    taken = 4 if request.param == "rgbn" else bands
    bundle = atrous.export(network, path, classes=list("abcde"), size=(64, 96), bands=taken)
    return bundle.manifest.input.bands, network, bundle


@pytest.mark.parametrize("source", ["array", "tiff"])
def test_labels_are_those_of_torch(exported, tmp_path, source) -> None:
    bands, network, bundle = exported
    image = scene(bands, (60, 91))
    result = atrous.load(bundle)(image if source == "array" else written(tmp_path / "x.tif", image))
    low, high = np.array(bands.ranges).T
    units = torch.from_numpy(((image - low) / (high - low)).astype(np.float32).transpose(2, 0, 1)[None])
    padded = nn.functional.pad(units, (0, 96 - 91, 0, 64 - 60))
    with torch.inference_mode():
        logits = nn.functional.interpolate(network(padded), (64, 96), mode="bilinear")[0, :, :60, :91]
    assert (result.labels == logits.argmax(0).numpy()).mean() >= 0.9999
    np.testing.assert_allclose(result.probabilities, logits.softmax(0).numpy(), atol=1e-4)
    assert len(np.unique(result.labels)) > 1


def test_the_crf_sees_the_colours_of_the_bands(exported) -> None:
    bands, _, bundle = exported
    image = scene(bands, (64, 96))
    plain, refined = (atrous.load(bundle, crf=crf)(image) for crf in (False, True))
    colors = color_image(image, bands, weighted=True)
    np.testing.assert_array_equal(refined.labels, DenseCRF().labels(plain.probabilities, colors))
    assert (refined.labels != plain.labels).any()


def test_labels_and_overlay_are_saved(exported, tmp_path) -> None:
    bands, _, bundle = exported
    image = scene(bands, (64, 96))
    result = atrous.load(bundle, crf=True)(image)
    result.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), result.labels)
    np.testing.assert_array_equal(result.overlay(alpha=0), color_image(image, bands))
    np.testing.assert_array_equal(result.image, image)


def test_results_pickle(exported) -> None:
    bands, _, bundle = exported
    result = atrous.load(bundle)(scene(bands, (64, 96)))
    other = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(other.overlay(), result.overlay())


@pytest.mark.parametrize("bands", ALL.values(), ids=str)
def test_tiles_of_a_large_image(bands, tmp_path) -> None:
    """Logits are pixels of the image, so tiles change nothing."""
    bundle, image = make_largest_bundle(tmp_path / "x.atrous", bands), scene(bands, (200, 333))
    geometry = plan_geometry((200, 333), bundle.manifest.input)
    prepared = prepare_image(image, geometry.input_size, bundle.manifest.input)[:, ::8, ::8]
    logits = 9 * np.concatenate([prepared, np.zeros_like(prepared)])[: max(2, len(prepared))]
    result = atrous.load(bundle)(image)
    expected = upsample_labels(logits, geometry, align_corners=False)
    assert (result.labels == expected).mean() >= 0.9999
    assert len(np.unique(expected)) > 1 or len(bands.names) == 1


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_images_of_any_size_are_fitted(resize, tmp_path) -> None:
    for name, bands in ALL.items():
        bundle = make_band_bundle(tmp_path / f"{name}.atrous", bands, resize=resize, fixed=(64, 96))
        assert atrous.load(bundle)(scene(bands, (50, 200))).labels.shape == (50, 200)


def test_a_batch_and_a_stream(tmp_path) -> None:
    segmenter = atrous.load(make_band_bundle(tmp_path / "x.atrous", RGBN))
    images = [scene(RGBN, (64, 96), seed) for seed in range(3)]
    single = [segmenter(image).labels for image in images]
    for results in (segmenter.batch(images), segmenter.stream(images)):
        for result, expected in zip(results, single, strict=True):
            np.testing.assert_array_equal(result.labels, expected)


def test_rgb_does_not_fit_four_bands(tmp_path) -> None:
    segmenter = atrous.load(make_band_bundle(tmp_path / "x.atrous", RGBN))
    with pytest.raises(ShapeError, match=r"\[8, 9, 3\] uint8; expected \[H, W, 4\] uint8"):
        segmenter(np.zeros((8, 9, 3), np.uint8))


class TestExport:
    def test_a_network_of_other_bands_than_said(self, tmp_path) -> None:
        for bands in (None, 3, 5):
            with pytest.raises(ExportError, match=r"\[1, [35], 64, 96\]"):
                atrous.export(Small(4).eval(), tmp_path / "x.atrous", classes=list("abcde"), size=(64, 96), bands=bands)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("count", [0, 33, -1])
    def test_numbers_that_are_none_of_bands(self, tmp_path, count) -> None:
        with pytest.raises(BundleError, match=f"1 to 32 bands; got int {count}"):
            atrous.export(Small(4).eval(), tmp_path / "x.atrous", classes=list("abcde"), size=(64, 96), bands=count)

    def test_a_normalization_of_other_bands(self, tmp_path) -> None:
        for wrong in (Normalization("RGB", 1 / 255, (0.5,) * 3, (0.5,) * 3), normalize_ranges(GREY16)):
            with pytest.raises(ExportError, match="4 bands uint8, and the normalization is that of"):
                atrous.export(
                    Small(4).eval(), tmp_path / "x.atrous", classes=list("abcde"), size=(64, 96), bands=4,
                    preprocessing=atrous.Preprocessing(wrong),
                )  # fmt: skip

    def test_constants_of_each_band(self, tmp_path) -> None:
        norm = Normalization("RGB", 1 / 255, (0.4, 0.5, 0.6, 0.3), (0.2, 0.2, 0.3, 0.1), INFRARED)
        bundle = atrous.export(
            Small(4).eval(), tmp_path / "x.atrous", classes=list("abcde"), size=(64, 96), bands=INFRARED,
            preprocessing=atrous.Preprocessing(norm, resize="letterbox"),
        )  # fmt: skip
        assert bundle.manifest.input == InputSpec(
            bundle.manifest.input.size, "RGB", norm.mean, norm.std, norm.scale, "letterbox", (102, 128, 153, 76),
            dynamic_batch=False, bands=INFRARED,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("mean", "std"), [((300.0,), (1.0,)), ((0.5,), (0.0,)), ((0.5,), (9000.0,)), ((0.5,) * 2, (1.0,))]
    )
    def test_constants_that_cannot_be(self, mean, std) -> None:
        with pytest.raises(ExportError, match=r"mean"):
            Normalization("RGB", 1 / 4095, mean, std, Bands.of(1, "uint16", ranges=((0, 4095),)))


def written(path, image):
    config = {"planarconfig": "contig"} if image.shape[2] > 1 else {}
    tifffile.imwrite(path, image.squeeze(), photometric="minisblack", **config)
    return path
