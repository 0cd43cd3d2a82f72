"""The TensorRT backend on a GPU: engines are built, opened and compared, in both flavours."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import needs
import numpy as np
import pytest
from standins.gpu import open_gpu
from tolerances import TENSORRT_FP32_RELATIVE

from atrous.bundle import Bundle
from atrous.errors import AtrousError
from atrous.exporter.engine.build import build_engine
from atrous.runtime.backends import open_backend, open_reference

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def bundle(request: pytest.FixtureRequest, tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network with an FP32 engine for the GPU here."""
    try:
        open_gpu()
        path = shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("gpu") / "tiny.atrous")
        return build_engine(Bundle.open(Path(path)), precision="fp32", backend=request.param, batch=4)[0]
    except AtrousError as exc:
        needs.GPU.skip(str(exc))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 64, 96), (4, 3, 40, 128)])
def test_equals_onnxruntime(bundle: Bundle, shape: tuple[int, ...]) -> None:
    expected = open_reference(bundle).infer(images(*shape))
    difference = np.abs(open_backend(bundle, backend="tensorrt").infer(images(*shape)) - expected).max()
    assert difference <= TENSORRT_FP32_RELATIVE * np.abs(expected).max()


def test_an_engine_runs_in_a_recorded_graph(bundle: Bundle) -> None:
    backend = open_backend(bundle, backend="tensorrt")
    device = backend.make_device()
    engine = backend.open_engine(device)
    layout = engine.prepare((1, 3, 32, 32))
    source, result, stream = device.allocate(4 * 3 * 32 * 32), device.allocate(4 * 5 * 4 * 4), device.stream()
    batch = images(1, 3, 32, 32)
    device.upload(source, batch, stream)
    engine.queue(source, result, stream)
    stream.synchronize()
    if not engine.capturable:
        pytest.skip("TensorRT says that this context cannot be recorded")
    graph = device.capture(lambda: engine.queue(source, result, stream), stream)
    device.upload(source, -batch, stream)
    graph.replay(stream)
    logits = np.empty(layout.output_shape, np.float32)
    device.download(logits, result, stream)
    expected = open_reference(bundle).infer(-batch)
    assert np.abs(logits - expected).max() <= TENSORRT_FP32_RELATIVE * np.abs(expected).max()


def test_threads_share_an_engine(bundle: Bundle) -> None:
    backend = open_backend(bundle, backend="tensorrt")
    expected = backend.infer(images(1, 3, 64, 64))
    answers: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(backend.infer(images(1, 3, 64, 64)) for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 80
    assert all(np.array_equal(answer, expected) for answer in answers)
