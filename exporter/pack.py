"""Packs an ONNX graph that was exported elsewhere into a bundle."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from ..arguments import check_arguments
from ..bundle import Bundle, StagedBundle, stage_bundle
from ..errors import ExportError
from ..manifest import SOFTMAX, ClassInfo, Manifest, Size
from ..runtime.backends.onnxruntime import OnnxSession
from .classes import describe_classes
from .graph_precision import graph_precision
from .logits import PROBES, logits_graph
from .model_description import ModelDescription, Preprocessing
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
) -> Bundle:
    """Pack an ONNX file into a bundle, byte for byte; external data is embedded, a final softmax or sigmoid removed.

    The graph is verified in every backend of the CPU against ONNX Runtime without graph optimizations, over its sizes
    and batches.

    Args:
        graph: ONNX file with one float32 input [N, 3, H, W] and one float32 output, logits [N, C, h, w], or those of
            one channel under a sigmoid. A softmax or sigmoid at its end is taken away where that is exact.
        path: path of the bundle, `NAME.atrous`.
        classes: names (or `ClassInfo`) in the order of the logits; of one channel two, what it is not and what it is.
        size: required if the graph's height and width are dynamic; otherwise read from the graph.
        preprocessing: preprocessing of the training; None for ImageNet's constants and padding.
        align_corners: rule by which the training upsampled the logits.
        options: what else the bundle says of the model.
        overwrite: replace an existing bundle.

    Raises:
        ExportError: the file is not ONNX, its inputs or outputs differ from these, or its output cannot be made logits.
        BundleError: the path exists or cannot be written.
        EngineError: ONNX Runtime rejects the graph.
    """
    source = Path(graph)
    options = options or PackOptions()
    model = _read_graph(source)
    description = ModelDescription(
        describe_classes(classes),
        _graph_size(model, source, size),
        preprocessing or Preprocessing(),
        align_corners,
        options.crf,
        options.license,
        options.threshold,
    )
    plain = OnnxSession(model.SerializeToString(), name=str(source), optimize=False)
    manifest = description.draft_manifest(Path(path), lambda size: plain.run(np.zeros((1, 3, *size), np.float32)).shape)
    takes_batches = isinstance(_dims(_inputs(model)[0])[0], str)
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, dynamic_batch=takes_batches))
    with stage_bundle(path, overwrite=overwrite) as staged:
        staged.write_manifest(_add_graph(staged, model, manifest, plain, source))
    return Bundle.open(path)


def _add_graph(
    staged: StagedBundle, model: onnx.ModelProto, manifest: Manifest, plain: OnnxSession, source: Path
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
    provenance = {"exporter": f"{model.producer_name} {model.producer_version}".strip(), "source": source.name}
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


def _read_graph(source: Path) -> onnx.ModelProto:
    """Load and validate an ONNX file: one float32 input [N, 3, H, W] and one float32 output."""
    try:
        model = onnx.load(source)  # reads external data, too
        onnx.checker.check_model(model)
    except FileNotFoundError as exc:
        raise ExportError(f"cannot read {source}: a file is missing ({exc})") from exc
    except Exception as exc:  # protobuf's and onnx's own families, OSError
        raise ExportError(f"invalid ONNX file {source}: {exc}") from exc
    inputs = _inputs(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExportError(
            f"{source} has {len(inputs)} inputs ({_names(inputs)}) and {len(model.graph.output)} outputs "
            f"({_names(model.graph.output)}); expected one image [N, 3, H, W] and its logits [N, C, h, w]"
        )
    image, logits = inputs[0], model.graph.output[0]
    for value in (image, logits):
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or len(_dims(value)) != 4:
            dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise ExportError(
                f"{source}: {value.name!r} is {dtype} {_dims(value)}; expected FLOAT with four axes (N, C, H, W)"
            )
    if _dims(image)[1] != 3:
        raise ExportError(
            f"{source}: input {image.name!r} is {_dims(image)}; expected [N, 3, H, W] (channels first). "
            "For another layout, insert a Transpose in front."
        )
    return model


def _is_all_of(source: Path, model: onnx.ModelProto) -> bool:
    """True if the file alone holds the whole model, in binary form: no external data, not text."""
    try:
        return bool(onnx.load_from_string(source.read_bytes()) == model)
    except Exception:  # protobuf's DecodeError has no base but Exception, and its module moves with releases
        return False


def _graph_size(model: onnx.ModelProto, source: Path, size: Size | DynamicSize | None) -> Size | DynamicSize:
    """Input size: fixed by the graph, or as given."""
    dims = _dims(_inputs(model)[0])
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


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs without weights, which old exporters list among the inputs too."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Axis lengths; a name or `?` for a dynamic axis (some exporters write −1)."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    ]


def _names(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ", ".join(value.name for value in values)
