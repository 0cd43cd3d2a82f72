from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atrous.crf import Compatibility, CRFParams, DenseCRF
from atrous.crf.stored import crf_from_stored
from atrous.errors import ExportError
from atrous.exporter.classes import describe_classes
from atrous.exporter.model_description import ModelDescription, Preprocessing
from atrous.exporter.normalization import NORMALIZATIONS
from atrous.exporter.sizes import DynamicSize, size_policy
from atrous.manifest import Size
from atrous.runtime.preprocess import prepare_image

RANGE = DynamicSize(min=(64, 64), opt=(128, 192), max=(256, 256))


def describe(size: tuple[int, int] | DynamicSize = RANGE, *, align_corners: bool = False) -> ModelDescription:
    return ModelDescription(describe_classes(["road", "car"]), size, Preprocessing(), align_corners, None, None)


def strided(stride: int, offset: int) -> Callable[[Size], tuple[int, ...]]:
    """Shapes of the logits of a network whose layers round down, and that adds `offset` cells."""
    return lambda size: (1, 2, *(length // stride + offset for length in size))


class TestPreprocessing:
    @pytest.mark.parametrize("name", NORMALIZATIONS)
    def test_padding_is_zero_to_the_network(self, name: str) -> None:
        spec = Preprocessing(NORMALIZATIONS[name]).input_spec(size_policy((4, 4), stride=1, offset=0))
        padded = prepare_image(np.zeros((1, 1, 3), np.uint8), (4, 4), spec)[:, 1:, 1:]
        half_a_level = 0.5 * spec.scale / min(spec.std)
        assert np.abs(padded).max() <= half_a_level * 1.001

    def test_caffe_pads_with_its_mean_in_rgb(self) -> None:
        spec = Preprocessing(NORMALIZATIONS["caffe"]).input_spec(size_policy((4, 4), stride=1, offset=0))
        assert (spec.color_order, spec.pad_value) == ("BGR", (123, 117, 104))

    def test_a_stated_padding_wins(self) -> None:
        policy = size_policy((4, 4), stride=1, offset=0)
        assert Preprocessing(pad_value=(1, 2, 3)).input_spec(policy).pad_value == (1, 2, 3)


class TestDraftManifest:
    def test_what_it_says(self) -> None:
        manifest = describe().draft_manifest(Path("out/street.atrous"), strided(8, 0))
        assert (manifest.name, manifest.output.stride, manifest.input.size.opt) == ("street", 8, (128, 192))
        assert manifest.crf == CRFParams.deeplab_v2_resnet().to_dict()
        assert json.loads(manifest.to_json())["classes"][1]["name"] == "car"

    def test_a_dense_crf_brings_its_iterations(self) -> None:
        crf = DenseCRF(CRFParams.deeplab_v2_vgg(), iterations=3)
        description = dataclasses.replace(describe(), crf=crf)
        manifest = description.draft_manifest(Path("street.atrous"), strided(8, 0))
        assert manifest.crf == {**CRFParams.deeplab_v2_vgg().to_dict(), "iterations": 3}

    def test_a_dense_crf_brings_what_it_has_learned(self) -> None:
        learned = Compatibility(bilateral=(0.5, 2), gaussian=(1, 1))
        description = dataclasses.replace(describe(), crf=DenseCRF(iterations=3, compatibility=learned))
        manifest = description.draft_manifest(Path("street.atrous"), strided(8, 0))
        assert crf_from_stored(json.loads(manifest.to_json())["crf"]).compatibility == learned

    @pytest.mark.parametrize("offset", [0, 1])
    def test_where_the_logits_lie_shows_in_their_number(self, offset: int) -> None:
        policy = describe().draft_manifest(Path("street.atrous"), strided(8, offset)).input.size
        assert (policy.multiple, policy.offset) == (1, offset)
        assert (policy.min, policy.opt, policy.max) == (RANGE.min, RANGE.opt, RANGE.max)

    @pytest.mark.parametrize("coarse", [(1, 3, 16, 24), (1, 16, 24, 2), (1, 16, 24), (1, 2, 4, 16, 24)])
    def test_other_logits_are_refused(self, coarse: tuple[int, ...]) -> None:
        with pytest.raises(ExportError, match=r"expected \[N, 2, h, w\].*\(road, car\)"):
            describe().draft_manifest(Path("street.atrous"), lambda _: coarse)
