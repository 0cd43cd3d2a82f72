"""A server that the tests share, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_servers import ServerProcess

import atrous
from atrous.bundle import Bundle


@pytest.fixture(scope="session")
def server(
    tiny_bundle: Bundle, color_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """`atrous serve tiny.atrous color.atrous`, with limits of 200,000 pixels and a million bytes."""
    limits = ("--max-pixels=200000", "--max-bytes=1000000", "--backend=onnxruntime")
    with ServerProcess(tmp_path_factory.mktemp("server"), tiny_bundle.path, color_bundle.path, *limits) as running:
        yield running


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Bundle) -> atrous.Segmenter:
    """A segmenter of the bundle that is served as `tiny`."""
    return atrous.load(tiny_bundle, backend="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def tiny_crf(tiny_bundle: Bundle) -> atrous.Segmenter:
    """The same with the dense CRF."""
    return atrous.load(tiny_bundle, backend="onnxruntime", threads=1, crf=True)
