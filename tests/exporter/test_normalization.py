from __future__ import annotations

import json
from pathlib import Path

import pytest

from atrous.errors import ExportError
from atrous.exporter.normalization import (
    IMAGENET,
    MMSEG,
    NORMALIZATIONS,
    TENSORFLOW,
    Normalization,
    find_normalization,
    parse_normalization,
)

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
        (1.0, GREY_LEVELS[0], UNITS[1], r"std=\[0\.229, .*between 1 and 255"),
        (1.0, *UNITS, r"mean=\[0\.485, .*between 1 and 255.* use scale=1/255"),
        (1.0, UNITS[0], ONE, "mean="),
        (1.0, UNITS[0], GREY_LEVELS[1], "mean="),
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
    assert set(NORMALIZATIONS) == {"imagenet", "caffe", "lite", "tensorflow", "mmseg", "none"}


def test_numbers_of_a_command_line() -> None:
    assert parse_normalization("123.675,116.28,103.53", "58.395,57.12,57.375", None, None) == MMSEG
    assert parse_normalization("0.485, 0.456, 0.406", "0.229,0.224,0.225", None, "RGB") == IMAGENET
    assert parse_normalization("127.5,127.5,127.5", "127.5,127.5,127.5", 1.0, None) == TENSORFLOW
    assert parse_normalization(None, None, None, "BGR") == Normalization("BGR", 1 / 255, (0.0, 0.0, 0.0), ONE)


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "a,b,c", ""])
def test_numbers_that_are_not_three(text: str) -> None:
    if text:
        with pytest.raises(ExportError, match="is not three numbers; expected for example"):
            parse_normalization(text, None, None, None)
    with pytest.raises(ExportError, match="expected imagenet, caffe, lite, tensorflow, mmseg, none, or a"):
        find_normalization(text)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"image_mean": list(UNITS[0]), "image_std": list(UNITS[1])}, IMAGENET),
        (
            {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            Normalization("RGB", 1 / 255, (0.5,) * 3, (0.5,) * 3),
        ),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, TENSORFLOW),
        (
            {"do_rescale": True, "rescale_factor": 1 / 255, "do_flip_channel_order": True},
            Normalization("BGR", 1 / 255, (0.0,) * 3, ONE),
        ),
        (  # pixels / 127.5 − 1, then normalized
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            Normalization("RGB", 1 / 127.5, (1.5,) * 3, (0.5,) * 3),
        ),
        ({"do_normalize": False, "image_mean": [0.5] * 3}, Normalization("RGB", 1 / 255, (0.0,) * 3, ONE)),
    ],
)
def test_image_processors_of_transformers(stated: dict[str, object], expected: Normalization, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(stated))
    assert find_normalization(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot read"),
        ("[]", "holds a list"),
        ('{"do_normalize": true}', "image_mean is None; expected three numbers"),
        ('{"image_mean": [0.5], "image_std": [1]}', "expected three numbers"),
        ('{"rescale_factor": "x"}', "rescale_factor is 'x'"),
    ],
)
def test_image_processors_that_do_not_say_it(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    with pytest.raises(ExportError, match="cannot read"):
        find_normalization(str(path))
    path.write_text(content)
    with pytest.raises(ExportError, match=said):
        find_normalization(str(path))
