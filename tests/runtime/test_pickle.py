"""Results and segmenters that cross a process border."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from segmenters import CRF, Opened, on_cpu, picture
from standins.onnx_device_backend import OnnxDeviceBackend

import atrous
from atrous.bundle import Bundle, extend_bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.errors import BundleError, EngineError
from atrous.runtime.backends import BACKENDS
from atrous.runtime.result import Result
from atrous.runtime.segmenter import Segmenter


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("crf", [False, True])
def test_a_result(color_bundle: Bundle, crf: bool) -> None:
    result = atrous.load(color_bundle, crf=crf)(picture((40, 56)))
    other = through_pickle(result)
    np.testing.assert_array_equal(other.labels, result.labels)
    np.testing.assert_array_equal(other.image, result.image)
    assert other.classes == result.classes
    assert other.timings_ms == result.timings_ms
    np.testing.assert_array_equal(other.probabilities, result.probabilities)
    assert other.overlay().tobytes() == result.overlay().tobytes()


def test_a_result_is_small(color_bundle: Bundle) -> None:
    """Coarse logits cross the border, not the probabilities that most never ask for."""
    result = atrous.load(color_bundle)(picture((200, 240)))
    assert len(pickle.dumps(result)) < result.labels.nbytes + result.image.nbytes + 20_000


def test_a_result_of_a_gpu(color_bundle: Bundle) -> None:
    opened = Opened()
    segmenter = opened(color_bundle)
    try:
        result = segmenter(picture((40, 56)))
        other = through_pickle(result)
        np.testing.assert_array_equal(other.labels, result.labels)
        with pytest.raises(EngineError, match="need the GPU of the process that made it"):
            other.probabilities  # noqa: B018
        np.testing.assert_array_equal(through_pickle(_asked(result)).probabilities, result.probabilities)
    finally:
        segmenter.close()


def _asked(result: Result) -> Result:
    assert result.probabilities is not None
    return result


def test_a_segmenter(color_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same artifact in the same backend with the same CRF, also from another working folder."""
    monkeypatch.chdir(color_bundle.path.parent)
    segmenter = atrous.load(color_bundle.path.name, backend="onnxruntime", crf=CRF, threads=1)
    data = pickle.dumps(segmenter)
    monkeypatch.chdir("/")
    other = pickle.loads(data)
    assert (other.backend.name, other.backend.artifact, other.threads) == ("onnxruntime", segmenter.backend.artifact, 1)
    assert other.crf.params == CRF
    image = picture((40, 56))
    np.testing.assert_array_equal(other(image).probabilities, segmenter(image).probabilities)


def test_a_copy_of_a_segmenter(color_bundle: Bundle) -> None:
    image = picture((40, 56))
    np.testing.assert_array_equal(copy.deepcopy(on_cpu(color_bundle))(image).labels, on_cpu(color_bundle)(image).labels)


def _segment(segmenter: Segmenter, image: np.ndarray) -> Result:
    return segmenter(image)


@pytest.mark.slow
def test_workers_of_multiprocessing(color_bundle: Bundle) -> None:
    segmenter = atrous.load(color_bundle, backend="onnxruntime", threads=1)
    images = [picture((40, 56), seed) for seed in range(3)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(_segment, [(segmenter, image) for image in images])
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.labels, segmenter(image).labels)


def test_a_segmenter_over_a_gpu(color_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens a GPU of its own, with as many workers."""
    spec = BACKENDS["tensorrt"]
    opened = Opened()
    segmenter = opened(color_bundle, workers=2)
    monkeypatch.setattr(OnnxDeviceBackend, "name", spec.name)
    spec = dataclasses.replace(spec, open=lambda bundle, *_, **__: OnnxDeviceBackend(bundle))
    monkeypatch.setitem(BACKENDS, spec.name, spec)
    other = through_pickle(segmenter)
    try:
        assert other.backend is not segmenter.backend
        assert other._workers == 2
        image = picture((40, 56))
        np.testing.assert_array_equal(other(image).labels, segmenter(image).labels)
    finally:
        other.close()
        segmenter.close()


def test_a_backend_of_ones_own_is_refused(color_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = on_cpu(color_bundle)
    monkeypatch.setattr(type(segmenter.backend), "name", "mine")
    with pytest.raises(EngineError, match=r"'mine' cannot be pickled, .*Make the segmenter in that process"):
        pickle.dumps(segmenter)


def test_a_bundle_that_was_replaced_is_refused(color_bundle: Bundle, tmp_path: Path) -> None:
    """Another graph under the same name would give other labels without a word."""
    path = Path(shutil.copytree(color_bundle.path, tmp_path / "color.atrous"))
    data = pickle.dumps(atrous.load(path, backend="onnxruntime"))
    with extend_bundle(Bundle.open(path)) as staged:
        staged.write("model.fp32.onnx", b"another graph")
        staged.add(staged.artifact("model.fp32.onnx", kind="onnx", precision="fp32", provenance={}))
    with pytest.raises(BundleError, match="was changed by another writer since it was opened"):
        pickle.loads(data)


@pytest.mark.slow  # the emulator's kernels are compiled
@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_a_crf_on_a_gpu(storage: str) -> None:
    device = EmulatedDevice(total_bytes=2**30)
    crf = CudaDenseCRF(
        CRFParams.deeplab_v2_vgg(),
        iterations=3,
        storage=storage,
        normalization="after",
        compatibility=[[-1, 0.5, 0], [0.5, -1, 0], [0, 0, -2]],
        device=device,
    )
    maps = np.random.default_rng(0).dirichlet(np.ones(3), size=(24, 32)).transpose(2, 0, 1).astype(np.float32)
    expected = crf(maps, picture((24, 32)))
    other = through_pickle(crf)
    np.testing.assert_array_equal(other(maps, picture((24, 32))), expected)
    assert other._device is not device
    assert other._device.properties == device.properties


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_a_crf(storage: str) -> None:
    crf = DenseCRF(CRFParams.deeplab_v2_vgg(), iterations=3, threads=1, storage=storage)
    maps = np.random.default_rng(0).dirichlet(np.ones(3), size=(24, 32)).transpose(2, 0, 1).astype(np.float32)
    image = picture((24, 32))
    expected = crf(maps, image)
    np.testing.assert_array_equal(through_pickle(crf)(maps, image), expected)
