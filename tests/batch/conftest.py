from __future__ import annotations

from pathlib import Path

import pytest
from batch_runs import make_photos

from atrous.batch import WorkItem, find_work
from atrous.bundle import Bundle
from atrous.runtime.segmenter import Segmenter, load


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve small images in two folders."""
    return make_photos(tmp_path / "photos")


@pytest.fixture
def items(photos: Path) -> list[WorkItem]:
    return find_work([photos])


@pytest.fixture(scope="session")
def segmenter(color_bundle: Bundle) -> Segmenter:
    return load(color_bundle.path, backend="onnxruntime", threads=1)
