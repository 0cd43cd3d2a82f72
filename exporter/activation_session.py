"""A graph in ONNX Runtime that gives out the values inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from ..errors import EngineError
from .verify import FloatArray


def input_name(graph: onnx.ModelProto) -> str:
    """The name of the graph's image input: the first that is not a weight."""
    initializers = {tensor.name for tensor in graph.graph.initializer}
    name: str = next(value.name for value in graph.graph.input if value.name not in initializers)
    return name


class ActivationSession:
    """A graph with float32 values of its inside as its outputs, on the CPU.

    Memory is that of the model and of the activations of one input: inputs of one shape write theirs to the same place.
    For one thread at a time.

    Args:
        graph: the model.
        names: the values wanted, which nodes outside subgraphs make; the image input may be among them.

    Raises:
        EngineError: the graph has no such value, or ONNX Runtime refuses it.
    """

    def __init__(self, graph: onnx.ModelProto, names: Sequence[str]) -> None:
        import onnxruntime as ort

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
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: they come back as exceptions
        # Its arena would keep the largest input's activations a second time; plans for sizes seen before, made for the
        # arena, cost without it twice the time.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        # Its threads would hold the cores while the caller looks at what came out.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime refuses the graph with its activations as outputs: {exc}") from exc
        self._values: dict[str, FloatArray] = {}
        self._shape: tuple[int, ...] | None = None
        self._binding: Any = None

    def run(self, batch: FloatArray) -> dict[str, FloatArray]:
        """The wanted values, in the order asked for, for prepared pictures [N, 3, H, W]; the next call overwrites them.

        Raises:
            EngineError: ONNX Runtime fails on them.
        """
        try:
            if batch.shape == self._shape:
                self._binding.bind_cpu_input(self._input, batch)
                self._session.run_with_iobinding(self._binding)
            elif self._outputs:
                self._run_first(batch)
        except Exception as exc:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime failed on an input {list(batch.shape)}: {exc}") from exc
        return {name: self._values.get(name, batch) for name in self._names}

    def _run_first(self, batch: FloatArray) -> None:
        """Let ONNX Runtime allocate the values, and bind them as the outputs of whatever has the same shape.

        New memory for every input, of which the system clears each page, took as long as the graph itself.
        """
        self._shape, self._binding, self._values = None, None, {}
        results = self._session.run(self._outputs, {self._input: batch})
        self._values = dict(zip(self._outputs, results, strict=True))
        self._binding = self._session.io_binding()
        for name, value in self._values.items():
            self._binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        self._shape = batch.shape
