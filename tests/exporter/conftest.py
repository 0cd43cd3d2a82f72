"""Networks and their exported bundles, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_networks import TinyDeepLab
from torch import nn

from atrous.bundle import Bundle
from atrous.exporter.export import export
from atrous.exporter.sizes import DynamicSize

CLASSES = ("sky", "road", "car", "tree", "person")


@pytest.fixture(scope="session")
def classes() -> tuple[str, ...]:
    """Names for the five channels of the tiny network."""
    return CLASSES


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """The tiny network in eval mode, stride 4."""
    return TinyDeepLab(len(CLASSES)).eval()


@pytest.fixture(scope="session")
def sizes() -> DynamicSize:
    """Sizes with many between them."""
    return DynamicSize(min=(16, 16), opt=(32, 48), max=(64, 64), multiple=8)


@pytest.fixture(scope="session")
def dynamic_bundle(network: nn.Module, sizes: DynamicSize, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network exported for `sizes`; read-only."""
    return export(network, tmp_path_factory.mktemp("dynamic") / "street.atrous", classes=CLASSES, size=sizes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for one bundle, to see what is left in it."""
    path = tmp_path / "out"
    path.mkdir()
    return path
