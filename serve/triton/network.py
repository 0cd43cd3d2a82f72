"""Models of a bundle's bare network, for those who have their own pre- and postprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...bundle import Bundle
from ...errors import ServeError
from ...manifest import Artifact, EngineProfile, Manifest
from ...runtime.backends.onnxruntime import import_onnxruntime, session_errors, session_options
from ...runtime.backends.select import by_precision, canonical_artifact, find_spec
from .config import TRITON_TYPES, instance_group
from .options import TritonOptions
from .pbtxt import Message, Value, Word

_REFERENCE: Final = "onnxruntime"
_ONNX_FILE: Final = "model.onnx"


@dataclass(frozen=True)
class NetworkModel:
    """One model of a repository.

    Attributes:
        config: its configuration.
        files: the bundle's artifact of each file in the folder of its version.
    """

    config: Message
    files: Mapping[str, Artifact]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the network; axes that vary are -1."""

    name: str
    dims: tuple[int, ...]

    def entry(self, *, has_batches: bool) -> Message:
        """Its place in a configuration, where Triton has the batch axis to itself if there are batches."""
        dims = self.dims[1:] if has_batches else self.dims
        return {"name": self.name, "data_type": TRITON_TYPES["float32"], "dims": dims}


def network_models(name: str, bundle: Bundle, options: TritonOptions) -> Mapping[str, NetworkModel]:
    """Models of the bare network: `NAME_network` of the ONNX graph, and `NAME_engine` where there are engines.

    Raises:
        EngineError: there is no graph of that precision, or ONNX Runtime refuses it.
        BundleError: the graph is not the one that was exported.
    """
    precision = "fp32" if options.precision == "bf16" else options.precision
    artifact = canonical_artifact(find_spec(_REFERENCE), bundle, precision)
    image, logits = _tensors(bundle, artifact)
    batches = options.max_batch if image.dims[0] < 0 else 0
    network = f"{name}_network"
    config = {**_config(network, "onnxruntime_onnx", batches, image, logits), "default_model_filename": _ONNX_FILE}
    group = instance_group(options)
    models = {network: NetworkModel({**config, "instance_group": [group]}, {_ONNX_FILE: artifact})}
    engines = _engines(bundle.manifest.artifacts, precision)
    if engines:
        engine = f"{name}_engine"
        models[engine] = _engine_model(engine, bundle.manifest, engines, (image, logits), options)
    return models


def _tensors(bundle: Bundle, artifact: Artifact) -> tuple[_Tensor, _Tensor]:
    """Input and output of a graph, as ONNX Runtime finds them."""
    with session_errors(f"refuses {artifact.file}"):
        session = import_onnxruntime().InferenceSession(
            bundle.read(artifact), session_options(threads=1), providers=["CPUExecutionProvider"]
        )
    image, logits = session.get_inputs()[0], session.get_outputs()[0]
    return _Tensor(image.name, _dims(image.shape)), _Tensor(logits.name, _dims(logits.shape))


def _dims(shape: Sequence[object]) -> tuple[int, ...]:
    """A shape of ONNX Runtime, whose axes that vary have names or None."""
    return tuple(length if isinstance(length, int) else -1 for length in shape)


def _config(name: str, platform: str, batches: int, image: _Tensor, logits: _Tensor) -> dict[str, Value]:
    return {
        "name": name,
        "platform": platform,
        "max_batch_size": batches,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [image.entry(has_batches=batches > 0)],
        "output": [logits.entry(has_batches=batches > 0)],
    }


def _engines(artifacts: Sequence[Artifact], precision: str) -> dict[str, Artifact]:
    """One engine of TensorRT for each compute capability; those of TensorRT-RTX are not for Triton."""
    plans = [each for each in artifacts if each.engine is not None and each.engine.flavor == "tensorrt"]
    found: dict[str, Artifact] = {}
    for artifact in by_precision(plans, precision):
        if artifact.engine is not None:
            found.setdefault(artifact.engine.compute_capability, artifact)
    return found


def _engine_model(
    name: str,
    manifest: Manifest,
    engines: Mapping[str, Artifact],
    tensors: tuple[_Tensor, _Tensor],
    options: TritonOptions,
) -> NetworkModel:
    """A model whose file is chosen by the compute capability of the GPU that it is loaded on.

    Raises:
        ServeError: the engines take different shapes, so that one configuration cannot describe them.
    """
    profiles = {each.engine.profile for each in engines.values() if each.engine is not None}
    if len(profiles) != 1:
        shapes = "; ".join(f"{each.file} {each.engine and each.engine.profile}" for each in engines.values())
        raise ServeError(
            f"engines of {name} take different shapes, which one model of Triton cannot: {shapes}. Build them again "
            "with the same --size, --dynamic and --batch"
        )
    (profile,) = profiles
    image, logits = tensors
    if profile is not None:
        image, logits = _within(profile, image, logits, manifest)
    batches = min(options.max_batch, profile.max[0] if profile else 0) if image.dims[0] < 0 else 0
    files = {f"model_sm{capability.replace('.', '')}.plan": each for capability, each in engines.items()}
    config = _config(name, "tensorrt_plan", batches, image, logits)
    config["instance_group"] = [{"count": options.instances, "kind": Word("KIND_GPU")}]
    config["default_model_filename"] = next(iter(files))
    config["cc_model_filenames"] = [
        {"key": capability, "value": file} for capability, file in zip(engines, files, strict=True)
    ]
    return NetworkModel(config, files)


def _within(profile: EngineProfile, image: _Tensor, logits: _Tensor, manifest: Manifest) -> tuple[_Tensor, _Tensor]:
    """The tensors with the axes fixed that the engine's profile fixes."""
    fixed = [low if low == high else -1 for low, high in zip(profile.min, profile.max, strict=True)]
    offset, stride = manifest.input.size.offset, manifest.output.stride
    cells = [length if length < 0 else (length - offset + stride - 1) // stride + offset for length in fixed[2:]]
    return (
        _Tensor(image.name, (fixed[0], image.dims[1], *fixed[2:])),
        _Tensor(logits.name, (fixed[0], logits.dims[1], *cells)),
    )
