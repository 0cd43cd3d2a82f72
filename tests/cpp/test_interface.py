"""The C interface from another language: information, statuses, jobs, and a thousand segmenters."""

from __future__ import annotations

import ctypes
import json
import re
import threading
from pathlib import Path

import cpp_library
import numpy as np
import pytest
from cpp_library import ROOT, SOURCE, CppError, Library, Struct
from tolerances import CPP_GROWTH_BYTES

import atrous
from atrous.bundle import MANIFEST_FILE, Bundle


def copy_bundle(bundle: Bundle, path: Path) -> Path:
    path.mkdir()
    for file in bundle.path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096


def test_versions(library):
    assert library.c.atrous_version().decode() == atrous.__version__
    assert library.c.atrous_abi_version() == 1
    assert "openvino" in library.c.atrous_engines().decode().split()
    assert library.c.atrous_status_name(cpp_library.BUNDLE) == b"ATROUS_ERROR_BUNDLE"


def test_every_status_is_named_and_explained(library):
    header = (SOURCE / "include" / "atrous" / "atrous.h").read_text(encoding="utf-8")
    statuses = {
        name: int(value)
        for name, value in re.findall(r"^ +(ATROUS_(?:OK|PENDING|ERROR_\w+)) = (\d+)", header, re.MULTILINE)
    }
    assert sorted(statuses.values()) == list(range(12))
    assert all(library.c.atrous_status_name(value).decode() == name for name, value in statuses.items())
    explained = re.findall(
        r"^\| `(ATROUS_\w+)` \|", (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(explained) == set(statuses) - {"ATROUS_OK"}


def test_structs_have_the_size_that_c_gives_them(library, tiny_bundle):
    # A size that differs from C's is refused, so a call that succeeds proves it.
    with library.segmenter(tiny_bundle.path) as segment:
        info = cpp_library.SegmenterInfo()
        library.check(library.c.atrous_segmenter_get_info(segment.handle, ctypes.byref(info)))
        segment(np.zeros((40, 40, 3), np.uint8))
    assert (info.backend, info.device, info.precision, info.artifact) == (
        b"openvino", b"CPU", b"fp32", b"model.fp32.onnx",
    )  # fmt: skip


def test_information_is_the_manifest(library, demo_bundle):
    manifest = Bundle.open(demo_bundle).manifest
    with library.bundle(demo_bundle) as bundle:
        info = library.info(bundle)
        library.check(library.c.atrous_bundle_check(bundle))
        for index, expected in enumerate(manifest.classes):
            entry = cpp_library.Class()
            library.check(library.c.atrous_bundle_get_class(bundle, index, ctypes.byref(entry)))
            assert (entry.name.decode(), tuple(entry.color)[:3]) == (expected.name, expected.color)
        size = manifest.input.size
        assert (info.name.decode(), info.created_by.decode()) == (manifest.name, manifest.created_by)
        assert (info.opt_height, info.opt_width, info.multiple) == (*size.opt, size.multiple)
        assert (info.class_count, info.stride, info.ignore_index) == (
            len(manifest.classes),
            manifest.output.stride,
            255,
        )


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"backend": b"nonsense"}, cpp_library.ARGUMENT, "expected auto, openvino"),
        ({"backend": b"tensorrt"}, cpp_library.UNAVAILABLE, "not in this build"),
        ({"precision": b"int8"}, cpp_library.ENGINE, "has no int8 ONNX graph for the openvino backend; it has: fp32"),
        ({"threads": -2}, cpp_library.ARGUMENT, "threads"),
    ],
)
def test_options_that_cannot_be(library, tiny_bundle, options, status, words):
    with pytest.raises(CppError, match=words) as caught, library.segmenter(tiny_bundle.path, **options):
        pass
    assert caught.value.status == status


def test_a_graph_that_openvino_refuses(library, tiny_bundle, tmp_path):
    path = copy_bundle(tiny_bundle, tmp_path / "b.atrous")
    manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
    file = path / manifest["artifacts"][0]["file"]
    file.write_bytes(b"no graph" + file.read_bytes()[8:])
    manifest["artifacts"][0]["sha256"] = atrous.bundle.hash_file(file)
    (path / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CppError, match="OpenVINO refuses") as caught, library.segmenter(path):
        pass
    assert caught.value.status == cpp_library.ENGINE


def test_a_graph_that_disagrees_with_its_manifest(library, tiny_bundle, tmp_path):
    path = copy_bundle(tiny_bundle, tmp_path / "b.atrous")
    manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["classes"].pop()
    (path / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    with library.segmenter(path) as segment, pytest.raises(CppError, match="gives 5 channels; the manifest says 4"):
        segment(np.zeros((40, 40, 3), np.uint8))


def test_jobs_and_threads(library, tiny_bundle, rng):
    pictures = [rng.integers(0, 256, (40 + 8 * i, 64, 3), dtype=np.uint8) for i in range(8)]
    with library.segmenter(tiny_bundle.path, threads=1) as segment:
        expected = [segment(picture).labels for picture in pictures]
        jobs = []
        for picture in pictures:
            frame, result = segment.frame(picture)
            job = ctypes.c_void_p()
            library.check(library.c.atrous_submit(segment.handle, ctypes.byref(frame), ctypes.byref(job)))
            jobs.append((job, result))
        wrong = []

        def work(index: int) -> None:
            results = [segment(pictures[index]).labels for _ in range(5)]
            wrong.extend(index for labels in results if (labels != expected[index]).any())

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for (job, result), labels in zip(jobs, expected, strict=True):
            assert library.check(library.c.atrous_job_wait(job, -1, ctypes.byref(result.timings))) == cpp_library.OK
            assert (result.labels == labels).all()
            library.check(library.c.atrous_job_close(job))
        assert wrong == []


@pytest.mark.slow
def test_a_thousand_segmenters_leave_nothing(library, tiny_bundle):
    picture = np.zeros((40, 40, 3), np.uint8)

    def cycle(count: int) -> None:
        for index in range(count):
            with library.segmenter(tiny_bundle.path, crf=index % 2, threads=1) as segment:
                if index % 10 == 0:
                    segment(picture)

    cycle(300)  # OpenVINO's caches, and malloc's, fill first
    before = resident_bytes()
    cycle(1000)
    assert resident_bytes() - before < CPP_GROWTH_BYTES


def test_handles_are_numbers_that_are_looked_up(library: Library, tiny_bundle):
    with library.segmenter(tiny_bundle.path) as segment:
        frame, _ = segment.frame(np.zeros((40, 40, 3), np.uint8))
    for handle in (segment.handle, ctypes.c_void_p(0), ctypes.c_void_p(2**63)):
        assert library.c.atrous_run(handle, ctypes.byref(frame), None) == cpp_library.HANDLE
    assert isinstance(frame, Struct)
