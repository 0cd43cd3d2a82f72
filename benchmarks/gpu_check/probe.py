"""Small launches of every kernel, for compute-sanitizer to watch: odd sizes, both storages, batches."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from steps import sized

from atrous import _native
from atrous.bands import Bands
from atrous.crf import DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Buffer, Device, Replayer, Stream, allocate, ceil_div, open_device, prepare
from atrous.manifest import SOFTMAX, Channels, InputSpec, OutputSpec, Size, SizePolicy
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.channels import label_logits, probability_logits
from atrous.runtime.gpu.frame import KERNELS, frame_spec
from atrous.runtime.postprocess import upsample_labels, upsample_probabilities
from atrous.runtime.preprocess import color_image, plan_geometry, prepare_image
from atrous.runtime.tiling import blend_tiles, needs_tiles, plan_tiles

#: Height and width; an eighth of the frame's.
PICTURES = sized([(1, 1), (23, 34), (12, 20)], rehearsal=[(1, 1), (7, 10)])
#: Images, classes, height, width. More than 128 classes have kernels of their own, and so have hundreds of pixels.
FIELDS = sized(
    [(1, 1, 1, 1), (2, 5, 17, 23), (1, 21, 40, 61), (1, 130, 9, 7)],
    rehearsal=[(1, 1, 1, 1), (2, 5, 17, 23), (1, 130, 3, 5)],
)
BANDS = (Bands.of(4), Bands.of(1, "uint16"), Bands.of(2, "float32"))
#: Labels of more than 256 classes take 16 bits.
MANY_CLASSES = 257


def main() -> None:
    """Raises if a result is not that of the CPU core."""
    device = open_device()
    probe_frames(device)
    probe_crf(device)


def probe_frames(device: Device) -> None:
    """The kernels around the network."""
    inputs = InputSpec(size=SizePolicy((1, 1), (24, 40), (512, 512), multiple=1))
    for classes, size, dtype in itertools.product((1, 19), PICTURES, (np.float32, np.float16)):
        probe_frame(Probe(device, inputs, size, np.dtype(dtype), classes))
    small = InputSpec(size=SizePolicy((8, 8), (8, 8), (8, 16), multiple=4))
    for dtype in (np.float32, np.float16):
        probe_tiles(Probe(device, small, (13, 34), np.dtype(dtype), 3))
    for bands, dtype in itertools.product(BANDS, (np.float32, np.float16)):
        for size in PICTURES:
            of_bands = replace(
                inputs, bands=bands, **dict.fromkeys(("mean", "std", "pad_value"), (1.0,) * len(bands.names))
            )
            probe_frame(Probe(device, of_bands, size, np.dtype(dtype), MANY_CLASSES))
    probe_overlay(device)


class Probe:
    """Sequences of the plan for two pictures of noise, whose network answers noise at stride 4."""

    def __init__(self, device: Device, inputs: InputSpec, size: Size, dtype: np.dtype[Any], classes: int) -> None:
        rng = np.random.default_rng(0)
        self.device, self.stream = device, device.stream()
        channels = Channels("sigmoid", 0.3) if classes == 1 else SOFTMAX
        self.inputs, self.outputs, self.dtype = inputs, OutputSpec(4, channels=channels), dtype
        self.pictures = noise(rng, (2, *size), inputs.bands)
        self.geometry = plan_geometry(size, inputs)
        is_tiled = needs_tiles(self.geometry, inputs)
        self.tiles = plan_tiles(self.geometry, inputs, self.outputs) if is_tiled else None
        self.input_size = self.tiles.tile_size if self.tiles is not None else self.geometry.input_size
        shape = (2, classes, *(ceil_div(length, 4) for length in self.input_size))
        count = len(self.tiles.origins) if self.tiles is not None else 1
        self.logits = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
        layout = EngineLayout(dtype, shape, dtype)
        spec = frame_spec(self.geometry, self.tiles, layout, inputs, self.outputs)
        self.plan = _native.plan_frame(spec, device.properties.multiprocessors)
        self.memory = allocate(self.plan, device, self.stream)
        self.memory |= {each.name: device.allocate(each.nbytes) for each in self.plan.buffers if each.use == "given"}
        device.upload(self.memory["pictures"], self.pictures, self.stream)
        self._answers = iter(self.logits)

    def replay(self, name: str) -> None:
        """Queues a sequence."""
        replayer = Replayer(self.device, self.stream, KERNELS)
        replayer.replay(prepare(self.plan.sequences[name]), self.memory, self._infer)

    def require(self, name: str, expected: list[NDArray[Any]]) -> None:
        """Compares a buffer with what the CPU makes of each picture."""
        require(self.device, name, self.memory[name], np.stack(expected))

    def _infer(self, _source: Buffer, result: Buffer, stream: Stream) -> None:
        self.device.upload(result, next(self._answers), stream)


def noise(rng: np.random.Generator, shape: tuple[int, ...], bands: Bands | None) -> NDArray[Any]:
    """Pictures of RGB, or of bands of any type."""
    if bands is None:
        return rng.integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    samples = rng.integers(0, 1 << 8 * np.dtype(bands.dtype).itemsize, size=(*shape, len(bands.names)))
    return (samples / 2**32 if bands.dtype == "float32" else samples).astype(bands.dtype)


def require(device: Device, what: str, buffer: Buffer, expected: NDArray[Any]) -> None:
    """Ends the run unless a buffer holds what is expected."""
    got = np.empty_like(expected)
    device.download(got, buffer, device.stream())
    if not np.array_equal(got, expected):
        raise SystemExit(f"{what} of {list(expected.shape)}: differs from the CPU")


def probe_frame(probe: Probe) -> None:
    """A picture that the network takes whole, padded and resized."""
    probe.replay("preprocess")
    size, inputs = probe.input_size, probe.inputs
    probe.require("input", [prepare_image(each, size, inputs).astype(probe.dtype) for each in probe.pictures])
    for name in ("inference", "check", "labels", "probabilities"):
        probe.replay(name)
    maps = probe.logits[0]
    channels = probe.outputs.channels
    for name, upsample, logits_of in (
        ("labels", upsample_labels, label_logits),
        ("probabilities", upsample_probabilities, probability_logits),
    ):
        expected = [upsample(logits_of(each, channels), probe.geometry, align_corners=False) for each in maps]
        probe.require(name, expected)
    if channels.threshold is not None:
        probe.replay("threshold")
        probe.require("labels", [(each[1] > np.float32(channels.threshold)).astype(np.uint8) for each in expected])
    require(probe.device, "first bad logit", probe.memory["first_bad"], np.array([0xFFFFFFFF], np.uint32))
    if inputs.bands is None:
        probe.replay("swap")
        probe.require("pictures", [each[..., ::-1] for each in probe.pictures])
    else:
        probe.replay("colors")
        probe.require("colors", [color_image(each, inputs.bands, weighted=True) for each in probe.pictures])
    if inputs.resize == "none":
        for resize in ("stretch", "letterbox"):
            resized = replace(inputs, resize=resize)
            probe_frame(Probe(probe.device, resized, probe.geometry.image_size, probe.dtype, maps.shape[1]))


def probe_tiles(probe: Probe) -> None:
    """Pictures in tiles, of which the last ones reach beyond."""
    probe.replay("inference")
    assert probe.tiles is not None  # they are larger than the network takes
    expected = []
    for index in range(2):
        answers = iter(probe.logits)
        blended = blend_tiles(probe.tiles, lambda _top, _left, i=index, a=answers: next(a)[i].astype(np.float32))
        expected.append(blended)
    probe.require("blended", expected)


def probe_overlay(device: Device) -> None:
    """Labels over a picture."""
    rng = np.random.default_rng(0)
    for height, width in PICTURES:
        arrays = {
            name: rng.integers(0, 256, size=shape, dtype=np.uint8)
            for name, shape in (("pictures", (height, width, 3)), ("labels", (height, width)), ("palette", (256, 3)))
        }
        plan = _native.plan_overlay(height * width, 0.6, device.properties.multiprocessors)
        memory, stream = {each.name: device.allocate(each.nbytes) for each in plan.buffers}, device.stream()
        for name, array in arrays.items():
            device.upload(memory[name], array, stream)
        Replayer(device, stream, KERNELS).replay(prepare(plan.sequences["overlay"]), memory)
        stream.synchronize()
        require(device, "overlay", memory["overlay"], _native.overlay(*arrays.values(), 0.6))


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
