from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from atrous.gpu import nvtx

LIBRARY = r"""
#include <string>
static std::string said;
extern "C" int nvtxRangePushA(const char* name) { said += std::string("+") + name; return 0; }
extern "C" int nvtxRangePop() { said += "-"; return 0; }
extern "C" const char* what_was_said() { return said.c_str(); }
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """A library that remembers ranges, where NVIDIA's is looked for."""
    source, built = tmp_path / "nvtx.cpp", tmp_path / "nvtx.so"
    source.write_text(LIBRARY)
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", built], check=True)
    monkeypatch.setattr(nvtx, "_LIBRARIES", (str(tmp_path / "absent.so"), str(built)))
    nvtx._find_library.cache_clear()
    yield ctypes.CDLL(str(built))
    nvtx._find_library.cache_clear()


def test_ranges_nest_and_end_with_an_error(library):
    library.what_was_said.restype = ctypes.c_char_p
    with nvtx.annotate("a"), pytest.raises(KeyError), nvtx.annotate("b"):
        raise KeyError
    assert library.what_was_said() == b"+a+b--"


def test_without_the_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(nvtx, "_LIBRARIES", ("libabsent.so.1",))
    nvtx._find_library.cache_clear()
    with nvtx.annotate("a"):
        pass
    nvtx._find_library.cache_clear()
