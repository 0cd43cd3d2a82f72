from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from atrous.exporter.model_description import Preprocessing
from atrous.exporter.sizes import DynamicSize, size_policy
from atrous.exporter.verify import photo_inputs, probe_inputs
from atrous.manifest import InputSpec, Size


def spec(size: Size | DynamicSize, *, offset: int = 0) -> InputSpec:
    return Preprocessing().input_spec(size_policy(size, stride=8, offset=offset))


class TestProbeInputs:
    @pytest.mark.parametrize("offset", [0, 1])
    @pytest.mark.parametrize(
        "size",
        [
            DynamicSize((64, 64), (128, 192), (256, 256)),
            DynamicSize((64, 64), (64, 64), (128, 128)),
            DynamicSize((64, 64), (96, 64), (96, 96)),  # half-way is the optimum
            DynamicSize((32, 32), (64, 64), (64, 64)),
        ],
    )
    def test_a_range_is_tried_at_three_sizes_and_as_a_batch(self, size: DynamicSize, offset: int) -> None:
        inputs = spec(size, offset=offset)
        shapes = [probe.shape for probe in probe_inputs(inputs)]
        assert [shape[0] for shape in shapes] == [1, 1, 1, 2]
        assert len({shape[2:] for shape in shapes}) == 3
        assert shapes[0][2:] == inputs.size.min
        assert inputs.size.opt in {shape[2:] for shape in shapes}
        for shape in shapes:
            for axis in (0, 1):
                assert inputs.size.min[axis] <= shape[2 + axis] <= inputs.size.max[axis]
                assert (shape[2 + axis] - offset) % inputs.size.multiple == 0

    def test_a_range_of_two_sizes(self) -> None:
        probes = probe_inputs(spec(DynamicSize((64, 64), (64, 64), (64, 80), 16)))
        assert [probe.shape for probe in probes] == [
            (1, 3, 64, 64),
            (1, 3, 64, 80),
            (2, 3, 64, 80),
        ]

    def test_one_size_is_tried_with_three_pictures(self) -> None:
        probes = probe_inputs(spec((33, 49)))
        assert [probe.shape for probe in probes] == [(1, 3, 33, 49)] * 3
        assert not np.array_equal(probes[0], probes[1])

    def test_pictures_are_the_same_every_time_and_not_flat(self) -> None:
        first, second = (probe_inputs(spec((64, 64)))[0] for _ in range(2))
        assert np.array_equal(first, second)
        assert first.std() > 0.3

    def test_the_smallest_size_there_is(self) -> None:
        assert probe_inputs(spec((1, 1)))[0].shape == (1, 3, 1, 1)


class TestPhotoInputs:
    @pytest.mark.parametrize(
        ("height", "width", "expected"), [(100, 70, (112, 80)), (40, 40, (64, 64)), (300, 100, (256, 112))]
    )
    def test_padded_or_cropped(self, height: int, width: int, expected: Size) -> None:
        inputs = spec(DynamicSize((64, 64), (128, 192), (256, 256), 16))
        (batch,) = photo_inputs([np.zeros((height, width, 3), np.uint8)], inputs)
        assert batch.shape == (1, 3, *expected)

    def test_stretched(self) -> None:
        inputs = dataclasses.replace(spec((64, 96)), resize="stretch")
        (batch,) = photo_inputs([np.zeros((300, 10, 3), np.uint8)], inputs)
        assert batch.shape == (1, 3, 64, 96)
