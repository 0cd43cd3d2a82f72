"""The lattice that the GPU builds, number by number, against a dictionary of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from crf_oracles import _simplex, colour_features, position_features
from emulator.emulated_device import BACKWARDS, SHUFFLED, EmulatedDevice
from tolerances import CUDA_WEIGHT_ABS

from atrous import _native
from atrous.crf.cuda_field import Failure
from atrous.crf.cuda_queue import Queue
from atrous.gpu import allocate, prepare

SIGMA_XY_PX, SIGMA_RGB = 3.0, 20.0


class Built:
    """A lattice without norms over `pictures` [B, H, W, 3], bilateral or Gaussian, and its content."""

    def __init__(self, device, pictures: np.ndarray, corners: int, capacity: int | None = None) -> None:
        images, height, width, _ = pictures.shape
        pixels, ghosts = images * height * width, images if height * width % 4 else 0
        room = capacity if capacity is not None else corners * (pixels + ghosts)
        spec = _native.LatticeSpec((images, height, width), corners, room, "none", (SIGMA_XY_PX, SIGMA_RGB))
        plan = _native.plan_lattice(spec, device.properties.multiprocessors)
        self._device, self._stream = device, device.stream()
        rgb = device.allocate(pictures.nbytes)
        device.upload(rgb, np.ascontiguousarray(pictures), self._stream)
        buffers = allocate(plan, device, self._stream)
        Queue(device, self._stream).replay(prepare(plan.sequences["build"]), {**buffers, "rgb": rgb})
        failures, _, *vertices = self._read(buffers["report"], np.uint32)
        self.vertices = int(vertices[0 if corners == 3 else 1])
        self.failures = Failure(int(failures))
        if self.failures:
            return
        self.pixel_vertices = self._read(buffers[f"{spec.name}.pixel_vertices"], np.int32).reshape(-1, corners)
        # Without norms, the weights are scaled by what the lattice's response to an impulse is too large.
        alpha = 1 / (1 + 2.0 ** (1 - corners))
        self.weights = self._read(buffers[f"{spec.name}.weights"], np.float32).reshape(-1, corners)[:pixels] / alpha
        entry = np.dtype([("pixel", np.int32), ("weight", np.float32)])
        self.entries = self._read(buffers[f"{spec.name}.splat_entries"], entry)
        self.first_entry = self._read(buffers[f"{spec.name}.first_entry"], np.int32)[: self.vertices + 1]
        links = self._read(buffers[f"{spec.name}.neighbours"], np.int32).reshape(corners, room, 2)
        self.neighbours = links[:, : self.vertices]

    def _read(self, buffer, dtype) -> np.ndarray:
        out = np.empty(buffer.nbytes // np.dtype(dtype).itemsize, dtype)
        self._device.download(out, buffer, self._stream)
        return out


@dataclass
class Twin:
    """What `Built` must hold."""

    numbers: dict[tuple[int, tuple[int, ...]], int]
    pixel_vertices: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, pictures: np.ndarray, corners: int) -> Twin:
        images, height, width, _ = pictures.shape
        features = [
            position_features(height, width, SIGMA_XY_PX)
            if corners == 3
            else colour_features(picture, SIGMA_XY_PX, SIGMA_RGB)
            for picture in pictures
        ]
        simplices = [(image, _simplex(feature)) for image in range(images) for feature in features[image]]
        if height * width % 4:  # ghosts come last
            simplices += [(image, _simplex(np.zeros_like(features[0][0]))) for image in range(images)]
        numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        for image, simplex in simplices:
            for point, _ in simplex:
                numbers.setdefault((image, point), len(numbers))
        vertices = [[numbers[image, point] for point, _ in simplex] for image, simplex in simplices]
        weights = [[weight for _, weight in simplex] for _, simplex in simplices[: images * height * width]]
        return cls(numbers, np.array(vertices), np.array(weights))

    def neighbour(self, key: tuple[int, tuple[int, ...]], axis: int, sign: int) -> int:
        image, point = key
        moved = np.array(point) + sign
        moved[axis] -= sign * len(point)
        return self.numbers.get((image, tuple(int(c) for c in moved)), -1)


def pictures(rng, images: int, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, size=(images, height, width, 3), dtype=np.uint8) // 3


SIZES = [(1, 1, 1), (1, 2, 2), (1, 3, 5), (2, 1, 7), (3, 4, 6), (1, 13, 11)]


@pytest.mark.parametrize("corners", [3, 6])
@pytest.mark.parametrize(("images", "height", "width"), SIZES)
def test_vertices_are_numbered_in_the_order_of_a_scan(device, rng, corners, images, height, width):
    scene = pictures(rng, images, height, width)
    built, twin = Built(device, scene, corners), Twin.of(scene, corners)
    assert built.vertices == len(twin.numbers)
    assert (built.pixel_vertices == twin.pixel_vertices).all()
    assert np.abs(built.weights - twin.weights).max() <= CUDA_WEIGHT_ABS


@pytest.mark.parametrize("corners", [3, 6])
@pytest.mark.parametrize(("images", "height", "width"), SIZES)
def test_neighbours_are_those_of_the_points(device, rng, corners, images, height, width):
    scene = pictures(rng, images, height, width)
    built, twin = Built(device, scene, corners), Twin.of(scene, corners)
    for axis in range(corners):
        expected = [[twin.neighbour(key, axis, sign) for sign in (1, -1)] for key in twin.numbers]
        assert (built.neighbours[axis] == expected).all()


@pytest.mark.parametrize("corners", [3, 6])
@pytest.mark.parametrize(("images", "height", "width"), SIZES)
def test_entries_are_sorted_by_vertex_and_then_by_pixel(device, rng, corners, images, height, width):
    scene = pictures(rng, images, height, width)
    built, twin = Built(device, scene, corners), Twin.of(scene, corners)
    order = np.argsort(twin.pixel_vertices.ravel(), kind="stable")
    vertex, point = twin.pixel_vertices.ravel()[order], order // corners
    is_ghost = point >= len(twin.weights)
    is_last = np.append(vertex[1:] != vertex[:-1], True)
    got = built.entries[: len(order)]
    assert ((got["pixel"] < 0) == is_last).all()
    assert (np.where(got["pixel"] < 0, ~got["pixel"], got["pixel"]) == np.where(is_ghost, 0, point)).all()
    weights = np.append(twin.weights.ravel(), np.zeros(is_ghost.sum()))
    assert np.abs(got["weight"] - weights[order]).max() <= CUDA_WEIGHT_ABS
    assert (got["weight"][is_ghost] == 0).all()
    assert (built.entries["weight"][len(order) :] == 0).all()
    assert (built.first_entry == np.searchsorted(vertex, np.arange(built.vertices + 1))).all()


@pytest.mark.parametrize("order", [BACKWARDS, SHUFFLED])
@pytest.mark.parametrize("corners", [3, 6])
def test_the_lattice_does_not_depend_on_the_order_of_threads(rng, corners, order):
    scene = pictures(rng, 2, 17, 23)
    one, other = (Built(EmulatedDevice(order=each), scene, corners) for each in (0, order))
    for name in ("pixel_vertices", "weights", "entries", "first_entry", "neighbours"):
        assert (getattr(one, name) == getattr(other, name)).all()


@pytest.mark.parametrize("capacity", [1, 8, 100, 2000])
def test_more_vertices_than_there_is_room_for_are_reported(device, rng, capacity):
    """Whether the table fills up, or only the numbers run out."""
    assert Built(device, pictures(rng, 1, 30, 30), 6, capacity).failures == Failure.TABLE_FULL


def test_room_for_exactly_the_vertices_is_enough(device, rng):
    scene = pictures(rng, 1, 12, 12)
    needed = int(Built(device, scene, 6).vertices)
    assert Built(device, scene, 6, needed).vertices == needed
    assert Built(device, scene, 6, needed - 1).failures == Failure.TABLE_FULL
