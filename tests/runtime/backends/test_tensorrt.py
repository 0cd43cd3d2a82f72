"""The TensorRT backend on a stand-in that computes for real, in both flavours: lifetimes, checks, refusals."""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import needs
import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from standins import tensorrt_standin as standin
from tolerances import BACKEND_ABSOLUTE, STANDIN_HALF_RELATIVE

from atrous.bundle import Bundle
from atrous.errors import BundleError, DeviceError, EngineError, MissingDependencyError
from atrous.gpu.compile import cache_folder
from atrous.manifest import EngineProfile
from atrous.runtime.backends import choose_artifact, open_reference
from atrous.runtime.backends.base import DeviceBackend
from atrous.runtime.backends.tensorrt import TensorRtBackend, make_spec
from atrous.runtime.backends.tensorrt_library import FLAVORS
from atrous.runtime.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("stand_ins")

Shape = tuple[int, int, int, int]
Size = tuple[int, int]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture
def bundle(tiny_bundle: Bundle, add_engine, flavor: str) -> Bundle:
    """The tiny network with an engine that fits the emulated device."""
    return add_engine(tiny_bundle, flavor=flavor)


def opened(bundle: Bundle, device: EmulatedDevice | None = None, precision: str = "auto") -> TensorRtBackend:
    spec = make_spec(lambda: device or EmulatedDevice())
    return spec.open(bundle, choose_artifact(spec, bundle, precision))


def on(**properties: object) -> EmulatedDevice:
    """An emulated device that says otherwise of itself."""
    device = EmulatedDevice()
    device.properties = dataclasses.replace(device.properties, **properties)
    return device


def _without_profile(bundle: Bundle) -> Bundle:
    artifacts = tuple(
        dataclasses.replace(each, engine=dataclasses.replace(each.engine, profile=None)) if each.engine else each
        for each in bundle.manifest.artifacts
    )
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, artifacts=artifacts))


class TestInfer:
    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 64, 96), (4, 3, 40, 128)])
    def test_equals_onnxruntime(self, bundle: Bundle, shape: Shape) -> None:
        expected = open_reference(bundle).infer(images(*shape))
        assert np.abs(opened(bundle).infer(images(*shape)) - expected).max() <= BACKEND_ABSOLUTE

    def test_half_precision_tensors(self, tiny_bundle: Bundle, add_engine) -> None:
        backend = opened(add_engine(tiny_bundle, precision="fp16", dtype="float16"))
        batch = images(1, 3, 64, 64)
        expected = open_reference(tiny_bundle).infer(batch)
        logits = backend.infer(batch)
        assert logits.dtype == np.float32
        assert np.abs(logits - expected).max() <= STANDIN_HALF_RELATIVE * np.abs(expected).max()

    def test_it_is_a_device_backend(self, bundle: Bundle) -> None:
        backend = opened(bundle)
        assert isinstance(backend, DeviceBackend)
        assert (backend.name, backend.device, backend.max_batch) == ("tensorrt", "CPU emulator", 4)
        assert backend.artifact.kind == "engine"

    def test_answers_are_not_overwritten_by_the_next(self, bundle: Bundle) -> None:
        backend = opened(bundle)
        first = backend.infer(images(1, 3, 32, 32))
        before = first.copy()
        backend.infer(-images(1, 3, 32, 32))
        np.testing.assert_array_equal(first, before)

    def test_a_second_call_of_a_shape_allocates_nothing(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        backend = opened(bundle, device)
        backend.infer(images(1, 3, 32, 32))
        allocations, addresses = device.allocations, standin.calls["address"]
        backend.infer(images(1, 3, 32, 32))
        assert (device.allocations, standin.calls["address"]) == (allocations, addresses)

    def test_few_shapes_are_kept(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        backend = opened(bundle, device)
        used = []
        for width in (32, 40, 48, 56, 64):
            backend.infer(images(1, 3, 32, width))
            used.append(device.used_bytes)
        assert used[-1] < sum(used[:2]) * 2

    def test_threads_have_contexts_of_their_own_and_share_the_engine(self, bundle: Bundle) -> None:
        backend = opened(bundle)
        batches = [images(1, 3, 32, 32) * scale for scale in range(1, 9)]
        expected = [open_reference(bundle).infer(batch) for batch in batches]
        wrong: list[object] = []

        def work(index: int) -> None:
            for _ in range(5):
                difference = np.abs(backend.infer(batches[index]) - expected[index]).max()
                if not difference <= BACKEND_ABSOLUTE * (index + 1):
                    wrong.append((index, difference))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert standin.calls["context"] == 8
        assert standin.calls["deserialize"] == 1


class TestEngines:
    def test_a_plan_is_loaded_once_while_someone_uses_it(self, bundle: Bundle) -> None:
        one, other = opened(bundle), opened(bundle)
        assert standin.calls["deserialize"] == 1
        del one, other
        gc.collect()
        opened(bundle)
        assert standin.calls["deserialize"] == 2

    def test_an_engine_runs_in_a_recorded_graph(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        engine = opened(bundle, device).open_engine(device)
        layout = engine.prepare((1, 3, 32, 32))
        assert (layout.input_dtype, layout.output_dtype, layout.output_shape) == (np.float32, np.float32, (1, 5, 4, 4))
        source, result, stream = device.allocate(4 * 3 * 32 * 32), device.allocate(4 * 5 * 4 * 4), device.stream()
        batch = images(1, 3, 32, 32)
        device.upload(source, batch, stream)
        engine.queue(source, result, stream)  # warm up
        assert engine.capturable
        graph = device.capture(lambda: engine.queue(source, result, stream), stream)
        device.upload(source, -batch, stream)
        graph.replay(stream)
        logits = np.empty(layout.output_shape, np.float32)
        device.download(logits, result, stream)
        assert np.abs(logits - open_reference(bundle).infer(-batch)).max() <= BACKEND_ABSOLUTE
        assert standin.calls["address"] == 2

    def test_a_context_belongs_to_its_thread(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        engine = opened(bundle, device).open_engine(device)
        engine.prepare((1, 3, 32, 32))
        source, result = device.allocate(4 * 3 * 32 * 32), device.allocate(4 * 5 * 4 * 4)
        errors: list[str] = []

        def use() -> None:
            try:
                engine.queue(source, result, device.stream())
            except EngineError as exc:
                errors.append(str(exc))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert "used from another thread than opened it: open an engine in each thread" in errors[0]

    def test_a_shape_comes_first(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        with pytest.raises(EngineError, match=r"prepare\(\) comes before queue\(\)"):
            opened(bundle, device).open_engine(device).queue(device.allocate(16), device.allocate(16), device.stream())

    def test_an_engine_that_fails_says_what_tensorrt_says(self, bundle: Bundle) -> None:
        device = EmulatedDevice()
        engine = opened(bundle, device).open_engine(device)
        engine.prepare((1, 3, 32, 32))
        engine._context.set_device_memory(0, 0)
        with pytest.raises(EngineError, match=r"TensorRT failed in engines/.*enqueueV3: Error Code 3"):
            engine.queue(device.allocate(4 * 3 * 32 * 32), device.allocate(4 * 5 * 4 * 4), device.stream())

    @pytest.mark.parametrize("shape", [(1, 3, 24, 32), (1, 3, 64, 136), (5, 3, 64, 64), (1, 4, 64, 64)])
    def test_a_shape_outside_of_the_profile(self, bundle: Bundle, shape: Shape) -> None:
        text = "×".join(map(str, shape))
        with pytest.raises(
            EngineError, match=rf"{text}.*outside of its profile: min 1×3×32×32, opt 1×3×64×96, max 4×3×128×128"
        ):
            opened(bundle).infer(images(*shape))

    def test_an_engine_whose_manifest_has_no_shapes_is_asked(self, bundle: Bundle) -> None:
        asked = opened(_without_profile(bundle)).profile
        assert (asked.min, asked.opt, asked.max) == ((1, 3, 32, 32), (1, 3, 64, 96), (4, 3, 128, 128))

    def test_too_little_memory_is_said_and_the_backend_goes_on(self, bundle: Bundle) -> None:
        device = EmulatedDevice(total_bytes=2**20)
        backend = opened(bundle, device)
        with pytest.raises(
            DeviceError, match=r"not enough GPU memory.*4×3×128×128: its activations need 3.0 MiB, free"
        ):
            backend.infer(images(4, 3, 128, 128))
        assert backend.infer(images(1, 3, 32, 32)).shape == (1, 5, 4, 4)


class TestKernelCache:
    """What TensorRT-RTX compiles for a shape, once."""

    @pytest.fixture
    def rtx(self, tiny_bundle: Bundle, add_engine) -> Bundle:
        return add_engine(tiny_bundle, flavor="tensorrt-rtx")

    def infer(self, bundle: Bundle, width: int = 32) -> None:
        opened(bundle).infer(images(1, 3, 32, width))

    def test_contexts_share_it(self, rtx: Bundle) -> None:
        backend = opened(rtx)
        for _ in range(2):
            thread = threading.Thread(target=lambda: backend.infer(images(1, 3, 32, 32)))
            thread.start()
            thread.join()
        assert (standin.calls["context"], standin.calls["compile"]) == (2, 1)

    def test_a_file_keeps_it(self, rtx: Bundle) -> None:
        self.infer(rtx)
        self.infer(rtx)
        assert (standin.calls["deserialize"], standin.calls["compile"]) == (2, 1)
        self.infer(rtx, width=40)
        self.infer(rtx, width=40)
        assert standin.calls["compile"] == 2
        (file,) = cache_folder().iterdir()
        assert file.name.startswith("rtx-")

    def test_a_file_of_elsewhere_is_replaced(self, rtx: Bundle) -> None:
        self.infer(rtx)
        (file,) = cache_folder().iterdir()
        file.write_bytes(b"of another GPU")
        self.infer(rtx)
        self.infer(rtx)
        assert standin.calls["compile"] == 2

    def test_without_a_place_for_it_engines_run(self, rtx: Bundle, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("in the way")
        self.infer(rtx)
        self.infer(rtx)
        assert standin.calls["compile"] == 2


class TestIdentity:
    """What does not fit never reaches TensorRT."""

    @pytest.fixture(autouse=True)
    def _never_seen(self) -> Iterator[None]:
        yield
        assert standin.seen == []

    def refused(self, bundle: Bundle, reason: str, device: EmulatedDevice | None = None) -> None:
        with pytest.raises(EngineError, match=reason):
            opened(bundle, device)

    def test_another_compute_capability(self, bundle: Bundle) -> None:
        self.refused(
            bundle, r"was built for compute capability 9\.0; CPU emulator has 8\.9", on(compute_capability=(8, 9))
        )

    def test_another_version(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, version="10.16.0.2")
        self.refused(bundle, r"was built by tensorrt 10\.16\.0\.2; installed is 11\.4\.0\.106.*atrous build")

    def test_another_flavor(self, tiny_bundle: Bundle, add_engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        bundle = add_engine(tiny_bundle, flavor="tensorrt-rtx")
        self.refused(bundle, r"cannot be loaded: .*'tensorrt_rtx', which is not installed.*atrous\[tensorrt-rtx\]")

    def test_an_old_driver(self, bundle: Bundle) -> None:
        self.refused(bundle, r"needs a driver for CUDA 13; the driver here is for CUDA 12\.8", on(cuda=(12, 8)))

    def test_every_engine_is_explained(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, compute_capability="8.9")
        bundle = add_engine(bundle, precision="fp16", compute_capability="7.5")
        self.refused(bundle, r"fp32-tensorrt\.plan was built for compute capability 8\.9.*fp16.*7\.5")

    def test_a_precision_that_is_not_there(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"has no int8 engine; it has: engines/fp32-.*atrous build"):
            opened(bundle, precision="int8")

    def test_a_bundle_without_engines(self, tiny_bundle: Bundle) -> None:
        self.refused(tiny_bundle, "has no engine; it has: none")

    @pytest.mark.parametrize("damage", ["flipped", "truncated"])
    def test_a_damaged_plan(self, bundle: Bundle, damage: str) -> None:
        path = bundle.path_of(bundle.find(kind="engine"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "flipped" else data[:-1])
        with pytest.raises(BundleError, match="SHA-256"):
            opened(bundle)

    @pytest.mark.parametrize(
        "error", [DeviceError("no driver"), MissingDependencyError("pycuda", extra="gpu", purpose="x")]
    )
    def test_no_gpu_and_no_pycuda(self, bundle: Bundle, error: Exception) -> None:
        def fail() -> EmulatedDevice:
            raise error

        with pytest.raises(type(error)):
            choose_artifact(make_spec(fail), bundle)
        with pytest.raises(type(error)):
            make_spec(fail).open(bundle, bundle.find(kind="engine"))


class TestCompatibility:
    def test_the_most_precise_engine_that_fits(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, precision="int8")
        bundle = add_engine(bundle, precision="fp16")
        bundle = add_engine(bundle, precision="fp32", compute_capability="8.9")
        assert opened(bundle).artifact.precision == "fp16"
        assert opened(bundle, precision="int8").artifact.precision == "int8"

    def test_ampere_and_later(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, compute_capability="8.0", hardware_compatibility="ampere+")
        assert opened(bundle).artifact.engine.compute_capability == "8.0"
        with pytest.raises(EngineError, match=r"runs from compute capability 8\.0 on; CPU emulator has 7\.5"):
            opened(bundle, on(compute_capability=(7, 5)))

    @pytest.mark.parametrize(("version", "fits"), [("11.2.0.1", True), ("11.9.0.1", False), ("10.16.0.2", False)])
    def test_version_compatible_plans_run_in_later_ones(
        self, tiny_bundle: Bundle, add_engine, version: str, fits: bool
    ) -> None:
        plan = standin.make_plan(
            tiny_bundle.read(tiny_bundle.find(kind="onnx")), ((1, 3, 32, 32),) * 3, version="11.4.0.106"
        )
        bundle = add_engine(tiny_bundle, version=version, version_compatible=True, plan=plan)
        if fits:
            assert opened(bundle)._plan._runtime.engine_host_code_allowed is True
        else:
            with pytest.raises(EngineError, match="installed is"):
                opened(bundle)

    def test_host_code_is_not_allowed_otherwise(self, bundle: Bundle) -> None:
        assert opened(bundle)._plan._runtime.engine_host_code_allowed is False


class TestSegmenter:
    """From pictures to labels, the rest of the frame by emulated kernels."""

    def segmenter(self, bundle: Bundle, **options: object) -> Segmenter:
        return Segmenter(bundle, opened(bundle), **options)

    @pytest.mark.parametrize("size", [(32, 32), (50, 70), (100, 150)], ids=["small", "padded", "tiled"])
    def test_labels_are_those_of_the_cpu(self, color_bundle: Bundle, add_engine, flavor: str, size: Size) -> None:
        profile = EngineProfile((1, 3, 32, 32), (1, 3, 64, 64), (2, 3, 64, 128))
        bundle = add_engine(color_bundle, flavor=flavor, profile=profile)
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        expected = Segmenter(color_bundle, open_reference(color_bundle))(picture)
        result = self.segmenter(bundle)(picture)
        np.testing.assert_array_equal(result.labels, expected.labels)

    def test_an_engine_for_one_size_pads_smaller_pictures(self, tiny_bundle: Bundle, add_engine) -> None:
        only = (1, 3, 64, 96)
        segmenter = self.segmenter(add_engine(tiny_bundle, profile=EngineProfile(only, only, only)))
        pictures = [np.full((40, 50, 3), value, np.uint8) for value in (10, 200)]
        results = segmenter.batch(pictures)
        assert [result.labels.shape for result in results] == [(40, 50)] * 2

    def test_an_engine_for_one_size_may_take_batches(self, tiny_bundle: Bundle, add_engine) -> None:
        profile = EngineProfile((1, 3, 64, 96), (2, 3, 64, 96), (2, 3, 64, 96))
        segmenter = self.segmenter(add_engine(tiny_bundle, profile=profile))
        pictures = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in range(2)]
        before = standin.calls["execute"]
        results = segmenter.batch(pictures)
        assert standin.calls["execute"] - before <= 4  # warm up and record, for both slots
        for picture, result in zip(pictures, results, strict=True):
            np.testing.assert_array_equal(result.labels, segmenter(picture).labels)

    def test_eight_threads_give_the_labels_of_one(self, tiny_bundle: Bundle, add_engine) -> None:
        segmenter = self.segmenter(add_engine(tiny_bundle), workers=2)
        pictures = [np.random.default_rng(seed).integers(0, 256, (32, 40, 3), np.uint8) for seed in range(8)]
        expected = [segmenter(picture).labels for picture in pictures]
        wrong: list[int] = []

        def work(index: int) -> None:
            if not all(np.array_equal(segmenter(pictures[index]).labels, expected[index]) for _ in range(5)):
                wrong.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert standin.calls["deserialize"] == 1


class TestRefusals:
    def test_a_tensorrt_that_does_not_start(self, bundle: Bundle, flavor: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(logger: standin.ILogger) -> None:
            logger.log(standin.Severity.ERROR, "Error Code 6: CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        monkeypatch.setattr(sys.modules[FLAVORS[flavor].module], "Runtime", refuse)
        with pytest.raises(EngineError, match=rf"(?s)^{flavor} \d.* does not start; `atrous doctor` .*: 35$"):
            opened(bundle)

    def test_a_plan_that_tensorrt_refuses(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, plan=b"something else")
        with pytest.raises(EngineError, match=r"TensorRT refuses engines/.*MiB of GPU memory free\): .*deserialize"):
            opened(bundle)

    def test_a_plan_that_rtx_finds_invalid(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle, flavor="tensorrt-rtx", valid=False)
        with pytest.raises(EngineError, match=r"cannot run here \(diagnostics 2\)"):
            opened(bundle)
        assert standin.seen == []

    def test_an_input_that_is_no_batch(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"failed.*on an input \[3, 32, 32\]: expected \[N, 3, H, W\]"):
            opened(bundle).infer(images(3, 32, 32))


@pytest.mark.parametrize(
    "cls",
    [
        standin.ICudaEngine,
        standin.IExecutionContext,
        standin.IRuntimeConfig,
        standin.IRuntimeCache,
        standin.Runtime,
        standin.ILogger,
    ],
    ids=lambda cls: cls.__name__,
)
def test_the_stand_in_offers_only_what_the_real_one_has(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the stand-in leaves the module's place
    real = needs.TENSORRT_RTX.load("tensorrt_rtx")
    offered = {name for name in vars(cls) if not name.startswith("_")} - {"version"}
    assert offered <= set(dir(getattr(real, cls.__name__)))
    for enumeration in (standin.TensorIOMode, standin.ExecutionContextAllocationStrategy, standin.EngineValidity):
        assert set(enumeration.__members__) <= set(dir(getattr(real, enumeration.__name__)))
