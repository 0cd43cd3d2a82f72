"""Export of a PyTorch module to ONNX: one strongly typed file that contains only the network.

Uses the exporter of `torch.export` (dynamo). Batch normalization is folded, atrous rates stay `dilations`, bilinear
interpolation becomes `Resize` with the coordinate rule of the model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ExportError
from ..manifest import SOFTMAX, Channels, Size, SizePolicy
from ..runtime.channels import threshold_logit

OPSET: Final = 20
INPUT_NAME: Final = "image"


class StandaloneHead(nn.Module):
    """Network with its postprocessing: bilinear upsampling to the input's size, then softmax or argmax.

    [N, 3, H, W] → `probabilities` [N, C, H, W] float32 or `labels` [N, H, W] uint8. A sigmoid has two classes.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Literal["probabilities", "labels"],
        *,
        align_corners: bool,
        channels: Channels = SOFTMAX,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.align_corners = align_corners
        self.threshold = channels.threshold

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities or labels at the resolution of `image`."""
        logits = functional.interpolate(
            self.model(image), size=image.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        if self.head == "probabilities":
            if self.threshold is not None:
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            return logits.softmax(dim=1)
        if self.threshold is not None:
            return (logits[:, 0] > threshold_logit(self.threshold)).to(torch.uint8)
        return logits.argmax(dim=1).to(torch.uint8)


def export_graph(model: nn.Module, path: Path, sizes: SizePolicy, *, output_name: str = "logits") -> dict[str, Any]:
    """Write `model` to `path` as ONNX and return its provenance.

    Args:
        model: module in eval mode with one input [N, 3, H, W].
        sizes: a fixed size gives a graph of [1, 3, H, W]; a range gives dynamic N, H and W.

    Raises:
        ExportError: torch cannot trace or convert the model.
    """
    dynamic_shapes = None
    example = torch.zeros(1, 3, *sizes.opt)
    if not sizes.is_fixed:
        # Batch 2 and different sides: torch.export specializes on 1, and treats equal sides as one symbol.
        height, width = sizes.opt
        example = torch.zeros(2, 3, height, width + sizes.multiple if width == height else width)
        any_size = torch.export.Dim.DYNAMIC
        dynamic_shapes = ({0: any_size, 2: any_size, 3: any_size},)
    try:
        with _quiet_exporter(), torch.inference_mode():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                input_names=[INPUT_NAME],
                output_names=[output_name],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            assert program is not None, "dynamo=True without a path returns the program"  # noqa: S101
            # torch stores on every node the path of its source line on this machine.
            ClearMetadataAndDocStringPass()(program.model)
            program.save(path, external_data=False)
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as exc:  # torch's exceptions here share no base class
        raise ExportError(f"torch cannot export {type(model).__name__} to ONNX: {_first_lines(exc)}") from exc
    return {"exporter": f"torch {torch.__version__}", "opset": OPSET}


def coarse_shape(model: nn.Module, size: Size) -> tuple[int, ...]:
    """Run `model` once on an image of `size` and return the shape [1, C, h, w] of its logits.

    Raises:
        ExportError: the model fails on [1, 3, H, W], or does not return one float32 tensor [1, C, h, w].
    """
    name = type(model).__name__
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 3, *size))
    except Exception as exc:
        raise ExportError(f"{name} fails on an input [1, 3, {size[0]}, {size[1]}]: {exc}") from exc
    expected = "one float32 tensor [N, C, h, w]"
    if not isinstance(logits, Tensor):
        keys = f" with {', '.join(map(str, logits))}" if isinstance(logits, dict) else ""
        raise ExportError(
            f"{name} returns a {type(logits).__name__}{keys}; expected {expected}. "
            "Wrap it in a module that returns the logits only."
        )
    if logits.ndim != 4 or logits.shape[0] != 1 or logits.dtype != torch.float32:
        raise ExportError(f"{name} returns {logits.dtype} {list(logits.shape)}; expected {expected}")
    return tuple(logits.shape)


def _first_lines(exc: BaseException, count: int = 6) -> str:
    return "\n".join(str(exc).strip().splitlines()[:count])


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's own notices (deprecations inside torch, torchvision not installed)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
