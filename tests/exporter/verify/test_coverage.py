from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from atrous.exporter.model_description import Preprocessing
from atrous.exporter.verify import Probe, covering_probes
from atrous.manifest import InputSpec, SizePolicy

WIDE = SizePolicy((64, 64), (128, 192), (256, 320), 1)


def spec(policy: SizePolicy, *, dynamic_batch: bool | None = None) -> InputSpec:
    return dataclasses.replace(Preprocessing().input_spec(policy), dynamic_batch=dynamic_batch)


class TestRange:
    @pytest.mark.parametrize(
        "policy",
        [
            WIDE,
            SizePolicy((64, 64), (128, 192), (256, 320), 16),
            SizePolicy((65, 65), (129, 193), (257, 321), 16, 1),
            SizePolicy((64, 64), (64, 64), (64, 65), 1),
            SizePolicy((1, 1), (64, 64), (64, 64), 1),
            SizePolicy((32, 64), (32, 64), (96, 64), 8),
        ],
    )
    def test_in_the_range_on_the_grid_with_its_ends(self, policy: SizePolicy) -> None:
        probes = covering_probes(spec(policy))
        assert {policy.min, policy.opt, policy.max} <= {probe.size for probe in probes}
        assert len(set(probes)) == len(probes)
        for probe, axis in itertools.product(probes, (0, 1)):
            assert policy.min[axis] <= probe.size[axis] <= policy.max[axis]
            assert (probe.size[axis] - policy.offset) % policy.multiple == 0

    def test_odd_sizes_on_both_sides_of_the_best(self) -> None:
        odd = [probe.size for probe in covering_probes(spec(WIDE)) if probe.size[0] % 2 and probe.size[1] % 2]
        assert any(size[0] < WIDE.opt[0] and size[1] < WIDE.opt[1] for size in odd)
        assert any(size[0] > WIDE.opt[0] and size[1] > WIDE.opt[1] for size in odd)

    def test_both_orientations_batches_and_noise(self) -> None:
        probes = covering_probes(spec(WIDE))
        assert any(height > width for height, width in (probe.size for probe in probes))
        assert any(height < width for height, width in (probe.size for probe in probes))
        assert {probe.batch for probe in probes} == {1, 2, 3, 8}
        noisy = [probe.size for probe in probes if probe.picture == "noise"]
        assert any(size[0] > WIDE.opt[0] for size in noisy)
        assert not any(probe.picture == "noise" for probe in covering_probes(spec(WIDE), noise=False))

    @pytest.mark.parametrize(("most", "batches"), [(1, {1}), (2, {1, 2}), (4, {1, 2, 3, 4})])
    def test_an_engine_takes_smaller_batches(self, most: int, batches: set[int]) -> None:
        assert {probe.batch for probe in covering_probes(spec(WIDE), max_batch=most)} == batches


@pytest.mark.parametrize(("dynamic_batch", "batches"), [(None, {1}), (False, {1}), (True, {1, 2, 3, 8})])
def test_one_size(dynamic_batch: bool | None, batches: set[int]) -> None:
    probes = covering_probes(spec(SizePolicy((33, 49), (33, 49), (33, 49), 1), dynamic_batch=dynamic_batch))
    assert {probe.size for probe in probes} == {(33, 49)}
    assert {probe.batch for probe in probes} == batches


class TestPictures:
    def test_are_the_same_every_time_and_of_their_kind(self) -> None:
        inputs = spec(WIDE)
        photo, noise = (Probe(2, (64, 64), kind).make(inputs) for kind in ("photo", "noise"))
        assert np.array_equal(photo, Probe(2, (64, 64)).make(inputs))
        assert photo.shape == noise.shape == (2, 3, 64, 64)
        assert not np.array_equal(photo[0], photo[1])
        # Neighbours are alike in a photo and nothing to each other in noise.
        assert np.abs(np.diff(photo)).mean() < 0.5 * np.abs(np.diff(noise)).mean()

    def test_another_seed_gives_others(self) -> None:
        inputs = spec(WIDE)
        assert not np.array_equal(Probe(1, (64, 64)).make(inputs), Probe(1, (64, 64), seed=1).make(inputs))
