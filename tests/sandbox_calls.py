"""A call with right arguments, and the bundle, images and folders that such calls are made with."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmenters import picture
from tiny_graphs import color_layers, make_bundle, save_graph

import atrous

CLASSES = ("a", "b", "c")


@dataclass(frozen=True)
class Call:
    """A public function, and arguments with which it succeeds.

    Attributes:
        name: as a user writes it.
        make: the function and its arguments by name or, where it takes them so, by place; made anew for each call.
    """

    name: str
    make: Callable[[], tuple[Callable[..., Any], Mapping[str, Any]]]

    def arguments(self) -> list[str]:
        """Names of all arguments, those with defaults too."""
        function, given = self.make()
        taken = inspect.signature(function).parameters.values()
        named = [each.name for each in taken if each.kind is not inspect.Parameter.VAR_KEYWORD]
        return list(dict.fromkeys([*given, *named]))


class Sandbox:
    """Bundles and images in a folder of their own, which a call may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = make_bundle(folder / "color.atrous", color_layers(8), fixed=(16, 16))
        self.graph = save_graph(folder / "graph.onnx", color_layers(8), size=(16, 16))
        self.image = picture((16, 16))
        self.images = folder / "images"
        self.images.mkdir()
        atrous.load(self.bundle)(self.image).save(self.images / "a.png")
        self._number = 0

    def new(self) -> Path:
        """A path of a bundle that is not there, in a folder of its own: writers look through the one they write to."""
        self._number += 1
        return self.folder / f"{self._number}" / "new.atrous"

    def new_png(self) -> Path:
        """A path of an image that is not there, in a folder that is."""
        self._number += 1
        return self.folder / f"{self._number}.png"

    def copy(self) -> atrous.Bundle:
        """A bundle to change; copied, since packing it anew for each call took most of the time."""
        return atrous.Bundle.open(shutil.copytree(self.bundle.path, self.new()))
