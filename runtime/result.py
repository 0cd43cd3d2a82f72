"""Result of segmenting an image: labels at once, probabilities and overlays when asked for."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .._native import overlay as blend_colors
from ..arguments import check_arguments
from ..arrays import Labels
from ..bands import Bands
from ..errors import ImageError
from ..files import write_whole
from ..manifest import ClassInfo
from .band_images import Pixels
from .preprocess import color_image

#: Share of the classes' colours in an overlay.
DEFAULT_ALPHA: Final = 0.6
#: Labels are runs: as small as with zlib's search for repeats, in a quarter of its time.
_PNG_OPTIONS: Final = {"compress_type": zlib.Z_RLE}


@dataclass(frozen=True, eq=False)
class Result:
    """One segmented image. It pickles; from a GPU without the probabilities, unless they were asked for before.

    Attributes:
        labels: [H, W] uint8, or uint16 of more than 256 classes, the class id of every pixel of the image.
        image: [H, W, 3] uint8 RGB, the image as it was read; [H, W, B] where the network takes other bands.
        classes: names and colours; `classes[i].id == i`.
        timings_ms: milliseconds by stage: preprocess, inference, postprocess and, with a CRF, crf. On a GPU these are
            its own, besides read, upload and download; stages of different images overlap.
    """

    labels: Labels
    image: Pixels
    classes: Sequence[ClassInfo]
    timings_ms: Mapping[str, float]
    _compute_probabilities: Callable[[], NDArray[np.float32]] = field(repr=False)
    _bands: Bands | None = field(default=None, repr=False)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """[C, H, W] float32: softmax of the upsampled logits, or the marginals of the CRF when one ran.

        Of a network with one channel and a sigmoid, [2, H, W]: 1 − p and p.

        Computed on first use: at 1024×2048 with 19 classes it is 159 MB that most callers never need. From a GPU the
        image goes through it once more.
        """
        return self._compute_probabilities()

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB, the image to look at: of other bands, those that the bundle calls its colours."""
        return color_image(self.image, self._bands)

    @check_arguments
    def overlay(self, alpha: float = DEFAULT_ALPHA) -> Image.Image:
        """The image with the classes' colours over it; `alpha` 0 shows the image, 1 the colours."""
        return Image.fromarray(blend_colors(self.picture, self.labels, self._palette, check_alpha(alpha)))

    def colored(self) -> Image.Image:
        """The labels as a palette PNG would show them: mode P, so that pixel values are class ids.

        Of more than 256 classes, for which there are no palettes, mode I;16 with the ids alone.
        """
        if self.labels.dtype != np.uint8:
            return Image.fromarray(self.labels)
        picture = Image.fromarray(self.labels)
        picture.putpalette(self._palette.tobytes())
        return picture

    @check_arguments
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as a palette PNG: pixel values are class ids, colours are the classes'.

        Of more than 256 classes, as a grey PNG of 16 bits, whose values are the ids.

        Raises:
            ImageError: the name does not end in `.png`, or the file cannot be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise ImageError(f"labels are saved as .png, because lossy formats change class ids; got {path}", path=path)
        save_picture(self.colored(), path, **_PNG_OPTIONS)

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        palette = np.zeros((1 << 8 * self.labels.itemsize, 3), np.uint8)
        palette[: len(self.classes)] = [entry.color for entry in self.classes]
        return palette


def encode_labels(picture: Image.Image, file: BinaryIO) -> None:
    """Write what `Result.colored` made into an open file, as `Result.save` writes it to a path."""
    picture.save(file, format="PNG", **_PNG_OPTIONS)


def unchanged(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of a result whose computation left nothing to do; results pickle with it."""
    return probabilities


def check_alpha(alpha: float) -> float:
    """Validate the share of the classes' colours in an overlay; NumPy's numbers become Python's.

    Raises:
        ImageError: it is not between 0 and 1.
    """
    if not 0 <= alpha <= 1:
        raise ImageError(f"alpha is a share between 0 and 1; got {alpha}")
    return float(alpha)


@check_arguments
def save_picture(picture: Image.Image, path: str | os.PathLike[str], **options: Any) -> None:  # noqa: ANN401
    """Write an image, whole or not at all.

    Args:
        picture: what to write.
        path: its name says the format.
        options: of Pillow's encoder of that format.

    Raises:
        ImageError: the folder is missing or not writable, or Pillow does not know the format.
    """
    target = Path(path)
    try:
        with write_whole(target) as temporary:
            picture.save(temporary, format=Image.registered_extensions()[target.suffix.lower()], **options)
    except KeyError as exc:
        raise ImageError(f"{target} has no known picture format; use .png or .jpg", path=target) from exc
    except Exception as exc:  # OSError, and whatever Pillow's encoders raise
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise ImageError(f"cannot write {target}: {reason}", path=target) from exc
