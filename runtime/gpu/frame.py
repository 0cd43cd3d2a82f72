"""The kernels around the network: pictures → its input, its logits → labels or probabilities, overlays.

They give the bits of their twins on the CPU, `prepare_image`, `upsample_labels`, `upsample_probabilities` and
`Result.overlay`; inputs and logits in half precision are rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..._native import KERNEL_CONSTANTS, Resampling, plan_resize
from ...gpu import Buffer, Device, KernelQueue, KernelSource, Stream, ceil_div
from ...gpu.toolchain import EXACT
from ...manifest import InputSpec, Size
from ..preprocess import normalization_of_bytes

KERNELS: Final = KernelSource(
    Path(__file__).parents[1] / "kernels" / "frame.cu",
    flags=EXACT,
)

_RUN: Final = KERNEL_CONSTANTS["kRun"]
"""Neighbouring pixels that one thread works on."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures [N, H, W, 3] uint8 in device memory.

    Attributes:
        buffer: the pixels.
        count: N.
        size: (H, W).
        row_bytes: from one row to the next; at least 3 W.
    """

    buffer: Buffer
    count: int
    size: Size
    row_bytes: int

    @classmethod
    def allocate(cls, device: Device, count: int, size: Size) -> Pictures:
        """Packed ones with undefined content."""
        return cls(device.allocate(3 * count * math.prod(size)), count, size, 3 * size[1])


@dataclass(frozen=True, slots=True)
class CoarseLogits:
    """Logits [N, C, h, w] in device memory, and where they lie on the pictures.

    Attributes:
        buffer: the logits.
        shape: (N, C, h, w).
        dtype: float32 or float16.
        full_size: (H, W) in pixels that they cover.
        crop: (Hc, Wc), the top-left part that is wanted.
        align_corners: as in `upsample_labels`.
    """

    buffer: Buffer
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    full_size: Size
    crop: Size
    align_corners: bool

    @property
    def runs(self) -> int:
        """Threads that compute the wanted part."""
        return self.shape[0] * self.crop[0] * ceil_div(self.crop[1], _RUN)

    @property
    def scales(self) -> tuple[float, float]:
        """Samples a pixel along y and x, rounded as on the CPU."""
        height, width = (
            _scale(length, full, self.align_corners)
            for length, full in zip(self.shape[2:], self.full_size, strict=True)
        )
        return height, width


class FrameQueue(KernelQueue):
    """Puts the kernels around the network into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        super().__init__(device, stream, KERNELS)

    def normalize(
        self,
        pictures: Pictures,
        constants: Buffer,
        target: Buffer,
        *,
        inputs: InputSpec,
        size: Size,
        dtype: np.dtype[Any],
    ) -> None:
        """Pictures → network input [N, 3, *size] of `dtype`, padded right and below; `constants` are `constants_of`."""
        (height, width), (out_height, out_width) = pictures.size, size
        self.each(
            f"frame_normalize_{_suffix(dtype)}",
            pictures.count * out_height * ceil_div(out_width, _RUN),
            pictures.buffer,
            pictures.count,
            height,
            width,
            pictures.row_bytes,
            constants,
            int(inputs.color_order == "BGR"),
            out_height,
            out_width,
            target,
        )

    def resize_rows(self, pictures: Pictures, resampling: DeviceResampling, target: Buffer) -> None:
        """Pictures [N, H, W, 3] → [N, H, resampling.length, 3]."""
        rows = pictures.count * pictures.size[0]
        self.each(
            "frame_resize_rows",
            rows * resampling.length,
            pictures.buffer,
            rows,
            pictures.row_bytes,
            resampling.first,
            resampling.weights,
            resampling.taps,
            resampling.length,
            target,
        )

    def resize_columns(self, pictures: Pictures, resampling: DeviceResampling, target: Buffer) -> None:
        """Pictures [N, H, W, 3] → [N, resampling.length, W, 3]."""
        self.each(
            "frame_resize_columns",
            pictures.count * resampling.length * pictures.row_bytes,
            pictures.buffer,
            pictures.count,
            pictures.size[0],
            pictures.row_bytes,
            resampling.first,
            resampling.weights,
            resampling.taps,
            resampling.length,
            target,
        )

    def labels(self, logits: CoarseLogits, target: Buffer) -> None:
        """Labels [N, Hc, Wc] uint8 of the largest logit; of equals, the lowest."""
        self._resample("labels", logits, target)

    def probabilities(self, logits: CoarseLogits, target: Buffer) -> None:
        """Probabilities [N, C, Hc, Wc] float32."""
        self._resample("probabilities", logits, target)

    def find_not_finite(self, logits: CoarseLogits, first_bad: Buffer) -> None:
        """The index of the first logit that is NaN or infinite, or 2³² − 1, into the one word of `first_bad`."""
        self.fill(first_bad, 0xFFFFFFFF)
        count = math.prod(logits.shape)
        self.each(f"frame_find_not_finite_{_suffix(logits.dtype)}", count, logits.buffer, count, first_bad)

    def overlay(
        self, pictures: Buffer, labels: Buffer, palette: Buffer, target: Buffer, *, pixels: int, alpha: float
    ) -> None:
        """Picture + alpha · (palette[label] − picture), rounded: [pixels, 3], [pixels], [256, 3] uint8."""
        count = ceil_div(pixels, _RUN)
        self.each("frame_overlay", count, pictures, labels, palette, float(alpha), pixels, target)

    def _resample(self, what: str, logits: CoarseLogits, target: Buffer) -> None:
        kernel = f"frame_{what}_{_suffix(logits.dtype)}"
        shape, scales, align = logits.shape, logits.scales, int(logits.align_corners)
        self.each(kernel, logits.runs, logits.buffer, *shape, *scales, align, *logits.crop, target)


def constants_of(inputs: InputSpec) -> NDArray[np.float32]:
    """What `FrameQueue.normalize` needs: mean, standard deviation and normalised padding [3, 3], by output channel."""
    mean, std = normalization_of_bytes(inputs)
    padding = np.asarray(inputs.pad_value, np.float32)
    if inputs.color_order == "BGR":
        padding = padding[::-1]
    return np.stack([mean, std, (padding - mean) / std]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class DeviceResampling:
    """A `Resampling` in device memory.

    Attributes:
        first: [length] int32.
        weights: [length, taps] int32.
        taps: input pixels of an output pixel.
        length: output pixels.
    """

    first: Buffer
    weights: Buffer
    taps: int
    length: int

    @classmethod
    def of(cls, device: Device, plan: Resampling, stream: Stream) -> DeviceResampling:
        """Copies a plan to a device."""
        length, taps = plan.weights.shape
        first, weights = device.allocate(plan.first.nbytes), device.allocate(plan.weights.nbytes)
        device.upload(first, plan.first, stream)
        device.upload(weights, plan.weights, stream)
        return cls(first, weights, taps, length)


class DeviceStretch:
    """Resizes pictures of one size as Pillow 13's bilinear filter, to the last bit; allocates when made.

    Args:
        queue: where work goes.
        count: pictures at once.
        size: (H, W) of them.
        out_size: what they become.
    """

    def __init__(self, queue: FrameQueue, count: int, size: Size, out_size: Size) -> None:
        device, stream = queue.device, queue.stream
        self._queue = queue
        self._passes = [
            (
                step.is_down,
                DeviceResampling.of(device, step.resampling, stream),
                Pictures.allocate(device, count, step.size),
            )
            for step in plan_resize(size, out_size)
        ]

    def queue(self, pictures: Pictures) -> Pictures:
        """Queues all passes; the result is overwritten by the next."""
        for is_down, resampling, resized in self._passes:
            resize = self._queue.resize_columns if is_down else self._queue.resize_rows
            resize(pictures, resampling, resized.buffer)
            pictures = resized
        return pictures

    @staticmethod
    def estimate_bytes(count: int, size: Size, out_size: Size) -> int:
        """Memory of the pictures that one allocates."""
        return sum(3 * count * math.prod(step.size) for step in plan_resize(size, out_size))


def _suffix(dtype: np.dtype[Any]) -> str:
    return "f16" if dtype == np.float16 else "f32"


def _scale(length: int, full: int, align_corners: bool) -> float:
    if align_corners:
        return float(np.float32(length - 1) / np.float32(full - 1)) if full > 1 else 0.0
    return float(np.float32(length) / np.float32(full))
