"""Images and masks of a search: chosen, labelled without a CRF, checked and split."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import EvaluationError, ImageError
from ...manifest import Manifest
from ...runtime.evaluation import Pair, pair_by_stem, pair_digest
from ...runtime.image import ImageSource, list_pictures
from ...runtime.masks import MaskReader, check_void
from ...runtime.metrics import Counts, Scores, Tally
from ..images import MAX_UNREADABLE_SHARE
from ..parallel_map import parallel_map
from ..report.model import SkippedImage
from .options import TuneOptions
from .scenes import Scenes

_logger = logging.getLogger(__name__)

#: A pair and its digest.
Known = tuple[Pair, str]


@dataclass(frozen=True, eq=False)
class TuningImages:
    """Images of a search.

    Attributes:
        searched: images to search on.
        held_out: images that the search does not see.
        scores: without a CRF, over both.
        skipped: pairs with an unreadable file.
        data_sha256: hash of all images and masks, in order.
    """

    searched: tuple[Known, ...]
    held_out: tuple[Known, ...]
    scores: Scores
    skipped: tuple[SkippedImage, ...]
    data_sha256: str


def choose_pairs(
    images: str | os.PathLike[str] | Sequence[ImageSource], masks: Path, options: TuneOptions
) -> list[Pair]:
    """Pair images with their masks, and take a random sample of at most `max_images`, in their order.

    Raises:
        EvaluationError: `images` is no folder; fewer than two images, or images without a mask.
    """
    sources = _list(Path(images)) if isinstance(images, str | os.PathLike) else list(images)
    pairs = pair_by_stem(sources, masks, options.mask_rules)
    if len(pairs) < 2:
        raise EvaluationError(
            "parameters need two images or more, one to search on and one to hold out; got 1. A few dozen with masks "
            "are enough, a hundred are plenty."
        )
    if len(pairs) > options.max_images:
        chosen = random.Random(options.seed).sample(range(len(pairs)), options.max_images)  # noqa: S311 - no secret
        pairs = [pairs[index] for index in sorted(chosen)]
    return pairs


def open_images(
    pairs: Sequence[Pair],
    scenes: Scenes,
    reader: MaskReader,
    manifest: Manifest,
    *,
    holdout: float,
    seed: int,
    progress: Callable[[int], None],
) -> TuningImages:
    """Label every image without a CRF, and split.

    Args:
        pairs: the images and masks.
        scenes: label them.
        reader: reads the masks.
        manifest: names the classes.
        holdout: share of the images that the search does not see.
        seed: random seed of the split.
        progress: called with the number of images done.

    Raises:
        EvaluationError: too many pairs are unreadable; a mask does not fit its image or the classes; nothing in the
            masks of a part is scored; or a class is in no mask while much is void.
        EngineError: the backend failed.
    """
    tally = Tally(len(manifest.classes), ignored=reader.ignored)
    known: list[Known] = []
    skipped: list[SkippedImage] = []
    filled: list[bool] = []
    results = parallel_map(lambda pair: _open(scenes, pair), pairs)
    for number, (pair, result) in enumerate(zip(pairs, results, strict=True), start=1):
        if isinstance(result, ImageError):
            skipped.append(SkippedImage(Path(pair.image).name, str(result)))
            _check_skipped(skipped, len(pairs))
        else:
            digest, counts = result
            tally.add(counts)
            known.append((pair, digest))
            filled.append(bool(counts.rings.any()))
        progress(number)
    scores = tally.scores()
    if math.isnan(scores.miou):
        raise EvaluationError(
            "nothing in the masks is scored: every pixel is void. Ignore fewer ids, or pass other masks."
        )
    check_void(scores, manifest)
    digest = hashlib.sha256("".join(each for _, each in known).encode()).hexdigest()
    searched, held_out = _split(known, filled, holdout, seed)
    return TuningImages(searched, held_out, scores, tuple(skipped), digest)


def _split(
    known: Sequence[Known], filled: Sequence[bool], holdout: float, seed: int
) -> tuple[tuple[Known, ...], tuple[Known, ...]]:
    """Images to search on and to hold out, each in their order; those whose masks are all void are neither."""
    usable = [each for each, has_truth in zip(known, filled, strict=True) if has_truth]
    if len(usable) < 2:
        raise EvaluationError(
            f"only {len(usable)} of {len(known)} masks have anything but void; expected two or more, one to search on "
            "and one to hold out. Ignore fewer ids, or pass more masks."
        )
    count = min(max(1, round(len(usable) * holdout)), len(usable) - 1)
    held = set(random.Random(seed).sample(range(len(usable)), count))  # noqa: S311 - no secret
    parts = ([each for index, each in enumerate(usable) if (index in held) == is_held] for is_held in (False, True))
    searched, held_out = map(tuple, parts)
    return searched, held_out


def _open(scenes: Scenes, pair: Pair) -> tuple[str, Counts] | ImageError:
    try:
        digest = pair_digest(pair)
        return digest, scenes.count_all(pair, digest, None)
    except ImageError as exc:
        return exc


def _list(folder: Path) -> list[ImageSource]:
    try:
        found: list[ImageSource] = [*list_pictures(folder)]
    except ImageError as exc:
        raise EvaluationError(str(exc), path=folder) from exc
    if not found:
        raise EvaluationError(f"no images in {folder}; expected about a hundred, with masks", path=folder)
    return found


def _check_skipped(skipped: Sequence[SkippedImage], pairs: int) -> None:
    limit = max(1, int(pairs * MAX_UNREADABLE_SHARE))
    if len(skipped) > limit or len(skipped) == pairs:
        reasons = "; ".join(each.reason for each in skipped[:3])
        raise EvaluationError(
            f"{len(skipped)} of {pairs} pairs cannot be read; at most {limit} may be skipped: {reasons}. Replace or "
            "remove those files."
        )
    _logger.warning("skipped %s: %s", skipped[-1].name, skipped[-1].reason)
