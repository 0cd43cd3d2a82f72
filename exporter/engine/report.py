"""What is in an engine: its layers, in which precision they read, and the memory that it takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: A line of TensorRT's description of an engine, as its inspector and the builder's log give it.
_LAYER: Final = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*)", re.DOTALL)
_DATATYPE: Final = re.compile(r"[Dd]ata[Tt]ype: (\w+)")
_ONNX_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_MEMORY: Final = re.compile(r"^Total (?P<what>\w[\w ]*) Memory: (?P<bytes>\d+) bytes$")
_HEADER: Final = "Layers:\n"


@dataclass(frozen=True)
class EngineLayer:
    """One step of an engine: a kernel, or several nodes of the graph fused into one.

    Attributes:
        kind: TensorRT's word for it.
        reads: the data types of its inputs, in order; empty for steps that only synchronize.
        writes: those of its outputs.
        nodes: the ONNX nodes that it computes.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class EngineReport:
    """What TensorRT says of an engine.

    Attributes:
        layers: in the order in which they run; empty where TensorRT does not tell.
        memory_bytes: of `activation`, `weights` and whatever else it names.
    """

    layers: tuple[EngineLayer, ...]
    memory_bytes: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """How many layers read which data type first, and the memory; JSON values."""
        reading = Counter(layer.reads[0] for layer in self.layers if layer.reads)
        return {
            "layers": sum(reading.values()),
            "reading": dict(reading.most_common()),
            "memory_bytes": self.memory_bytes,
        }


def report_from_log(texts: Sequence[str]) -> EngineReport:
    """From the messages of a build with detailed profiling, verbose ones included."""
    described = [text for text in texts if text.startswith(_HEADER)]
    memory = {}
    for match in filter(None, map(_MEMORY.match, texts)):
        memory["_".join(match["what"].lower().split())] = int(match["bytes"])
    return EngineReport(_layers(described[-1].splitlines() if described else ()), memory)


def report_from_inspector(description: str, *, activation_bytes: int) -> EngineReport:
    """From the one-line-a-layer description of an engine that was loaded."""
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
