"""Everything that the GPU does for images of one size: memory, an engine, and the launches as a graph."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..._native import plan_frame
from ...arrays import Labels, label_type
from ...crf.cuda import CudaDenseCRF
from ...crf.cuda_field import CudaField, Failure, FieldSpec, Status
from ...crf.cuda_queue import Queue
from ...errors import DeviceError, EngineError, ShapeError
from ...gpu import Buffer, Device, Replayer, allocate, planned_bytes, prepare
from ...gpu.nvtx import annotate
from ...manifest import InputSpec, OutputSpec
from ..backends.base import DeviceBackend
from ..band_images import Pixels
from ..preprocess import plan_geometry
from ..tiling import needs_tiles, plan_tiles
from .frame import KERNELS, frame_spec
from .frame_slot import SLOTS, FrameKey, Slot

_log = logging.getLogger(__name__)

#: What the GPU answers where every logit is finite.
_NONE_BAD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Results of a batch.

    Attributes:
        labels: [N, H, W] uint8, or uint16 of more than 256 classes.
        probabilities: [N, C, H, W] float32 if they were asked for: softmax of the logits, or the CRF's marginals.
        timings_ms: of the batch on the GPU, by stage: upload, preprocess, inference, postprocess, crf, download.
    """

    labels: Labels
    probabilities: NDArray[np.float32] | None
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that all programs of a pipeline share.

    Attributes:
        inputs: how images become network input.
        outputs: how logits lie on images.
        channels: number of channels of the logits.
        classes: number of classes, of which there are two for one channel.
        backend: opens engines.
    """

    inputs: InputSpec
    outputs: OutputSpec
    channels: int
    classes: int
    backend: DeviceBackend


class Lanes:
    """One worker's device and its three streams: for images up, for computing, and for labels down.

    Args:
        device: of this thread.
        crf: on this device, or None.
    """

    def __init__(self, device: Device, crf: CudaDenseCRF | None) -> None:
        self.device = device
        self.uploading = device.stream()
        self.computing = device.stream()
        self.downloading = device.stream()
        self.frames = Replayer(device, self.computing, KERNELS)
        self.crf = crf
        self.crf_queue = Queue(device, self.computing) if crf is not None else None

    def synchronize(self) -> None:
        """Waits for all three."""
        for stream in (self.uploading, self.computing, self.downloading):
            stream.synchronize()


class LatticeFullError(DeviceError):
    """The image has more lattice vertices than there is room for; `spec` is the field's that was too small."""

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__("the lattice is full")
        self.spec = spec


class FrameProgram:
    """Takes batches of one size through the GPU; allocates when made and never again.

    Args:
        lanes: of the worker.
        recipe: what to do.
        key: for which images.

    Raises:
        ShapeError: the size cannot be tiled, or the batch is beyond the kernels' indices.
        EngineError: the engine does not take the size, or answers another number of channels than the manifest says, or
            at another stride.
        CRFError: a sigma of the CRF is too small for the size.
        DeviceError: there is not enough memory; the message says how much is needed.
    """

    def __init__(self, lanes: Lanes, recipe: Recipe, key: FrameKey) -> None:
        self.key = key
        self._lanes = lanes
        self._recipe = recipe
        device, inputs = lanes.device, recipe.inputs
        geometry = plan_geometry(key.size, inputs)
        tiles = plan_tiles(geometry, inputs, recipe.outputs) if needs_tiles(geometry, inputs) else None
        input_size = tiles.tile_size if tiles is not None else geometry.input_size
        self._engine = recipe.backend.open_engine(device)
        layout = self._engine.prepare((key.count, inputs.channels, *input_size))
        if layout.output_shape[1] != recipe.channels:
            raise EngineError(
                f"{recipe.backend.artifact.file} gives {layout.output_shape[1]} channels; the manifest says "
                f"{recipe.channels}"
            )
        spec = frame_spec(geometry, tiles, layout, inputs, recipe.outputs)
        self._logits_shape = spec.logits_shape
        plan = plan_frame(spec, device.properties.multiprocessors)
        self._planned_bytes = planned_bytes(plan)
        self._check_memory()
        self._memory = allocate(plan, device, lanes.computing)
        self._sequences = {name: prepare(sequence) for name, sequence in plan.sequences.items()}
        self._field: CudaField | None = None
        if lanes.crf is not None and lanes.crf_queue is not None:
            self._field = lanes.crf.open_field(lanes.crf_queue, key.count, recipe.classes, *key.size)
        self._slots = [Slot(device, key, recipe.classes, recipe.inputs.pixel_bytes) for _ in range(SLOTS)]
        self._record()

    def launch(self, pictures: Sequence[Pixels]) -> Slot:
        """Queues a batch [H, W, 3] uint8 RGB, or bands, × N and returns where its answer will be; waits for nothing.

        No more than `SLOTS` batches are in work at once.
        """
        slot = next(slot for slot in self._slots if slot.is_free)
        slot.is_free = False
        lanes, device = self._lanes, self._lanes.device
        with annotate("atrous upload"):
            np.stack(pictures, out=slot.sent.view(pictures[0].dtype).reshape(self.key.count, *pictures[0].shape))
            slot.upload[0].record(lanes.uploading)
            device.upload_async(slot.pictures, slot.sent, lanes.uploading)
            slot.upload[1].record(lanes.uploading)
        with annotate("atrous compute"):
            lanes.computing.wait_for(slot.upload[1])
            if slot.graph is not None:
                slot.graph.replay(lanes.computing)
            else:
                self._queue_frame(slot)
            slot.computed.record(lanes.computing)
        with annotate("atrous download"):
            lanes.downloading.wait_for(slot.computed)
            slot.download[0].record(lanes.downloading)
            device.download_async(slot.received, slot.answer, lanes.downloading)
            slot.download[1].record(lanes.downloading)
        return slot

    def collect(self, slot: Slot) -> FrameResult:
        """Waits for a batch and copies its answer.

        Raises:
            ShapeError: the network answered NaN or infinity.
            LatticeFullError: `grow`, and launch the batch again.
            DeviceError: the GPU failed.
        """
        try:
            with annotate("atrous wait"):
                slot.download[1].synchronize()
            self._check(slot)
            received = slot.bytes_received(slot.labels).view(label_type(self._recipe.classes))
            labels = received.reshape(self.key.count, *self.key.size).copy()
            probabilities = None
            if self.key.wants_probabilities:
                shape = (self.key.count, self._recipe.classes, *self.key.size)
                probabilities = slot.bytes_received(slot.probabilities).view(np.float32).reshape(shape).copy()
            return FrameResult(labels, probabilities, self._timings(slot))
        finally:
            slot.is_free = True

    def grow(self, beyond: FieldSpec) -> None:
        """Makes room for more lattice vertices than `beyond` has, unless that is done. No batch may be in work."""
        lanes, field = self._lanes, self._field
        if field is None or lanes.crf is None or lanes.crf_queue is None or field.spec != beyond:
            return
        grown = beyond.grown()
        if grown is None:
            raise DeviceError("the lattice's table overflowed although it has room for every vertex")
        for slot in self._slots:
            slot.graph = None
        self._field = field = None  # frees the old memory before the new is taken
        self._field = lanes.crf.regrow_field(lanes.crf_queue, grown)
        self._record()

    def _record(self) -> None:
        """Runs once on black images, so that everything is loaded, and records each slot's graph if that works."""
        lanes = self._lanes
        may_record = True
        for slot in self._slots:
            lanes.device.fill(slot.pictures, 0, lanes.computing)
            lanes.device.fill(slot.answer, 0, lanes.computing)  # gaps are copied back as well
            self._queue_frame(slot)
            lanes.computing.synchronize()
            if not (may_record and self._engine.capturable):
                continue
            try:
                slot.graph = lanes.device.capture(partial(self._queue_frame, slot), lanes.computing)
            except (DeviceError, EngineError) as exc:
                may_record = False
                name = self._recipe.backend.artifact.file
                _log.warning("%s runs without a CUDA graph, which takes the host longer: %s", name, exc)

    def _queue_frame(self, slot: Slot) -> None:
        """The launches between the copies."""
        computing, field, memory = self._lanes.computing, self._field, slot.memory
        stages = iter(slot.stages)
        next(stages).record(computing)
        self._replay("preprocess", memory)
        next(stages).record(computing)
        self._replay("inference", memory)
        next(stages).record(computing)
        self._replay("check", memory)
        if field is None:
            self._replay("labels", memory)
            if self.key.wants_probabilities:
                self._replay("probabilities", memory)
            next(stages).record(computing)
            return
        self._replay("probabilities", {**memory, "probabilities": field.buffers["planes"]})
        next(stages).record(computing)
        self._replay("colors", memory)
        field.queue_frame(self._memory.get("colors", slot.pictures))
        self._queue_refined(slot, field)
        field.queue_report(slot.crf_report)
        next(stages).record(computing)

    def _queue_refined(self, slot: Slot, field: CudaField) -> None:
        """Labels of the marginals and, if they were asked for, the marginals."""
        if self._recipe.outputs.channels.threshold is None:
            field.queue_labels(slot.labels)
            if self.key.wants_probabilities:
                field.queue_marginals(slot.probabilities)
            return
        marginals = slot.probabilities if self.key.wants_probabilities else field.buffers["planes"]
        field.queue_marginals(marginals)
        self._replay("threshold", {**slot.memory, "probabilities": marginals})

    def _replay(self, name: str, given: dict[str, Buffer]) -> None:
        """Queues a sequence, which tiled images may have no need of."""
        self._lanes.frames.replay(self._sequences.get(name, ()), {**self._memory, **given}, self._engine.queue)

    def _check(self, slot: Slot) -> None:
        first_bad = int(slot.bytes_received(slot.first_bad).view(np.uint32)[0])
        if first_bad != _NONE_BAD:
            image, channel, row, column = (int(i) for i in np.unravel_index(first_bad, self._logits_shape))
            where = f"picture {image} of the batch, class {channel}, row {row}, column {column}"
            raise ShapeError(
                f"logits must be finite, got NaN or infinity in {where}; "
                "check what computed them (overflow in half precision is a common cause)",
                expected="finite values",
                actual="NaN or infinity",
            )
        if self._field is not None and self._lanes.crf is not None:
            status = Status.of(slot.bytes_received(slot.crf_report).view(np.uint32))
            if status.failures & Failure.TABLE_FULL:
                raise LatticeFullError(self._field.spec)
            self._lanes.crf.check_status(status, (self.key.count, self._recipe.classes, *self.key.size))

    def _timings(self, slot: Slot) -> dict[str, float]:
        names = ["preprocess", "inference", "postprocess", *(["crf"] if self._field is not None else [])]
        timings = {"upload": slot.upload[1].elapsed_ms(slot.upload[0])}
        for index, name in enumerate(names):
            timings[name] = slot.stages[index + 1].elapsed_ms(slot.stages[index])
        timings["download"] = slot.download[1].elapsed_ms(slot.download[0])
        return timings

    def estimate_bytes(self) -> int:
        """GPU memory of all but the engine and the CRF."""
        key, classes = self.key, self._recipe.classes
        pixels = key.count * key.size[0] * key.size[1]
        answer = pixels * label_type(classes).itemsize + (4 * classes * pixels if key.wants_probabilities else 0)
        return SLOTS * (self._recipe.inputs.pixel_bytes * pixels + answer) + self._planned_bytes

    def _check_memory(self) -> None:
        """Before anything but the engine takes memory."""
        key, estimate = self.key, self.estimate_bytes()
        free = self._lanes.device.free_bytes()
        if estimate > free:
            raise DeviceError(
                f"{key.count}×{key.size[0]}×{key.size[1]} pixels need about {estimate / 2**20:.1f} MiB of GPU memory "
                f"besides the engine's, and {free / 2**20:.1f} MiB are free on {self._lanes.device.properties.name}. "
                "Use smaller pictures, fewer at once, or fewer workers"
            )
