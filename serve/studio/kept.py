"""Images of a studio, which stay with what was made of them while memory allows."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import Labels
from ...runtime.band_images import Pixels
from ...runtime.result import Result
from ...runtime.segmenter import Segmenter
from ..refusals import RefusedError

#: Outcomes of an image that stay: those of both sides of a split view, and of the parameters before.
_MOST_OUTCOMES: Final = 6
#: Characters of an id are twice as many.
_ID_BYTES: Final = 12


@dataclass(frozen=True, eq=False)
class Outcome:
    """Labels of an image, and how sure they are.

    Attributes:
        result: labels [H, W], picture, classes and timings.
        confidence: [H, W] uint8, the probability of each label in units of 1/255.
    """

    result: Result
    confidence: NDArray[np.uint8]

    @property
    def labels(self) -> Labels:
        """Labels [H, W]."""
        return self.result.labels

    @property
    def nbytes(self) -> int:
        """Bytes that it holds besides the image."""
        return self.labels.nbytes + self.confidence.nbytes


@dataclass(eq=False)
class KeptImage:
    """An image and what was made of it.

    Attributes:
        image_id: by which clients name it.
        pixels: [H, W, 3] uint8 RGB, or the network's bands.
        results: of the network, without the CRF; the one used last is the last.
        outcomes: of the network or of the CRF, by what was asked for.
        lock: held while the network runs, so that it runs once.
    """

    image_id: str
    pixels: Pixels
    results: OrderedDict[Segmenter, Result] = field(default_factory=OrderedDict)
    outcomes: OrderedDict[Hashable, Outcome] = field(default_factory=OrderedDict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return (
            self.pixels.nbytes
            + sum(_result_bytes(result) for result in self.results.values())
            + sum(outcome.nbytes for outcome in self.outcomes.values())
        )

    def keep_outcome(self, key: Hashable, outcome: Outcome) -> None:
        """Keep an outcome, and forget the oldest beyond a few."""
        self.outcomes[key] = outcome
        self.outcomes.move_to_end(key)
        while len(self.outcomes) > _MOST_OUTCOMES:
            self.outcomes.popitem(last=False)


class KeptImages:
    """Images by their ids, as many as fit a number of bytes; those used last stay. For one event loop.

    Args:
        most_bytes: of all of them together; the one in use stays even where it has more.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._images: OrderedDict[str, KeptImage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """Bytes of all images and of what was made of them."""
        return sum(image.nbytes for image in self._images.values())

    def add(self, pixels: Pixels) -> KeptImage:
        """Keep an image under a new id, which cannot be guessed."""
        image = KeptImage(secrets.token_hex(_ID_BYTES), pixels)
        self._images[image.image_id] = image
        self.settle(image)
        return image

    def find(self, image_id: str) -> KeptImage:
        """The image of an id; raises `RefusedError` (404) where it is not here any longer."""
        if image_id not in self._images:
            raise RefusedError(404, "this image is not kept any longer; send it again")
        self._images.move_to_end(image_id)
        return self._images[image_id]

    def settle(self, used: KeptImage) -> None:
        """Forget what was used longest ago until the rest fits: other images, then results of this one."""
        while self.nbytes > self._most_bytes:
            oldest = next(iter(self._images.values()))
            if oldest is not used:
                del self._images[oldest.image_id]
            elif len(used.results) > 1:
                used.results.popitem(last=False)
            elif used.outcomes:
                used.outcomes.popitem(last=False)
            else:
                return

    def forget_results(self) -> None:
        """Forget what was made of the images: the bundle has changed."""
        for image in self._images.values():
            image.results.clear()
            image.outcomes.clear()


def _result_bytes(result: Result) -> int:
    computed = result.__dict__.get("probabilities")  # a cached property, which must not be computed to be counted
    return result.labels.nbytes + (0 if computed is None else computed.nbytes)
