"""Both engines of the CPU on real graphs: the same logits, in the precision that was asked for, and clear refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tolerances import BACKEND_ABSOLUTE, FLOAT64_RELATIVE

from atrous.bundle import Bundle, stage_bundle
from atrous.errors import BundleError, EngineError
from atrous.manifest import Artifact
from atrous.runtime.backends import BACKENDS, Backend, backend_status, choose_artifact, cpu_backend, open_backend
from atrous.runtime.backends.onnxruntime import OnnxSession

ov = needs.OPENVINO.load("openvino")

ON_CPU = ("onnxruntime", "openvino")


@pytest.fixture(scope="module", params=ON_CPU)
def backend(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Backend:
    return open_backend(tiny_bundle, backend=request.param)


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def bundle_of(path: Path, source: Bundle, model: onnx.ModelProto | bytes, *, precision: str = "fp32") -> Bundle:
    """`source` with another graph, unseen by `pack`."""
    with stage_bundle(path) as staged:
        name = f"model.{precision}.onnx"
        (staged.path / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        artifact = staged.artifact(name, kind="onnx", precision=precision, provenance={})
        staged.write_manifest(dataclasses.replace(source.manifest, artifacts=(artifact,)))
    return Bundle.open(path)


def one_node(op: str, dtype: int, shape: list[int | str], **attributes: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["image"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def large_convolution(channels: int = 256) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """A 1×1 convolution with sums long enough that bfloat16 would show, and its weight [C, 3 · …]."""
    weight = np.random.default_rng(1).standard_normal((channels, 3, 1, 1)).astype(np.float32)
    back = np.random.default_rng(2).standard_normal((5, channels, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "a"], ["x"]), helper.make_node("Conv", ["x", "b"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, "H", "W"])],
        [onnx.numpy_helper.from_array(weight, "a"), onnx.numpy_helper.from_array(back, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model, (back[:, :, 0, 0].astype(np.float64) @ weight[:, :, 0, 0].astype(np.float64))


class TestInfer:
    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 64, 96), (2, 3, 40, 128), (8, 3, 32, 32)])
    def test_all_agree(self, tiny_bundle: Bundle, shape: tuple[int, ...]) -> None:
        batch = images(*shape)
        first, *others = (open_backend(tiny_bundle, backend=name).infer(batch) for name in ON_CPU)
        assert first.shape == (shape[0], 5, shape[2] // 8, shape[3] // 8)
        for other in others:
            assert other.shape == first.shape
            assert np.abs(first - other).max() <= BACKEND_ABSOLUTE

    def test_fp32_is_computed_in_fp32(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        """Near float64, where bfloat16 with its 8 bits would be 1e-3 away."""
        model, matrix = large_convolution()
        bundle = bundle_of(tmp_path / "x.atrous", tiny_bundle, model)
        batch = images(1, 3, 32, 32)
        expected = np.einsum("oc,nchw->nohw", matrix, batch.astype(np.float64))
        for name in ON_CPU:
            logits = open_backend(bundle, backend=name).infer(batch)
            assert np.abs(logits - expected).max() / np.abs(expected).max() <= FLOAT64_RELATIVE, name

    def test_openvino_says_that_it_runs_in_f32(self, tiny_bundle: Bundle) -> None:
        backend = open_backend(tiny_bundle, backend="openvino")
        backend.infer(images(1, 3, 32, 32))
        (compiled,) = backend._compiled.values()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
        executed = {
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in compiled.get_runtime_model().get_ops()
            if node.get_rt_info()["layerType"].astype(str) == "Convolution"
        }
        assert executed == {"f32"}

    def test_threads_of_one_inference(self, tiny_bundle: Bundle) -> None:
        backend = open_backend(tiny_bundle, backend="openvino", threads=1)
        backend.infer(images(1, 3, 32, 32))
        (compiled,) = backend._compiled.values()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1

    def test_openvino_keeps_the_last_few_shapes(self, tiny_bundle: Bundle) -> None:
        backend = open_backend(tiny_bundle, backend="openvino")
        shapes = [(1, 3, 32, 32 + 8 * index) for index in range(6)]
        for shape in shapes:
            backend.infer(images(*shape))
        assert list(backend._compiled) == shapes[-4:]
        backend.infer(images(*shapes[2]))
        assert list(backend._compiled) == [*shapes[3:], shapes[2]]

    def test_answers_are_not_overwritten_by_the_next(self, backend: Backend) -> None:
        first = backend.infer(images(1, 3, 32, 32))
        before = first.copy()
        backend.infer(-images(1, 3, 32, 32))
        np.testing.assert_array_equal(first, before)

    def test_inputs_are_not_changed(self, backend: Backend) -> None:
        batch = images(1, 3, 32, 32)
        backend.infer(batch)
        np.testing.assert_array_equal(batch, images(1, 3, 32, 32))

    @pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32)])
    def test_a_shape_that_the_graph_does_not_take(self, backend: Backend, shape: tuple[int, ...]) -> None:
        with pytest.raises(EngineError, match=r"failed.*on an input"):
            backend.infer(images(*shape))


class TestRefusals:
    @pytest.mark.parametrize("name", ON_CPU)
    @pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 50])
    def test_a_corrupt_graph(self, tiny_bundle: Bundle, tmp_path: Path, name: str, content: bytes) -> None:
        bundle = bundle_of(tmp_path / "x.atrous", tiny_bundle, content)
        with pytest.raises(EngineError, match=r"refuses.*model\.fp32\.onnx"):
            open_backend(bundle, backend=name)

    @pytest.mark.parametrize("name", ON_CPU)
    def test_a_changed_graph_is_never_given_to_the_engine(self, tiny_bundle: Bundle, tmp_path: Path, name: str) -> None:
        bundle = bundle_of(tmp_path / "x.atrous", tiny_bundle, b"x" * 100)
        (bundle.path / "model.fp32.onnx").write_bytes(b"y" * 100)
        with pytest.raises(BundleError, match="SHA-256"):
            open_backend(bundle, backend=name)

    @pytest.mark.parametrize("name", ON_CPU)
    @pytest.mark.parametrize(
        "model",
        [
            one_node("ArgMax", TensorProto.INT64, ["N", 1, "H", "W"], axis=1),
            one_node("Flatten", TensorProto.FLOAT, ["N", "M"]),
        ],
        ids=["int64", "two axes"],
    )
    def test_an_answer_that_is_no_logits(
        self, tiny_bundle: Bundle, tmp_path: Path, name: str, model: onnx.ModelProto
    ) -> None:
        backend = open_backend(bundle_of(tmp_path / "x.atrous", tiny_bundle, model), backend=name)
        with pytest.raises(EngineError, match=r"expected float32 logits \[N, C, h, w\]"):
            backend.infer(images(1, 3, 32, 32))

    def test_a_session_names_the_graph(self) -> None:
        with pytest.raises(EngineError, match=r"ONNX Runtime refuses there/it\.onnx"):
            OnnxSession(b"nonsense", name="there/it.onnx")


class TestChoice:
    @pytest.fixture
    def mixed(self, tiny_bundle: Bundle) -> Bundle:
        """Artifacts listed from coarse to fine, and one that no runtime backend loads."""
        artifacts = tuple(
            Artifact(kind, precision, f"{kind}.{precision}", "0" * 64, 0)
            for kind, precision in (("standalone", "fp32"), ("onnx", "int8"), ("onnx", "fp16"))
        )
        return Bundle(tiny_bundle.path, dataclasses.replace(tiny_bundle.manifest, artifacts=artifacts))

    @pytest.mark.parametrize(("precision", "file"), [("auto", "onnx.fp16"), ("int8", "onnx.int8")])
    def test_auto_is_the_most_precise_graph(self, mixed: Bundle, precision: str, file: str) -> None:
        assert choose_artifact(BACKENDS["openvino"], mixed, precision).file == file

    def test_a_precision_that_is_not_there_lists_what_is(self, mixed: Bundle) -> None:
        with pytest.raises(EngineError, match=r"no fp32 ONNX graph for the openvino backend; it has: int8, fp16"):
            choose_artifact(BACKENDS["openvino"], mixed, "fp32")
        empty = Bundle(mixed.path, dataclasses.replace(mixed.manifest, artifacts=()))
        with pytest.raises(EngineError, match=r"no ONNX graph.*it has: none"):
            choose_artifact(BACKENDS["openvino"], empty)

    def test_auto_opens_what_it_chooses(self, tiny_bundle: Bundle) -> None:
        backend = open_backend(tiny_bundle)
        assert (backend.name, backend.device) == (cpu_backend().name, "CPU")
        assert backend.artifact == tiny_bundle.find(kind="onnx")

    def test_status_names_every_backend_with_its_version(self) -> None:
        statuses = {status.name: status for status in backend_status()}
        assert set(statuses) == set(BACKENDS)
        assert statuses["openvino"].available
        assert ov.__version__.split("-")[0] in statuses["openvino"].detail

    def test_without_openvino_the_message_names_the_extra(self, tiny_bundle: Bundle) -> None:
        """In a process of its own, where openvino cannot be imported."""
        script = (
            "import sys\n"
            "sys.modules['openvino'] = None\n"
            "import importlib.util as util\n"
            "find = util.find_spec\n"
            "util.find_spec = lambda name, *rest: None if name == 'openvino' else find(name, *rest)\n"
            "import atrous, atrous.errors, atrous.runtime.backends as backends\n"
            f"path = {str(tiny_bundle.path)!r}\n"
            "print(atrous.load(path).backend.name)\n"
            "print(next(each for each in backends.backend_status() if each.name == 'openvino'))\n"
            "try:\n"
            "    atrous.load(path, backend='openvino')\n"
            "except atrous.errors.MissingDependencyError as exc:\n"
            "    print(exc, exc.extra)\n"
        )
        lines = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert lines[0] == "onnxruntime"
        assert "available=False" in lines[1]
        assert "pip install 'atrous[cpu]'" in lines[2]
        assert lines[2].endswith("cpu")
