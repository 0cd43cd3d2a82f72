"""One thread with a GPU of its own: takes requests from a queue, keeps two in work, hands results to futures."""

from __future__ import annotations

import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

from ...crf.cuda import CudaDenseCRF
from ...errors import CRFError, DeviceError, ShapeError
from ...gpu import Device
from ..band_images import Pixels
from .frame_program import FrameProgram, FrameResult, Lanes, LatticeFullError, Recipe
from .frame_slot import SLOTS, FrameKey, Slot

#: Image sizes that a worker keeps ready; a video has one, a folder of photos a few.
MAX_PROGRAMS: Final = 4

MakeCrf = Callable[[Device], CudaDenseCRF]


@dataclass(frozen=True, slots=True)
class Request:
    """A batch that waits for a worker.

    Attributes:
        images: [H, W, 3] uint8 RGB each, or of the network's bands, of one size.
        wants_probabilities: whether they come back with the labels.
        future: gets the result, or the error.
    """

    images: tuple[Pixels, ...]
    wants_probabilities: bool
    future: Future[FrameResult] = field(default_factory=Future)

    @property
    def key(self) -> FrameKey:
        """Key of the program that serves it."""
        height, width, _ = self.images[0].shape
        return FrameKey(len(self.images), (height, width), self.wants_probabilities)

    def fail(self, error: BaseException) -> None:
        """Hand out an error without what its frames hold, such as GPU memory."""
        traceback.clear_frames(error.__traceback__)
        self.future.set_exception(error)


Requests = SimpleQueue["Request | None"]
"""None ends the worker that takes it."""


def serve(recipe: Recipe, make_crf: MakeCrf | None, requests: Requests, ready: Future[None]) -> None:
    """Run a worker in the calling thread until the queue ends it.

    Args:
        recipe: what to do with images.
        make_crf: makes the CRF on the worker's device, or None.
        requests: the queue of work; shared with other workers.
        ready: done when the device works, or failed with what is wrong with it.
    """
    try:
        worker = _make_worker(recipe, make_crf)
    except BaseException as exc:
        traceback.clear_frames(exc.__traceback__)
        ready.set_exception(exc)
        return
    ready.set_result(None)
    worker.run(requests)


def _make_worker(recipe: Recipe, make_crf: MakeCrf | None) -> _Worker:
    device = recipe.backend.make_device()
    return _Worker(Lanes(device, make_crf(device) if make_crf is not None else None), recipe)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch in work."""

    request: Request
    program: FrameProgram
    slot: Slot


class _Worker:
    """Everything that a thread owns: streams, the programs of the last few sizes, the batches in work.

    Release GPU objects on this thread only: the context is current nowhere else. A stored exception keeps its
    traceback's frames alive, and with them any `FrameProgram` held in a local. `Request.fail` clears frames that have
    returned; the frames still running must not keep a program or batch in a local, and `run` empties the worker when
    it ends.
    """

    def __init__(self, lanes: Lanes, recipe: Recipe) -> None:
        self._lanes = lanes
        self._recipe = recipe
        self._programs: OrderedDict[FrameKey, FrameProgram] = OrderedDict()
        self._flights: deque[_Flight] = deque()

    def run(self, requests: Requests) -> None:
        """Serve requests until the queue gives None."""
        while self._step(requests):
            pass
        self._drain()
        vars(self).clear()  # a stored exception may keep this frame, and so the worker, alive

    def _step(self, requests: Requests) -> bool:
        """One request, or one result; whether there is more to do. A request that is done is held by no local."""
        try:
            # With work on the GPU, a moment without a request is the time to bring results back.
            request = requests.get(block=not self._flights)
        except Empty:
            self._collect()
            return True
        if request is None:
            return False
        if request.future.set_running_or_notify_cancel():
            self._start(request)
        return True

    def _start(self, request: Request) -> None:
        try:
            self._launch(request)
        except Exception as exc:
            self._give_up(request, exc)

    def _launch(self, request: Request) -> None:
        program = self._program(request.key)
        while len(self._flights) >= SLOTS:
            self._collect()
        self._flights.append(_Flight(request, program, program.launch(request.images)))

    def _collect(self) -> None:
        """Wait for the oldest batch, and hand its result out."""
        request = self._flights[0].request
        try:
            request.future.set_result(self._result())
        except Exception as exc:
            self._give_up(request, exc)

    def _result(self) -> FrameResult:
        """The result of the oldest batch, which then is no longer in work."""
        flight = self._flights.popleft()
        try:
            return flight.program.collect(flight.slot)
        except LatticeFullError as full:
            spec = full.spec
        self._drain()  # what follows works in memory that is about to go
        flight.program.grow(spec)
        return self._repeat(flight)

    def _repeat(self, flight: _Flight) -> FrameResult:
        """The result of a batch that is done again, with as much room as it takes."""
        while True:
            try:
                return flight.program.collect(flight.program.launch(flight.request.images))
            except LatticeFullError as full:
                spec = full.spec
            flight.program.grow(spec)

    def _drain(self) -> None:
        while self._flights:
            self._collect()

    def _give_up(self, request: Request, error: Exception) -> None:
        """Hand the error out; what it may have left half done is made anew."""
        if not isinstance(error, ShapeError | CRFError):  # those are about the images
            with suppress(DeviceError):
                self._lanes.synchronize()  # nothing works in memory that is about to go
            if isinstance(error, DeviceError):
                self._programs.clear()
            self._programs.pop(request.key, None)
        request.fail(error)

    def _program(self, key: FrameKey) -> FrameProgram:
        program = self._programs.get(key)
        if program is None:
            self._drain()
            while len(self._programs) >= MAX_PROGRAMS:
                self._programs.popitem(last=False)
            program = self._programs[key] = self._make_program(key)
        self._programs.move_to_end(key)
        return program

    def _make_program(self, key: FrameKey) -> FrameProgram:
        """A new program; if there is no memory, those of other sizes make room."""
        try:
            return FrameProgram(self._lanes, self._recipe, key)
        except DeviceError as exc:
            if not self._programs:
                raise
            traceback.clear_frames(exc.__traceback__)
        self._programs.clear()
        return FrameProgram(self._lanes, self._recipe, key)
