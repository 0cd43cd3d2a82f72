"""Export of a trained PyTorch model to a verified bundle."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ..arguments import check_arguments
from ..arrays import FloatArray
from ..bands import Bands
from ..bundle import Bundle, StagedBundle, stage_bundle
from ..errors import EngineError, ExportError
from ..manifest import SOFTMAX, Channels, ClassInfo, Manifest, Size, Verification
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from .classes import describe_classes
from .foreign import copy_module, module_errors
from .logits import PROBES, logits_graph
from .model_description import ModelDescription, Preprocessing, with_bands
from .onnx_export import StandaloneHead, coarse_shape, export_graph
from .opset import OPSET
from .optimize.optimize import optimize
from .options import ExportOptions
from .outputs import OneOutput, with_one_output
from .passes import ATROUS_PASSES, run_passes
from .sizes import DynamicSize, check_size
from .torchscript import module_of_script
from .verify import (
    FP32_TOLERANCE,
    Comparison,
    Infer,
    Named,
    measure_padding,
    open_on_cpu,
    probe_inputs,
    prove,
    require_passed,
)

GRAPH_FILE: Final = "model.fp32.onnx"


@check_arguments
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
    bands: int | Bands | None = None,
) -> Bundle:
    """Export a model to a bundle, verified against PyTorch before it appears at `path`.

    Args:
        model: maps [N, 3, H, W] float32, or [N, bands, H, W], to coarse logits [N, C, h, w], or to those of one channel
            under a sigmoid; a softmax or sigmoid at its end is taken away where that is exact. Of a dict, dataclass,
            tuple or list one tensor is taken, as `options.output` says. Not modified.
        path: path of the bundle, `NAME.atrous`.
        classes: names (or `ClassInfo`) in the order of the logits; of one channel two, what it is not and what it is.
        size: one (height, width), which is fastest, or a `DynamicSize`.
        preprocessing: preprocessing of the training; None for ImageNet's constants and padding.
        align_corners: rule by which the training upsampled the logits.
        options: form of the graph, and what else the bundle says of the model.
        overwrite: replace an existing bundle.
        bands: for a network that takes other images than RGB in bytes: how many bands of bytes, or what they are.

    Raises:
        ExportError: the model does not match the arguments, torch cannot convert it, its output is no logits and cannot
            be made logits, or the graph's output differs.
        BundleError: the path exists or cannot be written.
    """
    options = options or ExportOptions()
    check_size(size)
    preprocessing = with_bands(preprocessing, bands)
    channels = preprocessing.channels
    example = size.opt if isinstance(size, DynamicSize) else size
    original = model
    reference = with_one_output(copy_module(model), example, options.output, channels=channels)
    model = reference
    if isinstance(original, torch.jit.ScriptModule):  # is converted, and the graph still held to the original
        model = with_one_output(module_of_script(original, size, channels), example, options.output, channels=channels)
    infos = describe_classes(classes)
    description = ModelDescription(
        infos, size, preprocessing, align_corners, options.crf, options.license, options.threshold
    )
    manifest = description.draft_manifest(Path(path), functools.partial(coarse_shape, reference, channels=channels))
    if not manifest.input.size.is_fixed:
        _require_no_memory(reference, copy_module(original), manifest)
    takes_batches = options.dynamic_batch or not manifest.input.size.is_fixed
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, dynamic_batch=takes_batches))
    with stage_bundle(path, overwrite=overwrite) as staged:
        manifest = _add_graph(staged, model, reference, manifest, options)
        if options.head != "logits":
            manifest = _add_standalone(staged, model, manifest, options)
        staged.write_manifest(manifest)
    bundle = Bundle.open(path)
    return optimize(bundle)[0] if options.atrous == "auto" else bundle


def _require_no_memory(used: nn.Module, fresh: nn.Module, manifest: Manifest) -> None:
    """Refuse a network that keeps something of the first size that it sees; a graph keeps nothing.

    Args:
        used: a module that has run, at the best size at first.
        fresh: another copy of the user's module, which has not.
        manifest: describes the sizes.
    """
    if isinstance(used, OneOutput):
        fresh = OneOutput(fresh, used.key)
    batch = next(each for each in probe_inputs(manifest.input) if each.shape[2:] != manifest.input.size.opt)
    expected, again, answer = (_module_infer(module)(batch) for module in (used, used, fresh))
    comparison = Comparison("", "", FP32_TOLERANCE)
    comparison.add(batch, expected, answer)
    # A network that answers by chance is for the verification to refuse.
    if np.array_equal(expected, again) and not comparison.result().passed:
        raise ExportError(
            f"{type(used).__name__} answers an input {list(batch.shape)} otherwise when it has seen another size "
            "before: it keeps something that it computed at first. Make it compute that for each image, or export one "
            "size."
        )


def _add_graph(
    staged: StagedBundle, model: nn.Module, original: nn.Module, manifest: Manifest, options: ExportOptions
) -> Manifest:
    """Write the graph of coarse logits, and verify it against the original module in every backend of the CPU."""
    path = staged.path / GRAPH_FILE
    infer, name = _module_infer(original), type(original).__name__
    provenance = _write_graph(model, path, manifest, options, output_name="logits")
    graph = logits_graph(onnx.load(path), infer, probe_inputs(manifest.input)[:PROBES], name=name)
    padding = measure_padding(graph.logits(infer), manifest)
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, padding=padding))
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
    bundle = staged.write_manifest(manifest.with_artifact(artifact))
    reference = Named(against, graph.original(infer))
    channels = manifest.output.channels if graph.removed is None else SOFTMAX
    try:
        opened = open_on_cpu(bundle, artifact)
    except EngineError as exc:
        # What the reference computes says more of a network than what another backend does not support.
        _verify([Named(GRAPH_FILE, graph.activated(open_reference(bundle).infer))], reference, manifest, channels)
        raise ExportError(f"{exc}\nNothing was written: every backend that is installed must run the graph.") from exc
    candidates = [Named(each.name, graph.activated(each.infer)) for each in opened]
    return manifest.with_artifact(artifact, *_verify(candidates, reference, manifest, channels))


def _add_standalone(
    staged: StagedBundle,
    model: nn.Module,
    manifest: Manifest,
    options: ExportOptions,
) -> Manifest:
    """Write and verify a second graph whose output is probabilities or labels at the input's resolution."""
    head = options.head
    assert head != "logits", "which the bundle's own graph ends in"  # noqa: S101
    file = f"model.fp32.{head}.onnx"
    wrapped = StandaloneHead(
        model, head, align_corners=manifest.output.align_corners, channels=manifest.output.channels
    )
    provenance = _write_graph(wrapped, staged.path / file, manifest, options, output_name=head)
    artifact = staged.artifact(file, kind="standalone", precision="fp32", provenance=provenance)
    session = OnnxSession((staged.path / file).read_bytes(), name=file)
    reference = Named(f"torch {torch.__version__}", _module_infer(wrapped))
    return manifest.with_artifact(artifact, *_verify([Named(file, session.run)], reference, manifest, SOFTMAX))


def _verify(
    candidates: Sequence[Named], reference: Named, manifest: Manifest, channels: Channels
) -> tuple[Verification, ...]:
    """Compare with the module over all sizes and batches; raises `ExportError` where one differs or fails."""
    try:
        checks = prove(candidates, reference, manifest.input, tolerance=FP32_TOLERANCE, channels=channels)
    except EngineError as exc:
        raise ExportError(
            f"a backend does not take what the module takes: {exc}. Nothing was written. Narrow the range of sizes, or "
            "export one size."
        ) from exc
    for check in checks:
        require_passed(check)
    return checks


def _write_graph(
    model: nn.Module, path: Path, manifest: Manifest, options: ExportOptions, *, output_name: str
) -> dict[str, Any]:
    inputs, atrous = manifest.input, options.atrous
    provenance = export_graph(
        model,
        path,
        inputs.size,
        channels=inputs.channels,
        output_name=output_name,
        dynamic_batch=inputs.takes_batches,
        opset=options.opset or OPSET,
    )
    if atrous in ATROUS_PASSES:
        onnx.save(run_passes(path, [ATROUS_PASSES[atrous]()]), path)
    # `auto` is canonical here; what is faster on this machine stands beside it.
    provenance |= options.origin
    return provenance | {"atrous": "dilated" if atrous == "auto" else atrous, "model": type(model).__name__}


def _module_infer(model: nn.Module) -> Infer:
    def infer(images: FloatArray) -> NDArray[Any]:
        with module_errors(model, images.shape), torch.inference_mode():
            # A copy, because a module may modify its input.
            output: NDArray[Any] = model(torch.tensor(images)).numpy()
        return output

    return infer
