"""Inputs that cover what a graph is claimed to take: the sizes of a range, batches, photos and noise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ...arrays import FloatArray
from ...manifest import InputSpec, Size, SizePolicy
from ...runtime.path import MAX_BATCH
from ...runtime.preprocess import fit_size, prepare_image
from .inputs import random_pixels, synthetic_photo

_SEED: Final = 1606_00915
#: Photos of a graph that takes one size only.
_FIXED_PHOTOS: Final = 3
#: Grid steps from the middle between two sizes of a range, different on each side: odd sizes where every size is taken.
_STEPS_ASIDE: Final = (1, 3)


@dataclass(frozen=True)
class Probe:
    """One input to run: so many images of one size.

    Attributes:
        batch: number of images.
        size: size of each.
        picture: `photo` for shading, edges and a little noise, as natural images have; `noise` for random pixels.
        seed: another one gives other images.
    """

    batch: int
    size: Size
    picture: Literal["photo", "noise"] = "photo"
    seed: int = 0

    def shape(self, inputs: InputSpec) -> tuple[int, int, int, int]:
        """Shape [N, bands, H, W]."""
        return (self.batch, inputs.channels, *self.size)

    @property
    def pixels(self) -> int:
        """Pixels of all its images."""
        return self.batch * self.size[0] * self.size[1]

    def make(self, inputs: InputSpec) -> FloatArray:
        """Prepare the pictures: [N, bands, H, W] float32, the same every time."""
        generator = np.random.default_rng([_SEED, self.seed, *self.shape(inputs)])
        make = random_pixels if self.picture == "noise" else synthetic_photo
        pictures = [make(generator, self.size, inputs.bands) for _ in range(self.batch)]
        return np.stack([prepare_image(picture, self.size, inputs) for picture in pictures])


def covering_probes(inputs: InputSpec, *, max_batch: int = MAX_BATCH, noise: bool = True) -> list[Probe]:
    """Inputs that cover the claim, the most telling first, after three by which the cost of the largest can be told.

    A range: its smallest, best and largest size, sizes between them and above the best one that are odd where every
    size is taken, both orientations, and batches up to the runtime's. One size: photos of it, and batches if it takes
    them.

    Args:
        inputs: sizes and batches of the graph.
        max_batch: largest batch that can be run.
        noise: include random pixels, which only graphs of equal precision answer alike.
    """
    policy = inputs.size
    between = [_between(policy, policy.min, policy.opt), _between(policy, policy.opt, policy.max)]
    sizes = list(dict.fromkeys((policy.min, policy.opt, between[1], policy.max, between[0], *_crosswise(policy))))
    probes = [Probe(1, size) for size in sizes]
    if policy.is_fixed:
        probes = [Probe(1, policy.opt, seed=seed) for seed in range(_FIXED_PHOTOS)]
    if inputs.takes_batches:
        small = policy.opt if policy.is_fixed else between[0]
        probes += [Probe(batch, small) for batch in (2, 3) if batch <= max_batch]
        if max_batch > 3:
            probes.append(Probe(max_batch, policy.min))
    if noise:
        probes += [Probe(1, size, "noise") for size in dict.fromkeys((policy.opt, *between))]
    return probes


def odd_sizes(policy: SizePolicy) -> list[Size]:
    """Sizes of images near `opt` that are padded, one of each orientation where there are such."""
    low_height, low_width = (1, 1) if policy.is_fixed else policy.min
    height, width = policy.opt
    tall = max(low_height, height - 3), max(low_width, width * 3 // 4 - 5)
    wide = max(low_height, height * 3 // 4 - 7), max(low_width, width - 1)
    return [size for size in (tall, wide) if policy.is_fixed or not _is_on_grid(policy, size)]


def _is_on_grid(policy: SizePolicy, size: Size) -> bool:
    return all(fit_size(length, policy.multiple, policy.offset) == length for length in size)


def _between(policy: SizePolicy, low: Size, high: Size) -> Size:
    """A size half-way, moved aside to break evenness, in the range and on the grid."""
    found = []
    for axis, steps in enumerate(_STEPS_ASIDE):
        middle = fit_size((low[axis] + high[axis]) // 2, policy.multiple, policy.offset)
        length = middle + steps * policy.multiple
        if policy.multiple == 1 and length % 2 == 0:
            length += 1
        # Where the range ends before, its end or the middle has to do.
        found.append(next((each for each in (length, middle) if low[axis] <= each <= high[axis]), high[axis]))
    return found[0], found[1]


def _crosswise(policy: SizePolicy) -> Iterator[Size]:
    """Portrait and landscape: the smallest side with the largest, and the best with the smallest."""
    (low_height, low_width), (height, width), (high_height, high_width) = policy.min, policy.opt, policy.max
    yield from itertools.chain([(high_height, low_width), (low_height, high_width)], [(height, low_width)])
    yield low_height, width
