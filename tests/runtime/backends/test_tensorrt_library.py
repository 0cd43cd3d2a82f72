from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import needs
import pytest

from atrous.errors import EngineError, MissingDependencyError
from atrous.runtime.backends import tensorrt_library
from atrous.runtime.backends.tensorrt_library import (
    FLAVORS,
    Flavor,
    LogCapture,
    LogRouter,
    TensorRT,
    installed_flavors,
    load_tensorrt,
)


@pytest.fixture(autouse=True)
def _stand_ins() -> None:
    """None here: what is installed is what is tested."""


@pytest.fixture
def rtx() -> TensorRT:
    needs.TENSORRT_RTX.load("tensorrt_rtx")
    return load_tensorrt("tensorrt-rtx")


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a package `tensorrt` of this code first on the path."""
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # so that what is imported now is forgotten afterwards
    del sys.modules["tensorrt"]


def test_facts_of_what_is_installed(rtx: TensorRT) -> None:
    assert "tensorrt-rtx" in installed_flavors()
    assert rtx.version == sys.modules["tensorrt_rtx"].__version__
    assert (rtx.facts, rtx.major) == (FLAVORS["tensorrt-rtx"], 1)
    assert rtx.cuda in ("12", "13")


def test_there_is_one_of_each(rtx: TensorRT) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_tensorrt("tensorrt-rtx"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(each) for each in found} == {id(rtx)}


@pytest.mark.parametrize(("flavor", "extra"), [("tensorrt", "gpu"), ("tensorrt-rtx", "tensorrt-rtx")])
def test_a_missing_one_names_the_extra(monkeypatch: pytest.MonkeyPatch, flavor: Flavor, extra: str) -> None:
    monkeypatch.setattr(tensorrt_library, "_load", tensorrt_library._load.__wrapped__)  # as if it were the first time
    monkeypatch.setitem(sys.modules, FLAVORS[flavor].module, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'atrous\[{extra}\]'"):
        load_tensorrt(flavor)


def test_one_whose_libraries_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, "raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    with pytest.raises(EngineError, match=r"does not load: libnvinfer\.so\.11: .* pip install --upgrade 'atrous\[gpu"):
        load_tensorrt("tensorrt")


def test_one_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, "__version__ = '10.9.0.34'")
    assert "tensorrt" in installed_flavors()
    with pytest.raises(EngineError, match=r"tensorrt 10\.9\.0\.34 is installed; expected 10\.13 or newer"):
        load_tensorrt("tensorrt")


class TestLog:
    def test_what_tensorrt_says_is_captured(self, rtx: TensorRT, caplog: pytest.LogCaptureFixture) -> None:
        with rtx.log.capture() as outer, rtx.log.capture() as inner:
            builder = rtx.module.Builder(rtx.logger)
            network = builder.create_network(0)
            assert not rtx.module.OnnxParser(network, rtx.logger).parse(b"no graph")
        assert inner.messages == outer.messages
        assert "Failed to parse the ONNX model" in inner.tail()
        assert {record.levelno for record in caplog.records} <= {logging.DEBUG}

    def test_otherwise_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        router = LogRouter()
        with router.capture() as capture:
            router.route(2, "captured")
        router.route(2, "logged")
        assert capture.messages == [(logging.WARNING, "captured")]
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == ["logged"]

    def test_the_tail_explains(self) -> None:
        info, warning, error = logging.INFO, logging.WARNING, logging.ERROR
        assert LogCapture([(info, "fine"), (error, "one\ntwo"), (warning, "three")]).tail(2) == "two\nthree"
        assert LogCapture([(logging.DEBUG, "noise"), (info, "fine")]).tail() == "fine"
        assert LogCapture().tail() == ""
