"""The kernels around the network on a device, by the sequences of their launch plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from emulator.calls import Calls

from atrous import _native
from atrous._native import Geometry
from atrous.gpu import Buffer, Memory, Region, Replayer, allocate, prepare
from atrous.manifest import InputSpec, OutputSpec, SizePolicy
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.gpu import frame
from atrous.runtime.gpu.frame import frame_spec

BLOCK = (256, 1)
DTYPES = [np.dtype(np.float32), np.dtype(np.float16)]
IMAGENET = InputSpec(
    color_order="RGB",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    scale=1 / 255,
    size=SizePolicy((8, 8), (64, 64), (512, 512), multiple=8),
    pad_value=(124, 116, 104),
    resize="none",
)
CAFFE = replace(IMAGENET, color_order="BGR", mean=(104.0, 116.7, 122.7), std=(1.0, 1.0, 1.0), scale=1.0)


class Frames:
    """Sequences of plans on arrays; every result lies between guards where the device has them."""

    def __init__(self, device) -> None:
        self.device = device
        self.stream = device.stream()
        self.call = Calls(device, frame.KERNELS)
        self._replayer = Replayer(device, self.stream, frame.KERNELS)

    def sent(self, array: np.ndarray, *, offset: int = 0) -> Buffer:
        """The array, `offset` bytes into a buffer, so that words of it are not aligned."""
        padded = np.concatenate([np.zeros(offset, np.uint8), np.ascontiguousarray(array).view(np.uint8).ravel()])
        buffer = self.device.allocate(padded.nbytes)
        self.device.upload(buffer, padded, self.stream)
        return Region(buffer, offset, array.nbytes) if offset else buffer

    def fetched(self, buffer: Buffer, shape: tuple[int, ...], dtype) -> np.ndarray:
        out = np.empty(shape, dtype)
        self.device.download(out, buffer, self.stream)
        assert not hasattr(buffer, "guards_hold") or buffer.guards_hold()
        return out

    def run(self, plan: _native.LaunchPlan, sequence: str, infer=None, **given: np.ndarray | Buffer) -> Memory:
        """What a sequence leaves; arrays go into the plan's memory before."""
        memory = allocate(plan, self.device, self.stream)
        for planned in plan.buffers:
            value = given.get(planned.name)
            if isinstance(value, np.ndarray):
                value = self.sent(value)
            if value is not None or planned.use == "given":
                memory[planned.name] = value if value is not None else self.device.allocate(planned.nbytes)
        self._replayer.replay(prepare(plan.sequences[sequence]), memory, infer)
        return memory

    def preprocessed(self, batch: np.ndarray, inputs: InputSpec, geometry: Geometry, dtype=DTYPES[0]) -> Memory:
        layout = EngineLayout(dtype, (len(batch), 1, 1, 1), DTYPES[0])
        return self.run(planned(geometry, None, layout, inputs, OutputSpec(1)), "preprocess", pictures=batch)

    def prepared(self, batch: np.ndarray, inputs: InputSpec, size, dtype) -> np.ndarray:
        memory = self.preprocessed(batch, inputs, Geometry(batch.shape[1:3], size, inputs.resize), dtype)
        return self.fetched(memory["input"], (len(batch), 3, *size), dtype)

    def stretched(self, batch: np.ndarray, size) -> np.ndarray:
        image = batch.shape[1:3]
        memory = self.preprocessed(batch, IMAGENET, Geometry(image, size, "stretch"))
        resized = memory[max((name for name in memory if name.startswith("resized")), default="pictures")]
        return self.fetched(resized, (len(batch), *size, 3), np.uint8)

    def resized(self, batch: np.ndarray, size) -> np.ndarray:
        """Along rows and then along columns."""
        count, height, width, _ = batch.shape
        across, down = _native.Resampling(width, size[1]), _native.Resampling(height, size[0])
        wide, out = np.empty((count, height, size[1], 3), np.uint8), np.empty((count, *size, 3), np.uint8)
        rows = (np.int32(count * height), np.int32(3 * width))
        taps = [(each.first, each.weights, np.int32(each.weights.shape[1])) for each in (across, down)]
        self.call("frame_resize_rows", 7, BLOCK, batch, *rows, *taps[0], np.int32(size[1]), wide)
        columns = (np.int32(count), np.int32(height), np.int32(3 * size[1]))
        self.call("frame_resize_columns", 7, BLOCK, wide, *columns, *taps[1], np.int32(size[0]), out)
        return out

    def resample(self, sequence: str, maps: np.ndarray, geometry: Geometry, align_corners: bool) -> np.ndarray:
        """What "labels", "probabilities" or "check" make of logits."""
        layout = EngineLayout(DTYPES[0], maps.shape, maps.dtype)
        plan = planned(geometry, None, layout, IMAGENET, OutputSpec(1, align_corners))
        memory = self.run(plan, sequence, output=maps)
        if sequence == "check":
            return self.fetched(memory["first_bad"], (1,), np.uint32)
        size, is_labels = geometry.image_size, sequence == "labels"
        shape = (len(maps), *size) if is_labels else (*maps.shape[:2], *size)
        return self.fetched(memory[sequence], shape, np.uint8 if is_labels else np.float32)

    def labels(self, maps: np.ndarray, geometry: Geometry, align_corners: bool) -> np.ndarray:
        return self.resample("labels", maps, geometry, align_corners)

    def probabilities(self, maps: np.ndarray, geometry: Geometry, align_corners: bool) -> np.ndarray:
        return self.resample("probabilities", maps, geometry, align_corners)

    def first_bad(self, maps: np.ndarray) -> int:
        return int(self.resample("check", maps, Geometry((1, 1), (1, 1), "none"), False)[0])

    def overlay(self, picture: np.ndarray, labels: np.ndarray, palette: np.ndarray, alpha: float, offset: int = 0):
        plan = _native.plan_overlay(labels.size, alpha, self.device.properties.multiprocessors)
        memory = self.run(
            plan, "overlay", pictures=self.sent(picture, offset=3 * offset), labels=labels, palette=palette
        )
        return self.fetched(memory["overlay"], picture.shape, np.uint8)


def planned(geometry, tiles, layout: EngineLayout, inputs: InputSpec, outputs: OutputSpec) -> _native.LaunchPlan:
    return _native.plan_frame(frame_spec(geometry, tiles, layout, inputs, outputs), multiprocessors=2)
