"""Models of a server: bundles that are open, in the precisions that requests may ask for."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..arguments import check_fields
from ..bundle import SUFFIX, Bundle
from ..errors import ServeError
from ..manifest import Size
from ..runtime.path import MAX_BATCH
from ..runtime.segmenter import Segmenter, bundle_crf, load
from .images import image_type
from .limits import Limits
from .metrics import Metrics
from .refusals import RefusedError, bad_request
from .scheduler import Scheduler

#: A bundle has no versions of its own; clients that want one get this.
VERSION: Final = "1"


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of opening a bundle, as `atrous.load` takes them.

    Attributes:
        precisions: those that requests may ask for; the first where they do not.
        crf: whether requests get the dense CRF unless they say otherwise.
        workers: batches in work at once, on the CPU as well.
        max_batch: images of one size that share an inference at most; 0 for 1 on the CPU, where sharing was measured to
            gain nothing and each image waits for the others, and `MAX_BATCH` on a GPU.
    """

    backend: str = "auto"
    precisions: tuple[str, ...] = ("auto",)
    crf: bool = False
    threads: int = 0
    workers: int = 1
    max_batch: int = 0
    fast: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.precisions:
            raise ServeError("precisions must have at least one; got none. The default is ('auto',)")
        if not 0 <= self.max_batch <= MAX_BATCH:
            raise ServeError(f"max_batch must be 0 (automatic) to {MAX_BATCH}; got {self.max_batch}")


class OpenedBundle:
    """A bundle as it was when it was opened, with a segmenter for each precision, with and without the CRF.

    Args:
        path: of the bundle.
        options: how to open it.
        limits: `probability_bytes` of them.

    Raises:
        AtrousError: as `atrous.load`, or the network fails on an image of its own size.
    """

    def __init__(self, path: Path, options: LoadOptions, limits: Limits) -> None:
        self.bundle = Bundle.open(path)
        self._crf = options.crf
        self._segmenters: dict[tuple[str, bool], Segmenter] = {}
        for precision in options.precisions:
            plain = load(
                self.bundle,
                backend=options.backend,
                precision=precision,
                threads=options.threads,
                workers=options.workers,
                fast=options.fast,
            )
            found = plain.backend.artifact.precision
            crf = bundle_crf(plain.bundle, threads=options.threads)
            refined = Segmenter(plain.bundle, plain.backend, crf=crf, threads=options.threads, workers=options.workers)
            self._segmenters |= {(found, False): plain, (found, True): refined}
        self.precisions = tuple(dict.fromkeys(precision for precision, _ in self._segmenters))
        self._warm_up(limits)

    @property
    def first(self) -> Segmenter:
        """Segmenter of the precision that requests get unless they say otherwise, without the CRF."""
        return self._segmenters[self.precisions[0], False]

    def choose(self, parameters: Mapping[str, Any]) -> Segmenter:
        """The segmenter that the parameters `crf` and `precision` of a request ask for.

        Raises:
            RefusedError: they are wrong, or the precision was not loaded.
        """
        crf, precision = parameters.get("crf", self._crf), parameters.get("precision", self.precisions[0])
        if not isinstance(crf, bool):
            raise bad_request(f"the parameter crf must be true or false; got {str(crf)[:40]!r}")
        if precision not in self.precisions:
            raise bad_request(
                f"the parameter precision must be one of {', '.join(self.precisions)}, which this server loaded; got "
                f"{str(precision)[:40]!r}"
            )
        return self._segmenters[precision, crf]

    def check_probabilities(self, size: Size, limits: Limits) -> int:
        """Bytes of the probabilities of all classes at this size, which the CRF and some outputs need.

        Raises:
            RefusedError: they are too many.
        """
        classes = len(self.bundle.manifest.classes)
        needed = math.prod(size) * classes * 4
        if needed > limits.probability_bytes:
            raise RefusedError(
                413,
                f"the probabilities of {classes} classes at {size[0]}×{size[1]} take {needed} bytes, of at most "
                f"{limits.probability_bytes}: send a smaller image, or ask for LABELS without the dense CRF",
            )
        return needed

    def _warm_up(self, limits: Limits) -> None:
        """Segment an image of the network's size with each, so that no request pays for what is done once."""
        inputs = self.bundle.manifest.input
        dtype, count = image_type(inputs.bands)
        image = np.zeros((*inputs.size.opt, count), dtype)
        for segmenter in self._segmenters.values():
            if segmenter.crf is not None:
                try:
                    self.check_probabilities(inputs.size.opt, limits)
                except RefusedError:  # as every request for them will be
                    continue
            segmenter(image)


class Model:
    """A bundle that is served, by its name; safe to use from many threads.

    Args:
        path: of the bundle.
        options: how to open it, now and at each reload.
        limits: `queue` of them.
        metrics: of the server.
    """

    def __init__(self, path: Path, options: LoadOptions, limits: Limits, metrics: Metrics) -> None:
        self.name = model_name(path)
        self._path = path.absolute()
        self._options = options
        self._reloading = threading.Lock()
        self._limits = limits
        self.opened = self._open()
        in_work = self.opened.first.in_work
        self.scheduler = Scheduler(
            self.name,
            limit=limits.queue,
            threads=max(options.workers, in_work),
            max_batch=options.max_batch or (MAX_BATCH if in_work else 1),
            observe_batch=metrics.batch_images.labels(self.name).observe,
        )
        metrics.watch_queue(self.name, self.scheduler)

    def reload(self) -> None:
        """Open the bundle as it is now; requests get the old one until that has worked.

        Raises:
            AtrousError: it cannot be opened; the old one stays.
        """
        with self._reloading:
            self.opened = self._open()

    def _open(self) -> OpenedBundle:
        return OpenedBundle(self._path, self._options, self._limits)


class Models:
    """All models of a server, by their names.

    Raises:
        ServeError: there are none, or two have one name.
        AtrousError: one of them cannot be opened.
    """

    def __init__(self, paths: Sequence[Path], options: LoadOptions, limits: Limits, metrics: Metrics) -> None:
        names = [model_name(path) for path in paths]
        twice = [str(path) for path, name in zip(paths, names, strict=True) if names.count(name) > 1]
        if not paths or twice:
            raise ServeError(
                "bundles are served by their names, which must differ; got " + (", ".join(twice) or "no bundle")
            )
        self._models = {name: Model(path, options, limits, metrics) for name, path in zip(names, paths, strict=True)}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str, version: str = VERSION) -> Model:
        """The model of a name; raises `RefusedError` (404) where there is none, or no such version."""
        if name not in self._models:
            known = ", ".join(self._models)
            raise RefusedError(404, f"there is no model {name[:80]!r}; this server has {known}")
        if version != VERSION:
            raise RefusedError(404, f"model {name!r} has no version {version[:40]!r}; it has {VERSION}")
        return self._models[name]

    def only(self) -> Model:
        """The model that is meant where a request names none; raises `RefusedError` where there are several."""
        if len(self._models) > 1:
            raise bad_request(f"this server has several models; choose one with ?model=: {', '.join(self._models)}")
        return next(iter(self._models.values()))

    def close(self) -> None:
        """Finish what is queued."""
        for model in self._models.values():
            model.scheduler.close()


def model_name(path: Path) -> str:
    """Name of the model that a bundle is: `street` of `street.atrous`."""
    return path.resolve().name.removesuffix(SUFFIX)
