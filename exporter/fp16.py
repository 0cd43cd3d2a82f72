"""Conversion of a bundle's FP32 graph to a verified FP16 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx

from ..arguments import check_arguments
from ..bundle import Bundle, StagedBundle, extend_bundle
from ..errors import EngineError, ExportError
from ..manifest import Verification
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from ..runtime.image import ImageSource
from .activations.ranges import OVERFLOW_MARGIN, calibration_batches, nodes_out_of_range, observe_ranges
from .module_names import module_names
from .name_patterns import kept_by_pattern
from .passes import ConvertToHalf, KeptNode, RoundToHalf, run_passes
from .verify import TOLERANCES, Named, covering_probes, open_on_cpu, photo_inputs, prove, require_passed

FP16_FILE: Final = "model.fp16.onnx"


@dataclass(frozen=True)
class FP16Report:
    """Result of a conversion to FP16.

    Attributes:
        halved: names of the nodes in FP16.
        kept: nodes that stay in FP32, with the reasons.
        images: number of given images on which activations were observed.
        verification: comparisons with the FP32 graph.
    """

    halved: tuple[str, ...]
    kept: tuple[KeptNode, ...]
    images: int
    verification: tuple[Verification, ...]


@check_arguments
def add_fp16(
    bundle: Bundle, *, images: Sequence[ImageSource] = (), keep: Sequence[str] = ()
) -> tuple[Bundle, FP16Report]:
    """Add `model.fp16.onnx`, converted from the FP32 graph and verified against it; inputs and outputs stay FP32.

    Nodes whose activations on `images` or on a few synthetic images would overflow or underflow stay FP32
    (`docs/precision.md`). The graph is verified on `images` and over all sizes and batches that it takes. Images are
    read one at a time. An existing FP16 graph is replaced. If anything fails, or on Ctrl-C, the bundle is unchanged.

    Args:
        bundle: a bundle with an FP32 graph.
        images: images like those in production; a dozen different ones are enough.
        keep: patterns of nodes to keep in FP32: names, or paths of PyTorch modules (`backbone.layer3.*`).

    Returns:
        The reopened bundle, and the report.

    Raises:
        ExportError: a pattern matches nothing, or the FP16 graph differs from the FP32 graph beyond the tolerance.
        CalibrationError: an activation is NaN or infinite.
        EngineError: the bundle has no FP32 graph, or ONNX Runtime fails.
        BundleError: a file was changed, or the bundle cannot be written.
        ImageError, ShapeError: an image is unreadable or invalid.
    """
    bundle = bundle.reopen()
    source = bundle.find(kind="onnx", precision="fp32")
    if source is None:
        raise EngineError(f"{bundle.path} has no FP32 graph to convert; export or pack one")
    graph = run_passes(onnx.load_from_string(bundle.read(source)), [])
    names = [node.name or node.output[0] for node in graph.graph.node]
    wanted = kept_by_pattern(names, keep, modules=module_names(graph), kind="node", error=ExportError)
    ranges = observe_ranges(graph, calibration_batches(images, bundle.manifest.input))
    convert = ConvertToHalf(nodes_out_of_range(graph, ranges) | wanted)
    half = run_passes(graph, [convert])
    provenance = {
        "from": source.sha256,
        "images": len(images),
        "overflow_margin": OVERFLOW_MARGIN,
        "fp16_nodes": len(convert.halved),
        "fp32_nodes": {node.name: node.reason for node in convert.kept},
    }
    with extend_bundle(bundle, source=source) as staged:
        verification = _add_graph(staged, bundle, half, provenance, images)
    report = FP16Report(convert.halved, convert.kept, len(images), verification)
    return Bundle.open(bundle.path), report


def _add_graph(
    staged: StagedBundle,
    bundle: Bundle,
    half: onnx.ModelProto,
    provenance: dict[str, Any],
    images: Sequence[ImageSource],
) -> tuple[Verification, ...]:
    """Write the graph, and verify it as the backends of the CPU run it and rounded after every node, as a GPU does."""
    staged.write(FP16_FILE, half.SerializeToString())
    artifact = staged.artifact(FP16_FILE, kind="onnx", precision="fp16", provenance=provenance)
    extended = staged.add(artifact)
    reference = open_reference(bundle, precision="fp32")
    rounded = OnnxSession(run_passes(half, [RoundToHalf()]).SerializeToString(), name=f"{FP16_FILE}, rounded")
    tolerance = TOLERANCES["fp16"]
    inputs = bundle.manifest.input
    verification = prove(
        [
            *open_on_cpu(extended, artifact),
            Named(f"{FP16_FILE}, rounded to FP16 after every node", rounded.run),
        ],
        Named(f"{reference.artifact.file} in onnxruntime (CPU)", reference.infer),
        inputs,
        tolerance=tolerance,
        given=photo_inputs(images, inputs),
        probes=covering_probes(inputs, noise=False),
        channels=bundle.manifest.output.channels,
    )
    for each in verification:
        require_passed(each, tolerance)
    staged.add(artifact, *verification)
    return verification
