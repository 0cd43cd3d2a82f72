"""One quantization by one tool in a process of its own; `bench_quantize.py` starts it, also in another environment.

python benchmarks/quantize_subject.py '{"tool": "onnxruntime", "method": "MinMax", …}'

The answer is one line of JSON: seconds, without imports, and the peak of resident memory, with them.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        model: the FP32 graph.
        data: prepared pictures [1, 3, H, W] float32, one `.npy` each.
        input_name: of the graph.
        result: where the quantized graph goes.
        bundle: the folder that the graph is in, for tools that work on one.
        pictures: files of the same pictures, for tools that prepare them.
        tool: a key of `TOOLS`.
        method: as the tool calls it.
        per_channel: scales of weights by output channel; where the tool leaves the choice.
        limit_gib: memory that the process may take.
    """

    model: str
    data: tuple[str, ...]
    input_name: str
    result: str
    bundle: str = ""
    pictures: tuple[str, ...] = ()
    tool: str = ""
    method: str = ""
    per_channel: bool = True
    limit_gib: float = 12.0


def batches(job: Job) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Pictures as a tool that streams would read them: one in memory."""
    for path in job.data:
        yield {job.input_name: np.load(path)}


def prepare_atrous(job: Job) -> Callable[[], None]:
    """Histograms, thresholds and Q/DQ, without verification and sensitivity, which the others do not have."""
    import onnx

    from atrous.calibration.activation_histograms import collect_histograms
    from atrous.calibration.plan import plan_quantization
    from atrous.calibration.qdq import quantize_graph
    from atrous.calibration.thresholds import choose_amax

    def run() -> None:
        graph = onnx.load(job.model)
        plan = plan_quantization(graph)
        pictures = ((path, np.load(path)) for path in job.data)
        histograms = collect_histograms(graph, plan.tensors, pictures)
        amax = {name: choose_amax(histogram, job.method) for name, histogram in histograms.items()}
        onnx.save(quantize_graph(graph, plan, amax), job.result)

    return run


def prepare_whole(job: Job) -> Callable[[], None]:
    """`atrous.quantize`: besides the above it decodes, verifies, measures every layer, compares and reports."""
    import atrous
    from atrous.calibration.quantize import INT8_FILE, quantize

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.atrous"
            shutil.copytree(job.bundle, copy)
            quantize(atrous.Bundle.open(copy), images=job.pictures, method=job.method, max_images=len(job.pictures))
            shutil.copy(copy / INT8_FILE, job.result)

    return run


def prepare_onnxruntime(job: Job) -> Callable[[], None]:
    """`quantize_static`, set up for TensorRT: symmetric INT8 Q/DQ, biases as they are, after `quant_pre_process`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = batches(job)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            # Its symbolic shape inference, made for transformers, gives up on networks for any size.
            quant_pre_process(job.model, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                job.result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=job.per_channel,
                calibrate_method=CalibrationMethod[job.method],
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )

    return run


def prepare_modelopt(job: Job) -> Callable[[], None]:
    """ModelOpt's PTQ of ONNX on the CPU; its FP16 for the rest is left out, as the other graphs are judged in FP32."""
    from modelopt.onnx.quantization import quantize
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

        def get_first(self) -> dict[str, NDArray[np.float32]]:
            return next(batches(job))

        def rewind(self) -> None:
            self._batches = batches(job)

    def run() -> None:
        quantize(
            job.model,
            quantize_mode="int8",
            calibration_data_reader=Reader(),
            calibration_method=job.method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=job.result,
        )

    return run


TOOLS = {
    "atrous": (prepare_atrous, "atrous"),
    "atrous.quantize": (prepare_whole, "atrous"),
    "onnxruntime": (prepare_onnxruntime, "onnxruntime"),
    "modelopt": (prepare_modelopt, "nvidia-modelopt"),
}


def peak_mib() -> float:
    """The most resident memory that this program ever had; `ru_maxrss` would begin with that of who started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def main(text: str) -> dict[str, Any]:
    """Do one job; an error is an answer too."""
    job = Job(**json.loads(text))
    limit = int(job.limit_gib * 2**30)
    # Data, not address space: libraries reserve much more of that than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    prepare, package = TOOLS[job.tool]
    run = prepare(job)
    before_mib = peak_mib()
    start = time.perf_counter()
    try:
        run()
    except Exception as exc:
        return {"failed": f"{type(exc).__name__}: {str(exc).splitlines()[0][:200] if str(exc) else ''}"}
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "peak_mib": round(peak_mib()),
        "imports_mib": round(before_mib),
        "version": importlib.metadata.version(package),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
