"""Reference networks with seeded weights as bundles with an FP32, an FP16 and an INT8 graph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from torch import nn

import atrous
from atrous.bundle import extend_bundle
from atrous.calibration.activation_histograms import collect_histograms
from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.exporter.models import find_architecture
from atrous.exporter.verify import synthetic_photo
from atrous.runtime.preprocess import prepare_image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference_networks import settled

CLASSES = 21


def seeded_model(arch: str) -> nn.Module:
    """The network, always with the same weights."""
    return settled(arch, classes=CLASSES)


def export_seeded(arch: str, size: tuple[int, int] | atrous.DynamicSize, path: Path) -> atrous.Bundle:
    """A bundle with FP32, FP16 and INT8 graphs of `seeded_model`."""
    architecture = find_architecture(arch)
    bundle = atrous.export(
        seeded_model(arch),
        path,
        classes=[f"class {index}" for index in range(CLASSES)],
        size=size,
        preprocessing=atrous.Preprocessing(architecture.normalization),
        align_corners=architecture.align_corners,
    )
    return add_precisions(bundle)


def add_precisions(bundle: atrous.Bundle) -> atrous.Bundle:
    """Adds an FP16 and an INT8 graph; the ranges are those of one synthetic picture, right for timing only."""
    bundle, _ = atrous.add_fp16(bundle)
    graph = onnx.load(bundle.path / "model.fp32.onnx")
    plan = plan_quantization(graph)
    inputs = bundle.manifest.input
    picture = synthetic_photo(np.random.default_rng(0), inputs.size.opt)
    prepared = prepare_image(picture, inputs.size.opt, inputs)[None]
    seen = collect_histograms(graph, plan.tensors, [("a synthetic picture", prepared)])
    int8, _ = halve_rest(quantize_graph(graph, plan, {name: each.max_abs for name, each in seen.items()}))
    with extend_bundle(bundle) as staged:
        onnx.save(int8, staged.path / "model.int8.onnx")
        artifact = staged.artifact("model.int8.onnx", kind="onnx", precision="int8", provenance={})
        staged.write_manifest(bundle.manifest.with_artifact(artifact))
    return atrous.Bundle.open(bundle.path)
