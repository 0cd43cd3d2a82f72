"""Where atrous, ModelOpt and ONNX Runtime put Q/DQ on DeepLabv3-ResNet50 at 513×513, by what makes and what reads it.

python benchmarks/bench_placement.py

Placement does not depend on the weights or the picture, so both are random. ModelOpt runs in an environment of its own
(see bench_quantize.py).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from bench_quantize import Subject, ensure_modelopt, quantize
from harness import RESULTS, write_report
from quantize_subject import Job

from atrous.exporter.models import create_model
from atrous.exporter.onnx_export import export_graph
from atrous.manifest import SizePolicy

_SIZE = (513, 513)
_MODEL = "deeplabv3_resnet50"


def pairs(graph: onnx.ModelProto) -> Counter[str]:
    """Tensors behind a Q/DQ pair by `maker → readers`; weights that are stored in INT8 count as a pair too."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    makers = {name: node.op_type for node in graph.graph.node for name in node.output}
    readers: Mapping[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.graph.node:
        for name in node.input:
            readers[name].append(node)
    found: Counter[str] = Counter()
    for node in graph.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            users = [user.op_type for pair in readers[node.output[0]] for user in readers[pair.output[0]]]
            maker = makers.get(node.input[0], "picture")
            found[f"{maker} → {' + '.join(sorted(users)) or 'output'}"] += 1
        elif (node.op_type == "QuantizeLinear" and node.input[0] in constants) or (
            node.op_type == "DequantizeLinear" and node.input[0] in constants
        ):
            found["weights"] += 1
    return found


def make_graph(path: Path) -> str:
    """Export the network with random weights; the name of its input."""
    torch.manual_seed(0)
    model = create_model(_MODEL, num_classes=21)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # takes the statistics of one batch: else activations fade, and have no range
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 97, 97))
    export_graph(model.eval(), path, SizePolicy(_SIZE, _SIZE, _SIZE, multiple=16, offset=1))
    return onnx.load(path).graph.input[0].name


def main(
    modelopt: Annotated[Path, typer.Option(help="Environment with ModelOpt.")] = Path(".venv-modelopt"),
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "placement.json",
) -> None:
    """Quantize with each and print one Markdown table."""
    python = Path(sys.executable)
    subjects = {
        Subject("atrous", "minmax"): python,
        Subject("modelopt", "max"): ensure_modelopt(modelopt),
        Subject("onnxruntime", "MinMax"): python,
    }
    found: dict[str, Counter[str]] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        model, data, result = (Path(name) / file for file in ("model.onnx", "picture.npy", "result.onnx"))
        source = make_graph(model)
        np.save(data, np.random.default_rng(0).standard_normal((1, 3, *_SIZE), np.float32))
        for subject, interpreter in subjects.items():
            job = Job(str(model), (str(data),), source, str(result))
            run = quantize(subject, interpreter, job)
            if "failed" in run:
                raise SystemExit(f"{subject} failed: {run['failed']}")
            versions[subject.tool] = run["version"]
            found[subject.tool] = pairs(onnx.load(result))
    print(f"| tensor → its readers | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for kind in sorted(set().union(*found.values())):
        print(f"| {kind} | {' | '.join(str(each[kind] or '–') for each in found.values())} |")
    print(f"| all | {' | '.join(str(each.total()) for each in found.values())} |")
    write_report(out, packages=["onnx", "torch"], model=_MODEL, versions=versions, pairs=found)
    print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
