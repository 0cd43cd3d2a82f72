"""The CRF's kernels, and a queue for sequences of them."""

from __future__ import annotations

from pathlib import Path

from ..gpu import Device, KernelSource, Replayer, Stream
from ..gpu.toolchain import EXACT, SHARED

KERNELS = KernelSource(
    Path(__file__).parent / "kernels" / "dense_crf.cu",
    # The last bit decides in which simplex a pixel lies, so products and sums round separately, as on the CPU.
    flags=EXACT,
    includes=(SHARED,),
)


class Queue(Replayer):
    """Queues the CRF's kernels in a stream.

    Args:
        device: the GPU.
        stream: the stream.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        super().__init__(device, stream, KERNELS)
