"""The CRF's kernels, and a stream that sequences of them are put into."""

from __future__ import annotations

from pathlib import Path

from ..gpu import Device, KernelSource, Replayer, Stream
from ..gpu.toolchain import EXACT, SHARED

KERNELS = KernelSource(
    Path(__file__).parent / "kernels" / "dense_crf.cu",
    # Which simplex a pixel lies in is decided by the last bit: products and sums round one by one, as on the CPU.
    flags=EXACT,
    includes=(SHARED,),
)


class Queue(Replayer):
    """Puts the CRF's kernels into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        super().__init__(device, stream, KERNELS)
