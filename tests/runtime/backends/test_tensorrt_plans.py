"""Plans that the real TensorRT-RTX builds here, on machines that they do not fit: refused before it sees them.

Without a driver it may crash on what it is given, so a plan that got through would be noticed.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import needs
import pytest
from emulator.emulated_device import EmulatedDevice

from atrous.bundle import MANIFEST_FILE, Bundle
from atrous.errors import BundleError, EngineError
from atrous.exporter.engine.build import build_engine
from atrous.runtime.backends import choose_artifact
from atrous.runtime.backends.tensorrt import make_spec

pytestmark = needs.TENSORRT_RTX.importable("tensorrt_rtx")


@pytest.fixture(scope="module")
def built(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network with engines for compute capability 8.9 and 12.0."""
    path = shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("built") / "tiny.atrous")
    return build_engine(Bundle.open(Path(path)), precision="fp32", backend="tensorrt-rtx", sm=("89", "120"))[0]


@pytest.fixture
def bundle(built: Bundle, tmp_path: Path) -> Bundle:
    """A copy, to be changed."""
    return Bundle.open(Path(shutil.copytree(built.path, tmp_path / "tiny.atrous")))


def on(**properties: object) -> EmulatedDevice:
    device = EmulatedDevice()
    device.properties = dataclasses.replace(device.properties, **properties)
    return device


def open_on(bundle: Bundle, device: EmulatedDevice) -> None:
    spec = make_spec(lambda: device)
    spec.open(bundle, choose_artifact(spec, bundle))


def refused(bundle: Bundle, device: EmulatedDevice, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        open_on(bundle, device)


def test_another_gpu_is_told_what_each_was_built_for(built: Bundle) -> None:
    refused(built, on(compute_capability=(9, 0)), r"sm89\.plan was built for .* 8\.9.*sm120\.plan was .* 12\.0")


def test_an_old_driver(built: Bundle) -> None:
    refused(built, on(compute_capability=(8, 9), cuda=(11, 8)), r"needs a driver for CUDA 1\d; .* is for CUDA 11\.8")


def test_another_version(bundle: Bundle) -> None:
    artifacts = tuple(
        dataclasses.replace(each, engine=dataclasses.replace(each.engine, version="1.6.0.1")) if each.engine else each
        for each in bundle.manifest.artifacts
    )
    manifest = dataclasses.replace(bundle.manifest, artifacts=artifacts)
    (bundle.path / MANIFEST_FILE).write_text(manifest.to_json())
    refused(Bundle.open(bundle.path), on(compute_capability=(8, 9)), r"was built by tensorrt-rtx 1\.6\.0\.1; installed")


@pytest.mark.parametrize("position", [0, 0.5, 0.999])
def test_a_flipped_bit(bundle: Bundle, position: float) -> None:
    path = bundle.path_of(bundle.find(kind="engine"))
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        open_on(bundle, on(compute_capability=(8, 9)))


def test_a_truncated_plan_does_not_even_open(bundle: Bundle) -> None:
    path = bundle.path_of(bundle.find(kind="engine"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="truncated or was replaced"):
        Bundle.open(bundle.path)
