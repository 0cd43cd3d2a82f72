"""Reference architectures go the whole way: exported, verified against torch and in every backend, built."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from engine_graphs import build, fixed_to, in_every_precision
from int8_graphs import observed, run
from reference_networks import logits_stride, settled

from atrous.bundle import Bundle
from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.exporter.export import export
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.models import ARCHITECTURES
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import Size

pytestmark = pytest.mark.slow

#: What an engine's layers read that compute in this precision.
DATA_TYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}


#: Networks as a project has them differ from ours in a few rules; the smallest backbone that has these goes the whole
#: way for the project. Xception-65 does so with the v3+ head, which holds the v3 head's layers.
PROJECTS = ("vainf", "jfzhang95", "kazuto1011", "mmseg", "hf")
OURS = [name for name in ARCHITECTURES if not name.endswith(PROJECTS) and name != "deeplabv3_xception65"]
THEIRS = [name for name in ARCHITECTURES if name.endswith(PROJECTS) and "mobilenet" in name]


@pytest.fixture(scope="module", params=[*OURS, *THEIRS, "deeplabv3plus_resnet101_kazuto1011"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One architecture with random weights and 5 classes, exported; read-only."""
    name = request.param
    architecture = ARCHITECTURES[name]
    size: Size | DynamicSize
    is_deeper = name != (twin := name.replace("101", "50")) and twin in ARCHITECTURES
    if is_deeper or name.endswith(("xception65", "resnet101_kazuto1011")):
        # Only deeper than a network that is tried at every size; tracing one size takes half the time.
        size = (65, 49) if architecture.align_corners else (64, 48)
    else:
        size = DynamicSize((32, 32), (64, 48), (96, 96))
    return export(
        settled(name, classes=5),
        tmp_path_factory.mktemp("architecture") / f"{name}.atrous",
        classes=["sky", "road", "car", "tree", "person"],
        size=size,
        preprocessing=Preprocessing(architecture.normalization),
        align_corners=architecture.align_corners,
    )


def test_exports_and_verifies(bundle: Bundle) -> None:
    architecture = ARCHITECTURES[bundle.manifest.name]
    assert bundle.manifest.output.stride == logits_stride(bundle.manifest.name, architecture.default_output_stride)
    for check in verify_bundle(bundle).checks:
        assert check.passed, check


def test_builds_with_tensorrt_rtx(bundle: Bundle) -> None:
    """In every precision, for a range of sizes and batches, and for one size."""
    sizes = bundle.manifest.input.size
    graph = onnx.load(bundle.path / "model.fp32.onnx")
    for precision, each in in_every_precision(graph):
        forms = [(each, 1)] if sizes.is_fixed else [(each, 2), (fixed_to(each, (1, 3, *sizes.opt)), 1)]
        for form, batch in forms:
            summary = build(form, sizes, batch=batch).report.summary()
            # Of the convolutions, most; besides them there are conversions.
            assert summary["reading"][DATA_TYPES[precision]] > summary["layers"] / 3


def test_runs_in_int8(bundle: Bundle, rng: np.random.Generator) -> None:
    """With the ranges of one picture: in ONNX Runtime at any size, and built for another GPU."""
    sizes = bundle.manifest.input.size
    graph = onnx.load(bundle.path / "model.fp32.onnx")
    plan = plan_quantization(graph)
    image = rng.standard_normal((1, 3, *sizes.opt)).astype(np.float32)
    int8, kept = halve_rest(quantize_graph(graph, plan, observed(graph, image)))
    assert kept == ()
    for shape in {(1, 3, *sizes.opt), (1 if sizes.is_fixed else 2, 3, *sizes.min)}:
        logits = run(int8, image := rng.standard_normal(shape).astype(np.float32))
        assert logits.shape == run(graph, image).shape
        assert np.isfinite(logits).all()
    assert build(int8, sizes, sm=(12, 0)).report.summary()["reading"]["Int8"] >= len(plan.layers)
