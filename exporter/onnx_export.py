"""Export of a PyTorch module to ONNX: one strongly typed file that contains only the network.

Uses the exporter of `torch.export` (dynamo). Batch normalization is folded, atrous rates stay `dilations`, bilinear
interpolation becomes `Resize` with the coordinate rule of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import MAX_BYTE_CLASSES
from ..errors import ExportError
from ..manifest import SOFTMAX, Channels, Size, SizePolicy
from ..runtime.channels import threshold_logit
from .foreign import module_errors, quiet_torch
from .models import MultiScale
from .module_names import name_modules
from .opset import OPSET, torch_opset, with_opset
from .outputs import OneOutput
from .traced_sizes import check_traced_sizes

INPUT_NAME: Final = "image"
#: Pixels by which the sides of an example differ at least, where the range allows it.
_SIDE_STEP: Final = 32
_ADVICE: Final = (
    "If the network needs its sizes as numbers (a pool as large as the map, a set of sizes), one size may export: "
    "size=(height, width), --size HxW."
)


class StandaloneHead(nn.Module):
    """Network with its postprocessing: bilinear upsampling to the input's size, then softmax or argmax.

    [N, 3, H, W] → `probabilities` [N, C, H, W] float32 or `labels` [N, H, W] uint8, of more than 256 classes
    int32. A sigmoid has two classes.
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
        return logits.argmax(dim=1).to(torch.uint8 if logits.shape[1] <= MAX_BYTE_CLASSES else torch.int32)


def export_graph(
    model: nn.Module,
    path: Path,
    sizes: SizePolicy,
    *,
    channels: int = 3,
    output_name: str = "logits",
    dynamic_batch: bool = False,
    opset: int = OPSET,
) -> dict[str, Any]:
    """Write `model` to `path` as ONNX and return its provenance.

    Args:
        model: module in eval mode with one input [N, channels, H, W].
        sizes: a fixed size gives a graph of [1, channels, H, W]; a range gives dynamic N, H and W.
        channels: of the input: three, or a number of bands.
        output_name: name of the graph's output.
        dynamic_batch: a fixed size with a dynamic N.
        opset: operator set of ONNX.

    Raises:
        ExportError: the operator set is not one that the graph can be written in, torch cannot trace or convert the
            model, or the trace does not hold for all sizes of the range.
    """
    dynamic_shapes: tuple[dict[int, Any]] | None = None
    example = torch.zeros(1, channels, *sizes.opt)
    any_size = torch.export.Dim.DYNAMIC
    if sizes.is_fixed and dynamic_batch:
        example = torch.zeros(2, channels, *sizes.opt)
        dynamic_shapes = ({0: any_size},)
    elif not sizes.is_fixed:
        # Batch 2: torch.export specializes on 1.
        example = torch.zeros(2, channels, *unequal_sides(sizes))
        dynamic_shapes = ({0: any_size, 2: any_size, 3: any_size},)
    with quiet_torch(f"cannot export {type(model).__name__} to ONNX", advice="" if sizes.is_fixed else _ADVICE):
        with torch.inference_mode():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                input_names=[INPUT_NAME],
                output_names=[output_name],
                opset_version=torch_opset(opset),
                external_data=False,
                verbose=False,
            )
            assert program is not None, "dynamo=True without a path returns the program"  # noqa: S101
            name_modules(program.model, inside=_prefix(model))
        onnx.save(with_opset(program.model_proto, opset), path)
        if dynamic_shapes is not None and program.exported_program is not None:
            check_traced_sizes(program.exported_program, sizes, name=type(model).__name__)
    return {"exporter": f"torch {torch.__version__}", "opset": opset}


def _prefix(model: nn.Module) -> str:
    """Path of the user's module inside of what is wrapped around it here."""
    prefix = ""
    while isinstance(model, OneOutput | StandaloneHead | MultiScale):
        prefix, model = f"{prefix}model.", model.model
    return prefix


def unequal_sides(sizes: SizePolicy) -> Size:
    """Size in the range whose sides differ on every coarse map: torch.export treats equal sides as one symbol."""
    height, width = sizes.opt
    if height != width:
        return sizes.opt
    step = -(-_SIDE_STEP // sizes.multiple) * sizes.multiple
    for other in (width + step, width - step, sizes.max[1], sizes.min[1]):
        if other != height and sizes.min[1] <= other <= sizes.max[1]:
            return height, other
    return (sizes.min[0] if sizes.min[0] != width else sizes.max[0]), width


def coarse_shape(model: nn.Module, size: Size, *, channels: int = 3) -> tuple[int, ...]:
    """Run `model` once on an image of `size` and return the shape [1, C, h, w] of its logits.

    Raises:
        ExportError: the model fails on [1, channels, H, W], or does not return one float32 tensor [1, C, h, w].
    """
    name = type(model).__name__
    with module_errors(model, (1, channels, *size)), torch.inference_mode():
        logits = model(torch.zeros(1, channels, *size))
    expected = "one float32 tensor [N, C, h, w]"
    if not isinstance(logits, Tensor):
        keys = f" with {', '.join(map(str, logits))}" if isinstance(logits, dict) else ""
        raise ExportError(
            f"{name} returns a {type(logits).__name__}{keys}; expected {expected}. "
            "Wrap it in a module that returns the logits only."
        )
    if logits.ndim != 4 or logits.shape[0] != 1 or not logits.numel() or logits.dtype != torch.float32:
        raise ExportError(f"{name} returns {logits.dtype} {list(logits.shape)}; expected {expected}")
    return tuple(logits.shape)
