"""What observing activations costs: peak memory by the number of pictures, and time beside a plain inference.

ATROUS_CAMVID=PATH/TO/camvid python benchmarks/bench_calibration.py out/demo/street.atrous

The plain inference is ONNX Runtime with its default options and all observed activations as outputs, on pictures that
are prepared already; observing includes reading and preparing them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import typer
from harness import RESULTS, summarize, write_report
from rich.console import Console
from rich.table import Table

from atrous.bundle import Bundle
from atrous.calibration.activation_histograms import collect_histograms
from atrous.calibration.images import CalibrationImages
from atrous.calibration.thresholds import choose_amax
from atrous.exporter.activations.session import input_name

_KIB_PER_MIB = 1 << 10
_WARMUP = 1
_REST_S = 0.5  # after an inference ONNX Runtime's threads look for more of them for a while


def open_graph(bundle: Bundle) -> tuple[onnx.ModelProto, list[str]]:
    """The FP32 graph and the inputs of all its convolutions, without the picture itself."""
    artifact = bundle.find(kind="onnx", precision="fp32")
    if artifact is None:
        raise SystemExit(f"{bundle.path} has no FP32 graph")
    graph = onnx.load_from_string(bundle.read(artifact))
    inputs = dict.fromkeys(node.input[0] for node in graph.graph.node if node.op_type == "Conv")
    return graph, [name for name in inputs if name != input_name(graph)]


def choose_pictures(bundle: Bundle, folder: Path, count: int) -> CalibrationImages:
    """`count` pictures of the training set."""
    return CalibrationImages(folder / "train" / "images", bundle.manifest.input, max_images=count)


def peak_mib(path: Path, folder: Path, count: int) -> tuple[float, float]:
    """Peak resident memory of this process in MiB, before and after observing `count` pictures."""
    bundle = Bundle.open(path)
    graph, tensors = open_graph(bundle)
    before = _peak_mib()
    collect_histograms(graph, tensors, choose_pictures(bundle, folder, count))
    return before, _peak_mib()


def _peak_mib() -> float:
    # Not `ru_maxrss`, which begins with the peak of the process that started this one.
    return int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / _KIB_PER_MIB


def open_plain(graph: onnx.ModelProto, tensors: list[str]) -> onnxruntime.InferenceSession:
    """ONNX Runtime as it comes, with the tensors as outputs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(graph)
    del observed.graph.output[:]
    for name in tensors:
        observed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])


def time_beside_plain(bundle: Bundle, pictures: CalibrationImages, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a picture: reading it, a plain inference, and reading and observing it; whole passes in turns."""
    graph, tensors = open_graph(bundle)
    plain = open_plain(graph, tensors)
    source = input_name(graph)
    times: dict[str, list[float]] = {"read": [], "plain": [], "observe": []}
    prepared = list(pictures)
    largest = np.zeros(len(tensors))
    for _ in range(_WARMUP + rounds):
        start = time.perf_counter()
        for _ in pictures:
            pass
        times["read"].append(time.perf_counter() - start)
        inferring = 0.0
        for _, batch in prepared:
            start = time.perf_counter()
            results = plain.run(tensors, {source: batch})
            inferring += time.perf_counter() - start
            np.maximum(largest, [np.abs(result).max() for result in results], out=largest)
            del results
        times["plain"].append(inferring)
        time.sleep(_REST_S)
        start = time.perf_counter()
        histograms = collect_histograms(graph, tensors, pictures)
        times["observe"].append(time.perf_counter() - start)
    # Other options, other kernels: the last bits may differ.
    np.testing.assert_allclose([each.max_abs for each in histograms.values()], largest, rtol=1e-4)
    start = time.perf_counter()
    for histogram in histograms.values():
        choose_amax(histogram, "mse")
    choosing = (time.perf_counter() - start) * 1e3
    times = {name: [seconds * 1e3 / len(prepared) for seconds in samples] for name, samples in times.items()}
    return times | {"choose": [choosing]}


def main(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle with an FP32 graph; it is not changed.")],
    counts: Annotated[str, typer.Option(help="Numbers of pictures, for the memory.")] = "8,32,128",
    timed: Annotated[int, typer.Option(help="Pictures of a timed pass.")] = 24,
    rounds: Annotated[int, typer.Option(help="Passes of each kind, in turns.")] = 15,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "calibration.json",
) -> None:
    """Measure peak memory in a process of its own for each number of pictures, then times in turns."""
    if "ATROUS_CAMVID" not in os.environ:
        raise SystemExit("ATROUS_CAMVID must name the folder with CamVid's train/ and val/")
    camvid = Path(os.environ["ATROUS_CAMVID"])
    memory = {}
    for count in map(int, counts.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            before, peak = process.apply(peak_mib, (path, camvid, count))
        memory[count] = {"before_mib": round(before, 1), "peak_mib": round(peak, 1)}
    bundle = Bundle.open(path)
    samples = time_beside_plain(bundle, choose_pictures(bundle, camvid, timed), rounds)
    choosing_ms = round(samples.pop("choose")[0], 3)
    times = {name: summarize(each[_WARMUP:]) for name, each in samples.items()}
    ratio = times["observe"]["median_ms"] / times["plain"]["median_ms"]
    table = Table("", "median ms", "quartiles")
    for name, each in times.items():
        table.add_row(name, f"{each['median_ms']:.1f}", "–".join(f"{quartile:.1f}" for quartile in each["iqr_ms"]))
    console = Console()
    console.print(table)
    console.print(
        f"Reading and observing take {ratio:.2f} times a plain inference; all thresholds, {choosing_ms:.0f} ms"
    )
    for count, each in memory.items():
        console.print(f"{count} pictures: {each['peak_mib']} MiB")
    tensors = len(open_graph(bundle)[1])
    write_report(
        out,
        packages=["numpy", "onnxruntime"],
        bundle=bundle.path.name,
        tensors=tensors,
        pictures=timed,
        memory=memory,
        times=times,
        ratio=round(ratio, 3),
        choosing_ms=choosing_ms,
    )
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
