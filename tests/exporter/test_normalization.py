from __future__ import annotations

import pytest

from atrous.errors import ExportError
from atrous.exporter.normalization import NORMALIZATIONS, Normalization

ONE = (1.0, 1.0, 1.0)
GREY_LEVELS = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
UNITS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (1.0, *GREY_LEVELS),
        (1 / 255, *UNITS),
        (0.0039, *UNITS),
        (1.0, (0.0, 0.0, 0.0), ONE),
        (1 / 255, (0.0, 0.0, 0.0), ONE),
        (1 / 127.5, ONE, ONE),
        (1.0, (127.5,) * 3, (127.5,) * 3),
        (1.0, (0.0, 0.0, 0.0), (255.0,) * 3),
    ],
)
def test_constants_of_one_unit(scale: float, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    assert Normalization("RGB", scale, mean, std).scale == scale


@pytest.mark.parametrize(
    ("scale", "mean", "std", "said"),
    [
        (1 / 255, *GREY_LEVELS, r"mean=\[123\.675, .*between 0 and 1.* scale=1\.$"),
        (1 / 255, (0.485, 0.456, 2.0), UNITS[1], "mean="),
        (1 / 255, (-0.5, 0.4, 0.4), UNITS[1], "mean="),
        (1 / 255, UNITS[0], GREY_LEVELS[1], r"std=\[58\.395"),
        (1.0, *UNITS, r"std=\[0\.229, .*between 1 and 255"),
        (1.0, GREY_LEVELS[0], (0.0, 1.0, 1.0), "std="),
        (1.0, (float("nan"), 1.0, 1.0), ONE, "mean="),
        (0.0, GREY_LEVELS[0], ONE, "must be positive"),
        (float("inf"), GREY_LEVELS[0], ONE, "must be positive"),
    ],
)
def test_constants_of_two_units_are_refused(
    scale: float, mean: tuple[float, float, float], std: tuple[float, float, float], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        Normalization("RGB", scale, mean, std)


def test_the_known_ones_are_within_reach() -> None:
    assert set(NORMALIZATIONS) == {"imagenet", "caffe", "lite", "symmetric"}
