"""Masks of 0 and 255 in every verb that reads masks: refused, or mapped, and what they hold is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from PIL import Image
from tiny_graphs import Conv, color_layers, make_bundle

from atrous.exporter.sizes import DynamicSize

RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Class 0, 1 or 2 where red, green or blue is largest; the layer in the middle can be INT8."""
    same = Conv(np.eye(3, dtype=np.float32)[:, :, None, None])
    sizes = DynamicSize((16, 16), (64, 64), (128, 128), multiple=8)
    return make_bundle(tmp_path / "colors.atrous", [*color_layers(8), same, same], sizes=sizes).path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four red pictures, of which a quarter is green and a stripe blue."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        picture = np.tile(np.uint8(RED), (64, 64, 1))
        picture[:32, :32] = GREEN
        picture[56:] = BLUE
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """0 and 2 for red and blue, and 255 for green; and `*_mask.png`, in which they count from 1, green as 2."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for index in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[:32, :32] = 255
        mask[56:] = 2
        Image.fromarray(mask).save(folder / f"{index}.png")
        Image.fromarray(np.where(mask == 255, 1, mask) + np.uint8(1)).save(folder / f"{index}_mask.png")
    return folder


def commands(bundle: Path, images: Path, masks: Path) -> dict[str, tuple[Any, ...]]:
    shared = (bundle, "--images", images, "--masks", masks)
    return {verb: (verb, *shared) for verb in ("eval", "verify", "quantize")}


@pytest.fixture(params=["eval", "verify", "quantize"])
def command(request: pytest.FixtureRequest, bundle: Path, images: Path, masks: Path) -> tuple[Any, ...]:

    return commands(bundle, images, masks)[request.param]


class TestEveryVerb:
    def test_refuses(self, atrous: Command, command: tuple[Any, ...]) -> None:
        outcome = atrous(*command)
        assert outcome.code == 1
        assert "25.0% of the masks' pixels are 255, which is void in this bundle" in outcome.err
        assert "no mask holds class 1" in outcome.err
        assert "--mask-map 255=1" in outcome.err

    @pytest.mark.parametrize(
        ("options", "void_share", "absent"),
        [
            (("--mask-map", "255=1"), 0.0, []),
            (("--ignore", "255"), 0.25, ["class 1"]),
            (("--mask-map", "255=void", "--mask-map", "2=1"), 0.25, ["class 2"]),
            (("--mask-pattern", "*_mask.png", "--mask-one-based"), 0.0, []),
        ],
    )
    def test_reports(
        self, atrous: Command, command: tuple[Any, ...], options: tuple[str, ...], void_share: float, absent: list[str]
    ) -> None:
        outcome = atrous(*command, *options, "--json")
        assert outcome.code == 0, outcome.err
        report = outcome.json()
        assert (report["void_share"], report["in_no_mask"]) == (void_share, absent)

    def test_says_it_to_people(self, atrous: Command, command: tuple[Any, ...]) -> None:
        outcome = atrous(*command, "--ignore", "255")
        assert outcome.code == 0, outcome.err
        assert "void: 25.0% of the masks' pixels; in no mask: class 1" in outcome.out

    @pytest.mark.parametrize("text", ["255", "255=lesion", "=1", "1,2=3", "0x10=1", "255=-1"])
    def test_what_maps_nothing(self, atrous: Command, command: tuple[Any, ...], text: str) -> None:
        outcome = atrous(*command, "--mask-map", text)
        assert outcome.code == 2
        assert "maps nothing" in outcome.err

    def test_maps_twice(self, atrous: Command, command: tuple[Any, ...]) -> None:
        assert atrous(*command, "--mask-map", "255=1", "--mask-map", "255=2").code == 2


def test_masks_that_are_mapped_are_scored(atrous: Command, bundle: Path, images: Path, masks: Path) -> None:
    report = atrous(*commands(bundle, images, masks)["eval"], "--mask-map", "255=1", "--json").json()
    assert np.sum(report["confusion"], axis=1).tolist() == [4 * (64 * 56 - 32 * 32), 4 * 32 * 32, 4 * 64 * 8]
    assert report["miou"] > 0.9


def test_colours(atrous: Command, bundle: Path, images: Path, masks: Path) -> None:
    for path in masks.glob("?.png"):
        with Image.open(path) as picture:
            values = np.asarray(picture)
        colors = np.zeros((*values.shape, 3), np.uint8)  # of the bundle: PASCAL VOC's
        colors[values == 255] = (128, 0, 0)
        colors[values == 2] = (9, 9, 9)
        Image.fromarray(colors).save(path)
    arguments = commands(bundle, images, masks)["eval"]
    assert "colours that are not of exactly one class of the bundle: 9,9,9" in atrous(*arguments).err
    report = atrous(*arguments, "--mask-map", "9,9,9=2", "--json").json()
    assert np.sum(report["confusion"], axis=1).tolist() == [4 * (64 * 56 - 32 * 32), 4 * 32 * 32, 4 * 64 * 8]


def test_a_tree_of_cities(atrous: Command, bundle: Path, images: Path, masks: Path, tmp_path: Path) -> None:
    """Cityscapes: pictures and masks end differently, and lie in a folder a city."""
    for index, city in enumerate(("aachen", "aachen", "ulm", "ulm")):
        for source, folder, ending in ((images, "left", "leftImg8bit"), (masks, "fine", "gtFine_labelIds")):
            target = tmp_path / folder / city / f"{city}_00000{index}_000019_{ending}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            (source / f"{index}.png").rename(target)
    options = ("--images", tmp_path / "left/*/*.png", "--masks", tmp_path / "fine", "--mask-map", "255=1", "--json")
    report = atrous("eval", bundle, *options, "--mask-pattern", "**/*_gtFine_labelIds.png").json()
    assert (report["pictures"], report["in_no_mask"]) == (4, [])
    assert report["miou"] > 0.9
