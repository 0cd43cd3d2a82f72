"""Weights of classes and costs of their pairs, learned by gradient on top of what the search found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ...errors import EvaluationError
from ..learn import Example, LearnOptions, Score, learn_crf
from .candidate import Candidate
from .images import Known
from .scenes import Scenes
from .score import Scorer

#: Void in the masks of examples, whatever the ids of the masks that were read.
_VOID: Final = -1
#: Of so many images one chooses the epoch, and whether what was learned is better than what was searched.
_OF_IMAGES: Final = 3


def learn_candidate(
    start: Candidate,
    scenes: Scenes,
    scorer: Scorer,
    images: Sequence[Known],
    *,
    no_harm: float,
    seed: int,
    progress: Callable[[int, int], None],
) -> Candidate:
    """Learn the compatibility and the temperature of a dense CRF, from the parameters that a search found.

    Args:
        start: what was found; its standard deviations, weights and iterations stay.
        scenes: give probabilities and masks.
        scorer: compares what was learned with the start.
        images: searched on; a third of them chooses, and is not learned from.
        no_harm: see `Standing.merit`.
        seed: random seed of the order of the images.
        progress: called with the number of epochs done and the most there may be.

    Returns:
        The start, unless what was learned has more merit on the images that choose.

    Raises:
        EvaluationError: there are fewer than two images.
        CRFError: the masks to learn from are all void.
    """
    if len(images) < 2:
        raise EvaluationError(
            f"learning takes two images or more besides the held-out ones; got {len(images)}. Pass more images with "
            "masks, or hold out fewer."
        )
    choosing = images[::_OF_IMAGES]
    train = [each for index, each in enumerate(images) if index % _OF_IMAGES]
    options = LearnOptions(iterations=start.iterations, ignore=_VOID, seed=seed)

    def report(score: Score) -> None:
        progress(score.epoch, options.epochs)

    learned = learn_crf(
        _Examples(train, scenes, scorer.ignored, seed),
        _Examples(choosing, scenes, scorer.ignored, seed),
        start.params,
        options=options,
        progress=report,
    )
    found = replace(start, params=learned.params, compatibility=learned.compatibility)
    counts = scorer.count([None, start, found], choosing)
    before, after = (scorer.stand(each, counts[each], counts[None]).merit(no_harm) for each in (start, found))
    return found if after > before else start


class _Examples:
    """Examples that are read when they are needed, in another order each time."""

    def __init__(self, images: Sequence[Known], scenes: Scenes, ignored: Sequence[int], seed: int) -> None:
        self._images = images
        self._scenes = scenes
        self._ignored = ignored
        self._order = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[Example]:
        for index in self._order.permutation(len(self._images)):
            scene = self._scenes.load(*self._images[index])
            ids = scene.truth.ids.astype(np.int32)
            counted = scene.truth.valid & ~np.isin(ids, self._ignored)
            yield Example(scene.probabilities, scene.colors, np.where(counted, ids, _VOID))
