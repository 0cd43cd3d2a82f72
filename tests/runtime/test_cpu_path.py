"""The path over the CPU around a network of NumPy: what shares an inference, and whose future gets an error."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from atrous.bundle import Bundle
from atrous.errors import EngineError, ShapeError
from atrous.runtime.backends import open_reference
from atrous.runtime.cpu.path import CpuPath
from atrous.runtime.path import MAX_BATCH, ReadImage, read_image
from atrous.runtime.segmenter import Segmenter


class EveryEighthPixel:
    """Logits = pixels, at stride 8; knows the shapes that it was called with."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shapes.append(images.shape)
        if images.max() == 99:
            raise EngineError("the network refuses")
        logits = images[:, :, ::8, ::8].copy()
        logits[logits == 77] = np.nan
        return logits


def flat(size: tuple[int, int], value: int) -> ReadImage:
    return read_image(np.full((*size, 3), (0, value, 0), np.uint8))


@pytest.fixture
def network() -> EveryEighthPixel:
    return EveryEighthPixel()


@pytest.fixture
def path(color_bundle: Bundle, network: EveryEighthPixel) -> CpuPath:
    return CpuPath(color_bundle.manifest, network, source="every eighth pixel")


def test_images_of_one_input_size_share_an_inference(path: CpuPath, network: EveryEighthPixel) -> None:
    images = [flat((32, 40) if index % 2 else (48, 48), 5 + index) for index in range(2 * MAX_BATCH + 2)]
    futures = path.submit(images)
    assert all(future.done() for future in futures)
    assert [future.result().labels.shape for future in futures] == [image.size for image in images]
    assert sorted(shape[0] for shape in network.shapes) == [1, 1, MAX_BATCH, MAX_BATCH]


def test_results_are_those_of_a_segmenter_around_the_same_network(color_bundle: Bundle, path: CpuPath) -> None:
    image = np.random.default_rng(0).integers(0, 70, (50, 70, 3), np.uint8)
    (future,) = path.submit([read_image(image)])
    expected = Segmenter(color_bundle, open_reference(color_bundle))(image)
    np.testing.assert_array_equal(future.result().labels, expected.labels)
    np.testing.assert_array_equal(future.result().probabilities, expected.probabilities)


def test_an_image_without_a_finite_answer_fails_alone(path: CpuPath, network: EveryEighthPixel) -> None:
    first, second, third = path.submit([flat((32, 32), value) for value in (1, 77, 2)])
    assert network.shapes == [(3, 3, 32, 32)]
    assert (first.result().labels == 1).all()
    assert (third.result().labels == 1).all()
    with pytest.raises(ShapeError, match="logits"):
        second.result()


def test_a_network_that_fails_fails_those_that_share_the_inference(path: CpuPath) -> None:
    one, other, alone = path.submit([flat((32, 32), 1), flat((32, 32), 99), flat((48, 48), 1)])
    for future in (one, other):
        with pytest.raises(EngineError, match="the network refuses"):
            future.result()
    assert alone.result().labels.shape == (48, 48)


def test_a_large_image_goes_in_tiles_and_its_time_adds_up(
    color_bundle: Bundle, path: CpuPath, network: EveryEighthPixel
) -> None:
    height, width = color_bundle.manifest.input.size.max
    (future,) = path.submit([flat((height + 9, width + 9), 3)])
    assert (future.result().labels == 1).all()
    assert len(network.shapes) > 1
    assert list(future.result().timings_ms) == ["preprocess", "inference", "postprocess"]
