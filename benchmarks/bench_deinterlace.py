"""Time atrous convolution in both forms, dilated and deinterlaced, rate by rate and backend by backend.

    python benchmarks/bench_deinterlace.py --channels 256 --size 65 65

One 3×3 convolution as in the ASPP of DeepLabv3: [1, C, H, W] → [1, C, H, W]. Before anything is timed, both forms are
compared; the two are then run alternately, so that whatever else the machine does hits both. FP32 on the CPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import typer
from harness import RESULTS, time_in_turns, write_report
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes

RATES = (2, 4, 6, 8, 12, 18, 24, 36)
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
    times = time_in_turns({form: partial(run, x) for form, run in forms.items()}, warmup=warmup, repeats=repeats)
    speedup = times["dilated"]["median_ms"] / times["deinterlaced"]["median_ms"]
    return {"max_relative_difference": difference, **times, "speedup": round(speedup, 3)}


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
    packages = ["numpy", "onnx", *backends()]
    write_report(
        out,
        packages=packages,
        input=[1, channels, *size],
        kernel=[3, 3],
        depthwise=depthwise,
        precision="fp32",
        repeats=repeats,
        rows=rows,
    )
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
