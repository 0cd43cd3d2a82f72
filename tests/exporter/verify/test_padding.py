from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_graphs import PLAIN

from atrous.arrays import FloatArray
from atrous.exporter.classes import describe_classes
from atrous.exporter.model_description import ModelDescription, Preprocessing
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify import measure_padding
from atrous.manifest import Manifest, PaddingCost, Size

RANGE = DynamicSize((32, 32), (64, 96), (128, 128), 16)


def manifest(size: Size | DynamicSize = RANGE) -> Manifest:
    described = ModelDescription(describe_classes("abc"), size, Preprocessing(PLAIN), False, None, None)
    return described.draft_manifest(Path("a.atrous"), lambda size: (1, 3, *(-(-length // 4) for length in size)))


def local(images: FloatArray) -> FloatArray:
    """Logits at full resolution that see nothing but their own pixel."""
    return images


def pooling(images: FloatArray) -> FloatArray:
    """Logits that depend on the mean of the whole input, so that padding shows everywhere."""
    means = images.mean(axis=(2, 3), keepdims=True)
    return np.abs(images - means)


def test_a_network_that_sees_no_padding_loses_nothing() -> None:
    cost = measure_padding(local, manifest())
    assert cost is not None
    assert cost.agreement == 1.0
    assert len(cost.sizes) == 2
    assert any(height > width for height, width in cost.sizes) or any(height < width for height, width in cost.sizes)
    assert all(height % 16 or width % 16 for height, width in cost.sizes)


@pytest.mark.parametrize("size", [RANGE, (64, 96)])
def test_a_network_that_pools_over_everything_loses_labels(size: Size | DynamicSize) -> None:
    cost = measure_padding(pooling, manifest(size))
    assert cost is not None
    assert 0.2 < cost.agreement < 0.999


def test_nothing_is_padded() -> None:
    assert measure_padding(pooling, manifest(dataclasses.replace(RANGE, multiple=None))) is None


def test_stretched_pictures_are_not_padded() -> None:
    made = manifest()
    assert (
        measure_padding(pooling, dataclasses.replace(made, input=dataclasses.replace(made.input, resize="stretch")))
        is None
    )


def test_a_network_that_takes_no_odd_size_cannot_be_measured() -> None:
    def strict(images: FloatArray) -> FloatArray:
        if images.shape[2] % 16 or images.shape[3] % 16:
            raise ValueError("sides must be multiples of 16")
        return images

    assert measure_padding(strict, manifest()) is None


def test_round_trip() -> None:
    cost = PaddingCost(0.953, ((61, 67), (41, 95)))
    made = manifest()
    made = dataclasses.replace(made, input=dataclasses.replace(made.input, padding=cost))
    assert Manifest.from_json(made.to_json()).input.padding == cost
