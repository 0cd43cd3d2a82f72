"""A graph in ONNX Runtime that gives out the values inside it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ..errors import EngineError
from ..runtime.backends.onnxruntime import import_onnxruntime, session_errors, session_options
from .verify import FloatArray


def input_name(graph: onnx.ModelProto) -> str:
    """The name of the graph's image input: the first that is not a weight."""
    initializers = {tensor.name for tensor in graph.graph.initializer}
    name: str = next(value.name for value in graph.graph.input if value.name not in initializers)
    return name


class ActivationSession:
    """A graph with float32 values of its inside as its outputs, on the CPU.

    Memory is that of the model and, while `run` runs and its results live, of the activations of one input.

    Args:
        graph: the model.
        names: the values wanted, which nodes outside subgraphs make; the image input may be among them.

    Raises:
        EngineError: the graph has no such value, or ONNX Runtime refuses it.
    """

    def __init__(self, graph: onnx.ModelProto, names: Sequence[str]) -> None:
        self._input = input_name(graph)
        self._names = tuple(dict.fromkeys(names))
        made = {output for node in graph.graph.node for output in node.output}
        unknown = [name for name in self._names if name not in made and name != self._input]
        if unknown:
            raise EngineError(f"the graph has no value called {unknown[0]!r} to observe. Is the name of another graph?")
        observed = onnx.ModelProto()
        observed.CopyFrom(graph)
        del observed.graph.output[:]
        self._outputs = [name for name in self._names if name != self._input]
        observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._outputs)
        for output in observed.graph.output:
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        options = session_options()
        # Its arena keeps what one input took for the next: without it, an input took 87 ms instead of 51
        # for clearing new pages (the demo's network, 59 outputs). Plans by input size would lay each size out anew.
        options.enable_mem_pattern = False
        # Its threads would hold the cores while the caller looks at what came out.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with session_errors("refuses the graph with its activations as outputs"):
            self._session = import_onnxruntime().InferenceSession(
                observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )

    def run(self, batch: FloatArray) -> dict[str, FloatArray]:
        """The wanted values, in the order asked for, for prepared pictures [N, 3, H, W].

        Raises:
            EngineError: ONNX Runtime fails on them.
        """
        with session_errors(f"failed on an input {list(batch.shape)}"):
            results = self._session.run(self._outputs, {self._input: batch}) if self._outputs else []
        values = dict(zip(self._outputs, results, strict=True))
        return {name: values.get(name, batch) for name in self._names}
