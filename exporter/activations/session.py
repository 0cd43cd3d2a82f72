"""ONNX Runtime session that returns intermediate values of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ...arrays import FloatArray
from ...errors import EngineError
from ...runtime.backends.onnxruntime import import_onnxruntime, session_errors, session_options


def input_name(graph: onnx.ModelProto) -> str:
    """Name of the graph's image input: the first input that is not a weight."""
    initializers = {tensor.name for tensor in graph.graph.initializer}
    name: str = next(value.name for value in graph.graph.input if value.name not in initializers)
    return name


class ActivationSession:
    """CPU session whose outputs are chosen float32 values of a graph.

    Memory holds the model and, during `run` and as long as its results live, the activations of one input.

    Args:
        graph: the model.
        names: values to return, produced by nodes outside subgraphs; may include the image input.

    Raises:
        EngineError: the graph lacks a value, or ONNX Runtime rejects the graph.
    """

    def __init__(self, graph: onnx.ModelProto, names: Sequence[str]) -> None:
        self._input = input_name(graph)
        self._names = tuple(dict.fromkeys(names))
        made = {output for node in graph.graph.node for output in node.output}
        unknown = [name for name in self._names if name not in made and name != self._input]
        if unknown:
            raise EngineError(
                f"the graph has no value {unknown[0]!r} to observe. Does the name belong to another graph?"
            )
        observed = onnx.ModelProto()
        observed.CopyFrom(graph)
        del observed.graph.output[:]
        self._outputs = [name for name in self._names if name != self._input]
        observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._outputs)
        for output in observed.graph.output:
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        options = session_options()
        # The arena keeps memory between inputs: without it, clearing new pages made an input take 87 ms instead of 51
        # (demo network, 59 outputs). Memory patterns would plan the layout again for every input size.
        options.enable_mem_pattern = False
        # Otherwise its threads keep spinning on the cores while the caller works on the results.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with session_errors("rejects the graph with its activations as outputs"):
            self._session = import_onnxruntime().InferenceSession(
                observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )

    def run(self, batch: FloatArray) -> dict[str, FloatArray]:
        """Return name → value for preprocessed images [N, 3, H, W] float32, in the order of `names`.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        with session_errors(f"failed on an input {list(batch.shape)}"):
            results = self._session.run(self._outputs, {self._input: batch}) if self._outputs else []
        values = dict(zip(self._outputs, results, strict=True))
        return {name: values.get(name, batch) for name in self._names}
