"""Options of the verbs that read images, and the images that they choose."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .inputs import find_images

if TYPE_CHECKING:
    from ..runtime.image import ImageFile

PageOption = Annotated[
    int | None,
    typer.Option(min=1, help="Page of TIFFs, frame of animations, and of masks with several; the first by default."),
]
BitsOption = Annotated[
    int | None, typer.Option(min=9, max=16, help="Significant bits of 16-bit images that do not say it.")
]


def chosen_images(sources: Iterable[Path | str], page: int | None, bits: int | None) -> list[ImageFile]:
    """The images that `find_images` finds, with what --page and --bits say of each.

    Raises:
        ImageError: as `find_images`.
    """
    from ..runtime.image import ImageFile

    return [ImageFile(path, page, bits) for path in find_images(sources)]
