"""Images to results on a GPU, through a `Pipeline`; what must be tiled is prepared and finished on the CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..path import MAX_BATCH, Path, ReadImage, needs_tiles
from ..preprocess import plan_geometry
from ..result import Result
from .frame_program import FrameResult
from .frame_slot import SLOTS
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ...crf import DenseCRF
    from ...manifest import Manifest
    from ..backends import DeviceBackend


class GpuPath:
    """Whole images go through a `Pipeline`, which raises what this raises; larger ones take another path, in tiles.

    Args:
        manifest: describes input, output and classes.
        backend: opens engines.
        tiled: takes the images that must be tiled.
        crf: whose parameters, iterations and precision to refine with, or None.
        workers: threads on the GPU, each with two batches in work.
    """

    def __init__(
        self, manifest: Manifest, backend: DeviceBackend, *, tiled: Path, crf: DenseCRF | None, workers: int
    ) -> None:
        self._pipeline = Pipeline(manifest, backend, crf=crf, workers=workers)
        self._inputs = manifest.input
        self._classes = manifest.classes
        self._tiled = tiled
        self._max_batch = min(MAX_BATCH, backend.max_batch)
        self.in_work = SLOTS * workers

    def submit(self, images: Sequence[ReadImage]) -> list[Future[Result]]:
        """A future for each image, in their order; those of one size go through the network together.

        Timings of a batch are its images' shares. Results compute their probabilities by a second pass.
        """
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        in_tiles: list[int] = []
        for index, image in enumerate(images):
            if needs_tiles(plan_geometry(image.size, self._inputs).input_size, self._inputs):
                in_tiles.append(index)
            else:
                by_size[image.size].append(index)
        futures: dict[int, Future[Result]] = {}
        for indices in by_size.values():
            for start in range(0, len(indices), self._max_batch):
                group = indices[start : start + self._max_batch]
                frame = self._pipeline.submit([images[index].pixels for index in group])
                for place, index in enumerate(group):
                    futures[index] = self._result_of(frame, place, images[index])
        # Last: it returns when all is done, and the GPU works meanwhile.
        futures.update(zip(in_tiles, self._tiled.submit([images[index] for index in in_tiles]), strict=True))
        return [futures[index] for index in range(len(images))]

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
                    partial(_probabilities, self._pipeline, image.pixels),
                )
            )

        frame.add_done_callback(pass_on)
        return result


def _probabilities(pipeline: Pipeline, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[C, H, W] of one image, which goes through the GPU again."""
    pipeline.check_may_wait()
    batch = pipeline.submit([pixels], wants_probabilities=True).result().probabilities
    assert batch is not None  # noqa: S101 - they were asked for
    own: NDArray[np.float32] = batch[0]
    return own
