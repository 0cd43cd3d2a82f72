"""Report of an engine: its layers, the data types that they read, and its memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: A line of TensorRT's description of an engine, in the inspector's output and the builder's log.
_LAYER: Final = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*)", re.DOTALL)
_DATATYPE: Final = re.compile(r"[Dd]ata[Tt]ype: (\w+)")
_ONNX_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_MEMORY: Final = re.compile(r"^Total (?P<what>\w[\w ]*) Memory: (?P<bytes>\d+) bytes$")
_HEADER: Final = "Layers:\n"


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: a kernel, which may fuse several nodes of the graph.

    Attributes:
        kind: TensorRT's layer type.
        reads: data types of its inputs, in order; empty for layers that only synchronize.
        writes: data types of its outputs.
        nodes: ONNX nodes that it computes.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class EngineReport:
    """Layers and memory of an engine, according to TensorRT.

    Attributes:
        layers: in execution order; empty if TensorRT does not report them.
        memory_bytes: bytes by kind: `activation`, `weights` and others.
    """

    layers: tuple[EngineLayer, ...]
    memory_bytes: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """Number of layers by the data type of their first input, and the memory, as JSON values."""
        reading = Counter(layer.reads[0] for layer in self.layers if layer.reads)
        return {
            "layers": sum(reading.values()),
            "reading": dict(reading.most_common()),
            "memory_bytes": self.memory_bytes,
        }


def report_from_log(texts: Sequence[str]) -> EngineReport:
    """Parse the messages of a build with detailed profiling verbosity."""
    described = [text for text in texts if text.startswith(_HEADER)]
    memory = {}
    for match in filter(None, map(_MEMORY.match, texts)):
        memory["_".join(match["what"].lower().split())] = int(match["bytes"])
    return EngineReport(_layers(described[-1].splitlines() if described else ()), memory)


def report_from_inspector(description: str, *, activation_bytes: int) -> EngineReport:
    """Parse the inspector's one-line-per-layer description of a deserialized engine."""
    return EngineReport(_layers(description.splitlines()), {"activation": activation_bytes})


def _layers(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    layers = []
    for match in filter(None, map(_LAYER.match, lines)):
        inputs, _, rest = match["inputs"].partition("], Outputs: [")
        outputs = rest.partition(", TacticName: ")[0]
        layers.append(
            EngineLayer(
                match["name"],
                match["type"],
                tuple(_DATATYPE.findall(inputs.partition("], Constants: [")[0])),
                tuple(_DATATYPE.findall(outputs)),
                tuple(_ONNX_NODE.findall(rest)),
            )
        )
    return tuple(layers)
