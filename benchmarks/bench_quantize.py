"""INT8 by atrous, ONNX Runtime and ModelOpt: seconds, memory against the number of pictures, accuracy, TensorRT-RTX.

ATROUS_CAMVID=PATH/TO/camvid python benchmarks/bench_quantize.py out/demo/street.atrous

Each tool observes the same prepared training pictures in a process of its own; every graph is then scored on the
validation set through the runtime, in ONNX Runtime on the CPU. ModelOpt gets an environment of its own on the first
run (2 GB); with `--modelopt ""` it is left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import onnx
import typer
from harness import RESULTS, write_report
from quantize_subject import Job
from rich.console import Console
from rich.progress import track

import atrous
from atrous.bundle import extend_bundle
from atrous.calibration.accuracy import Reference
from atrous.calibration.images import CalibrationImages
from atrous.errors import AtrousError
from atrous.exporter.activations.session import input_name

_VOID: Final = 11
_ROOT: Final = Path(__file__).parents[1]
_MODELOPT: Final = "nvidia-modelopt[onnx]==0.47.0"
_INT8_FILE: Final = "model.int8.onnx"


@dataclass(frozen=True)
class Subject:
    """One way to make an INT8 graph: a tool, its method, and whether weights have a scale per output channel."""

    tool: str
    method: str
    per_channel: bool = True

    def __str__(self) -> str:
        return f"{self.tool} {self.method}{'' if self.per_channel else ', per tensor'}"


SUBJECTS: Final = (
    *(Subject("atrous", method) for method in ("minmax", "percentile", "entropy", "mse")),
    Subject("atrous.quantize", "mse"),
    *(Subject("onnxruntime", method) for method in ("MinMax", "Percentile", "Entropy")),
    Subject("onnxruntime", "MinMax", per_channel=False),
    *(Subject("modelopt", method) for method in ("max", "entropy")),
)


def ensure_modelopt(folder: Path) -> Path:
    """The Python of an environment with ModelOpt, whose pins fit no other; made if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
        constraints = _ROOT / "constraints.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, _MODELOPT], check=True)
    return python


def prepare_pictures(bundle: atrous.Bundle, images: Path, most: int, folder: Path) -> list[tuple[Path, Path]]:
    """Training pictures in an order of chance, each with its `.npy`: as the network takes it."""
    pictures = CalibrationImages(images, bundle.manifest.input, max_images=most)
    found = []
    for index, (name, batch) in enumerate(pictures):
        found.append((Path(name), folder / f"{index:03d}.npy"))
        np.save(found[-1][1], batch)
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def quantize(subject: Subject, python: Path, job: Job) -> dict[str, Any]:
    """Run a job in a process of its own; what went wrong is a result too."""
    script = Path(__file__).with_name("quantize_subject.py")
    job = dataclasses.replace(job, tool=subject.tool, method=subject.method, per_channel=subject.per_channel)
    done = subprocess.run(
        [python, script, json.dumps(dataclasses.asdict(job))], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"failed": f"exit code {done.returncode}: {last[:200]}"}


def judge(graph: Path, bundle: atrous.Bundle, reference: Reference) -> dict[str, Any]:
    """Mean IoU in percent, agreement with FP32, number of Q/DQ pairs, and whether TensorRT-RTX makes an engine."""
    model = onnx.load(graph)
    accuracy = reference.compare(model).accuracy
    assert accuracy.int8 is not None
    return {
        "miou": round(accuracy.int8.miou * 100, 3),
        "drop": round(accuracy.drop, 3),
        "agreement": round(accuracy.agreement, 5),
        "activation_pairs": sum(node.op_type == "QuantizeLinear" for node in model.graph.node),
        "tensorrt_rtx": build(graph, bundle),
    }


def build(graph: Path, bundle: atrous.Bundle) -> str:
    """`builds`, or why TensorRT-RTX makes no engine for SM89 of the graph; no GPU is needed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.atrous"
        shutil.copytree(bundle.path, copy)
        with extend_bundle(atrous.Bundle.open(copy)) as staged:
            shutil.copy(graph, staged.path / _INT8_FILE)
            artifact = staged.artifact(_INT8_FILE, kind="onnx", precision="int8", provenance={})
            staged.write_manifest(bundle.manifest.with_artifact(artifact))
        try:
            atrous.build_engine(atrous.Bundle.open(copy), precision="int8", backend="tensorrt-rtx", sm=("89",))
        except AtrousError as exc:
            return " ".join(str(exc).split())[:400]
    return "builds"


def run_all(
    bundle: atrous.Bundle, camvid: Path, counts: Sequence[int], python_of: dict[str, Path], limit_gib: float, every: int
) -> Iterator[dict[str, Any]]:
    """All subjects on all numbers of pictures; of each, the graph from the most that it could take is judged."""
    validation = sorted((camvid / "val" / "images").glob("*.jpg"))[::every]
    reference = Reference(bundle, validation, masks=camvid / "val" / "masks", ignore=(_VOID,))
    artifact = bundle.find(kind="onnx", precision="fp32")
    if artifact is None:
        raise SystemExit(f"{bundle.path} has no FP32 graph")
    model = bundle.path_of(artifact)
    fp32 = reference.compare(onnx.load(model)).accuracy.fp32
    assert fp32 is not None
    yield {"subject": "FP32", "runs": {max(counts): {"miou": round(fp32.miou * 100, 3)}}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = prepare_pictures(bundle, camvid / "train" / "images", max(counts), folder)
        for subject in track([each for each in SUBJECTS if each.tool in python_of], "quantizing", transient=True):
            result, latest = folder / "result.onnx", folder / "latest.onnx"
            row: dict[str, Any] = {"subject": str(subject), "runs": {}}
            for count in counts:
                job = Job(
                    model=str(model),
                    data=tuple(str(prepared) for _, prepared in pictures[:count]),
                    input_name=input_name(onnx.load(model)),
                    result=str(result),
                    bundle=str(bundle.path),
                    pictures=tuple(str(picture) for picture, _ in pictures[:count]),
                    limit_gib=limit_gib,
                )
                run = row["runs"][count] = quantize(subject, python_of[subject.tool], job)
                if "failed" not in run:
                    result.replace(latest)
            done = [run for run in row["runs"].values() if "failed" not in run]
            if done:
                done[-1] |= judge(latest, bundle, reference)
            yield row


def markdown(rows: Sequence[dict[str, Any]], counts: Sequence[int]) -> str:
    """One table of everything; accuracy is that of the graph that was judged."""
    heads = [f"{what}, {count} pictures" for what in ("s", "MiB") for count in counts]
    lines = [
        f"| | mean IoU % | drop, points | labels as FP32 | {' | '.join(heads)} | activation pairs | TensorRT-RTX |",
        f"|---|{'---:|' * (3 + len(heads))}---:|---|",
    ]
    for row in rows:
        runs = [row["runs"].get(count, {}) for count in counts]
        best = next((run for run in reversed(runs) if "miou" in run), {})
        cells = [
            row["subject"],
            _cell(best, "miou", ".2f"),
            _cell(best, "drop", "+.2f"),
            _cell(best, "agreement", ".2%"),
            *(_cell(run, key, ".4g") for key in ("seconds", "peak_mib") for run in runs),
            _cell(best, "activation_pairs", "d"),
            "" if "tensorrt_rtx" not in best else "builds" if best["tensorrt_rtx"] == "builds" else "refuses",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(run: dict[str, Any], key: str, form: str) -> str:
    if "failed" in run:
        return "fails"
    return f"{run[key]:{form}}" if key in run else ""


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with CamVid's 11 classes; it is not changed.")],
    pictures: Annotated[list[int], typer.Option(help="Training pictures to observe; repeat for more.")] = [8, 32, 128],  # noqa: B006
    modelopt: Annotated[str, typer.Option(help="Environment with ModelOpt; empty to leave it out.")] = ".venv-modelopt",
    limit_gib: Annotated[float, typer.Option(help="Memory that one tool may take.")] = 12.0,
    every: Annotated[int, typer.Option(help="Score only each N-th validation picture.")] = 1,
    tool: Annotated[list[str], typer.Option(help="Only this tool; repeat for more.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "quantize.json",
) -> None:
    """Quantize with every tool, score every graph, print one table."""
    if "ATROUS_CAMVID" not in os.environ:
        raise SystemExit("ATROUS_CAMVID must name the folder with CamVid's train/ and val/")
    python = Path(sys.executable)
    python_of = dict.fromkeys(("atrous", "atrous.quantize", "onnxruntime"), python)
    if modelopt:
        python_of["modelopt"] = ensure_modelopt(Path(modelopt))
    python_of = {name: each for name, each in python_of.items() if name in (tool or python_of)}
    counts = sorted(pictures)
    rows = []
    console = Console()
    for row in run_all(
        atrous.Bundle.open(bundle), Path(os.environ["ATROUS_CAMVID"]), counts, python_of, limit_gib, every
    ):
        rows.append(row)
        console.print_json(data=row)
    write_report(
        out,
        packages=["numpy", "onnx", "onnxruntime", "tensorrt-rtx-cu13"],
        bundle=bundle.name,
        limit_gib=limit_gib,
        every=every,
        rows=rows,
    )
    console.print(markdown(rows, counts), soft_wrap=True, markup=False)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
