"""Images with masks, the network's probabilities of them, and what a dense CRF makes of those."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..._native import Filter
from ...arrays import FloatArray, Labels
from ...bundle import Bundle
from ...crf import DenseCRF
from ...crf.kept_filters import KEPT_FILTERS, FilterOptions, KeptFilters
from ...manifest import Manifest
from ...runtime.backends import Backend
from ...runtime.channels import refined_labels
from ...runtime.cpu.path import CpuPath
from ...runtime.evaluation import Pair, load_truth
from ...runtime.masks import MaskPixels, MaskReader
from ...runtime.metrics import Counts, IntArray, Mask, count
from ...runtime.path import ReadImage
from ...runtime.preprocess import Geometry, color_image
from ...runtime.segmenter import fitting_manifest
from .areas import count_rows, trimap_band
from .candidate import Candidate
from .logits_cache import LogitsCache
from .options import Metric

#: Scenes in memory: jobs on one image follow each other, in a few threads.
_KEPT_SCENES: Final = 12


@dataclass(frozen=True, eq=False)
class Scene:
    """One image.

    Attributes:
        probabilities: [C, H, W] float32, the network's.
        colors: [H, W, 3] uint8, what the CRF compares.
        picture: [H, W, 3] uint8 RGB, to look at.
        labels: [H, W], without a CRF.
        truth: the mask.
        band: [H, W] bool, the trimap; None where the metric is another.
    """

    probabilities: FloatArray
    colors: NDArray[np.uint8]
    picture: NDArray[np.uint8]
    labels: Labels
    truth: MaskPixels
    band: Mask | None


class _OwnLattices(KeptFilters):
    """Bilateral lattices of one image at a time; Gaussian ones, which only depend on the size, are the process's."""

    def __init__(self) -> None:
        super().__init__(max_bytes=None)

    def gaussian(self, options: FilterOptions, *, threads: int = 0) -> Filter:
        return KEPT_FILTERS.gaussian(options, threads=threads)


class Scenes:
    """Images and masks, labelled with any CRF. Safe to use from many threads; a call computes in one.

    Args:
        bundle: describes input, output and classes.
        backend: runs the network.
        reader: reads the masks.
        metric: what is counted.
        cache: keeps the logits.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, reader: MaskReader, metric: Metric, cache: LogitsCache
    ) -> None:
        self._manifest: Manifest = fitting_manifest(bundle.manifest, backend)
        self._path = CpuPath(self._manifest, backend.infer, source=backend.artifact.file, threads=1)
        self._reader = reader
        self._metric = metric
        self._cache = cache
        self.load = functools.lru_cache(_KEPT_SCENES)(self._load)

    def count(self, pair: Pair, digest: str, candidates: Sequence[Candidate | None]) -> list[IntArray]:
        """Counts [R, C] of an image with each candidate, None for no CRF.

        Those with the same standard deviations share their lattices if they come in one call.
        """
        scene, lattices = self.load(pair, digest), _OwnLattices()
        return [self._rows(scene, self.label(scene, candidate, lattices)) for candidate in candidates]

    def count_all(self, pair: Pair, digest: str, candidate: Candidate | None) -> Counts:
        """Everything that `atrous eval` counts of an image."""
        scene = self.load(pair, digest)
        labels = self.label(scene, candidate)
        found = count(scene.truth.ids, labels, scene.truth.valid, len(self._manifest.classes))
        return Counts(found.rings, found.boundary, found.void_px, scene.truth.assumed_void_px)

    def time(self, pair: Pair, digest: str, candidates: Sequence[Candidate]) -> list[float]:
        """Processor seconds that each candidate takes on one thread, lattices of the image included."""
        scene = self.load(pair, digest)
        self.label(scene, candidates[0])  # memory that is fresh takes longer
        seconds = []
        for candidate in candidates:
            start = time.thread_time()
            self.label(scene, candidate)
            seconds.append(time.thread_time() - start)
        return seconds

    def label(self, scene: Scene, candidate: Candidate | None, lattices: KeptFilters | None = None) -> Labels:
        """Labels [H, W], as `atrous.load(bundle, crf=candidate.crf())` gives them."""
        if candidate is None:
            return scene.labels
        crf: DenseCRF = candidate.crf()
        crf.filters = lattices or _OwnLattices()
        channels = self._manifest.output.channels
        if channels.threshold is None:
            return crf.labels(scene.probabilities, scene.colors)
        return refined_labels(*crf.labels_and_marginals(scene.probabilities, scene.colors), channels)

    def _load(self, pair: Pair, digest: str) -> Scene:
        """Read an image and its mask, and run the network unless its logits are stored; raises as `load_truth`."""
        truth = load_truth(pair, self._reader, self._manifest)
        image = ReadImage(truth.picture, 0.0)
        stored = self._cache.find(digest)
        if stored is None:
            logits, geometry = self._path.coarse_logits(image)
            self._cache.add(digest, logits, geometry.input_size)
        else:
            logits, input_size = stored
            geometry = Geometry(image.size, input_size, self._manifest.input.resize)
        bands = self._manifest.input.bands
        return Scene(
            probabilities=self._path.probabilities(logits, geometry),
            colors=color_image(truth.picture, bands, weighted=True),
            picture=color_image(truth.picture, bands),
            labels=self._path.labels(logits, geometry),
            truth=truth.mask,
            band=trimap_band(truth.mask) if self._metric == "trimap" else None,
        )

    def _rows(self, scene: Scene, labels: Labels) -> IntArray:
        return count_rows(self._metric, scene.truth, labels, len(self._manifest.classes), scene.band)
