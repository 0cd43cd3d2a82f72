"""A bundle in two precisions, and the studio of it that tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmenters import picture
from studio_servers import RunningStudio, studio_in_thread

import atrous
from atrous.bundle import Bundle
from atrous.serve.limits import Limits

#: Large enough for a preview of fewer pixels.
PHOTO = picture((200, 256), seed=3)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of `PHOTO`."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(PHOTO).save(path)
    return path


@pytest.fixture(scope="session")
def two_precisions(tiny_bundle: Bundle, photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A random network of 5 classes in FP32 and INT8; read-only."""
    path = tmp_path_factory.mktemp("two") / "two.atrous"
    bundle, _ = atrous.quantize(Bundle.open(shutil.copytree(tiny_bundle.path, path)), images=[photo])
    return bundle


@pytest.fixture(scope="session")
def studio(two_precisions: Bundle) -> Iterator[RunningStudio]:
    """The studio of the bundle, for images of at most 100,000 pixels and 300,000 bytes."""
    limits = Limits(pixels=100_000, body_bytes=300_000)
    with studio_in_thread(two_precisions.path, ("fp32", "int8"), limits=limits) as running:
        yield running


@pytest.fixture(scope="session")
def segmenter(two_precisions: Bundle) -> atrous.Segmenter:
    """What the studio's labels are compared with."""
    return atrous.load(two_precisions, backend="onnxruntime", precision="fp32", threads=1)


@pytest.fixture(scope="session")
def labels(segmenter: atrous.Segmenter) -> np.ndarray:
    """The labels of `PHOTO` in FP32 without the CRF."""
    return segmenter(PHOTO).labels
