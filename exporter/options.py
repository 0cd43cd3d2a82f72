"""Options of exporting, packing and building; light, so that the command line can import them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..arguments import check_fields

if TYPE_CHECKING:
    from ..crf import CRFParams, DenseCRF

#: How atrous convolutions are written.
AtrousForm = Literal["dilated", "deinterlaced", "taps"]
#: The same, or `auto`: measured for each convolution on this machine.
AtrousChoice = Literal["auto", AtrousForm]
#: What a graph ends in.
Head = Literal["logits", "probabilities", "labels"]
#: Projects whose names of weights are known.
Source = Literal["atrous", "torchvision", "smp", "kazuto1011", "vainf", "jfzhang95", "mmseg", "hf"]
SourceChoice = Literal["auto", Source]
#: The TensorRT to build engines with.
BackendChoice = Literal["auto", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Facts about a model that a bundle keeps, besides its input and output.

    Attributes:
        crf: parameters that `crf=True` will use, or a dense CRF whose parameters and iterations it will; DeepLab v2's
            when None.
        license: terms of the weights.
        threshold: of a network with one channel, whose sigmoid is the probability p of class 1: labels are 1 where p is
            above it. 0.5 when None; None for networks with a channel for each class.
        output: which output are the logits, by name (a key or field of what a module returns) or position. When None, a
            graph's only one; of a module `out` or `logits`, or its only map [N, C, h, w].
    """

    crf: CRFParams | DenseCRF | None = None
    license: str | None = None
    threshold: float | None = None
    output: str | int | None = None

    def __post_init__(self) -> None:
        from ..crf import CRFParams, DenseCRF

        check_fields(self, CRFParams=CRFParams, DenseCRF=DenseCRF)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(PackOptions):
    """The same, and how the graph is written.

    Attributes:
        atrous: `deinterlaced` rewrites atrous convolutions as dense ones over subsampled maps (arXiv 1606.00915 §3.1),
            `taps` as a sum of 1×1 convolutions on shifted views of their input. `auto` writes them dilated and then
            optimizes the bundle for this machine, as `atrous.optimize` does.
        dynamic_batch: batches for a graph of one size; a range of sizes has them anyway.
        origin: where the weights come from, kept in the graph's provenance.
        opset: operator set of ONNX, from 17 on; None for 20. Older TensorRT and runtimes need an older one.
        head: `probabilities` or `labels` adds a second graph that ends in them, for use without this runtime.
    """

    atrous: AtrousChoice = "dilated"
    head: Head = "logits"
    dynamic_batch: bool = False
    opset: int | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
