from __future__ import annotations

import pytest
import typer

from atrous.cli.options import chosen_size, parse_range, parse_size
from atrous.exporter.sizes import DynamicSize


def test_sizes() -> None:
    assert parse_size(" 360x480 ") == (360, 480)
    assert parse_range("64x64:360x480:1024x2048") == ((64, 64), (360, 480), (1024, 2048))
    assert chosen_size("360x480", None) == (360, 480)
    assert chosen_size(None, "1x2:3x4:5x6") == DynamicSize((1, 2), (3, 4), (5, 6))
    assert chosen_size(None, None) is None


@pytest.mark.parametrize("text", ["", "360", "360x", "x480", "-1x5", "360x480x3", "360×480", "3.5x4", "360 x 480"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is not a size; expected HEIGHTxWIDTH"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "64x64", "64x64:128x128", "1x1:2x2:3x3:4x4"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a range; expected MIN:OPT:MAX"):
        parse_range(text)


def test_one_of_them_only() -> None:
    with pytest.raises(typer.BadParameter, match="exclude each other"):
        chosen_size("360x480", "1x2:3x4:5x6")
