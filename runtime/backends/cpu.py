"""Kind of the CPU at hand, and FP32 graphs computed in its bfloat16."""

from __future__ import annotations

import dataclasses
from typing import Final

from ..._native import cpu_has_bf16, cpu_kind
from ...bundle import Bundle
from ...evidence import CpuKind
from ...manifest import Artifact, Verification

#: Instruction sets with products in bfloat16, one of which is needed.
_BF16_FLAGS: Final = "avx512_bf16 or amx_bf16"


def this_cpu() -> CpuKind:
    """Kind of the CPU that this process runs on."""
    return CpuKind(*cpu_kind())


def bf16_objection() -> str | None:
    """Why this CPU does not compute in bfloat16, or None; emulated, it would be slower than FP32."""
    if cpu_has_bf16():
        return None
    return f"this CPU has no bfloat16 (it needs {_BF16_FLAGS}): {this_cpu()}"


def in_bf16(artifact: Artifact) -> Artifact:
    """An FP32 graph as it runs in bfloat16: the same file, whose products are of operands rounded to 8 bits."""
    return dataclasses.replace(artifact, precision="bf16")


def bf16_name(file: str, backend: str) -> str:
    """Name in records of a graph that runs in bfloat16."""
    return f"{file} in {backend} (CPU), bf16"


def bf16_evidence(bundle: Bundle, backend: str) -> Verification | None:
    """The record that bfloat16 keeps the labels of the FP32 graph on this kind of CPU, or None."""
    graph = bundle.find(kind="onnx", precision="fp32")
    if graph is None:
        return None
    name, cpu = bf16_name(graph.file, backend), this_cpu()
    for check in bundle.manifest.verification:
        if check.artifact == name and check.cpu == cpu and check.passed:
            return check
    return None
