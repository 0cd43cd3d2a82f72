"""I/O binding on device memory, rehearsed: the same code with ONNX Runtime's CPU provider on the emulated device."""

from __future__ import annotations

import re
import threading
from typing import ClassVar

import needs
import numpy as np
import onnxruntime
import pytest
from emulator.emulated_device import EmulatedDevice
from tolerances import BACKEND_ABSOLUTE

from atrous.bundle import Bundle
from atrous.errors import DeviceError, EngineError
from atrous.runtime.backends import choose_artifact, open_backend, open_reference
from atrous.runtime.backends.base import DeviceBackend
from atrous.runtime.backends.onnxruntime import SPEC
from atrous.runtime.backends.onnxruntime_gpu import (
    OnnxRuntimeCuda,
    OnnxRuntimeGpuBackend,
    OnnxRuntimeTensorRt,
    OnnxRuntimeTensorRtRtx,
    Provider,
    _why_refused,
)
from atrous.runtime.backends.tensorrt_library import version_numbers
from atrous.runtime.segmenter import Segmenter

GPU_BACKENDS = (OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx)


class Rehearsal(OnnxRuntimeGpuBackend):
    """Memory of the host takes the place of the GPU's."""

    name: ClassVar[str] = "rehearsal"
    provider = Provider("CPUExecutionProvider", "", memory="cpu", takes_stream=False)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def opened(bundle: Bundle, device: EmulatedDevice | None = None) -> Rehearsal:
    artifact = choose_artifact(SPEC, bundle)
    return Rehearsal(bundle, artifact, make_device=lambda: device or EmulatedDevice())


class TestRehearsal:
    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 64, 96), (8, 3, 40, 128)])
    def test_equals_plain_onnxruntime(self, tiny_bundle: Bundle, shape: tuple[int, ...]) -> None:
        expected = open_reference(tiny_bundle).infer(images(*shape))
        assert np.abs(opened(tiny_bundle).infer(images(*shape)) - expected).max() <= BACKEND_ABSOLUTE

    def test_it_is_a_device_backend(self, tiny_bundle: Bundle) -> None:
        backend = opened(tiny_bundle)
        assert isinstance(backend, DeviceBackend)
        assert (backend.device, backend.max_batch) == ("CPU emulator", 8)

    def test_it_writes_where_it_is_told(self, tiny_bundle: Bundle) -> None:
        device = EmulatedDevice()
        engine = opened(tiny_bundle, device).open_engine(device)
        layout = engine.prepare((1, 3, 32, 32))
        assert (layout.input_dtype, layout.output_dtype, layout.output_shape) == (np.float32, np.float32, (1, 5, 4, 4))
        assert not engine.capturable
        source, result, stream = device.allocate(4 * 3 * 32 * 32), device.allocate(4 * 5 * 4 * 4), device.stream()
        for sign in (1, -1):  # the second with buffers that are bound already
            batch = sign * images(1, 3, 32, 32)
            device.upload(source, batch, stream)
            allocations = device.allocations
            engine.queue(source, result, stream)
            assert device.allocations == allocations
            expected = open_reference(tiny_bundle).infer(batch)
            assert np.abs(result.read(np.float32).reshape(1, 5, 4, 4) - expected).max() <= BACKEND_ABSOLUTE
        assert source.guards_hold()
        assert result.guards_hold()

    def test_engines_of_a_thread_share_a_session_and_those_of_others_do_not(self, tiny_bundle: Bundle) -> None:
        backend = opened(tiny_bundle)
        engines = [backend.open_engine(backend.make_device()) for _ in range(2)]
        thread = threading.Thread(target=lambda: engines.append(backend.open_engine(backend.make_device())))
        thread.start()
        thread.join()
        sessions = [engine._session for engine in engines]
        assert sessions[0] is sessions[1]
        assert sessions[0] is not sessions[2]
        with pytest.raises(EngineError, match="from another thread than opened it"):
            engines[2].prepare((1, 3, 32, 32))

    @pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32)])
    def test_a_shape_that_the_graph_does_not_take(self, tiny_bundle: Bundle, shape: tuple[int, ...]) -> None:
        with pytest.raises(EngineError, match=r"failed.*on an input"):
            opened(tiny_bundle).infer(images(*shape))

    def test_too_little_memory_is_an_error_and_the_backend_goes_on(self, tiny_bundle: Bundle) -> None:
        backend = opened(tiny_bundle, EmulatedDevice(total_bytes=2**19))
        with pytest.raises(DeviceError, match="allocating"):
            backend.infer(images(8, 3, 128, 128))
        assert backend.infer(images(1, 3, 32, 32)).shape == (1, 5, 4, 4)


class TestSegmenter:
    @pytest.mark.parametrize("size", [(32, 32), (50, 70), (300, 200)], ids=["whole", "padded", "tiled"])
    def test_labels_are_those_of_the_cpu(self, color_bundle: Bundle, size: tuple[int, int]) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        expected = Segmenter(color_bundle, open_reference(color_bundle))(picture).labels
        segmenter = Segmenter(color_bundle, opened(color_bundle), workers=2)
        for result in segmenter.stream([picture] * 4):
            np.testing.assert_array_equal(result.labels, expected)


class TestRefusals:
    @pytest.mark.parametrize("backend", GPU_BACKENDS, ids=lambda backend: backend.name)
    def test_a_build_without_the_provider(self, tiny_bundle: Bundle, backend: type[OnnxRuntimeGpuBackend]) -> None:
        if backend.provider.name in onnxruntime.get_available_providers():
            pytest.skip(f"this build has the {backend.provider.name}")
        with pytest.raises(EngineError, match=rf"has no {backend.provider.name}; it has: .*CPUExecutionProvider"):
            open_backend(tiny_bundle, backend=backend.name)

    def test_a_provider_that_misses_a_library_says_which(self) -> None:
        assert re.search(
            r"\.so: cannot open shared object file.*needs CUDA .* and its cuDNN", _why_refused(Provider("X", "absent"))
        )
        assert _why_refused(Rehearsal.provider) is None


def test_providers_have_the_names_that_onnxruntime_knows() -> None:
    names = {backend.provider.name for backend in GPU_BACKENDS}
    if version_numbers(onnxruntime.__version__) >= (1, 32):
        names -= {"NvTensorRTRTXExecutionProvider"}  # a plug-in since, which no build of ONNX Runtime has in it
    assert names <= set(onnxruntime.get_all_providers())


@pytest.mark.gpu
def test_cuda_equals_the_cpu(tiny_bundle: Bundle) -> None:
    try:
        backend = open_backend(tiny_bundle, backend="onnxruntime-cuda")
    except (EngineError, DeviceError, ImportError) as exc:
        needs.GPU.skip(str(exc))
    batch = images(2, 3, 64, 96)
    expected = open_reference(tiny_bundle).infer(batch)
    assert np.abs(backend.infer(batch) - expected).max() <= BACKEND_ABSOLUTE
