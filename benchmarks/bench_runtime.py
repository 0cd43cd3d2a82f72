"""Time a picture through the runtime, stage by stage and backend by backend, beside PyTorch.

    python benchmarks/bench_runtime.py --arch deeplabv3plus_efficientnet_lite0 --size 368 480

Exports the architecture with seeded weights to a temporary bundle. All contenders get the same picture as uint8 and
give full-size labels; the labels are compared before anything is timed, and the contenders take turns. PyTorch does
the same steps with its own operators, in channels_last.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from harness import RESULTS, summarize, write_report
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn import functional

import atrous
from atrous.exporter.models import create_model, find_architecture
from atrous.manifest import InputSpec
from atrous.runtime.preprocess import plan_geometry

STAGES = ("preprocess", "inference", "postprocess")
_CLASSES = 21
#: Share of labels that may differ: positions where two classes tie within rounding.
_MAX_DISAGREEMENT = 1e-3

Picture = npt.NDArray[np.uint8]
#: Labels and milliseconds by stage.
Contender = Callable[[Picture], tuple[Picture, dict[str, float]]]


def export_seeded(arch: str, size: tuple[int, int], folder: Path) -> tuple[nn.Module, atrous.Bundle]:
    """A model with seeded weights, and its bundle."""
    torch.manual_seed(0)
    architecture = find_architecture(arch)
    model = create_model(arch, num_classes=_CLASSES).eval()
    bundle = atrous.export(
        model,
        folder / "model.atrous",
        classes=[f"class {index}" for index in range(_CLASSES)],
        size=size,
        preprocessing=atrous.Preprocessing(architecture.normalization),
        align_corners=architecture.align_corners,
    )
    return model, bundle


def with_runtime(bundle: atrous.Bundle, backend: str, threads: int) -> Contender:
    """This package with one backend."""
    segmenter = atrous.load(bundle.path, backend=backend, threads=threads)

    def run(picture: Picture) -> tuple[Picture, dict[str, float]]:
        result = segmenter(picture)
        return result.labels, dict(result.timings_ms)

    return run


def with_torch(model: nn.Module, bundle: atrous.Bundle) -> Contender:
    """PyTorch eager, channels_last, the same arithmetic from pixels to labels."""
    inputs: InputSpec = bundle.manifest.input
    align_corners = bundle.manifest.output.align_corners
    model = model.to(memory_format=torch.channels_last)
    mean = torch.tensor(inputs.mean).view(3, 1, 1) / inputs.scale
    std = torch.tensor(inputs.std).view(3, 1, 1) / inputs.scale

    @torch.inference_mode()
    def run(picture: Picture) -> tuple[Picture, dict[str, float]]:
        start = time.perf_counter()
        height, width = picture.shape[:2]
        geometry = plan_geometry((height, width), inputs)
        pixels = torch.from_numpy(picture).permute(2, 0, 1).float()
        if inputs.color_order == "BGR":
            pixels = pixels.flip(0)
        padding = (0, geometry.input_size[1] - width, 0, geometry.input_size[0] - height)
        prepared = functional.pad((pixels - mean) / std, padding)[None].to(memory_format=torch.channels_last)
        ready = time.perf_counter()
        logits = model(prepared)
        inferred = time.perf_counter()
        full = functional.interpolate(logits, size=geometry.input_size, mode="bilinear", align_corners=align_corners)
        labels = full[0, :, :height, :width].argmax(0).to(torch.uint8).numpy()
        done = time.perf_counter()
        stamps = (start, ready, inferred, done)
        return labels, {
            stage: (after - before) * 1e3 for stage, before, after in zip(STAGES, stamps, stamps[1:], strict=False)
        }

    return run


def measure(contenders: dict[str, Contender], picture: Picture, *, warmup: int, repeats: int) -> list[dict[str, Any]]:
    """Compare labels, then time all in turns."""
    expected, _ = contenders["torch"](picture)
    agreement = {name: float((run(picture)[0] == expected).mean()) for name, run in contenders.items()}
    worst = min(agreement, key=agreement.__getitem__)
    if agreement[worst] < 1 - _MAX_DISAGREEMENT:
        raise SystemExit(f"{worst} gives other labels than torch ({agreement[worst]:.3%} equal); nothing was timed")
    samples: dict[str, defaultdict[str, list[float]]] = {name: defaultdict(list) for name in contenders}
    for turn in track(range(warmup + repeats), "timing", transient=True):
        for name, run in contenders.items():
            _, timings = run(picture)
            if turn >= warmup:
                for stage in STAGES:
                    samples[name][stage].append(timings[stage])
                samples[name]["total"].append(sum(timings[stage] for stage in STAGES))
    return [
        {"contender": name, "agreement": agreement[name]} | {stage: summarize(times) for stage, times in stages.items()}
        for name, stages in samples.items()
    ]


def print_table(rows: list[dict[str, Any]], console: Console, title: str) -> None:
    """Median milliseconds, and the total as a share of PyTorch's."""
    table = Table("ms", *STAGES, "total", "× torch", "same labels", title=title)
    torch_ms = next(row["total"]["median_ms"] for row in rows if row["contender"] == "torch")
    for row in rows:
        medians = [row[stage]["median_ms"] for stage in (*STAGES, "total")]
        cells = [*(f"{median:.2f}" for median in medians), f"{medians[-1] / torch_ms:.2f}", f"{row['agreement']:.3%}"]
        table.add_row(row["contender"], *cells)
    console.print(table)


def main(
    arch: Annotated[str, typer.Option(help="Reference architecture.")] = "deeplabv3plus_efficientnet_lite0",
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the input.")] = (368, 480),
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all cores.")] = 0,
    warmup: Annotated[int, typer.Option(min=1)] = 3,
    repeats: Annotated[int, typer.Option(min=3)] = 30,
    out: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
) -> None:
    """Time every installed backend beside PyTorch."""
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    backends = [name for name in ("openvino", "onnxruntime") if importlib.util.find_spec(name)]
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        model, bundle = export_seeded(arch, size, Path(folder))
        contenders = {"torch": with_torch(model, bundle)}
        contenders |= {name: with_runtime(bundle, name, threads) for name in backends}
        rows = measure(contenders, picture, warmup=warmup, repeats=repeats)
    print_table(rows, console, f"{arch}, {size[0]}×{size[1]}, FP32")
    out = out or RESULTS / f"runtime-{arch}-{size[0]}x{size[1]}.json"
    write_report(
        out,
        packages=["numpy", "torch", *backends],
        architecture=arch,
        size=size,
        classes=_CLASSES,
        threads=threads,
        repeats=repeats,
        rows=rows,
    )
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
