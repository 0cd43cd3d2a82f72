"""A bundle over a data set: labels of every image, and overlays where wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..arguments import check_arguments
from ..arrays import Labels
from ..runtime.band_images import load_pixels
from ..runtime.identity import segmenter_identity
from ..runtime.result import check_alpha, encode_labels
from ..runtime.segmenter import Segmenter
from .ledger import Entry
from .outputs import LABELS, OVERLAYS, OutputFolder, OutputKind
from .runner import BatchOptions, Progress, Summary, run_job
from .work_list import WorkItem

#: Quality of overlays, which are to be looked at.
_JPEG_QUALITY: Final = 90


@check_arguments
def segment_batch(
    segmenter: Segmenter,
    items: Sequence[WorkItem],
    out: Path,
    options: BatchOptions | None = None,
    *,
    overlay: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Segment a data set: `out/labels/NAME.png` for each image, as `Result.save` writes it, and a ledger.

    Reading and writing overlap with the network. Results do not depend on order, workers or shards.

    Args:
        segmenter: opened with `load`; on a GPU, its own workers say how many images are computed at once.
        items: of `find_work`.
        out: folder of the results.
        options: see there.
        overlay: the share of the classes' colours in `out/overlays/NAME.jpg`, 0 to 1; None for no overlays.
        progress: called with the state of the run as lines of the ledger reach the disk.

    Raises:
        BatchError: the folder has a run already or one of another bundle or other options, another process works on the
            same images, more images than allowed failed, or a file cannot be written.
        ImageError: `overlay` is out of range.
    """
    options = options or BatchOptions()
    job = _SegmentJob(segmenter, None if overlay is None else check_alpha(overlay), options.workers)
    return run_job(job, items, out, options, progress)


class _SegmentJob:
    """Segments images; as many at once as there are workers, while others are read and written."""

    def __init__(self, segmenter: Segmenter, overlay: float | None, workers: int) -> None:
        self._segmenter = segmenter
        self._overlay = overlay
        self._bands = segmenter.bundle.manifest.input.bands
        self._turn = threading.Semaphore(max(workers, segmenter.in_work))

    @property
    def identity(self) -> dict[str, Any]:
        """The segmenter, and what is written."""
        classes = [[entry.name, entry.color] for entry in self._segmenter.classes]
        return {**segmenter_identity(self._segmenter), "class_names": classes, "overlay": self._overlay}

    @property
    def kinds(self) -> Sequence[OutputKind]:
        """Labels, and perhaps overlays."""
        return [LABELS] if self._overlay is None else [LABELS, OVERLAYS]

    def __call__(self, item: WorkItem, folder: OutputFolder) -> Entry:
        """Segment an image."""
        start = time.perf_counter()
        pixels = load_pixels(item.image, self._bands)
        read_ms = (time.perf_counter() - start) * 1e3
        with self._turn:
            result = self._segmenter(pixels)
        start = time.perf_counter()
        outputs = [folder.write(LABELS, item.name, partial(encode_labels, result.colored()))]
        if self._overlay is not None:
            picture = result.overlay(self._overlay)
            encode = partial(picture.save, format="JPEG", quality=_JPEG_QUALITY)
            outputs.append(folder.write(OVERLAYS, item.name, encode))
        return Entry(
            item.name,
            str(item.image),
            size=(result.labels.shape[0], result.labels.shape[1]),
            outputs=tuple(outputs),
            classes=class_shares(result.labels),
            timings_ms={"read": read_ms, **result.timings_ms, "write": (time.perf_counter() - start) * 1e3},
        )


def class_shares(labels: Labels) -> dict[int, float]:
    """Share of the pixels of each class that occurs."""
    counts = np.bincount(labels.ravel())
    return {int(index): int(counts[index]) / labels.size for index in np.flatnonzero(counts)}
