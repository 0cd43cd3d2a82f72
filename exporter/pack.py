"""Packs an ONNX graph that was exported elsewhere into a bundle."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..arguments import check_arguments
from ..bands import Bands
from ..bundle import Bundle, StagedBundle, stage_bundle
from ..errors import ExportError
from ..manifest import SOFTMAX, ClassInfo, Manifest, Size
from ..runtime.backends.onnxruntime import OnnxSession
from .classes import describe_classes
from .graph_layout import adapt_layout, check_adapted, dims_of, inputs_of, select_output, takes_pixels
from .graph_precision import graph_precision
from .logits import PROBES, logits_graph
from .model_description import ModelDescription, Preprocessing, with_bands
from .normalization import IMAGENET
from .options import PackOptions
from .sizes import DynamicSize
from .verify import (
    TOLERANCES,
    Named,
    covering_probes,
    measure_padding,
    open_on_cpu,
    probe_inputs,
    prove,
    require_passed,
)


@check_arguments
def pack(
    graph: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str | ClassInfo],
    size: Size | DynamicSize | None = None,
    preprocessing: Preprocessing | None = None,
    align_corners: bool = False,
    options: PackOptions | None = None,
    overwrite: bool = False,
    bands: int | Bands | None = None,
) -> Bundle:
    """Pack an ONNX file into a bundle, byte for byte; external data is embedded, a final softmax or sigmoid removed.

    The graph is verified in every backend of the CPU against ONNX Runtime without graph optimizations, over its sizes
    and batches.

    Args:
        graph: ONNX file with one input [N, 3, H, W], or [N, bands, H, W], and an output of logits [N, C, h, w], or
            those of one channel under a sigmoid, all float32. Channels last, uint8 pixels and an ArgMax at the end are
            adapted, and a softmax or sigmoid at its end is taken away where that is exact.
        path: path of the bundle, `NAME.atrous`.
        classes: names (or `ClassInfo`) in the order of the logits; of one channel two, what it is not and what it is.
        size: required if the graph's height and width are dynamic; otherwise read from the graph.
        preprocessing: preprocessing of the training; None for ImageNet's constants and padding.
        align_corners: rule by which the training upsampled the logits.
        options: what else the bundle says of the model.
        overwrite: replace an existing bundle.
        bands: for a network that takes other images than RGB in bytes: how many bands of bytes, or what they are.

    Raises:
        ExportError: the file is not ONNX, its inputs or outputs differ from these, or its output cannot be made logits.
        BundleError: the path exists or cannot be written.
        EngineError: ONNX Runtime rejects the graph.
    """
    source = Path(graph)
    options = options or PackOptions()
    infos, preprocessing = describe_classes(classes), with_bands(preprocessing, bands)
    channels = preprocessing.channels
    model = _read_graph(source, options.output, preprocessing)
    original = copy.deepcopy(model)
    changed = _adapt(model, source, channels, len(infos))
    description = ModelDescription(
        infos,
        _graph_size(model, source, size),
        preprocessing,
        align_corners,
        options.crf,
        options.license,
        options.threshold,
    )
    plain = OnnxSession(model.SerializeToString(), name=str(source), optimize=False)
    manifest = description.draft_manifest(Path(path), partial(_logits_shape, plain, channels))
    if changed:
        check_adapted(original, changed, plain.run, (1, channels, *manifest.input.size.opt))
    takes_batches = isinstance(dims_of(inputs_of(model)[0])[0], str)
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, dynamic_batch=takes_batches))
    with stage_bundle(path, overwrite=overwrite) as staged:
        staged.write_manifest(_add_graph(staged, model, manifest, plain, source, adapted=changed))
    return Bundle.open(path)


def _add_graph(
    staged: StagedBundle,
    model: onnx.ModelProto,
    manifest: Manifest,
    plain: OnnxSession,
    source: Path,
    *,
    adapted: tuple[str, ...],
) -> Manifest:
    """Write the graph, and verify it in every backend of the CPU against ONNX Runtime's plain form of it."""
    graph = logits_graph(model, plain.run, probe_inputs(manifest.input)[:PROBES], name=str(source))
    model = graph.model
    padding = measure_padding(graph.logits(plain.run), manifest)
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, padding=padding))
    precision = graph_precision(model)
    file = f"model.{precision}.onnx"
    if _is_all_of(source, model):
        shutil.copyfile(source, staged.path / file)
    else:
        onnx.save(model, staged.path / file)
    provenance: dict[str, Any] = {
        "exporter": f"{model.producer_name} {model.producer_version}".strip(),
        "source": source.name,
    }
    if adapted:
        provenance["adapted"] = list(adapted)
    if graph.removed is not None:
        provenance["removed"] = graph.removed
    artifact = staged.artifact(file, kind="onnx", precision=precision, provenance=provenance)
    bundle = staged.write_manifest(manifest.with_artifact(artifact))
    checks = prove(
        [Named(each.name, graph.activated(each.infer)) for each in open_on_cpu(bundle, artifact)],
        Named("onnxruntime without graph optimizations", graph.original(plain.run)),
        manifest.input,
        channels=manifest.output.channels if graph.removed is None else SOFTMAX,
        tolerance=TOLERANCES[precision],
        probes=covering_probes(manifest.input, noise=precision == "fp32"),
    )
    for check in checks:
        require_passed(check, TOLERANCES[precision])
    return manifest.with_artifact(artifact, *checks)


def _read_graph(source: Path, output: str | int | None, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Load and validate an ONNX file with one input, and of its outputs the one that is the logits."""
    try:
        model = onnx.load(source)  # reads external data, too
        onnx.checker.check_model(model)
    except FileNotFoundError as exc:
        raise ExportError(f"cannot read {source}: a file is missing ({exc})") from exc
    except Exception as exc:  # protobuf's and onnx's own families, OSError
        raise ExportError(f"invalid ONNX file {source}: {exc}") from exc
    inputs = inputs_of(model)
    if len(inputs) != 1:
        raise ExportError(
            f"{source} has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}); expected one image "
            "[N, 3, H, W]"
        )
    select_output(model, output, name=str(source))
    normalization = preprocessing.normalization or IMAGENET
    if takes_pixels(inputs[0]) and not normalization.is_none:
        raise ExportError(
            f"{source}: input {inputs[0].name!r} is UINT8, pixels that the graph normalizes itself; say so: "
            "--normalization none, Preprocessing(NO_NORMALIZATION)"
        )
    return model


def _logits_shape(plain: OnnxSession, channels: int, size: Size) -> tuple[int, ...]:
    return plain.run(np.zeros((1, channels, *size), np.float32)).shape


def _adapt(model: onnx.ModelProto, source: Path, channels: int, classes: int) -> tuple[str, ...]:
    """Adapt the layout in place; raises unless there are one image and logits of it then."""
    outputs = frozenset((classes, 1) if classes == 2 else (classes,))
    changed = adapt_layout(model, outputs, name=str(source), bands=channels)
    _check_graph(model, source, channels)
    return changed


def _check_graph(model: onnx.ModelProto, source: Path, channels: int) -> None:
    """Raise unless a graph has one float32 image [N, channels, H, W] and float32 logits with four axes."""
    image, logits = inputs_of(model)[0], model.graph.output[0]
    for value in (image, logits):
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or len(dims_of(value)) != 4:
            dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise ExportError(
                f"{source}: {value.name!r} is {dtype} {dims_of(value)}; expected FLOAT with four axes (N, C, H, W)"
            )
    if dims_of(image)[1] != channels:
        raise ExportError(
            f"{source}: input {image.name!r} is {dims_of(image)}; expected [N, {channels}, H, W] or "
            f"[N, H, W, {channels}]. Of another number of bands, say it: bands=N, --bands N"
        )


def _is_all_of(source: Path, model: onnx.ModelProto) -> bool:
    """True if the file alone holds the whole model, in binary form: no external data, not text."""
    try:
        return bool(onnx.load_from_string(source.read_bytes()) == model)
    except Exception:  # protobuf's DecodeError has no base but Exception, and its module moves with releases
        return False


def _graph_size(model: onnx.ModelProto, source: Path, size: Size | DynamicSize | None) -> Size | DynamicSize:
    """Input size: fixed by the graph, or as given."""
    dims = dims_of(inputs_of(model)[0])
    batch, _, height, width = dims
    if isinstance(batch, int) and batch != 1:
        raise ExportError(f"{source} takes batches of {batch} only ({dims}); expected 1, or a dynamic batch")
    if isinstance(height, int) and isinstance(width, int):
        if size not in (None, (height, width)):
            raise ExportError(f"{source} takes {height}×{width} only; got size {size}. Leave the size out.")
        return height, width
    if size is None:
        raise ExportError(
            f"{source} takes any size ({dims}), so a size is required: size=(height, width) or "
            "size=DynamicSize(min, opt, max); --size HxW or --dynamic MIN:OPT:MAX"
        )
    if isinstance(size, DynamicSize) and any(isinstance(length, int) for length in (batch, height, width)):
        raise ExportError(
            f"{source} takes {dims}; a range of sizes needs a dynamic batch, height and width. "
            "Give one size, or export the graph again with dynamic axes."
        )
    return size
