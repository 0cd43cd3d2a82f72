"""A segmenter's way over the GPU: pictures that are read go in, results come out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from .frame_program import FrameResult
from .frame_slot import SLOTS
from .pipeline import Pipeline
from .preprocess import plan_geometry
from .result import Result

if TYPE_CHECKING:
    from ..crf import DenseCRF
    from ..manifest import Manifest, Size
    from .backends import DeviceBackend

#: Pictures that go through the network at once, at most; bounds the memory.
MAX_BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """A picture in memory.

    Attributes:
        pixels: [H, W, 3] uint8 RGB.
        read_ms: how long reading it took.
    """

    pixels: NDArray[np.uint8]
    read_ms: float


class GpuPath:
    """Pictures to results through a `Pipeline`, whose arguments and errors these are."""

    def __init__(self, manifest: Manifest, backend: DeviceBackend, *, crf: DenseCRF | None, workers: int) -> None:
        self._pipeline = Pipeline(manifest, backend, crf=crf, workers=workers)
        self._classes = manifest.classes
        self._inputs = manifest.input
        self._max_batch = min(MAX_BATCH, backend.max_batch)
        self.in_work = SLOTS * workers
        """Pictures that are in work at once."""

    def submit(self, pictures: Sequence[ReadPicture]) -> list[Future[Result]]:
        """A future for each picture, in their order; those of one size go through the network together.

        Timings of a batch are its pictures' shares. Results compute their probabilities by a second pass.
        """
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            by_size[picture.pixels.shape].append(index)
        futures: dict[int, Future[Result]] = {}
        for (height, width, _), indices in by_size.items():
            most = self._most((height, width))
            for start in range(0, len(indices), most):
                group = indices[start : start + most]
                frame = self._pipeline.submit([pictures[index].pixels for index in group])
                for place, index in enumerate(group):
                    futures[index] = self._result_of(frame, place, pictures[index])
        return [futures[index] for index in range(len(pictures))]

    def _most(self, size: Size) -> int:
        """Pictures of a batch: of those that are tiled, as many as are no larger than a batch that is not."""
        largest = self._max_batch * math.prod(self._inputs.size.max)
        return max(1, min(self._max_batch, largest // math.prod(plan_geometry(size, self._inputs).input_size)))

    def check_may_wait(self) -> None:
        """Raises `EngineError` in a callback of a future, which would wait for itself."""
        self._pipeline.check_may_wait()

    def close(self) -> None:
        """Waits for what was submitted, and gives the GPU back."""
        self._pipeline.close()

    def _result_of(self, frame: Future[FrameResult], place: int, picture: ReadPicture) -> Future[Result]:
        """The result of one picture of a batch, once the batch is done."""
        result: Future[Result] = Future()
        result.set_running_or_notify_cancel()  # it is under way with others, and cannot be cancelled

        def pass_on(done: Future[FrameResult]) -> None:
            error = done.exception()
            if error is not None:
                result.set_exception(error)
                return
            answer = done.result()
            share = 1 / len(answer.labels)
            timings = {stage: share * value for stage, value in answer.timings_ms.items()}
            result.set_result(
                Result(
                    answer.labels[place],
                    picture.pixels,
                    self._classes,
                    {"read": picture.read_ms, **timings},
                    partial(_probabilities, self._pipeline, picture.pixels),
                )
            )

        frame.add_done_callback(pass_on)
        return result


def _probabilities(pipeline: Pipeline, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[C, H, W] of one picture, which goes through the GPU again."""
    pipeline.check_may_wait()
    batch = pipeline.submit([pixels], wants_probabilities=True).result().probabilities
    assert batch is not None  # noqa: S101 - they were asked for
    own: NDArray[np.float32] = batch[0]
    return own
