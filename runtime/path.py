"""Protocol of a segmenter's path from images to results, whether it leads over the CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

from ..bands import Bands
from ..manifest import Size
from .band_images import Pixels, load_pixels
from .image import ImageSource
from .result import Result

#: Images that go through the network at once, at most; bounds the memory.
MAX_BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image in memory.

    Attributes:
        pixels: [H, W, 3] uint8 RGB, or [H, W, B] of the network's bands.
        read_ms: how long reading it took, in milliseconds.
    """

    pixels: Pixels
    read_ms: float

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Path(Protocol):
    """Segments images, somewhere; safe to call from many threads.

    Attributes:
        in_work: images that it works on at once; 0 where `submit` returns when all is done.
    """

    in_work: int

    def submit(self, images: Sequence[ReadImage]) -> list[Future[Result]]:
        """A future for each image, in their order; those of one input size go through the network together.

        Timings of what several images share are divided by their number.

        Raises:
            EngineError: the path is closed.
        """
        ...

    def check_may_wait(self) -> None:
        """Check that this thread may wait for results.

        Raises:
            EngineError: results are made in this very thread, so waiting would never end.
        """
        ...

    def close(self) -> None:
        """Wait for what was submitted, and give back what the path holds. May be called again."""
        ...


def read_image(source: ImageSource, bands: Bands | None = None) -> ReadImage:
    """Read an image, and time that; raises as `load_image` does, or `load_bands` where there are bands."""
    start = time.perf_counter()
    pixels = load_pixels(source, bands)
    return ReadImage(pixels, (time.perf_counter() - start) * 1e3)
