"""Time networks on a CPU: precisions and forms of atrous convolution beside plain OpenVINO, ONNX Runtime and PyTorch.

    python benchmarks/bench_cpu.py            # every architecture, 513×513: an hour on two cores
    python benchmarks/bench_cpu.py --quick    # the demo's network, 257×257: three minutes

The demo's network is trained, the others have seeded weights. All contenders get the same prepared image and give
coarse logits, whose labels are compared with those of FP32 in ONNX Runtime before anything is timed; then they take
turns. "OpenVINO" is the library as it comes, with its own choice of precision; "atrous" is its backend, which computes
what it is told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import torch
import typer
from harness import RESULTS, time_in_turns, write_report
from rich.console import Console
from rich.table import Table
from seeded_networks import add_precisions, export_seeded, seeded_model
from torch import nn

import atrous
from atrous.bundle import Bundle, StagedBundle
from atrous.errors import AtrousError
from atrous.exporter.classes import read_classes
from atrous.exporter.models import ARCHITECTURES
from atrous.exporter.passes import ATROUS_PASSES, run_passes
from atrous.exporter.trained_model import load_trained
from atrous.exporter.verify import synthetic_photo
from atrous.manifest import Artifact
from atrous.runtime.backends import BACKENDS, open_backend, open_reference
from atrous.runtime.backends.cpu import bf16_objection, in_bf16, this_cpu
from atrous.runtime.preprocess import prepare_image

_QUICK_SIZE = (257, 257)
#: Share of labels that a contender must have in common with FP32. The weights are not trained and INT8 is calibrated on
#: one image, so that the lower two only catch what is broken.
_MIN_AGREEMENT = {"fp32": 0.999, "bf16": 0.85, "int8": 0.7}
_TRAINED = "deeplabv3plus_efficientnet_lite0"
_CHECKPOINT = Path(__file__).parents[1] / "examples" / "train_camvid" / "deeplab.safetensors"

Images = npt.NDArray[np.float32]
Run = Callable[[Images], npt.NDArray[Any]]
#: Name of the library, precision, form of the atrous convolutions, and how to run it.
Contender = tuple[str, str, str, Run]


def make_network(arch: str, size: tuple[int, int], path: Path) -> tuple[nn.Module, Bundle]:
    """A network, and its bundle in FP32, FP16 and INT8."""
    if arch != _TRAINED:
        return seeded_model(arch), export_seeded(arch, size, path)
    trained = load_trained(_CHECKPOINT, classes=read_classes(_CHECKPOINT.with_name("classes.json")))
    preprocessing = atrous.Preprocessing(trained.architecture.normalization)
    bundle = atrous.export(trained.model, path, classes=trained.classes, size=size, preprocessing=preprocessing)
    return trained.model.eval(), add_precisions(bundle)


def atrous_contenders(bundle: Bundle, folder: Path) -> Iterator[Contender]:
    """The bundle's graphs in the OpenVINO backend, in each precision and form."""
    spec, staged = BACKENDS["openvino"], StagedBundle(folder)
    for precision in ("fp32", "int8"):
        source = bundle.find(kind="onnx", precision=precision)
        assert source is not None, "seeded bundles have both"
        forms: dict[str, tuple[Bundle, Artifact]] = {"dilated": (bundle, source)}
        for form, rewrite in ATROUS_PASSES.items():
            each, file = rewrite(), f"{precision}.{form}.onnx"
            graph = run_passes(onnx.load_from_string(bundle.read(source)), [each])
            if each.rewritten:
                staged.write(file, graph.SerializeToString())
                artifact = staged.artifact(file, kind="onnx", precision=precision, provenance={})
                forms[form] = Bundle(folder, bundle.manifest), artifact
        for form, (holder, artifact) in forms.items():
            yield "atrous", precision, form, spec.open(holder, artifact).infer
            if precision == "fp32" and bf16_objection() is None:
                yield "atrous", "bf16", form, spec.open(holder, in_bf16(artifact)).infer


def library_contenders(bundle: Bundle) -> Iterator[Contender]:
    """OpenVINO with its defaults, and ONNX Runtime."""
    core = openvino.Core()
    for precision in ("fp32", "int8"):
        graph = bundle.path_of(bundle.find(kind="onnx", precision=precision))
        compiled = core.compile_model(core.read_model(graph), "CPU")
        chosen = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        # On a CPU with bfloat16 its default computes FP32 graphs in that.
        computes = "bf16" if precision == "fp32" and chosen == "bf16" else precision
        yield "OpenVINO", computes, "dilated", lambda images, compiled=compiled: compiled(images)[0].copy()
        yield (
            "ONNX Runtime",
            precision,
            "dilated",
            open_backend(bundle, backend="onnxruntime", precision=precision).infer,
        )


def torch_contenders(model: nn.Module, *, compiles: bool) -> Iterator[Contender]:
    """PyTorch: eager, compiled, and with autocast to bfloat16."""
    model = model.to(memory_format=torch.channels_last)

    def run(network: Callable[[torch.Tensor], torch.Tensor], half: bool, images: Images) -> npt.NDArray[Any]:
        batch = torch.from_numpy(images).to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network(batch).float().numpy()

    yield "PyTorch eager", "fp32", "dilated", partial(run, model, False)
    yield "PyTorch autocast", "bf16", "dilated", partial(run, model, True)
    if compiles:
        yield "PyTorch compile", "fp32", "dilated", partial(run, torch.compile(model), False)


def measure(
    arch: str, size: tuple[int, int], *, warmup: int, repeats: int, compiles: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of one network, and the contenders that were left out with the reasons."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, bundle = make_network(arch, size, Path(folder) / "model.atrous")
        except AtrousError as exc:  # logits of untrained weights may be too small to compare
            return [], [{"name": arch, "reason": str(exc)}]
        images = prepare_image(synthetic_photo(np.random.default_rng(0), size), size, bundle.manifest.input)[None]
        expected = open_reference(bundle, precision="fp32").infer(images).argmax(axis=1)
        contenders = [
            *atrous_contenders(bundle, Path(folder)),
            *library_contenders(bundle),
            *torch_contenders(model, compiles=compiles),
        ]
        calls, rows, left_out = {}, [], []
        for library, precision, form, run in contenders:
            agreement = float((run(images).argmax(axis=1) == expected).mean())
            row = {"arch": arch, "library": library, "precision": precision, "form": form, "agreement": agreement}
            name = f"{library} {precision} {form}"
            if agreement >= _MIN_AGREEMENT[precision]:
                calls[name] = partial(run, images)
                rows.append(row | {"name": name})
            else:
                left_out.append({"name": f"{arch}: {name}", "reason": f"only {agreement:.1%} of FP32's labels"})
        times = time_in_turns(calls, warmup=warmup, repeats=repeats)
    return [row | times[row.pop("name")] for row in rows], left_out


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each network, a bar for each contender."""
    from matplotlib.figure import Figure

    archs = list(dict.fromkeys(row["arch"] for row in rows))
    panels = [[row for row in rows if row["arch"] == arch] for arch in archs]
    heights = [len(panel) for panel in panels]
    figure = Figure(figsize=(9, 1.2 * len(archs) + 0.25 * sum(heights)), layout="constrained")
    colors = {"fp32": "#0072b2", "bf16": "#e69f00", "int8": "#009e73"}
    subplots = figure.subplots(len(archs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, arch, panel in zip(subplots, archs, panels, strict=True):
        for position, row in enumerate(panel):
            axes.barh(position, row["median_ms"], color=colors[row["precision"]])
        axes.set_yticks(range(len(panel)), [f"{row['library']}, {row['precision']}, {row['form']}" for row in panel])
        axes.invert_yaxis()
        axes.set_title(arch, loc="left")
        axes.set_xlabel("median milliseconds")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Medians, and shares of PyTorch's eager time."""
    table = Table("network", "library", "precision", "form", "ms", "× PyTorch eager", "same labels")
    base = {row["arch"]: row["median_ms"] for row in rows if row["library"] == "PyTorch eager"}
    for row in rows:
        ratio = f"{row['median_ms'] / base[row['arch']]:.2f}" if row["arch"] in base else ""
        cells = (row[key] for key in ("arch", "library", "precision", "form"))
        table.add_row(*cells, f"{row['median_ms']:.1f}", ratio, f"{row['agreement']:.2%}")
    console.print(table)


def main(
    arch: Annotated[list[str] | None, typer.Option(help="Architecture, may be repeated; all by default.")] = None,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the input.")] = (513, 513),
    warmup: Annotated[int, typer.Option(min=1)] = 2,
    repeats: Annotated[int, typer.Option(min=3)] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="One small network, no torch.compile.")] = False,
    out: Annotated[Path, typer.Option(help="Where the JSON goes; the plot goes beside it.")] = RESULTS / "cpu.json",
) -> None:
    """Time every contender on every network."""
    console = Console()
    load_before = os.getloadavg()[0]
    archs, size = ((_TRAINED,), _QUICK_SIZE) if quick else (tuple(arch or ARCHITECTURES), size)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for each in archs:
        found, missing = measure(each, size, warmup=warmup, repeats=repeats, compiles=not quick)
        rows += found
        left_out += missing
    if quick:
        left_out.append({"name": "PyTorch compile", "reason": "--quick"})
    print_table(rows, console)
    for reason in left_out:
        console.print(f"left out: {reason['name']}: {reason['reason']}")
    write_report(
        out,
        packages=["numpy", "torch", "openvino", "onnxruntime"],
        cpu={"name": this_cpu().name, "flags": list(this_cpu().flags)},
        load_average=[round(load_before, 1), round(os.getloadavg()[0], 1)],
        size=size,
        repeats=repeats,
        rows=rows,
        left_out=left_out,
    )
    plot(rows, out.with_suffix(".png"))
    console.print(f"Wrote {out}; atrous {atrous.__version__}")


if __name__ == "__main__":
    typer.run(main)
