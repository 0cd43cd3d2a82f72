"""More than 256 classes: labels of 16 bits from the logits to files and scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from band_bundles import RGBN, make_band_bundle, scene
from PIL import Image

import atrous
from atrous import _native
from atrous._native import Geometry
from atrous.crf import DenseCRF
from atrous.errors import EvaluationError, ExportError
from atrous.exporter.classes import describe_classes
from atrous.runtime.evaluation import evaluate, pair_by_stem
from atrous.runtime.masks import MaskReader
from atrous.runtime.postprocess import upsample_labels, upsample_probabilities

CLASSES = 300


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_band_bundle(tmp_path_factory.mktemp("many") / "x.atrous", RGBN, classes=CLASSES)


@pytest.fixture(scope="module")
def image():
    return scene(RGBN, (50, 83))


@pytest.fixture(scope="module")
def result(bundle, image):
    return atrous.load(bundle)(image)


@pytest.mark.parametrize("channels", [256, 257, 300, 1000])
@pytest.mark.parametrize("width", [1, 8, 23])
def test_labels_and_probabilities_are_those_of_torch(rng, channels, width):
    logits = (rng.normal(size=(channels, 3, 4)) * 5).astype(np.float32)
    geometry = Geometry((17, width), (17, width), "none")
    maps = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (17, width), mode="bilinear")[0]
    labels = upsample_labels(logits, geometry, align_corners=False)
    assert labels.dtype == (np.uint8 if channels == 256 else np.uint16)
    assert (labels == maps.argmax(0).numpy()).mean() >= 0.999
    probabilities = upsample_probabilities(logits, geometry, align_corners=False)
    np.testing.assert_allclose(probabilities, maps.softmax(0).numpy(), atol=1e-5)
    assert (labels == probabilities.argmax(0)).mean() >= 0.999


def test_the_last_class_has_its_number():
    logits = np.zeros((70 * 256, 1, 1), np.float32)
    logits[-1] = 1
    assert (upsample_labels(logits, Geometry((3, 3), (3, 3), "none"), align_corners=False) == 70 * 256 - 1).all()


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_the_crf(result, image, storage):
    crf = DenseCRF(iterations=2, storage=storage)
    labels, marginals = crf.labels_and_marginals(result.probabilities, image[..., :3])
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, marginals.argmax(0))
    np.testing.assert_array_equal(crf.labels(result.probabilities, image[..., :3]), labels)


def test_files_hold_the_ids(result, tmp_path):
    assert result.labels.dtype == np.uint16
    assert result.labels.max() > 255
    result.save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as read:
        np.testing.assert_array_equal(np.asarray(read), result.labels)
    palette = np.array([entry.color for entry in result.classes], np.uint8)
    np.testing.assert_array_equal(result.overlay(alpha=1.0), palette[result.labels])


def test_overlays_refuse_other_palettes():
    picture, labels = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16)
    with pytest.raises(ValueError, match=r"\[65536, 3\]"):
        _native.overlay(picture, labels, np.zeros((256, 3), np.uint8), 0.5)


class TestScores:
    def test_a_network_agrees_with_itself(self, bundle, image, result, tmp_path):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / "images" / "a.png")
        mask = result.labels.copy()
        mask[:5] = 65535
        Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
        pairs = pair_by_stem([tmp_path / "images" / "a.png"], tmp_path / "masks")
        scores = evaluate(atrous.load(bundle), pairs, ignore=[65535]).scores
        assert scores.miou == 1
        assert scores.void_share == pytest.approx(5 / 50)

    def test_ids_beyond_the_classes(self, bundle, tmp_path):
        Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(EvaluationError, match=r"ids 300; expected the classes 0 to 299, or void \(65535\)"):
            MaskReader(bundle.manifest).read(tmp_path / "a.png")
        assert not MaskReader(bundle.manifest, ignore=[300]).read(tmp_path / "a.png").valid.any()
        with pytest.raises(EvaluationError, match="from 0 to 65535; got 65536"):
            MaskReader(bundle.manifest, ignore=[65536])


def test_limits_of_classes():
    assert len(describe_classes(["x"] * 65536)) == 65536
    with pytest.raises(ExportError, match="1 to 65536 classes; got 65537"):
        describe_classes(["x"] * 65537)
