"""The C++ runtime takes tuned graphs and bfloat16 where the Python runtime does, with the same labels."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from cpp_library import ARGUMENT, ENGINE, CppError, Library, SegmenterInfo
from needs import BF16, NO_BF16
from tiny_graphs import local_layers, make_bundle
from tuned_graphs import FILE, put_tuned

import atrous
from atrous.bundle import Bundle
from atrous.evidence import CpuKind
from atrous.runtime.backends.cpu import bf16_objection


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "tiny.atrous", local_layers(4, dilation=2), fixed=(64, 64))


def opened(library: Library, path: Path, **options: bytes) -> tuple[str, str]:
    """Artifact and precision that the library takes."""
    with library.segmenter(path, **options) as segment:
        info = SegmenterInfo()
        library.check(library.c.atrous_segmenter_get_info(segment.handle, ctypes.byref(info)))
        return info.artifact.decode(), info.precision.decode()


def test_takes_the_graph_tuned_for_this_cpu(library: Library, bundle: Bundle, photo: np.ndarray) -> None:
    assert opened(library, bundle.path) == ("model.fp32.onnx", "fp32")
    tuned = put_tuned(bundle, "openvino")
    assert opened(library, tuned.path) == (FILE, "fp32")
    image = photo[:60, :64]
    segmenter = atrous.load(tuned, backend="openvino")
    assert segmenter.backend.artifact.file == FILE
    with library.segmenter(tuned.path) as segment:
        assert (segment(image).labels == segmenter(image).labels).all()


@pytest.mark.parametrize(
    "elsewhere",
    [{"backend": "onnxruntime"}, {"version": "0.1"}, {"cpu": CpuKind("another", ())}, {"precision": "bf16"}],
    ids=lambda place: next(iter(place)),
)
def test_takes_the_canonical_graph_elsewhere(library: Library, bundle: Bundle, elsewhere: dict[str, object]) -> None:
    tuned = put_tuned(bundle, **{"backend": "openvino", **elsewhere})  # type: ignore[arg-type]
    assert opened(library, tuned.path) == ("model.fp32.onnx", "fp32")


@BF16.unless(bf16_objection() is None)
def test_bf16(library: Library, bundle: Bundle, photo: np.ndarray) -> None:
    assert opened(library, bundle.path, precision=b"bf16") == ("model.fp32.onnx", "bf16")
    image = photo[:60, :64]
    segmenter = atrous.load(bundle, backend="openvino", precision="bf16")
    with library.segmenter(bundle.path, precision=b"bf16") as segment:
        assert (segment(image).labels == segmenter(image).labels).all()
    tuned = put_tuned(bundle, "openvino", precision="bf16")
    assert opened(library, tuned.path, precision=b"bf16") == (FILE, "bf16")


@NO_BF16.unless(bf16_objection() is not None)
def test_without_bf16_it_is_an_error(library: Library, bundle: Bundle) -> None:
    with pytest.raises(CppError, match="this CPU has no bfloat16") as caught:
        opened(library, bundle.path, precision=b"bf16")
    assert caught.value.status == ENGINE


def test_an_unknown_precision_lists_what_is_known(library: Library, bundle: Bundle) -> None:
    with pytest.raises(CppError, match="expected auto, fp32, bf16, fp16 or int8") as caught:
        opened(library, bundle.path, precision=b"fp8")
    assert caught.value.status == ARGUMENT
