"""Export of a trained PyTorch model to a verified bundle."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ..arrays import FloatArray
from ..bundle import Bundle, StagedBundle, stage_bundle
from ..errors import ExportError
from ..manifest import SOFTMAX, ClassInfo, Manifest, Size
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from .classes import describe_classes
from .logits import PROBES, logits_graph
from .model_description import ModelDescription, Preprocessing
from .onnx_export import StandaloneHead, coarse_shape, export_graph
from .options import AtrousForm, ExportOptions
from .passes import DeinterlaceAtrousConv, run_passes
from .sizes import DynamicSize
from .verify import Infer, compare, probe_inputs, require_passed

GRAPH_FILE: Final = "model.fp32.onnx"


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str | ClassInfo],
    size: Size | DynamicSize,
    preprocessing: Preprocessing | None = None,
    align_corners: bool = False,
    options: ExportOptions | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Export a model to a bundle, verified against PyTorch before it appears at `path`.

    Args:
        model: maps [N, 3, H, W] float32 to coarse logits [N, C, h, w], or to those of one channel under a sigmoid; a
            softmax or sigmoid at its end is taken away where that is exact. Not modified.
        path: path of the bundle, `NAME.atrous`.
        classes: names (or `ClassInfo`) in the order of the logits; of one channel two, what it is not and what it is.
        size: one (height, width), which is fastest, or a `DynamicSize`.
        preprocessing: preprocessing of the training; None for ImageNet's constants and padding.
        align_corners: rule by which the training upsampled the logits.
        options: form of the graph, and what else the bundle says of the model.
        overwrite: replace an existing bundle.

    Raises:
        ExportError: the model does not match the arguments, torch cannot convert it, its output is no logits and cannot
            be made logits, or the graph's output differs.
        BundleError: the path exists or cannot be written.
    """
    options = options or ExportOptions()
    model = copy.deepcopy(model).cpu().float().eval()
    description = ModelDescription(
        describe_classes(classes),
        size,
        preprocessing or Preprocessing(),
        align_corners,
        options.crf,
        options.license,
        options.threshold,
    )
    manifest = description.draft_manifest(Path(path), coarse_shape(model, description.provisional_size().opt))
    with stage_bundle(path, overwrite=overwrite) as staged:
        manifest = _add_graph(staged, model, manifest, options)
        if options.head != "logits":
            manifest = _add_standalone(staged, model, manifest, options.head, atrous=options.atrous)
        staged.write_manifest(manifest)
    return Bundle.open(path)


def _add_graph(staged: StagedBundle, model: nn.Module, manifest: Manifest, options: ExportOptions) -> Manifest:
    """Write the graph of coarse logits, and verify it against the module at several sizes."""
    path = staged.path / GRAPH_FILE
    infer, name = _module_infer(model), type(model).__name__
    provenance = _write_graph(model, path, manifest, atrous=options.atrous, output_name="logits")
    batches = probe_inputs(manifest.input)
    graph = logits_graph(onnx.load(path), infer, batches[:PROBES], name=name)
    against = f"torch {torch.__version__}"
    if graph.removed is not None:
        if options.head != "logits":
            raise ExportError(
                f"{name} ends in {graph.removed}, so its logits, which the graph of {options.head} is made of, are not "
                "at hand in torch. Give the network without it, or export it without that graph."
            )
        onnx.save(graph.model, path)
        provenance |= {"removed": graph.removed}
        against += f", behind {graph.removed}"
    artifact = staged.artifact(GRAPH_FILE, kind="onnx", precision="fp32", provenance=provenance)
    # Verified through the staged bundle, exactly as the runtime will load it.
    backend = open_reference(staged.write_manifest(manifest.with_artifact(artifact)))
    verification = compare(
        graph.activated(backend.infer),
        graph.original(infer),
        batches,
        artifact=GRAPH_FILE,
        against=against,
        channels=manifest.output.channels if graph.removed is None else SOFTMAX,
    )
    require_passed(verification)
    return manifest.with_artifact(artifact, verification)


def _add_standalone(
    staged: StagedBundle,
    model: nn.Module,
    manifest: Manifest,
    head: Literal["probabilities", "labels"],
    *,
    atrous: AtrousForm,
) -> Manifest:
    """Write and verify a second graph whose output is probabilities or labels at the input's resolution."""
    file = f"model.fp32.{head}.onnx"
    wrapped = StandaloneHead(
        model, head, align_corners=manifest.output.align_corners, channels=manifest.output.channels
    )
    provenance = _write_graph(wrapped, staged.path / file, manifest, atrous=atrous, output_name=head)
    artifact = staged.artifact(file, kind="standalone", precision="fp32", provenance=provenance)
    session = OnnxSession((staged.path / file).read_bytes(), name=file)
    verification = compare(
        session.run,
        _module_infer(wrapped),
        probe_inputs(manifest.input),
        artifact=file,
        against=f"torch {torch.__version__}",
    )
    require_passed(verification)
    return manifest.with_artifact(artifact, verification)


def _write_graph(
    model: nn.Module, path: Path, manifest: Manifest, *, atrous: AtrousForm, output_name: str
) -> dict[str, Any]:
    provenance = export_graph(model, path, manifest.input.size, output_name=output_name)
    if atrous == "deinterlaced":
        onnx.save(run_passes(path, [DeinterlaceAtrousConv()]), path)
    return provenance | {"atrous": atrous, "model": type(model).__name__}


def _module_infer(model: nn.Module) -> Infer:
    def infer(images: FloatArray) -> NDArray[Any]:
        with torch.inference_mode():
            # A copy, because a module may modify its input.
            output: NDArray[Any] = model(torch.tensor(images)).numpy()
        return output

    return infer
