"""Small launches of every kernel, for compute-sanitizer to watch: odd sizes, both storages, batches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from steps import sized

from atrous import _native
from atrous.crf import DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Buffer, Device, open_device
from atrous.manifest import InputSpec, SizePolicy
from atrous.runtime.gpu.frame import CoarseLogits, DeviceResampling, FrameQueue, Pictures, constants_of
from atrous.runtime.postprocess import upsample_labels, upsample_probabilities
from atrous.runtime.preprocess import prepare_image

#: Height and width; an eighth of the frame's.
PICTURES = sized([(1, 1), (23, 34), (12, 20)], rehearsal=[(1, 1), (7, 10)])
#: Images, classes, height, width. More than 128 classes have kernels of their own, and so have hundreds of pixels.
FIELDS = sized(
    [(1, 1, 1, 1), (2, 5, 17, 23), (1, 21, 40, 61), (1, 130, 9, 7)],
    rehearsal=[(1, 1, 1, 1), (2, 5, 17, 23), (1, 130, 3, 5)],
)


def main() -> None:
    """Raises if a result is not that of the CPU core."""
    device = open_device()
    probe_frames(device)
    probe_crf(device)


def probe_frames(device: Device) -> None:
    """The kernels around the network."""
    rng = np.random.default_rng(0)
    stream = device.stream()
    frames = FrameQueue(device, stream)

    def sent(array: NDArray[Any]) -> Buffer:
        buffer = device.allocate(array.nbytes)
        device.upload(buffer, array, stream)
        return buffer

    def require(what: str, buffer: Buffer, expected: NDArray[Any]) -> None:
        got = np.empty_like(expected)
        device.download(got, buffer, stream)
        if not np.array_equal(got, expected):
            raise SystemExit(f"{what} of {list(expected.shape)}: differs from the CPU")

    inputs = InputSpec(size=SizePolicy((1, 1), (64, 64), (512, 512), multiple=1))
    for classes, (height, width), dtype in itertools.product((1, 19), PICTURES, (np.float32, np.float16)):
        size, full = (height + 5, width + 2), (8 * height, 8 * width)
        pictures = rng.integers(0, 256, size=(2, height, width, 3), dtype=np.uint8)
        batch = Pictures(sent(pictures), 2, (height, width), 3 * width)
        target = device.allocate(2 * 3 * size[0] * size[1] * np.dtype(dtype).itemsize)
        frames.normalize(batch, sent(constants_of(inputs)), target, inputs=inputs, size=size, dtype=np.dtype(dtype))
        require("input", target, np.stack([prepare_image(p, size, inputs) for p in pictures]).astype(dtype))
        maps = rng.normal(size=(2, classes, height, width)).astype(dtype)
        logits = CoarseLogits(sent(maps), maps.shape, maps.dtype, full, full, align_corners=False)
        labels, probabilities = device.allocate(2 * full[0] * full[1]), device.allocate(8 * classes * full[0] * full[1])
        frames.labels(logits, labels)
        require("labels", labels, np.stack([upsample_labels(m, full, align_corners=False) for m in maps]))
        frames.probabilities(logits, probabilities)
        expected = np.stack([upsample_probabilities(m, full, align_corners=False) for m in maps])
        require("probabilities", probabilities, expected)
        first_bad = device.allocate(4)
        frames.find_not_finite(logits, first_bad)
        require("first bad logit", first_bad, np.array([0xFFFFFFFF], np.uint32))
        rows = DeviceResampling.of(device, _native.Resampling(width, 40), stream)
        columns = DeviceResampling.of(device, _native.Resampling(height, 24), stream)
        wide, small = device.allocate(2 * height * 40 * 3), device.allocate(2 * 24 * 40 * 3)
        frames.resize_rows(batch, rows, wide)
        frames.resize_columns(Pictures(wide, 2, (height, 40), 120), columns, small)
        by_rows = [Image.fromarray(p).resize((40, height), Image.Resampling.BILINEAR) for p in pictures]
        require(
            "resized", small, np.stack([np.asarray(p.resize((40, 24), Image.Resampling.BILINEAR)) for p in by_rows])
        )
        marked, palette = (rng.integers(0, 256, size=shape, dtype=np.uint8) for shape in ((height, width), (256, 3)))
        blended = device.allocate(3 * height * width)
        buffers = sent(pictures[0]), sent(marked), sent(palette)
        frames.overlay(*buffers, blended, pixels=height * width, alpha=0.6)
        require("overlay", blended, _native.overlay(pictures[0], marked, palette, 0.6))


def probe_crf(device: Device) -> None:
    """Mean field, with each compatibility."""
    rng = np.random.default_rng(0)
    for images, classes, height, width in FIELDS:
        probabilities = rng.dirichlet(np.ones(classes), size=(images, height, width)).transpose(0, 3, 1, 2)
        pictures = rng.integers(0, 256, size=(images, height, width, 3), dtype=np.uint8) // 8
        expected = np.stack([DenseCRF(iterations=2)(p, i) for p, i in zip(probabilities, pictures, strict=True)])
        for storage, limit in (("fp32", 1e-4), ("unorm16", 1e-2)):
            for compatibility in (None, -np.eye(classes)):
                crf = CudaDenseCRF(iterations=2, storage=storage, compatibility=compatibility, device=device)
                worst = float(np.abs(crf(probabilities, pictures) - expected).max())
                if worst > limit:
                    message = f"{storage}, {classes} classes at {height}×{width}: differs from the CPU by {worst}"
                    raise SystemExit(message)
                crf.labels(probabilities, pictures)


if __name__ == "__main__":
    main()
