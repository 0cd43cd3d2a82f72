"""The C interface of the C++ runtime, called from Python: runtime/cpp/include/atrous/atrous.h, member for member."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "runtime" / "cpp"

#: CMake and Ninja of this Python's packages come before the system's, which may be too old.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

OK, PENDING = 0, 1
BANDS = 2
#: By their number in atrous_dtype.
DTYPES = [np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)]
ARGUMENT, HANDLE, BUNDLE, ENGINE, SHAPE, CRF, DEVICE, UNAVAILABLE, MEMORY, INTERNAL = range(2, 12)


class Struct(ctypes.Structure):
    def __init__(self, **members: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **members)


def _members(text: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in text.split()]


class BundleInfo(Struct):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        *_members(
            "class_count ignore_index resize min_height min_width opt_height opt_width max_height max_width "
            "multiple offset stride has_crf",
            ctypes.c_int32,
        ),
        *_members("name created_by license", ctypes.c_char_p),
        *_members("channels dtype label_dtype has_bands", ctypes.c_int32),
    ]


class Band(Struct):
    _fields_ = [
        *_members("struct_size reserved", ctypes.c_uint32),
        *_members("low high", ctypes.c_double),
        ("name", ctypes.c_char_p),
    ]


class Class(Struct):
    _fields_ = [("struct_size", ctypes.c_uint32), ("color", ctypes.c_uint8 * 4), ("name", ctypes.c_char_p)]


class Options(Struct):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        *_members("backend precision", ctypes.c_char_p),
        *_members("crf crf_iterations device", ctypes.c_int32),
        ("crf_storage", ctypes.c_char_p),
        ("crf_class_floor", ctypes.c_float),
    ]


class SegmenterInfo(Struct):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("crf", ctypes.c_int32),
        *_members("backend device precision artifact note", ctypes.c_char_p),
    ]


class Frame(Struct):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        *_members("format memory height width reserved", ctypes.c_int32),
        ("pixels", ctypes.c_void_p),
        ("pixel_row_bytes", ctypes.c_int64),
        ("labels", ctypes.c_void_p),
        ("label_row_bytes", ctypes.c_int64),
        *_members("probabilities stream", ctypes.c_void_p),
        *_members("channels dtype label_dtype reserved2", ctypes.c_int32),
    ]


class Timings(Struct):
    _fields_ = [
        *_members("struct_size reserved", ctypes.c_uint32),
        *_members("preprocess_ms inference_ms postprocess_ms crf_ms total_ms", ctypes.c_double),
    ]


@dataclass
class Result:
    labels: np.ndarray
    probabilities: np.ndarray | None
    timings: Timings


class CppError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class Library:
    """One loaded libatrous.so."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for name in ("atrous_last_error", "atrous_status_name", "atrous_version", "atrous_engines"):
            getattr(self.c, name).restype = ctypes.c_char_p

    def check(self, status: int) -> int:
        if status not in (OK, PENDING):
            raise CppError(status, self.c.atrous_last_error().decode())
        return status

    @contextmanager
    def bundle(self, path: Path | str) -> Iterator[ctypes.c_void_p]:
        handle = ctypes.c_void_p()
        self.check(self.c.atrous_bundle_open(os.fsencode(path), ctypes.byref(handle)))
        try:
            yield handle
        finally:
            self.check(self.c.atrous_bundle_close(handle))

    @contextmanager
    def segmenter(self, path: Path | str, **options: Any) -> Iterator[Segmenter]:
        with self.bundle(path) as bundle:
            handle = ctypes.c_void_p()
            wanted = Options(**{"crf_iterations": -1, **options})
            self.check(self.c.atrous_segmenter_open(bundle, ctypes.byref(wanted), ctypes.byref(handle)))
            try:
                yield Segmenter(self, handle, self.info(bundle).class_count)
            finally:
                self.check(self.c.atrous_segmenter_close(handle))

    def info(self, bundle: ctypes.c_void_p) -> BundleInfo:
        info = BundleInfo()
        self.check(self.c.atrous_bundle_get_info(bundle, ctypes.byref(info)))
        return info


class Segmenter:
    def __init__(self, library: Library, handle: ctypes.c_void_p, classes: int) -> None:
        self.library = library
        self.handle = handle
        self.classes = classes

    def __call__(self, image: np.ndarray, *, probabilities: bool = False, bgr: bool = False) -> Result:
        """Segments [H, W, 3] uint8, or bands [H, W, B] of their type, with any distance between rows."""
        frame, result = self.frame(image, probabilities=probabilities, bgr=bgr)
        self.library.check(self.library.c.atrous_run(self.handle, ctypes.byref(frame), ctypes.byref(result.timings)))
        return result

    def frame(self, image: np.ndarray, *, probabilities: bool = False, bgr: bool = False) -> tuple[Frame, Result]:
        height, width, channels = image.shape
        assert image.strides[1:] == (channels * image.itemsize, image.itemsize)
        is_rgb = (channels, image.dtype) == (3, np.uint8)
        label_dtype = np.uint8 if self.classes <= 256 else np.uint16
        maps = np.full((self.classes, height, width), np.nan, np.float32) if probabilities else None
        result = Result(np.full((height, width), 255, label_dtype), maps, Timings())
        frame = Frame(
            format=int(bgr) if is_rgb else BANDS,
            channels=channels,
            dtype=DTYPES.index(image.dtype),
            label_dtype=DTYPES.index(label_dtype),
            height=height,
            width=width,
            pixels=image.ctypes.data,
            pixel_row_bytes=image.strides[0],
            labels=result.labels.ctypes.data,
            probabilities=None if maps is None else maps.ctypes.data,
        )
        return frame, result


def dependencies() -> list[str]:
    """What the C++ runtime is built with, from this Python's packages, as options of CMake."""
    import nlohmann_json
    import openvino

    return [
        f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}",
        f"-DNLOHMANN_JSON_INCLUDE_DIR={Path(nlohmann_json.__file__).parent / 'include'}",
    ]


def build(preset: str) -> Path:
    """Configures and builds a preset, as far as anything changed; the folder."""
    folder = ROOT / "build" / f"cpp-{preset}"
    with exclusive(folder):
        run("cmake", "--preset", preset, *dependencies(), cwd=SOURCE)
        run("cmake", "--build", "--preset", preset, cwd=SOURCE)
    return folder


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One test process at a time makes what will be at `path`.

    The file is not `lock_bundle`'s: an export inside the block takes that one, and would wait for this process.
    """
    path.parent.mkdir(exist_ok=True)
    with path.with_name(f".{path.name}.tests").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; what it printed when it fails, as the error."""
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout
