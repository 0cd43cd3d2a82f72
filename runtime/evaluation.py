"""Scores of a segmenter over images with masks, one pair in memory a worker, and resumable."""

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
from typing import Any

from numpy.typing import NDArray

from ..arguments import MAX_THREADS, check_arguments
from ..arrays import Labels
from ..errors import EvaluationError, ImageError
from ..manifest import Manifest
from .augmentation import AugmentedSegmenter
from .band_images import Pixels, load_pixels
from .evaluation_state import EvaluationState, Record
from .identity import segmenter_identity
from .image import ImageFile, ImageSource
from .mask_rules import MaskRules
from .masks import MaskPixels, MaskReader, check_void
from .metrics import Counts, Scores, Tally, count
from .segmenter import Segmenter


@dataclass(frozen=True)
class Pair:
    """An image and the file with the class id of each of its pixels.

    Attributes:
        image: its file.
        mask: the mask's. Of a mask of several pages it is the page that an `ImageFile` names.
    """

    image: Path | ImageFile
    mask: Path

    @property
    def page(self) -> int | None:
        """The page of both that is meant, if one was chosen."""
        return self.image.page if isinstance(self.image, ImageFile) else None


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
        latencies_ms: milliseconds in the segmenter for each scored image, in order. Workers slow each other down, so
            these are latencies of one call only with one worker.
        skipped: pairs with an unreadable file.
    """

    scores: Scores
    pictures: int
    latencies_ms: tuple[float, ...]
    skipped: tuple[Skipped, ...]


@check_arguments
def pair_by_stem(images: Sequence[ImageSource], masks: Path, rules: MaskRules | None = None) -> list[Pair]:
    """Pair `street.jpg` with `masks/street.png`, or as the rules' pattern says, in the order of the images.

    Raises:
        EvaluationError: no images, one that is no file, two of one stem, or images without a mask.
    """
    if not images:
        raise EvaluationError("there is nothing to evaluate: no pictures were given")
    files = [
        image if isinstance(image, ImageFile) else Path(image)
        for image in images
        if isinstance(image, (str, os.PathLike))
    ]
    if len(files) < len(images):
        raise EvaluationError(
            "masks belong to pictures by the names of their files; pass the pictures as paths, or leave the masks out"
        )
    paths = [Path(file) for file in files]
    repeated = [stem for stem, times in Counter(path.stem for path in paths).items() if times > 1]
    if repeated:
        raise EvaluationError(f"several pictures are called {repeated[0]!r}, but a mask belongs to one; rename them")
    found = (rules or MaskRules()).find(paths, masks)
    return [Pair(file, mask) for file, mask in zip(files, found, strict=True)]


@dataclass(frozen=True, eq=False)
class Truth:
    """A pair that was read and validated.

    Attributes:
        picture: [H, W, 3] uint8 RGB, or [H, W, B] of the network's bands.
        mask: class ids and void.
        classes: C.
    """

    picture: Pixels
    mask: MaskPixels
    classes: int

    def count(self, labels: Labels) -> Counts:
        """Compare labels [H, W] with the mask."""
        found = count(self.mask.ids, labels, self.mask.valid, self.classes)
        return dataclasses.replace(found, assumed_void_px=self.mask.assumed_void_px)


def load_truth(pair: Pair, reader: MaskReader, manifest: Manifest) -> Truth:
    """Read an image and its mask.

    Args:
        pair: the files.
        reader: knows what the mask's pixels mean.
        manifest: describes images and classes.

    Raises:
        ImageError: a file cannot be read.
        EvaluationError: the mask has another size, or pixels that are neither classes nor void.
    """
    picture = load_pixels(pair.image, manifest.input.bands)
    mask = reader.read(pair.mask, page=pair.page)
    if mask.ids.shape != picture.shape[:2]:
        raise EvaluationError(
            f"the mask {pair.mask} is {_size(mask.ids)}, but its picture {pair.image} is {_size(picture)} (upright); "
            "expected the same size. Resize the mask with nearest-neighbour sampling, or export it again.",
            path=pair.mask,
        )
    return Truth(picture, mask, len(manifest.classes))


@check_arguments
def evaluate(
    segmenter: Segmenter | AugmentedSegmenter,
    pairs: Sequence[Pair],
    *,
    ignore: Collection[int] = (),
    rules: MaskRules | None = None,
    workers: int = 1,
    state: Path | None = None,
    max_unreadable: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a segmenter on images with masks.

    Args:
        segmenter: may have a CRF, and be augmented.
        pairs: see `pair_by_stem`.
        ignore: ids of masks that are void, besides the bundle's `ignore_index`. Naming that one as well says that much
            of it is meant.
        rules: what the masks' pixels mean; class ids by default.
        workers: images in work at once, each of which takes the segmenter's threads and one for its counts.
        state: a file that gets a line of JSON for each image. Where it exists, images in it are not run again
            unless their files changed.
        max_unreadable: how many pairs may be skipped because a file cannot be read.
        progress: called with the number of pairs done, from the calling thread.

    Raises:
        EvaluationError: no pairs; more than `max_unreadable` unreadable ones, or all; a mask of another size or with
            ids that are neither classes nor ignored; a class that is in no mask while much is void; `state` is of
            another evaluation or damaged; `workers` below 1.
        EngineError: the backend failed.
        OSError: `state` cannot be written.
    """
    if not pairs:
        raise EvaluationError("there is nothing to evaluate: no pairs of picture and mask were given")
    if workers < 1:
        raise EvaluationError(f"workers must be 1 or more; got {workers}")
    if workers > MAX_THREADS:
        raise EvaluationError(f"workers must be {MAX_THREADS} or less; got {workers}")
    manifest = segmenter.bundle.manifest
    reader = MaskReader(manifest, ignore=ignore, rules=rules)
    tally = Tally(len(segmenter.classes), ignored=reader.ignored)
    latencies: list[float] = []
    skipped: list[Skipped] = []
    opened = closing(EvaluationState(state, _identity(segmenter, reader))) if state else nullcontext()
    with opened as done, closing(_outcomes(segmenter, pairs, reader, workers, done)) as outcomes:
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
    scores = tally.scores()
    check_void(scores, manifest)
    return Evaluation(scores, len(latencies), tuple(latencies), tuple(skipped))


def _outcomes(
    segmenter: Segmenter | AugmentedSegmenter,
    pairs: Sequence[Pair],
    reader: MaskReader,
    workers: int,
    done: EvaluationState | None,
) -> Generator[tuple[Pair, Record | ImageError], None, None]:
    """The outcome of each pair, in order; at most twice the workers are ahead, which bounds the memory."""
    source = iter(pairs)
    with ThreadPoolExecutor(workers) as pool:

        def submit(most: int) -> None:
            for pair in islice(source, most):
                waiting.append((pair, pool.submit(_score, segmenter, pair, reader, done)))

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


def _score(
    segmenter: Segmenter | AugmentedSegmenter, pair: Pair, reader: MaskReader, done: EvaluationState | None
) -> Record:
    digest = pair_digest(pair) if done else ""
    known = done.find(digest) if done else None
    if known:
        return known
    truth = load_truth(pair, reader, segmenter.bundle.manifest)
    result = segmenter(truth.picture)
    return Record(Path(pair.image).name, digest, truth.count(result.labels), sum(result.timings_ms.values()))


def _check_skipped(skipped: Sequence[Skipped], pairs: int, max_unreadable: int) -> None:
    if len(skipped) > max_unreadable or len(skipped) == pairs:
        reasons = "; ".join(each.reason for each in skipped[:3])
        limit = f"more than the {max_unreadable} that may be skipped" if pairs > len(skipped) else "all of them"
        raise EvaluationError(
            f"{len(skipped)} of {pairs} pairs cannot be read, {limit}: {reasons}; … Replace or remove those files.",
            path=Path(skipped[0].pair.image),
        )


def _identity(segmenter: Segmenter | AugmentedSegmenter, reader: MaskReader) -> dict[str, Any]:
    """Everything that scores depend on besides the files of a pair, as JSON."""
    return {
        **segmenter_identity(segmenter),
        "ignored": sorted(reader.void),
        "masks": reader.rules.to_dict(),
        "augmentation": segmenter.augmentation.to_dict() if isinstance(segmenter, AugmentedSegmenter) else None,
    }


def pair_digest(pair: Pair) -> str:
    """Hex SHA-256 of the content of both files, and of what is read of the image's."""
    both = hashlib.sha256()
    for file in (pair.image, pair.mask):
        try:
            both.update((file if isinstance(file, ImageFile) else ImageFile(file)).digest)
        except OSError as exc:
            raise ImageError(f"cannot read {file}: {exc.strerror}", path=Path(file)) from exc
    return both.hexdigest()


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
