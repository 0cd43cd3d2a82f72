"""PyTorch contenders of `atrous bench`: the network of a bundle, from image to labels."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ..arrays import MAX_BYTE_CLASSES
from ..bundle import Bundle
from ..crf import DenseCRF
from ..errors import EngineError
from ..manifest import Channels, InputSpec
from ..runtime.benchmark import Contender, Picture, Run
from ..runtime.channels import refined_labels, threshold_logit
from ..runtime.preprocess import Geometry, color_image, place_image, plan_geometry, prepare_image
from ..runtime.segmenter import bundle_crf
from .trained_model import load_trained


def torch_contenders(
    bundle: Bundle, checkpoint: Path, *, architecture: str | None = None, crf: bool = True, threads: int = 0
) -> list[Contender]:
    """Contenders of a checkpoint's network in PyTorch, without and with the CRF.

    On the CPU: eager FP32. On a GPU: eager FP32, FP16 in channels_last, and FP16 with `torch.compile`. This package
    preprocesses the images and runs the CRF on the CPU; PyTorch upsamples and takes the argmax on its device.

    Args:
        bundle: defines preprocessing and classes.
        checkpoint: weights of a reference architecture.
        architecture: name of the architecture; None to read it from the checkpoint.
        crf: add contenders with the dense CRF.
        threads: CPU threads; 0 for all cores.

    Raises:
        CheckpointError, ExportError: as `load_trained`.
    """
    model = load_trained(checkpoint, architecture=architecture, classes=bundle.manifest.classes).model.eval()
    found = []
    for name, precision, network, device in _variants(model):
        for with_crf in (False, True) if crf else (False,):
            run = torch_run(
                network, device, bundle, precision, bundle_crf(bundle, threads=threads) if with_crf else None
            )
            label = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
            found.append(Contender(name, label, precision, with_crf, _with_threads(run, threads)))
    return found


def _variants(model: nn.Module) -> Iterator[tuple[str, str, Callable[[torch.Tensor], torch.Tensor], torch.device]]:
    version = f"torch {torch.__version__.partition('+')[0]}"
    if not torch.cuda.is_available():
        fast = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield f"{version} eager", "fp32", fast, torch.device("cpu")
        return
    gpu = torch.device("cuda", 0)
    half = copy.deepcopy(model).to(gpu, torch.float16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    yield f"{version} eager", "fp32", model.to(gpu), gpu
    yield f"{version} eager channels_last", "fp16", half, gpu
    yield f"{version} compiled channels_last", "fp16", torch.compile(half), gpu


def torch_run(
    network: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    bundle: Bundle,
    precision: str,
    crf: DenseCRF | None = None,
) -> Run:
    """Make a function from image to labels in PyTorch.

    Args:
        network: [N, 3, H, W] → coarse logits [N, C, h, w], on `device`.
        device: device of the network, upsampling and argmax.
        bundle: defines preprocessing, which runs on the CPU.
        precision: precision of the network's input: `fp32` or `fp16`.
        crf: refines probabilities on the CPU, if given.
    """
    inputs, output = bundle.manifest.input, bundle.manifest.output
    channels = output.channels
    dtype = torch.float16 if precision == "fp16" else torch.float32

    @torch.inference_mode()
    def run(image: Picture) -> tuple[Picture, Mapping[str, float]]:
        timings: dict[str, float] = {}
        with _timed(timings, "preprocess", device):
            height, width = image.shape[:2]
            geometry = plan_geometry((height, width), inputs)
            if any(length > limit for length, limit in zip(geometry.input_size, inputs.size.max, strict=True)):
                raise EngineError(
                    f"PyTorch contenders do not tile; use an image within {inputs.size.max}, not {height}×{width}"
                )
            prepared = torch.from_numpy(prepare_image(image, geometry.input_size, inputs)[None])
            prepared = prepared.to(device, dtype).contiguous(memory_format=torch.channels_last)
        with _timed(timings, "inference", device):
            logits = network(prepared)
        with _timed(timings, "postprocess", device):
            full = _upsample(logits.float(), geometry, inputs, align_corners=output.align_corners)[0]
            result = (_labels(full, channels) if crf is None else _probabilities(full, channels)).cpu().numpy()
        if crf is None:
            return result, timings
        with _timed(timings, "crf", device):
            labels = refined_labels(
                *crf.labels_and_marginals(result, color_image(image, inputs.bands, weighted=True)), channels
            )
        return labels, timings

    return run


def _upsample(logits: torch.Tensor, geometry: Geometry, inputs: InputSpec, *, align_corners: bool) -> torch.Tensor:
    """Logits [1, C, h, w] of the whole input, at the image's size, as one writes it in torch."""
    resized = functools.partial(functional.interpolate, mode="bilinear", align_corners=align_corners)
    if inputs.resize == "stretch":
        return resized(logits, size=geometry.image_size)
    (height, width), (top, left) = place_image(geometry.image_size, geometry.input_size, inputs.resize)
    covered = resized(logits, size=geometry.input_size)[:, :, top : top + height, left : left + width]
    return covered if inputs.resize == "none" else resized(covered, size=geometry.image_size)


def _labels(logits: torch.Tensor, channels: Channels) -> torch.Tensor:
    """Labels [H, W] of logits [channels, H, W]."""
    if channels.threshold is not None:
        return (logits[0] > threshold_logit(channels.threshold)).to(torch.uint8)
    return logits.argmax(0).to(torch.uint8 if len(logits) <= MAX_BYTE_CLASSES else torch.uint16)


def _probabilities(logits: torch.Tensor, channels: Channels) -> torch.Tensor:
    """Probabilities [C, H, W] of logits [channels, H, W]."""
    if channels.threshold is not None:
        logits = torch.cat([torch.zeros_like(logits), logits])
    return logits.softmax(0)


def _with_threads(run: Run, threads: int) -> Run:
    """Limit PyTorch's threads, a process-wide setting, during each run."""
    if not threads:
        return run

    def limited(image: Picture) -> tuple[Picture, Mapping[str, float]]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return run(image)
        finally:
            torch.set_num_threads(before)

    return limited


@contextmanager
def _timed(timings: dict[str, float], stage: str, device: torch.device) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    timings[stage] = (time.perf_counter() - start) * 1e3
