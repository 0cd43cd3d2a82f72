"""Time atrous convolution in both forms, dilated and deinterlaced, rate by rate and backend by backend.

    python benchmarks/bench_deinterlace.py --channels 256 --size 65 65

One 3×3 convolution as in the ASPP of DeepLabv3: [1, C, H, W] → [1, C, H, W]. Before anything is timed, both forms are
compared; the two are then run alternately, so that whatever else the machine does hits both. FP32 on the CPU.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import typer
from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

RATES = (2, 4, 6, 8, 12, 18, 24, 36)
RESULTS = Path(__file__).parent / "results"
_MAX_RELATIVE_DIFFERENCE = 1e-5

Float32Array = npt.NDArray[np.float32]
Run = Callable[[Float32Array], Float32Array]


def dilated_model(rate: int, channels: int, size: tuple[int, int], *, depthwise: bool) -> onnx.ModelProto:
    """One 3×3 convolution of `rate` that keeps the size, with weights from a fixed seed."""
    groups = channels if depthwise else 1
    weight = np.random.default_rng(0).standard_normal((channels, channels // groups, 3, 3), np.float32)
    conv = helper.make_node(
        "Conv", ["x", "weight"], ["y"], name="conv", dilations=[rate] * 2, pads=[rate] * 4, group=groups
    )
    shape = [1, channels, *size]
    graph = helper.make_graph(
        [conv],
        "atrous_convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _onnxruntime(model: onnx.ModelProto) -> Run:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def _openvino(model: onnx.ModelProto) -> Run:
    import openvino

    core = openvino.Core()
    # Without the hint, a CPU with bf16 units computes in bf16.
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"},
    )
    return lambda x: compiled(x)[0]


def backends() -> dict[str, Callable[[onnx.ModelProto], Run]]:
    """What is installed."""
    found = {"onnxruntime": _onnxruntime}
    if importlib.util.find_spec("openvino"):
        found["openvino"] = _openvino
    return found


def compare(forms: dict[str, Run], x: Float32Array, *, warmup: int, repeats: int) -> dict[str, Any]:
    """Checks that both forms agree, then times them in turns: median and quartiles in milliseconds."""
    dilated, deinterlaced = (run(x) for run in forms.values())
    difference = float(np.abs(dilated - deinterlaced).max() / np.abs(dilated).max())
    if difference > _MAX_RELATIVE_DIFFERENCE:
        raise SystemExit(f"The forms differ by {difference:.1e} (relative); nothing was timed.")
    latencies_ms: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(warmup + repeats):
        for form, run in forms.items():
            start = time.perf_counter()
            run(x)
            latencies_ms[form].append((time.perf_counter() - start) * 1e3)
    quartiles = {form: np.percentile(times[warmup:], [25, 50, 75]) for form, times in latencies_ms.items()}
    return {
        "max_relative_difference": difference,
        **{form: {"median_ms": q[1], "iqr_ms": [q[0], q[2]]} for form, q in quartiles.items()},
        "speedup": quartiles["dilated"][1] / quartiles["deinterlaced"][1],
    }


def describe_machine() -> dict[str, object]:
    """What the numbers depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent, check=False
    )
    packages = ["numpy", "onnx", "onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
    return {
        "commit": commit.stdout.strip(),
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Median milliseconds of both forms; a speed-up above 1 means that deinterlaced is faster."""
    table = Table("backend", "rate", "dilated ms", "deinterlaced ms", "speed-up")
    for row in rows:
        medians = [f"{row[form]['median_ms']:.2f}" for form in ("dilated", "deinterlaced")]
        table.add_row(str(row["backend"]), str(row["rate"]), *medians, f"{row['speedup']:.2f}")
    console.print(table)


def main(
    channels: Annotated[int, typer.Option(help="Input and output channels.")] = 256,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width; 513 pixels at stride 8 are 65.")] = (65, 65),
    depthwise: Annotated[bool, typer.Option(help="One group a channel, as in DeepLabv3+.")] = False,
    warmup: Annotated[int, typer.Option(min=1)] = 3,
    repeats: Annotated[int, typer.Option(min=3)] = 30,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "deinterlace.json",
) -> None:
    """Time both forms of atrous convolution on every installed backend."""
    console = Console()
    x = np.random.default_rng(1).standard_normal((1, channels, *size), np.float32)
    rows: list[dict[str, Any]] = []
    for rate in track(RATES, "rates", console=console, transient=True):
        dilated = dilated_model(rate, channels, size, depthwise=depthwise)
        models = {"dilated": dilated, "deinterlaced": run_passes(dilated, [DeinterlaceAtrousConv()])}
        for backend, load in backends().items():
            forms = {form: load(model) for form, model in models.items()}
            rows.append({"backend": backend, "rate": rate, **compare(forms, x, warmup=warmup, repeats=repeats)})
    print_table(rows, console)
    report = {
        "benchmark": "deinterlace",
        "command": " ".join(["python", "benchmarks/bench_deinterlace.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "input": [1, channels, *size],
        "kernel": [3, 3],
        "depthwise": depthwise,
        "precision": "fp32",
        "repeats": repeats,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
