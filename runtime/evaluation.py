"""Scores of a segmenter over pictures with masks, one pair in memory a worker, and resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError, ImageError
from ..manifest import Manifest
from .evaluation_state import EvaluationState, Record
from .image import ImageSource, load_image, open_picture
from .metrics import Counts, Mask, Scores, Tally, count
from .segmenter import Segmenter

#: Modes of Pillow in which pixel values are class ids.
_INDEX_MODES: Final = ("L", "P")
_MAX_IDS: Final = 256


@dataclass(frozen=True)
class Pair:
    """A picture and the file with the class id of each of its pixels."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Skipped:
    """A pair that was left out because one of its files cannot be read."""

    pair: Pair
    reason: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        pictures: how many were scored.
        latencies_ms: milliseconds in the segmenter for each scored picture, in order. Workers slow each other down, so
            these are latencies of one call only with one worker.
        skipped: pairs with an unreadable file.
    """

    scores: Scores
    pictures: int
    latencies_ms: tuple[float, ...]
    skipped: tuple[Skipped, ...]


def pair_by_stem(images: Sequence[ImageSource], masks: Path) -> list[Pair]:
    """Pair `street.jpg` with `masks/street.png`, in the order of the pictures.

    Raises:
        EvaluationError: no pictures, one that is no file, two of one stem, or pictures without a mask.
    """
    if not images:
        raise EvaluationError("there is nothing to evaluate: no pictures were given")
    paths = [Path(image) for image in images if isinstance(image, (str, os.PathLike))]
    if len(paths) < len(images):
        raise EvaluationError(
            "masks belong to pictures by the names of their files; pass the pictures as paths, or leave the masks out"
        )
    repeated = [stem for stem, times in Counter(path.stem for path in paths).items() if times > 1]
    if repeated:
        raise EvaluationError(f"several pictures are called {repeated[0]!r}, but a mask belongs to one; rename them")
    pairs = [Pair(path, masks / f"{path.stem}.png") for path in paths]
    missing = [pair.mask for pair in pairs if not pair.mask.is_file()]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(pairs)} pictures have no mask, e.g. {missing[0]}. Expected a PNG of class ids "
            "with the stem of each picture; add the masks, or leave those pictures out.",
            path=missing[0],
        )
    return pairs


def load_mask(path: Path) -> NDArray[np.uint8]:
    """Read class ids [H, W] uint8 from a grey or palette PNG.

    Raises:
        ImageError: the file cannot be read.
        EvaluationError: pixels are colours or wider numbers, not ids.
    """
    with open_picture(path) as picture:
        if picture.mode not in _INDEX_MODES:
            raise EvaluationError(
                f"the mask {path} has pixels of mode {picture.mode}; expected class ids as 8-bit grey or palette (mode "
                "L or P). Convert colours to class ids first.",
                path=path,
            )
        try:
            return np.asarray(picture)
        except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
            raise ImageError(f"cannot decode {path}: {exc}. Is it truncated or damaged?", path=path) from exc


@dataclass(frozen=True, eq=False)
class Truth:
    """A pair, read and judged.

    Attributes:
        picture: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8 class ids, and whatever void is.
        valid: [H, W] bool, where the mask holds one of the classes and not void.
        classes: C.
    """

    picture: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    valid: Mask
    classes: int

    def count(self, labels: NDArray[np.uint8]) -> Counts:
        """Compare labels [H, W] uint8 with the mask."""
        return count(self.mask, labels, self.valid, self.classes)


def load_truth(pair: Pair, classes: int, void: frozenset[int]) -> Truth:
    """Read a picture and its mask.

    Args:
        pair: the files.
        classes: C; ids from 0 to C − 1 are classes.
        void: ids that are not scored, see `void_ids`.

    Raises:
        ImageError: a file cannot be read.
        EvaluationError: the mask has another size, or ids that are neither classes nor void.
    """
    picture = load_image(pair.image)
    mask = load_mask(pair.mask)
    if mask.shape != picture.shape[:2]:
        raise EvaluationError(
            f"the mask {pair.mask} is {_size(mask)}, but its picture {pair.image} is {_size(picture)} (upright); "
            "expected the same size. Resize the mask with nearest-neighbour sampling, or export it again.",
            path=pair.mask,
        )
    return Truth(picture, mask, _valid_pixels(mask, pair.mask, classes, void), classes)


def void_ids(manifest: Manifest, ignore: Collection[int]) -> frozenset[int]:
    """Ids of masks that are not scored: the bundle's `ignore_index` and those to ignore besides.

    Raises:
        EvaluationError: an id that no pixel can have.
    """
    void = frozenset(ignore) | ({manifest.ignore_index} if manifest.ignore_index is not None else frozenset())
    wrong = sorted(index for index in void if not 0 <= index < _MAX_IDS)
    if wrong:
        raise EvaluationError(f"ids to ignore are pixel values from 0 to {_MAX_IDS - 1}; got {wrong[0]}")
    return void


def evaluate(
    segmenter: Segmenter,
    pairs: Sequence[Pair],
    *,
    ignore: Collection[int] = (),
    workers: int = 1,
    state: Path | None = None,
    max_unreadable: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a segmenter on pictures with masks.

    Args:
        segmenter: may have a CRF.
        pairs: see `pair_by_stem`.
        ignore: ids of masks that are void, besides the bundle's `ignore_index`.
        workers: pictures in work at once, each of which takes the segmenter's threads and one for its counts.
        state: a file that gets a line of JSON for each picture. Where it exists, pictures in it are not run again
            unless their files changed.
        max_unreadable: how many pairs may be skipped because a file cannot be read.
        progress: called with the number of pairs done, from the calling thread.

    Raises:
        EvaluationError: no pairs; more than `max_unreadable` unreadable ones, or all; a mask of another size or with
            ids that are neither classes nor ignored; `state` is of another evaluation or damaged; `workers` below 1.
        EngineError: the backend failed.
        OSError: `state` cannot be written.
    """
    if not pairs:
        raise EvaluationError("there is nothing to evaluate: no pairs of picture and mask were given")
    if workers < 1:
        raise EvaluationError(f"workers must be 1 or more; got {workers}")
    void = void_ids(segmenter.bundle.manifest, ignore)
    tally = Tally(len(segmenter.classes), ignored=void)
    latencies: list[float] = []
    skipped: list[Skipped] = []
    opened = closing(EvaluationState(state, _identity(segmenter, void))) if state else nullcontext()
    with opened as done, closing(_outcomes(segmenter, pairs, void, workers, done)) as outcomes:
        for number, (pair, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, ImageError):
                skipped.append(Skipped(pair, str(outcome)))
                _check_skipped(skipped, len(pairs), max_unreadable)
            else:
                tally.add(outcome.counts)
                latencies.append(outcome.latency_ms)
                if done:
                    done.add(outcome)
            if progress:
                progress(number)
    return Evaluation(tally.scores(), len(latencies), tuple(latencies), tuple(skipped))


def _outcomes(
    segmenter: Segmenter, pairs: Sequence[Pair], void: frozenset[int], workers: int, done: EvaluationState | None
) -> Generator[tuple[Pair, Record | ImageError], None, None]:
    """The outcome of each pair, in order; at most twice the workers are ahead, which bounds the memory."""
    source = iter(pairs)
    with ThreadPoolExecutor(workers) as pool:

        def submit(most: int) -> None:
            for pair in islice(source, most):
                waiting.append((pair, pool.submit(_score, segmenter, pair, void, done)))

        waiting: deque[tuple[Pair, Future[Record]]] = deque()
        submit(2 * workers)
        try:
            while waiting:
                pair, future = waiting.popleft()
                try:
                    outcome: Record | ImageError = future.result()
                except ImageError as exc:
                    outcome = exc
                submit(1)
                yield pair, outcome
        finally:
            for _, future in waiting:
                future.cancel()


def _score(segmenter: Segmenter, pair: Pair, void: frozenset[int], done: EvaluationState | None) -> Record:
    digest = _digest(pair) if done else ""
    known = done.find(digest) if done else None
    if known:
        return known
    truth = load_truth(pair, len(segmenter.classes), void)
    result = segmenter(truth.picture)
    return Record(pair.image.name, digest, truth.count(result.labels), sum(result.timings_ms.values()))


def _valid_pixels(mask: NDArray[np.uint8], path: Path, classes: int, void: frozenset[int]) -> Mask:
    """[H, W] bool: where the mask holds a class and not void."""
    is_class = np.arange(_MAX_IDS) < classes
    is_void = np.isin(np.arange(_MAX_IDS), list(void))
    unknown = np.flatnonzero((np.bincount(mask.ravel(), minlength=_MAX_IDS) > 0) & ~is_class & ~is_void)
    if unknown.size:
        raise EvaluationError(
            f"the mask {path} has ids {', '.join(map(str, unknown))}; expected the classes 0 to {classes - 1}, or void "
            f"({', '.join(map(str, sorted(void))) or 'none'}). If those ids are void too, ignore them (--ignore ID).",
            path=path,
        )
    valid: Mask = (is_class & ~is_void)[mask]
    return valid


def _check_skipped(skipped: Sequence[Skipped], pairs: int, max_unreadable: int) -> None:
    if len(skipped) > max_unreadable or len(skipped) == pairs:
        reasons = "; ".join(each.reason for each in skipped[:3])
        limit = f"more than the {max_unreadable} that may be skipped" if pairs > len(skipped) else "all of them"
        raise EvaluationError(
            f"{len(skipped)} of {pairs} pairs cannot be read, {limit}: {reasons}; … Replace or remove those files.",
            path=skipped[0].pair.image,
        )


def _identity(segmenter: Segmenter, void: frozenset[int]) -> dict[str, Any]:
    """Everything that scores depend on besides the files of a pair, as JSON."""
    backend, crf = segmenter.backend, segmenter.crf
    return {
        "artifact": backend.artifact.file,
        "sha256": backend.artifact.sha256,
        "backend": f"{backend.name} on the {backend.device}",
        "input": dataclasses.asdict(segmenter.bundle.manifest.input),
        "channels": dataclasses.asdict(segmenter.bundle.manifest.output.channels),
        "crf": {**crf.params.to_dict(), "iterations": crf.iterations} if crf else None,
        "classes": len(segmenter.classes),
        "ignored": sorted(void),
    }


def _digest(pair: Pair) -> str:
    """Hex SHA-256 of the content of both files."""
    both = hashlib.sha256()
    for path in (pair.image, pair.mask):
        try:
            both.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as exc:
            raise ImageError(f"cannot read {path}: {exc.strerror}", path=path) from exc
    return both.hexdigest()


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
