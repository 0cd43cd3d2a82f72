"""Every attribute of TensorRT that the package uses exists in TensorRT 10, TensorRT 11 and TensorRT-RTX."""

from __future__ import annotations

import ast
import importlib.util
import textwrap
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from tensorrt_api.bindings import VERSIONS, Api, UnreachableError, describe_module, describe_wheel, read_snapshot
from tensorrt_api.walk import MODULE, Sources, Use, touches_tensorrt

from atrous.exporter.engine.network import HARDWARE_LEVELS

ROOT = Path(__file__).parents[1]
SNAPSHOTS = {name: read_snapshot(name) for name in VERSIONS}
PACKAGES = ("calibration", "cli", "crf", "exporter", "gpu", "runtime")


@pytest.fixture(scope="module")
def sources() -> Sources:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if touches_tensorrt(path)]
    return Sources(paths, ROOT, list(SNAPSHOTS.values()))


def _real(name: str, cache: Path) -> Api:
    """The bindings themselves, or a skip that says why they cannot be had."""
    if name == "tensorrt-rtx":
        if importlib.util.find_spec("tensorrt_rtx") is None:
            needs.TENSORRT_RTX.skip()
        return describe_module("tensorrt_rtx")
    try:
        return describe_wheel(VERSIONS[name], cache)
    except UnreachableError as exc:
        needs.TENSORRT.skip(str(exc))


def missing(uses: list[Use], api: Api, *, rtx: bool) -> list[str]:
    return [f"{use.where}: {use.owner}.{use.attribute}" for use in uses if (rtx or not use.rtx) and not use.is_in(api)]


@pytest.mark.parametrize("name", VERSIONS)
def test_what_is_used_exists(sources: Sources, name: str) -> None:
    assert missing(sources.uses, SNAPSHOTS[name], rtx=name == "tensorrt-rtx") == []


@pytest.mark.parametrize("name", VERSIONS)
def test_what_is_used_exists_in_the_bindings(sources: Sources, name: str, pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache.mkdir("tensorrt-bindings")
    api = _real(name, cache)
    assert missing(sources.uses, api, rtx=name == "tensorrt-rtx") == []
    if api.version == VERSIONS[name]:
        assert api == SNAPSHOTS[name], f"write api.to_json() to tests/tensorrt_api/{name}.json"


def test_the_type_of_every_value_is_known(sources: Sources) -> None:
    """What TensorRT has, on a value of which nothing is known, would go unchecked: annotate the value."""
    assert sources.unknown == []


def test_names_looked_up_at_run_time_exist() -> None:
    for api in SNAPSHOTS.values():
        assert set(HARDWARE_LEVELS.values()) <= api.classes["HardwareCompatibilityLevel"].keys()


def test_nothing_that_tensorrt_11_removed_is_named(sources: Sources) -> None:
    """Whatever the type of the value: what is in TensorRT 10 only, such as `BuilderFlag.INT8`, is nowhere."""
    old, new = (
        {member for members in SNAPSHOTS[name].classes.values() for member in members} | SNAPSHOTS[name].names
        for name in ("tensorrt-10", "tensorrt-11")
    )
    removed = old - new
    assert {"FP16", "int8_calibrator", "platform_has_fast_fp16", "device_memory_size"} <= removed
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for path in sources.paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in removed
    ]
    assert named == []


class TestWalk:
    """The reader of sources, on a source whose uses are known."""

    @pytest.fixture
    def read(self, tmp_path: Path) -> Callable[[str], Sources]:
        def read(code: str) -> Sources:
            path = tmp_path / "sample.py"
            path.write_text(textwrap.dedent(code))
            return Sources([path], tmp_path, list(SNAPSHOTS.values()))

        return read

    @staticmethod
    def found(sources: Sources) -> set[tuple[str, str, bool]]:
        return {(use.owner, use.attribute, use.rtx) for use in sources.uses}

    def test_follows_annotations_calls_and_returns(self, read: Callable[[str], Sources]) -> None:
        sources = read("""
            class Library:
                module: TensorRTModule

                @property
                def builder(self) -> Builder: ...

            def make(library: Library, config: IBuilderConfig | None) -> INetworkDefinition:
                config.madeup = 1
                flag = library.module.BuilderFlag.TF32
                return library.builder.create_network(0)

            def use(library: Library):
                for index in range(make(library, None).num_layers):
                    print(library.module.Runtime(None).deserialize_cuda_engine(b"").num_io_tensors)
        """)
        assert self.found(sources) == {
            ("IBuilderConfig", "madeup", False),
            (MODULE, "BuilderFlag", False),
            ("BuilderFlag", "TF32", False),
            ("Builder", "create_network", False),
            ("INetworkDefinition", "num_layers", False),
            (MODULE, "Runtime", False),
            ("Runtime", "deserialize_cuda_engine", False),
            ("ICudaEngine", "num_io_tensors", False),
        }
        (wrong,) = missing(sources.uses, SNAPSHOTS["tensorrt-11"], rtx=False)
        assert wrong.endswith("IBuilderConfig.madeup")

    def test_what_only_rtx_has_is_asked_of_rtx_only(self, read: Callable[[str], Sources]) -> None:
        sources = read("""
            def aim(config: RtxBuilderConfig):
                config.num_compute_capabilities = 1
        """)
        assert self.found(sources) == {("IBuilderConfig", "num_compute_capabilities", True)}
        assert missing(sources.uses, SNAPSHOTS["tensorrt-11"], rtx=False) == []
        assert missing(sources.uses, SNAPSHOTS["tensorrt-rtx"], rtx=True) == []

    def test_what_is_overridden_must_exist(self, read: Callable[[str], Sources]) -> None:
        sources = read("""
            def make(trt: TensorRTModule):
                class Monitor(trt.IProgressMonitor):
                    def step_completed(self): ...
        """)
        assert ("IProgressMonitor", "step_completed", False) in self.found(sources)

    @pytest.mark.parametrize("line", ["thing.num_io_tensors", "getattr(config, name)"])
    def test_what_cannot_be_followed_is_reported(self, read: Callable[[str], Sources], line: str) -> None:
        (unknown,) = read(f"def use(config: IBuilderConfig, thing, name):\n    {line}").unknown
        assert line in unknown
