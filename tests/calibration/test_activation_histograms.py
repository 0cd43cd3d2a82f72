from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_graphs import local_layers, save_graph

from atrous.calibration.activation_histograms import collect_histograms
from atrous.calibration.histogram import Histogram
from atrous.errors import CalibrationError, EngineError
from atrous.exporter.activations.session import ActivationSession

Pictures = list[tuple[str, NDArray[np.float32]]]


@pytest.fixture
def graph(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(save_graph(tmp_path / "model.onnx", local_layers(5)))


@pytest.fixture
def pictures(rng: np.random.Generator) -> Pictures:
    sizes = [(32, 40), (64, 32), (32, 40), (48, 48)]
    return [(f"{i}.png", rng.standard_normal((1, 3, *size)).astype(np.float32)) for i, size in enumerate(sizes)]


def test_against_the_values_themselves(graph: onnx.ModelProto, pictures: Pictures) -> None:
    names = ["r0", "image", "c4"]
    found = collect_histograms(graph, names, pictures)
    assert list(found) == names
    session = ActivationSession(graph, names)
    for name in names:
        expected = Histogram()
        expected.add(np.concatenate([session.run(batch)[name].flatten() for _, batch in pictures]))
        assert found[name] == expected
    assert found["image"].max_abs == max(np.abs(batch).max() for _, batch in pictures)


def test_the_order_of_pictures_does_not_matter(graph: onnx.ModelProto, pictures: Pictures) -> None:
    names = ["r0", "r1", "c4"]
    assert collect_histograms(graph, names, pictures) == collect_histograms(graph, names, pictures[::-1])


def test_progress_is_told(graph: onnx.ModelProto, pictures: Pictures) -> None:
    told: list[int] = []
    collect_histograms(graph, ["r0"], pictures, progress=told.append)
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(graph: onnx.ModelProto, pictures: Pictures, value: float) -> None:
    pictures[2][1][0, 1, 5, 7] = value
    with pytest.raises(
        CalibrationError, match=r"activation 'c0' is invalid on 2\.png \[1, 3, 32, 40\]: \d+ of \d+ val"
    ):
        collect_histograms(graph, ["c0", "r1"], pictures)


def test_no_pictures(graph: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no calibration images"):
        collect_histograms(graph, ["c0"], [])


def test_a_name_of_another_graph(graph: onnx.ModelProto, pictures: Pictures) -> None:
    with pytest.raises(EngineError, match="no value 'conv7' to observe"):
        collect_histograms(graph, ["c0", "conv7"], pictures)


#: Prints the peak memory, in KiB, of observing as many pictures of 512×512 as told, 5 MiB of activations each.
OBSERVE = """
import resource, sys
import numpy as np, onnx
from atrous.calibration.activation_histograms import collect_histograms
generator = np.random.default_rng(0)
pictures = (("", generator.standard_normal((1, 3, 512, 512), np.float32)) for _ in range(int(sys.argv[2])))
collect_histograms(onnx.load(sys.argv[1]), ["c0", "r0", "c1", "r1", "c4"], pictures)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "model.onnx", local_layers(5))

    def peak(count: int) -> int:
        command = [sys.executable, "-c", OBSERVE, str(path), str(count)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak(64) <= 1.05 * peak(4)


def test_ctrl_c_ends_it_at_once(graph: onnx.ModelProto, pictures: Pictures) -> None:
    def interrupted() -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield pictures[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_histograms(graph, ["c0"], interrupted())
