"""Images to results on a GPU, through a `Pipeline`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError
from ..band_images import Pixels
from ..path import MAX_BATCH, ReadImage
from ..preprocess import plan_geometry
from ..result import Result
from .frame_program import FrameResult
from .frame_slot import SLOTS
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ...crf import DenseCRF
    from ...manifest import Manifest, Size
    from ..backends import DeviceBackend


class GpuPath:
    """Groups images into batches for a `Pipeline`, which raises what this raises.

    Args:
        manifest: describes input, output and classes.
        backend: opens engines.
        crf: whose parameters, iterations and precision to refine with, or None.
        workers: threads on the GPU, each with two batches in work.
    """

    def __init__(self, manifest: Manifest, backend: DeviceBackend, *, crf: DenseCRF | None, workers: int) -> None:
        self._pipeline = Pipeline(manifest, backend, crf=crf, workers=workers)
        self._inputs = manifest.input
        self._classes = manifest.classes
        self._max_batch = min(MAX_BATCH, backend.max_batch)
        self.in_work = SLOTS * workers

    def submit(self, images: Sequence[ReadImage]) -> list[Future[Result]]:
        """A future for each image, in their order; those of one size go through the network together.

        Timings of a batch are its images' shares. Results compute their probabilities by a second pass.
        """
        by_size: defaultdict[Size, list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.size].append(index)
        futures: dict[int, Future[Result]] = {}
        for size, indices in by_size.items():
            count = self._batch_size(size)
            for start in range(0, len(indices), count):
                group = indices[start : start + count]
                frame = self._pipeline.submit([images[index].pixels for index in group])
                for place, index in enumerate(group):
                    futures[index] = self._result_of(frame, place, images[index])
        return [futures[index] for index in range(len(images))]

    def _batch_size(self, size: Size) -> int:
        """Number of images per batch: tiled ones count by their area, so that no batch outgrows an untiled one."""
        max_pixels = self._max_batch * math.prod(self._inputs.size.max)
        input_size = plan_geometry(size, self._inputs).input_size
        return max(1, min(self._max_batch, max_pixels // math.prod(input_size)))

    def check_may_wait(self) -> None:
        """Raises `EngineError` in a callback of a future, which would wait for itself."""
        self._pipeline.check_may_wait()

    def close(self) -> None:
        """Wait for what was submitted, and give the GPU back."""
        self._pipeline.close()

    def _result_of(self, frame: Future[FrameResult], place: int, image: ReadImage) -> Future[Result]:
        """The result of one image of a batch, once the batch is done."""
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
                    image.pixels,
                    self._classes,
                    {"read": image.read_ms, **timings},
                    _SecondPass(self._pipeline, image.pixels),
                    self._inputs.bands,
                )
            )

        frame.add_done_callback(pass_on)
        return result


class _SecondPass:
    """Probabilities [C, H, W] of one image, which goes through the GPU again.

    Pickled without the pipeline, which belongs to its process.
    """

    def __init__(self, pipeline: Pipeline, pixels: Pixels) -> None:
        self._pipeline = pipeline
        self._pixels = pixels

    def __call__(self) -> NDArray[np.float32]:
        self._pipeline.check_may_wait()
        batch = self._pipeline.submit([self._pixels], wants_probabilities=True).result().probabilities
        assert batch is not None  # noqa: S101 - they were asked for
        own: NDArray[np.float32] = batch[0]
        return own

    def __reduce__(self) -> tuple[type[_OtherProcess], tuple[()]]:
        return _OtherProcess, ()


class _OtherProcess:
    """Stands for a second pass where the pipeline is not."""

    def __call__(self) -> NoReturn:
        raise EngineError(
            "the probabilities of a pickled result need the GPU of the process that made it: ask for "
            "result.probabilities there, before pickling, or segment the image here"
        )
