"""`--page` and `--bits` reach the images of every verb that reads some, and the pages of masks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from PIL import Image

from atrous.bundle import Bundle
from atrous.calibration.images import CalibrationImages
from atrous.errors import ImageError
from atrous.runtime.evaluation import Pair
from atrous.runtime.image import ImageFile, load_image
from atrous.runtime.masks import load_mask

NAMES = ("a", "b", "c")


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Folders of the same images: plain ones, second pages, and 12 bits; the masks, and second pages of masks."""
    kinds = ("plain", "pages", "bits", "masks", "mask_pages")
    folders = {kind: tmp_path / kind for kind in kinds}
    for folder in folders.values():
        folder.mkdir()
    for name in NAMES:
        grey = rng.integers(0, 256, (5, 7), np.uint8).repeat(8, 0).repeat(8, 1)
        first = Image.fromarray(rng.integers(0, 256, grey.shape, np.uint8))
        Image.fromarray(grey).save(folders["plain"] / f"{name}.png")
        first.save(folders["pages"] / f"{name}.tif", save_all=True, append_images=[Image.fromarray(grey)])
        Image.fromarray(grey.astype(np.uint16) << 4 | 7).save(folders["bits"] / f"{name}.png")
        mask = rng.integers(0, 5, (5, 7), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(mask).save(folders["masks"] / f"{name}.png")
        wrong = Image.fromarray((mask + 1) % 5)
        wrong.save(folders["mask_pages"] / f"{name}.tif", save_all=True, append_images=[Image.fromarray(mask)])
    return folders


CHOICES = [("plain", ()), ("pages", ("--page", 2)), ("bits", ("--bits", 12))]


def test_eval(atrous: Command, tiny_bundle: Bundle, pictures: dict[str, Path]) -> None:
    def confusion(images: str, masks: str, *options: Any) -> list[list[int]]:
        given = ("--images", pictures[images], "--masks", pictures[masks], *options)
        return atrous("eval", tiny_bundle.path, *given, "--json").json()["confusion"]

    for images, options in CHOICES:
        assert confusion(images, "masks", *options) == confusion("plain", "masks")
    tiffs = ("--mask-pattern", "*.tif")
    assert confusion("pages", "mask_pages", "--page", 2, *tiffs) == confusion("plain", "masks")
    assert confusion("plain", "mask_pages", *tiffs) != confusion("plain", "masks")


def test_eval_resumes_the_same_page_alone(
    atrous: Command, tiny_bundle: Bundle, pictures: dict[str, Path], tmp_path: Path
) -> None:
    given = ("--images", pictures["pages"], "--masks", pictures["masks"], "--resume", tmp_path / "state", "--json")
    first, second = (atrous("eval", tiny_bundle.path, *given, *page).json() for page in ((), ("--page", 2)))
    plain = atrous("eval", tiny_bundle.path, "--images", pictures["plain"], *given[2:4], "--json").json()
    assert first["confusion"] != second["confusion"]
    assert second["confusion"] == plain["confusion"]


def test_verify(atrous: Command, tiny_bundle: Bundle, pictures: dict[str, Path]) -> None:
    for images, options in CHOICES:
        given = ("--images", pictures[images], "--masks", pictures["masks"], *options)
        report = atrous("verify", tiny_bundle.path, *given, "--json").json()
        assert all(check["passed"] and check["inputs"] == [[1, 3, 40, 56]] * 3 for check in report["checks"])
    outcome = atrous("verify", tiny_bundle.path, "--images", pictures["bits"])
    assert outcome.code == 1
    assert "--bits 12" in outcome.err


def test_quantize_and_add_fp16(atrous: Command, tiny_bundle: Bundle, pictures: dict[str, Path], tmp_path: Path) -> None:
    graphs = []
    for images, options in CHOICES:
        path = shutil.copytree(tiny_bundle.path, tmp_path / f"{images}.atrous")
        report = atrous("quantize", path, "--images", pictures[images], *options, "--json").json()
        assert report["skipped"] == []
        assert atrous("add-fp16", path, "--images", pictures[images], *options).code == 0
        graphs.append([(path / f"model.{precision}.onnx").read_bytes() for precision in ("int8", "fp16")])
    assert graphs[1:] == graphs[:1] * 2


def test_bench(atrous: Command, tiny_bundle: Bundle, pictures: dict[str, Path]) -> None:
    given = ("bench", tiny_bundle.path, "--no-crf", "--repeats", 3, "--warmup", 1, "--image")
    assert atrous(*given, pictures["bits"] / "a.png").code == 1
    assert atrous(*given, pictures["bits"] / "a.png", "--bits", 12).code == 0
    assert atrous(*given, pictures["pages"] / "a.tif", "--page", 3).code == 1


class TestImageFile:
    def test_is_read_as_it_says(self, pictures: dict[str, Path]) -> None:
        plain = load_image(pictures["plain"] / "a.png")
        np.testing.assert_array_equal(load_image(ImageFile(pictures["pages"] / "a.tif", page=2)), plain)
        np.testing.assert_array_equal(load_image(ImageFile(pictures["bits"] / "a.png", bits=np.int64(12))), plain)
        first = load_image(pictures["pages"] / "a.tif")
        np.testing.assert_array_equal(load_image(ImageFile(pictures["pages"] / "a.tif", page=2), page=1), first)

    def test_calibrations_of_other_pages_are_others(self, tiny_bundle: Bundle, pictures: dict[str, Path]) -> None:
        path = pictures["pages"] / "a.tif"
        digests = [
            CalibrationImages([image], tiny_bundle.manifest.input).data_sha256
            for image in (path, ImageFile(path), ImageFile(path, page=1), ImageFile(path, page=2))
        ]
        assert digests[0] == digests[1]
        assert len(set(digests)) == 3

    def test_a_mask_of_one_page_is_for_every_page(self, pictures: dict[str, Path]) -> None:
        mask = pictures["masks"] / "a.png"
        assert Pair(ImageFile(pictures["pages"] / "a.tif", page=2), mask).page == 2
        np.testing.assert_array_equal(load_mask(mask, page=2), load_mask(mask))

    def test_a_mask_without_the_page(self, pictures: dict[str, Path]) -> None:
        with pytest.raises(ImageError, match=r"a\.tif has no page 3; it has 2"):
            load_mask(pictures["mask_pages"] / "a.tif", page=3)
