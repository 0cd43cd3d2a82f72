"""The dense CRF that fits a bundle's network and data: searched, scored on held-out images, and written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..._version import __version__
from ...arguments import check_arguments
from ...bundle import Bundle, extend_bundle
from ...crf.stored import crf_from_stored
from ...errors import CRFError, importing
from ...manifest import Artifact, CrfFit
from ...manifest_schema import SCHEMA_VERSION
from ...runtime.backends import Backend, open_backend
from ...runtime.image import ImageSource
from ...runtime.masks import MaskReader
from .candidate import Candidate, Standing
from .images import Known, TuningImages, choose_pairs, open_images
from .logits_cache import LogitsCache
from .options import DEFAULT_HOLDOUT, DEFAULT_METRIC, DEFAULT_NO_HARM, TRIMAP_PX, Metric, TuneOptions
from .page import check_packages, render_html
from .report import TuningReport
from .results import Measured, make_report
from .scenes import Scenes
from .score import Scorer
from .score_log import ScoreLog
from .search import Search
from .text import render_text

HTML_FILE: Final = "reports/crf.html"
TEXT_FILE: Final = "reports/crf.txt"
WORK_SUFFIX: Final = ".tune"
_LOG_FILE: Final = "scores.jsonl"
_LOGITS_FOLDER: Final = "logits"
#: Called with the name of the current step, the number of items done, and their total.
TuningProgress = Callable[[str, int, int], None]


@check_arguments
def tune(
    bundle: Bundle,
    *,
    images: str | os.PathLike[str] | Sequence[ImageSource],
    masks: str | os.PathLike[str],
    metric: Metric = DEFAULT_METRIC,
    holdout: float = DEFAULT_HOLDOUT,
    no_harm: float = DEFAULT_NO_HARM,
    options: TuneOptions | None = None,
    progress: TuningProgress = lambda *_: None,
) -> tuple[Bundle, TuningReport]:
    """Fit the parameters of a bundle's dense CRF to its network and to images with masks.

    The weight and the standard deviations of the appearance kernel, the temperature of the unaries and the number of
    iterations are searched from coarse to fine (Chen et al., arXiv 1606.00915, section 4.1), then scored on held-out
    images. If they are better there, the bundle gets them, and `load(crf=True)` uses them; otherwise it stays as it is.
    A search that is interrupted goes on where it was when it is called again in the same way.

    Args:
        bundle: a bundle; its network runs once an image.
        images: a folder or a sequence of files, about a hundred, like those in production. Not those that the network
            was trained on, if there are others: it is surer of them.
        masks: a folder with a mask `NAME.png` for each image `NAME.*`, or as `options.mask_rules` says.
        metric: what is to be large: `miou`, `boundary-f` or `trimap`.
        holdout: share of the images that are left out of the search, and scored.
        no_harm: points of IoU that a class may lose against no CRF; 100 for any number.
        options: number of images, void ids in the masks, random seed, what is searched.
        progress: see `TuningProgress`.

    Returns:
        The reopened bundle, and the report.

    Raises:
        CRFError: `holdout`, `no_harm` or the bundle's parameters are unusable, or the work folder cannot be written.
        EvaluationError: there are too few images; masks are missing, do not fit their images or the classes, or are
            all void; or a class is in no mask while much is void.
        EngineError: no backend runs the bundle.
        BundleError: a file was changed, or the bundle cannot be written.
        MissingDependencyError: jinja2 or matplotlib, which the report takes, is not installed.
    """
    _check_numbers(holdout, no_harm)
    chosen = options or TuneOptions()
    job = _open(bundle, metric, no_harm, chosen, progress)
    with _search_folder(job) as (scorer, scenes):
        pairs = choose_pairs(images, Path(masks), chosen)
        data = open_images(
            pairs,
            scenes,
            job.reader,
            job.bundle.manifest,
            holdout=holdout,
            seed=chosen.seed,
            progress=job.counter("running the network", len(pairs)),
        )
        report = _fit(job, scorer, scenes, data)
        if report.written:
            _write(job, report)
    return Bundle.open(job.bundle.path), report


def _check_numbers(holdout: float, no_harm: float) -> None:
    if not 0 < holdout < 1:
        raise CRFError(f"holdout is a share of the images, above 0 and below 1; got {holdout:g}")
    if not 0 <= no_harm <= 100:
        raise CRFError(f"no_harm is a number of points from 0 to 100; got {no_harm:g}")


@dataclass(frozen=True, eq=False)
class _Job:
    """Inputs of one search.

    Attributes:
        before: the CRF that the bundle has.
        started, started_cpu: times of wall clock and processor, in seconds.
    """

    bundle: Bundle
    backend: Backend
    reader: MaskReader
    before: Candidate
    metric: Metric
    no_harm: float
    options: TuneOptions
    progress: TuningProgress
    started: float
    started_cpu: float

    @property
    def source(self) -> Artifact:
        return self.backend.artifact

    @property
    def work(self) -> Path:
        given = self.options.work
        return self.bundle.path.with_suffix(WORK_SUFFIX) if given is None else Path(given)

    @property
    def identity(self) -> dict[str, Any]:
        """All that counts depend on besides images, masks and candidates, as JSON."""
        manifest = self.bundle.manifest
        return {
            "atrous": __version__,
            "sha256": self.source.sha256,
            "precision": self.source.precision,
            "backend": f"{self.backend.name} on the {self.backend.device}",
            "input": dataclasses.asdict(manifest.input),
            "output": dataclasses.asdict(manifest.output),
            "metric": [self.metric, TRIMAP_PX],
            "ignored": sorted(self.reader.void),
            "masks": self.reader.rules.to_dict(),
        }

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Callback that reports the progress of one step."""
        return lambda done: self.progress(what, done, total)


def _open(
    bundle: Bundle,
    metric: Metric,
    no_harm: float,
    options: TuneOptions,
    progress: TuningProgress,
) -> _Job:
    """Check everything that can be checked before the first inference."""
    started, started_cpu = time.perf_counter(), time.process_time()
    check_packages()  # those of the report: not after an hour
    bundle = bundle.reopen()
    reader = MaskReader(bundle.manifest, ignore=options.ignore, rules=options.mask_rules)
    crf = crf_from_stored(bundle.manifest.crf or {})
    before = Candidate(crf.params, crf.iterations, crf.compatibility)
    backend = open_backend(bundle, backend="auto", precision="auto", threads=1)
    return _Job(bundle, backend, reader, before, metric, no_harm, options, progress, started, started_cpu)


@contextmanager
def _search_folder(job: _Job) -> Iterator[tuple[Scorer, Scenes]]:
    """Open the folder that an interrupted search goes on from, and remove it at the end; yields what scores there."""
    with closing(ScoreLog(job.work / _LOG_FILE, job.identity)) as log:
        # Logits are of the same search as the counts, which begin anew with another network or preprocessing.
        cache = LogitsCache(job.work / _LOGITS_FOLDER / job.source.sha256[:16], job.options.cache_bytes)
        scenes = Scenes(job.bundle, job.backend, job.reader, job.metric, cache)
        yield Scorer(scenes, log, job.metric, job.reader.ignored), scenes
    with contextlib.suppress(OSError):
        shutil.rmtree(job.work / _LOGITS_FOLDER)
        (job.work / _LOG_FILE).unlink()
        job.work.rmdir()  # unless somebody keeps other things there


def _fit(job: _Job, scorer: Scorer, scenes: Scenes, data: TuningImages) -> TuningReport:
    """Search, and score what was found on the held-out images."""

    def stand(stage: str, candidates: Sequence[Candidate], most: int | None) -> list[Standing]:
        images = _spread(data.searched, most)
        counts = scorer.count(
            [None, *candidates], images, lambda done, total: job.progress(f"searching: {stage}", done, total)
        )
        return [scorer.stand(each, counts[each], counts[None]) for each in candidates]

    start = dataclasses.replace(job.before, compatibility=None)
    found = Search(stand, start, no_harm=job.no_harm, gaussian=job.options.gaussian).run()
    after = _learn(job, scorer, scenes, data, found.best) if job.options.learn else found.best
    counts = scorer.count(
        [None, job.before, after],
        data.held_out,
        lambda done, total: job.progress("scoring held-out images", done, total),
    )
    measured = Measured(data, found, job.before, after, counts, scorer)
    fit = _describe(job, measured)
    reason = measured.objection(job.no_harm)
    return make_report(
        job.bundle,
        scenes,
        measured,
        fit,
        reason=reason,
        written=reason is None or job.options.write_anyway,
        seconds=(time.perf_counter() - job.started, time.process_time() - job.started_cpu),
    )


def _learn(job: _Job, scorer: Scorer, scenes: Scenes, data: TuningImages, start: Candidate) -> Candidate:
    with importing("export", purpose="learning the dense CRF"):
        from .learned import learn_candidate

    return learn_candidate(
        start,
        scenes,
        scorer,
        data.searched,
        no_harm=job.no_harm,
        seed=job.options.seed,
        progress=lambda done, total: job.progress("learning", done, total),
    )


def _describe(job: _Job, measured: Measured) -> CrfFit:
    data = measured.data
    without, before, after = (measured.score(each) for each in (None, job.before, measured.after))
    low, high = measured.interval(job.options.seed)
    return CrfFit(
        metric=job.metric,
        images=len(data.searched),
        held_out=len(data.held_out),
        data_sha256=data.data_sha256,
        model_sha256=job.source.sha256,
        seed=job.options.seed,
        no_harm=job.no_harm,
        score_without=without,
        score_before=before,
        score_after=after,
        gain_interval=(low / 100, high / 100),
    )


def _spread(images: Sequence[Known], most: int | None) -> Sequence[Known]:
    """At most so many of the images, from all of their order: neighbours in it are alike."""
    if most is None or most >= len(images):
        return images
    return [images[index * len(images) // most] for index in range(most)]


def _write(job: _Job, report: TuningReport) -> None:
    with extend_bundle(job.bundle, source=job.source) as staged:
        staged.write(TEXT_FILE, render_text(report).encode() + b"\n")
        staged.write(HTML_FILE, render_html(report).encode())
        staged.write_manifest(
            dataclasses.replace(
                staged.manifest,
                crf=report.after.stored(),
                crf_fit=report.fit,
                schema_version=SCHEMA_VERSION,
            )
        )
