"""The C++ runtime, built once."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from cpp_library import PATH, ROOT, Library, build, exclusive
from needs import BUILD_TOOLS

import atrous
from atrous.bundle import hash_file
from atrous.exporter.classes import read_classes
from atrous.exporter.trained_model import load_trained


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool, path=PATH) is None]
    missing += [package for package in ("nlohmann_json", "openvino") if find_spec(package) is None]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)  # whichever comes first builds the library
            if missing:
                item.add_marker(pytest.mark.skip(reason=BUILD_TOOLS.reason(f"no {', '.join(missing)}")))


@pytest.fixture(scope="session")
def release() -> Path:
    """The folder of the release build."""
    return build("release")


@pytest.fixture(scope="session")
def library(release: Path) -> Library:
    return Library(release / "libatrous.so")


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A photo [427, 640, 3] uint8."""
    from sklearn.datasets import load_sample_image

    return np.ascontiguousarray(load_sample_image("china.jpg"))


@pytest.fixture(scope="session")
def demo_bundle() -> Path:
    """The bundle that `make demo` makes, exported once for each version of its weights."""
    example = ROOT / "examples" / "train_camvid"
    path = ROOT / "build" / f"cpp-demo-{hash_file(example / 'deeplab.safetensors')[:12]}.atrous"
    with exclusive(path):
        if not path.exists():
            trained = load_trained(example / "deeplab.safetensors", classes=read_classes(example / "classes.json"))
            atrous.export(
                trained.model,
                path,
                classes=trained.classes,
                size=atrous.DynamicSize(min=(64, 64), opt=(368, 480), max=(1024, 1024)),
                preprocessing=atrous.Preprocessing(trained.architecture.normalization),
                align_corners=trained.architecture.align_corners,
            )
    return path
