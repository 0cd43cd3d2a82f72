"""The dense CRF over what another tool made of a data set."""

from __future__ import annotations

import copy
import dataclasses
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from ..arguments import check_arguments_besides, check_fields, describe
from ..bundle import Bundle
from ..crf import DenseCRF
from ..errors import ArgumentError, BatchError, CRFError, ImageError, ShapeError
from ..runtime.band_images import load_pixels
from ..runtime.channels import refined_labels
from ..runtime.identity import crf_identity
from ..runtime.preprocess import color_image
from ..runtime.result import Result, encode_labels, unchanged
from .ledger import Entry
from .maps import LabelMaps, ProbabilityMaps
from .outputs import LABELS, PROBABILITIES, OutputFolder, OutputKind
from .runner import BatchOptions, Progress, Summary, run_job
from .segment import class_shares
from .work_list import WorkItem

_KINDS: Final = {"labels": (LABELS,), "probabilities": (PROBABILITIES,), "both": (LABELS, PROBABILITIES)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """Choices about a refinement.

    Attributes:
        write: labels (`labels/NAME.png`), the CRF's marginals (`probabilities/NAME.npy`, [C, H, W] float32), or both.
        bundle: says the classes with their colours, the bands of the images and a threshold. Without one, images are
            RGB, and labels are grey PNGs whose values are the ids.

    Raises:
        ArgumentError: a field has a wrong type.
    """

    write: Literal["labels", "probabilities", "both"] = "labels"
    bundle: Bundle | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@check_arguments_besides("maps")
def refine_batch(
    items: Sequence[WorkItem],
    maps: ProbabilityMaps | LabelMaps,
    out: Path,
    crf: DenseCRF,
    options: BatchOptions | None = None,
    *,
    refinement: RefineOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Refine what another tool made of a data set with the dense CRF, into `out`, with a ledger.

    Args:
        items: images, of `find_work`.
        maps: probabilities or labels of each image, found by its name.
        out: folder of the results.
        crf: its parameters, iterations and threads. Each worker has a CRF of its own, with so many threads.
        options: see there.
        refinement: what is written, and of which classes.
        progress: called with the state of the run as lines of the ledger reach the disk.

    Raises:
        BatchError: the folder has a run already or one of other options, another process works on the same images, more
            images than allowed have no maps or fail, or a file cannot be written.
        ArgumentError: an argument has the wrong type.
    """
    if not isinstance(maps, ProbabilityMaps | LabelMaps):
        raise ArgumentError(f"maps must be ProbabilityMaps or LabelMaps; got {describe(maps)}", argument="maps")
    options, refinement = options or BatchOptions(), refinement or RefineOptions()
    _check_found([item for item in items if item.name in options.shard], maps, options.max_errors)
    job = _RefineJob(maps, crf, refinement, options.workers)
    return run_job(job, items, out, options, progress)


def _check_found(items: Sequence[WorkItem], maps: ProbabilityMaps | LabelMaps, most: int) -> None:
    """Raise `BatchError` if more images have no maps than may fail: the folder is the wrong one."""
    missing: list[str] = []
    for item in items:
        try:
            maps.find(item.name)
        except ImageError as exc:
            missing.append(str(exc))
            if len(missing) > most:
                raise BatchError(
                    f"more than {most} of {len(items)} images, as many as may fail, have nothing to refine in "
                    f"{maps.folder}. The first: {missing[0]}",
                    path=maps.folder,
                ) from exc


class _RefineJob:
    """Refines images; as many at once as there are workers, while others are read and written."""

    def __init__(
        self, maps: ProbabilityMaps | LabelMaps, crf: DenseCRF, refinement: RefineOptions, workers: int
    ) -> None:
        self._maps = maps
        self._crf = crf
        self._refinement = refinement
        self._manifest = refinement.bundle.manifest if refinement.bundle else None
        self._bands = self._manifest.input.bands if self._manifest else None
        self._idle: queue.SimpleQueue[DenseCRF] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(copy.copy(crf))  # without its buffers, which belong to one call at a time

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters, the way that maps are read, and what is written."""
        manifest, kind = self._manifest, "labels" if isinstance(self._maps, LabelMaps) else "probabilities"
        return {
            "crf": crf_identity(self._crf),
            "refines": {kind: self._maps.to_dict()},
            "write": self._refinement.write,
            "class_names": [[each.name, each.color] for each in manifest.classes] if manifest else None,
            "channels": dataclasses.asdict(manifest.output.channels) if manifest else None,
            "bands": dataclasses.asdict(self._bands) if self._bands else None,
        }

    @property
    def kinds(self) -> Sequence[OutputKind]:
        """Labels, probabilities or both."""
        return _KINDS[self._refinement.write]

    def __call__(self, item: WorkItem, folder: OutputFolder) -> Entry:
        """Refine an image."""
        start = time.perf_counter()
        pixels = load_pixels(item.image, self._bands)
        probabilities = self._maps.read(item.name, (pixels.shape[0], pixels.shape[1]))
        self._check_classes(item, len(probabilities))
        timings_ms = {"read": (time.perf_counter() - start) * 1e3}
        colors = color_image(pixels, self._bands, weighted=True)
        with self._turn() as crf:
            start = time.perf_counter()
            try:
                labels, marginals = crf.labels_and_marginals(probabilities, colors)
            except (CRFError, ShapeError) as exc:
                raise ImageError(f"{item.image}: {exc}", path=item.image.path) from exc
            timings_ms["crf"] = (time.perf_counter() - start) * 1e3
        start = time.perf_counter()
        picture = Image.fromarray(labels)
        if self._manifest:
            labels = refined_labels(labels, marginals, self._manifest.output.channels)
            picture = Result(labels, pixels, self._manifest.classes, {}, partial(unchanged, marginals)).colored()
        encoders = {LABELS: partial(encode_labels, picture), PROBABILITIES: partial(np.save, arr=marginals)}
        outputs = tuple(folder.write(kind, item.name, encoders[kind]) for kind in self.kinds)
        return Entry(
            item.name,
            str(item.image),
            size=(labels.shape[0], labels.shape[1]),
            outputs=outputs,
            classes=class_shares(labels),
            timings_ms={**timings_ms, "write": (time.perf_counter() - start) * 1e3},
        )

    def _check_classes(self, item: WorkItem, count: int) -> None:
        if self._manifest and count != len(self._manifest.classes):
            raise ImageError(
                f"{self._maps.find(item.name)} has {count} classes; the bundle has {len(self._manifest.classes)}",
                path=item.image.path,
            )

    @contextmanager
    def _turn(self) -> Iterator[DenseCRF]:
        """A CRF that nobody else uses meanwhile."""
        crf = self._idle.get()
        try:
            yield crf
        finally:
            self._idle.put(crf)
