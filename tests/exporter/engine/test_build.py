"""Engines built by TensorRT-RTX, which needs no GPU for that; loading them would."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import onnx
import pytest
from engine_graphs import build, fixed_to, in_every_precision
from onnx import TensorProto, helper
from tiny_graphs import PLAIN, local_layers, make_bundle, put_logits_on_pixels

import atrous
from atrous.bundle import Bundle, hash_file
from atrous.errors import BundleError, DeviceError, EngineError, MissingDependencyError
from atrous.exporter.engine.build import build_engine
from atrous.exporter.engine.target import BackendChoice, BuilderOptions, check_options
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.gpu import Driver, Gpu, find_driver
from atrous.manifest import EngineIdentity, EngineProfile
from atrous.runtime.backends.tensorrt_library import load_tensorrt

pytestmark = pytest.mark.slow  # in sum

needs.TENSORRT_RTX.load("tensorrt_rtx")

VERSION = load_tensorrt("tensorrt-rtx").version
NAME = f"fp32.tensorrt-rtx-{VERSION}.sm89"
PLAN = f"engines/{NAME}.plan"


#: Builds two engines of the bundle argv[1], and presses Ctrl-C once when argv[2] of it is done.
INTERRUPTED = """
import signal, sys
import atrous

pressed = []

def interrupt(_, done):
    if done >= float(sys.argv[2]) and not pressed:
        pressed.append(done)
        signal.raise_signal(signal.SIGINT)

try:
    atrous.build_engine(atrous.Bundle.open(sys.argv[1]), precision="fp32", sm=["89", "120"], progress=interrupt)
except KeyboardInterrupt:
    print("interrupted")
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(tiny_bundle: Bundle, folder: Path) -> Bundle:
    """A random network for 32×32 to 128×128, best at 64×96, multiples of 8; to be changed."""
    return Bundle.open(shutil.copytree(tiny_bundle.path, folder / "tiny.atrous"))


@pytest.fixture
def fixed(folder: Path) -> Bundle:
    return make_bundle(folder / "fixed.atrous", local_layers(5), fixed=(64, 96))


class TestBundle:
    def test_holds_the_engine(self, bundle: Bundle) -> None:
        extended, built = build_engine(bundle, precision="fp32", sm=["89"])
        graph, engine = extended.manifest.artifacts
        assert built == (engine,)
        assert (engine.kind, engine.precision, engine.file) == ("engine", "fp32", PLAN)
        assert engine.sha256 == hash_file(bundle.path / PLAN)
        profile = EngineProfile((1, 3, 32, 32), (1, 3, 64, 96), (1, 3, 128, 128))
        cuda = load_tensorrt("tensorrt-rtx").cuda
        assert engine.engine == EngineIdentity("tensorrt-rtx", VERSION, "8.9", cuda, None, profile)
        assert engine.provenance["from"] == graph.sha256
        assert extended.manifest.verification == bundle.manifest.verification
        assert extended == Bundle.open(bundle.path)
        extended.check()

    def test_says_what_is_in_it(self, bundle: Bundle) -> None:
        provenance = build_engine(bundle, precision="fp32", sm=["89"])[1][0].provenance
        report = json.loads((bundle.path / provenance["report"]).read_text())
        assert provenance["layers"] == report["summary"]["layers"] > 0
        assert provenance["reading"] == {"Float": provenance["layers"]}
        weights = sum(layer.weight.nbytes for layer in local_layers(5))
        assert provenance["memory_bytes"]["weights"] >= weights
        assert provenance["memory_bytes"]["activation"] > 0
        nodes = {node for layer in report["layers"] for node in layer["nodes"]}
        assert {f"node_of_c{index}" for index in range(5)} <= nodes
        assert report["engine"]["compute_capability"] == "8.9"

    def test_several_gpus_at_once(self, bundle: Bundle) -> None:
        extended, built = build_engine(bundle, precision="fp32", backend="tensorrt-rtx", sm=["89", "120", "89"])
        assert [each.engine.compute_capability for each in built if each.engine] == ["8.9", "12.0"]
        engines = [artifact for artifact in extended.manifest.artifacts if artifact.kind == "engine"]
        assert [each.engine.compute_capability for each in engines if each.engine] == ["8.9", "12.0"]
        assert len({each.sha256 for each in engines}) == 2

    def test_again_replaces_it(self, bundle: Bundle) -> None:
        build_engine(bundle, precision="fp32", sm=["89"])
        extended, _ = build_engine(bundle, precision="fp32", sm=["89"], size=(64, 64), batch=2)
        assert [artifact.kind for artifact in extended.manifest.artifacts] == ["onnx", "engine"]
        shape = (2, 3, 64, 64)
        (engine,) = (each.engine for each in extended.manifest.artifacts if each.engine)
        assert engine.profile == EngineProfile((1, 3, 64, 64), shape, shape)

    def test_what_was_added_meanwhile_stays(self, bundle: Bundle) -> None:
        build_engine(bundle, precision="fp32", sm=["89"])
        extended, built = build_engine(bundle, precision="fp32", sm=["120"])  # `bundle` was opened before both
        assert len(extended.manifest.artifacts) == 3
        assert built == extended.manifest.artifacts[2:]

    def test_a_fixed_graph(self, fixed: Bundle) -> None:
        extended, _ = build_engine(fixed, precision="fp32", sm=["89"])
        shape = (1, 3, 64, 96)
        (engine,) = (each.engine for each in extended.manifest.artifacts if each.engine)
        assert engine.profile == EngineProfile(shape, shape, shape)

    def test_is_public(self) -> None:
        assert atrous.build_engine is build_engine


def test_types_are_those_of_the_graph(bundle: Bundle) -> None:
    extended, _ = atrous.add_fp16(bundle)
    extended, (engine,) = build_engine(extended, sm=["89"])
    assert engine.provenance["reading"]["Half"] >= len(local_layers(5)) - 1
    plan = extended.path / engine.file
    fp32, _ = build_engine(extended, precision="fp32", sm=["89"])
    assert plan.stat().st_size < (fp32.path / PLAN).stat().st_size + 1


@pytest.mark.parametrize(("sm", "int8"), [((7, 5), "Half"), ((8, 9), "Int8"), ((12, 0), "Int8")], ids=str)
def test_every_precision_and_form(dynamic_bundle: Bundle, sm: tuple[int, int], int8: str) -> None:
    """What `test_reference_architectures.py` does with all of them, with a tiny network.

    TensorRT-RTX computes an INT8 graph in FP16 on SM 7.5.
    """
    sizes = dynamic_bundle.manifest.input.size
    expected = {"fp32": "Float", "fp16": "Half", "int8": int8}
    for precision, graph in in_every_precision(onnx.load(dynamic_bundle.path / "model.fp32.onnx")):
        for form, batch in ((graph, 4), (fixed_to(graph, (1, 3, *sizes.opt)), 1)):
            reading = build(form, sizes, batch=batch, sm=sm).report.summary()["reading"]
            assert expected[precision] in reading
            assert ("Int8" in reading) == (expected[precision] == "Int8")


class TestProgress:
    def test_goes_from_0_to_1(self, bundle: Bundle) -> None:
        seen: list[tuple[str, float]] = []
        build_engine(bundle, precision="fp32", sm=["89", "120"], progress=lambda *now: seen.append(now))
        shares = [share for _, share in seen]
        assert shares == sorted(shares)
        assert 0 <= shares[0] < 0.1 < 0.9 < shares[-1] <= 1
        assert {text.partition(":")[0] for text, _ in seen} == {"SM 89", "SM 120"}


class TestNothingChanges:
    @pytest.fixture(autouse=True)
    def _the_bundle_stays_as_it_was(self, bundle: Bundle) -> Iterator[None]:
        before = contents(bundle.path)
        handler = signal.getsignal(signal.SIGINT)
        yield
        assert signal.getsignal(signal.SIGINT) is handler
        assert contents(bundle.path) == before
        assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
    def test_on_ctrl_c(self, bundle: Bundle, share: float) -> None:
        """In a process of its own: a signal is everybody's, also that of who runs the tests."""
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", INTERRUPTED, str(bundle.path), str(share)],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

    def test_on_an_error_of_the_caller(self, bundle: Bundle) -> None:
        def fail(_: str, done: float) -> None:
            if done > 0.6:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            build_engine(bundle, precision="fp32", sm=["89", "120"], progress=fail)

    def test_on_a_build_that_fails(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"(?s)cannot build model\.fp32\.onnx for SM 89\. .*workspace limit"):
            build_engine(bundle, precision="fp32", sm=["89"], options=BuilderOptions(workspace_bytes=1))

    @pytest.mark.parametrize("sm", ["90", "8.9", "CURRENT", ""])
    def test_on_a_gpu_that_it_does_not_build_for(self, bundle: Bundle, sm: str) -> None:
        with pytest.raises(EngineError, match=rf"does not build for SM '{sm}'; it builds for 75, 80, 86, 89, 120"):
            build_engine(bundle, precision="fp32", sm=[sm])

    def test_on_a_gpu_for_the_other_flavour(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match="tensorrt builds only for the local GPU"):
            build_engine(bundle, precision="fp32", backend="tensorrt", sm=["89"])

    @pytest.mark.parametrize("backend", ["auto", "tensorrt", "tensorrt-rtx"])
    def test_without_a_gpu(self, bundle: Bundle, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("atrous.gpu.driver._LIBRARY", "libno-cuda.so.1")
        with pytest.raises(DeviceError, match=r"there is no NVIDIA driver .* name its GPU: --sm 89"):
            build_engine(bundle, precision="fp32", backend=backend)

    @pytest.mark.parametrize(
        ("cuda", "capability", "said"),
        [
            ((11, 8), (8, 9), r"needs a driver for CUDA 1\d; the driver here is for CUDA 11\.8: install a newer one"),
            ((99, 0), (9, 0), "does not build for SM '90'; it builds for 75, 80"),
        ],
    )
    def test_with_a_gpu_or_driver_that_does_not_do(
        self,
        bundle: Bundle,
        monkeypatch: pytest.MonkeyPatch,
        cuda: tuple[int, int],
        capability: tuple[int, int],
        said: str,
    ) -> None:
        driver = Driver(cuda, (Gpu("a GPU", capability, 1 << 34),))
        monkeypatch.setattr("atrous.exporter.engine.target.find_driver", lambda: driver)
        with pytest.raises(EngineError, match=said):
            build_engine(bundle, precision="fp32", backend="tensorrt-rtx")

    def test_without_tensorrt(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(_: str) -> None:
            raise MissingDependencyError("tensorrt_rtx", extra="tensorrt-rtx", purpose="the tensorrt-rtx backend")

        monkeypatch.setattr("atrous.exporter.engine.target.load_tensorrt", missing)
        with pytest.raises(MissingDependencyError, match=r"atrous\[tensorrt-rtx\]"):
            build_engine(bundle, precision="fp32", sm=["89"])

    @pytest.mark.parametrize(
        ("precision", "said"),
        [
            ("fp16", r"no fp16 ONNX graph.* it has: fp32\. Make one: `atrous add-fp16`"),
            ("int8", "no int8 ONNX graph.* Make one: `atrous quantize`"),
            ("bf16", "unknown precision 'bf16'; expected fp32, fp16, int8"),
        ],
    )
    def test_on_a_precision_that_is_not_there(self, bundle: Bundle, precision: Any, said: str) -> None:
        with pytest.raises(EngineError, match=said):
            build_engine(bundle, precision=precision, sm=["89"])

    def test_on_an_unknown_backend(self, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match="unknown backend 'rtx'; expected auto, tensorrt, tensorrt-rtx"):
            build_engine(bundle, precision="fp32", backend="rtx")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("size", "batch", "said"),
        [
            ((60, 96), 1, r"multiples of 8; got 60×96\. The next one is 64×96"),
            ((64, 136), 1, "takes 32×32 to 128×128; got 64×136"),
            (DynamicSize((24, 32), (64, 64), (64, 64)), 1, "takes 32×32 to 128×128; got 24×32"),
            (DynamicSize((64, 64), (32, 96), (96, 96)), 1, "min ≤ opt ≤ max"),
            (None, 0, "the batch must be 1 or more; got 0"),
        ],
    )
    def test_on_sizes_that_do_not_fit(self, bundle: Bundle, size: Any, batch: int, said: str) -> None:
        with pytest.raises(EngineError, match=said):
            build_engine(bundle, precision="fp32", sm=["89"], size=size, batch=batch)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (BuilderOptions(workspace_bytes=0), "more than 0 bytes"),
            (BuilderOptions(optimization_level=6), "must be 0 … 5; got 6"),
            (BuilderOptions(optimization_level=0), "an optimization level is not supported by tensorrt-rtx"),
            (BuilderOptions(timing_cache="cache"), "a timing cache is not supported by tensorrt-rtx"),
            (BuilderOptions(version_compatible=True), "version compatibility is not supported by tensorrt-rtx"),
            (BuilderOptions(hardware_compatibility="ampere+"), "one engine per GPU instead: --sm 86 --sm 89"),
        ],
    )
    def test_on_options_that_do_not_work(self, bundle: Bundle, options: BuilderOptions, said: str) -> None:
        with pytest.raises(EngineError, match=said):
            build_engine(bundle, precision="fp32", sm=["89"], options=options)

    def test_on_a_changed_graph(self, bundle: Bundle) -> None:
        graph = bundle.path / bundle.manifest.artifacts[0].file
        whole = graph.read_bytes()
        graph.write_bytes(whole[:-1] + b"\xff")
        with pytest.raises(BundleError, match="SHA-256"):
            build_engine(bundle, precision="fp32", sm=["89"])
        graph.write_bytes(whole)


def test_tensorrt_takes_every_option() -> None:
    options = BuilderOptions(1 << 30, 5, "timing.cache", hardware_compatibility="ampere+", version_compatible=True)
    check_options(options, "tensorrt")


def test_the_grid_of_a_network_with_logits_on_pixels(bundle: Bundle) -> None:
    moved = put_logits_on_pixels(bundle)
    with pytest.raises(EngineError, match=r"multiples of 8 plus 1; got 64×97\. The next one is 65×97"):
        build_engine(moved, precision="fp32", sm=["89"], size=(64, 97))
    build_engine(moved, precision="fp32", sm=["89"], size=(65, 97))


class TestFixedGraph:
    def test_takes_one_size(self, fixed: Bundle) -> None:
        with pytest.raises(EngineError, match=r"takes 64×96; got 64×64\. Export it again"):
            build_engine(fixed, precision="fp32", sm=["89"], size=(64, 64))

    def test_takes_one_picture(self, fixed: Bundle) -> None:
        with pytest.raises(EngineError, match=r"takes inputs of \[1, 3, 64, 96\]; got \[2, 3, 64, 96\]\. Export with"):
            build_engine(fixed, precision="fp32", sm=["89"], batch=2)


def test_every_refused_node_is_named(folder: Path) -> None:
    """Two nodes that ONNX Runtime has and TensorRT does not."""
    nodes, value = [], "image"
    for index in range(2):
        codes = [f"codes{index}", f"scale{index}", f"zero{index}"]
        nodes.append(helper.make_node("DynamicQuantizeLinear", [value], codes, name=f"quantize_{index}"))
        nodes.append(helper.make_node("DequantizeLinear", codes, [f"value{index}"]))
        value = f"value{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", "W"]) for name in ("image", value)]
    graph = helper.make_graph(nodes, "dynamic", ends[:1], ends[1:])
    path = folder / "dynamic.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    plain = Preprocessing(PLAIN)
    bundle = pack(path, folder / "dynamic.atrous", classes=["r", "g", "b"], size=(16, 16), preprocessing=plain)
    before = contents(bundle.path)
    with pytest.raises(EngineError) as caught:
        build_engine(bundle, precision="int8", sm=["89"])
    first, *lines = str(caught.value).splitlines()
    assert first == f"tensorrt-rtx {VERSION} rejects model.int8.onnx:"
    assert [line.partition("): ")[0] for line in lines] == [
        f"  node {2 * index} 'quantize_{index}' (DynamicQuantizeLinear" for index in range(2)
    ]
    assert contents(bundle.path) == before


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
class TestOnTheGpuHere:
    @pytest.fixture
    def built(self, bundle: Bundle, backend: BackendChoice) -> EngineIdentity:
        try:
            extended, built = build_engine(bundle, precision="fp32", backend=backend)
        except (DeviceError, MissingDependencyError) as exc:
            needs.GPU.skip(str(exc))
        except EngineError as exc:
            if "does not build for SM" in str(exc):  # TensorRT-RTX on a data-centre GPU
                pytest.skip(str(exc))
            raise
        (engine,) = built
        assert extended.find(kind="engine") == engine
        assert engine.engine is not None
        assert engine.provenance["layers"] > 0
        return engine.engine

    def test_loads_what_it_built(self, built: EngineIdentity, backend: BackendChoice) -> None:
        driver = find_driver()
        assert built.flavor == backend
        assert built.driver == ".".join(map(str, driver.cuda))
        assert built.compute_capability == ".".join(map(str, driver.gpus[0].compute_capability))

    def test_keeps_timings(self, bundle: Bundle, built: EngineIdentity, tmp_path: Path) -> None:
        if built.flavor == "tensorrt-rtx":
            pytest.skip("TensorRT-RTX times nothing")
        cache = tmp_path / "timing.cache"
        for _ in range(2):
            build_engine(bundle, precision="fp32", options=BuilderOptions(timing_cache=cache))
        assert cache.stat().st_size > 0
        cache.write_bytes(b"no cache")
        with pytest.raises(EngineError, match="timing cache"):
            build_engine(bundle, precision="fp32", options=BuilderOptions(timing_cache=cache))
