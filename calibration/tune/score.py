"""Scores of candidates on images, in parallel, from a log of what was counted before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ...arrays import Float64Array
from ...runtime.evaluation import Pair
from ...runtime.metrics import IntArray, Mask
from ..parallel_map import parallel_map
from .areas import class_iou, class_scores, classes_in_truth, mean_score
from .candidate import Candidate, Standing
from .options import Metric
from .scenes import Scenes
from .score_log import ScoreLog

#: Images drawn with replacement for an interval: enough for its ends to be steady to a tenth of its width.
_RESAMPLES: Final = 2000
_INTERVAL: Final = (2.5, 97.5)


class Scorer:
    """Counts candidates on images, once each.

    Args:
        scenes: label the images.
        log: keeps the counts.
        metric: what is scored.
        ignored: classes that are void.
    """

    def __init__(self, scenes: Scenes, log: ScoreLog, metric: Metric, ignored: frozenset[int]) -> None:
        self._scenes = scenes
        self._log = log
        self._metric = metric
        self.ignored = sorted(ignored)

    def count(
        self,
        candidates: Sequence[Candidate | None],
        images: Sequence[tuple[Pair, str]],
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> dict[Candidate | None, IntArray]:
        """Counts [N, R, C] of each candidate, None for no CRF.

        Args:
            candidates: are tried; those of the same standard deviations share lattices.
            images: pairs and their digests.
            progress: called with the number of labellings done and their total.
        """
        jobs = [(pair, digest, group) for pair, digest in images for group in self._missing(digest, candidates)]
        total, done = sum(len(group) for *_, group in jobs), 0
        for (_, digest, group), counts in zip(jobs, parallel_map(self._run, jobs), strict=True):
            for candidate, rows in zip(group, counts, strict=True):
                self._log.add(digest, candidate, rows)
            done += len(group)
            progress(done, total)
        self._log.sync()
        return {each: np.stack([self._log.find(digest, each) for _, digest in images]) for each in candidates}

    def stand(self, candidate: Candidate | None, counts: IntArray, without: IntArray) -> Standing:
        """Compare a candidate with no CRF, from the counts [N, R, C] of both."""
        scored = self.scored(without)
        gain = mean_score(self.scores(counts), scored) - mean_score(self.scores(without), scored)
        losses = (class_iou(without) - class_iou(counts))[scored]
        return Standing(candidate, 100 * float(gain), 100 * float(np.max(losses, initial=-np.inf)), len(counts))

    def scores(self, counts: IntArray) -> Float64Array:
        """The metric by class [C]."""
        return class_scores(self._metric, counts)

    def scored(self, counts: IntArray) -> Mask:
        """[C] bool: classes that are in a mask and not ignored: others have no score that a CRF could raise."""
        scored = classes_in_truth(counts)
        scored[self.ignored] = False
        return scored

    def interval(self, counts: IntArray, without: IntArray, seed: int) -> tuple[float, float]:
        """95 % interval of the gain in points, by the bootstrap over images, in pairs (Efron & Tibshirani 1993)."""
        weights = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), _RESAMPLES)
        scored = self.scored(without)
        after, before = (mean_score(class_scores(self._metric, each, weights), scored) for each in (counts, without))
        gains = after - before
        low, high = np.percentile(100 * gains[~np.isnan(gains)], _INTERVAL)
        return float(low), float(high)

    def _missing(self, digest: str, candidates: Sequence[Candidate | None]) -> list[list[Candidate | None]]:
        """Candidates that were not counted yet, by what they share."""
        groups: defaultdict[tuple[float, ...], list[Candidate | None]] = defaultdict(list)
        for each in dict.fromkeys(candidates):
            if (digest, each) not in self._log:
                groups[each.sigmas if each else ()].append(each)
        return list(groups.values())

    def _run(self, job: tuple[Pair, str, list[Candidate | None]]) -> list[IntArray]:
        return self._scenes.count(*job)
