"""Engines for backends to open where there is no GPU."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from standins import tensorrt_standin as standin

from atrous.bundle import Bundle, extend_bundle
from atrous.manifest import EngineIdentity, EngineProfile, Precision
from atrous.runtime.backends import tensorrt_library

VERSIONS = {"tensorrt": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
PROFILE = EngineProfile((1, 3, 32, 32), (1, 3, 64, 96), (4, 3, 128, 128))

#: Adds an engine to a bundle: `add(bundle, precision="fp16", compute_capability="8.9")`.
AddEngine = Callable[..., Bundle]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def flavor(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both flavours are stand-ins; what other tests have loaded is there again afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for each, version in VERSIONS.items():
        name = tensorrt_library.FLAVORS[each].module
        monkeypatch.setitem(sys.modules, name, standin.as_module(name, version))
    monkeypatch.setattr(tensorrt_library, "_load", functools.cache(tensorrt_library._load.__wrapped__))
    standin.calls.clear()
    standin.seen.clear()


@pytest.fixture
def add_engine(tmp_path: Path) -> AddEngine:
    """Copies a bundle and adds an engine of its FP32 graph."""

    def add(
        bundle: Bundle,
        *,
        flavor: str = "tensorrt",
        precision: Precision = "fp32",
        file: str | None = None,
        plan: bytes | None = None,
        graph: bytes | None = None,
        dtype: str = "float32",
        profile: EngineProfile = PROFILE,
        valid: bool = True,
        **identity: object,
    ) -> Bundle:
        if bundle.path.parent != tmp_path:
            bundle = _copy(bundle, tmp_path)
        fields = {"version": VERSIONS[flavor], "compute_capability": "9.0", "cuda": "13"} | identity
        built = EngineIdentity(flavor=flavor, profile=profile, **fields)
        graph = graph or bundle.read(bundle.find(kind="onnx", precision="fp32"))
        shapes = (profile.min, profile.opt, profile.max)
        plan = plan or standin.make_plan(graph, shapes, version=built.version, dtype=dtype, valid=valid)
        file = file or f"engines/{precision}-{flavor}.plan"
        with extend_bundle(bundle) as staged:
            (staged.path / file).parent.mkdir(exist_ok=True)
            (staged.path / file).write_bytes(plan)
            artifact = staged.artifact(file, kind="engine", precision=precision, provenance={})
            staged.write_manifest(bundle.manifest.with_artifact(dataclasses.replace(artifact, engine=built)))
        return Bundle.open(bundle.path)

    return add


def _copy(bundle: Bundle, folder: Path) -> Bundle:
    target = folder / bundle.path.name
    target.mkdir()
    for path in bundle.path.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return Bundle.open(target)
