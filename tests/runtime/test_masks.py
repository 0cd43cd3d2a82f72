"""Masks as data sets store them: each kind is read as it is meant, or refused with what to say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atrous.bundle import Bundle
from atrous.errors import EvaluationError, ImageError
from atrous.manifest import ClassInfo, Manifest
from atrous.runtime.evaluation import Pair, evaluate, pair_by_stem
from atrous.runtime.image import load_image
from atrous.runtime.mask_rules import MaskRules
from atrous.runtime.masks import MaskReader, load_mask
from atrous.runtime.segmenter import load

ROAD, CAR, SKY = (128, 64, 128), (0, 0, 142), (70, 130, 180)
LINES = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)


@pytest.fixture
def manifest(color_bundle: Bundle) -> Manifest:
    """Three classes with the colours of Cityscapes; 255 is void."""
    classes = tuple(ClassInfo(i, n, c) for i, (n, c) in enumerate((("road", ROAD), ("car", CAR), ("sky", SKY))))
    return dataclasses.replace(color_bundle.manifest, classes=classes)


def saved(folder: Path, pixels: NDArray[np.generic], name: str = "mask.png", **options: object) -> Path:
    Image.fromarray(pixels).save(folder / name, **options)
    return folder / name


def read(path: Path, manifest: Manifest, *, ignore: tuple[int, ...] = (), **rules: object) -> NDArray[np.int_]:
    """Ids [H, W], −1 on void."""
    found = MaskReader(manifest, ignore=ignore, rules=MaskRules(**rules)).read(path)
    return np.where(found.valid, found.ids.astype(int), -1)


class TestFiles:
    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_pixels_are_ids(self, tmp_path: Path, mode: str) -> None:
        ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
        picture = Image.fromarray(ids)
        if mode == "P":
            picture.putpalette(np.arange(768)[::-1].astype(np.uint8).tobytes())
        picture.save(tmp_path / "mask.png")
        assert np.array_equal(load_mask(tmp_path / "mask.png"), ids)

    @pytest.mark.parametrize(
        ("mode", "name"), [("F", "x.tif"), ("CMYK", "x.tif"), ("LAB", "x.tif"), ("YCbCr", "x.tif")]
    )
    def test_other_pixels_are_refused(self, tmp_path: Path, mode: str, name: str) -> None:
        Image.new(mode, (4, 4)).save(tmp_path / name)
        with pytest.raises(EvaluationError, match=f"mode {mode}; expected class ids"):
            load_mask(tmp_path / name)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_pixels_are_refused(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (4, 4)).save(tmp_path / "mask.png")
        with pytest.raises(EvaluationError, match="partly transparent"):
            load_mask(tmp_path / "mask.png")

    @pytest.mark.parametrize(("name", "options"), [("m.jpg", {}), ("m.webp", {}), ("m.webp", {"lossless": True})])
    def test_ids_that_loss_turns_into_others_are_refused(
        self, tmp_path: Path, rng: np.random.Generator, name: str, options: dict[str, bool]
    ) -> None:
        """Ids of 0 to 2 are still ids of 0 to 2 then, of other classes."""
        ids = np.repeat(rng.integers(0, 3, (16, 16, 1), np.uint8), 3, axis=2)
        path = saved(tmp_path, ids, name, **options)
        with Image.open(path) as picture:
            stored = np.asarray(picture)
        if options:
            np.testing.assert_array_equal(load_mask(path), ids)
            return
        assert stored.max() <= 3
        assert (stored != ids).any()
        with pytest.raises(EvaluationError, match=r"is a lossy (JPEG|WEBP), .*save it as PNG"):
            load_mask(path)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_is_applied_as_to_images(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path, LINES, exif=exif)
        np.testing.assert_array_equal(load_mask(path), load_image(path)[..., 0])

    def test_unreadable(self, tmp_path: Path, rng: np.random.Generator) -> None:
        path = saved(tmp_path, rng.integers(0, 3, (64, 64), np.uint8))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageError, match="truncated or damaged"):
            load_mask(path)

    def test_one_bit(self, tmp_path: Path, manifest: Manifest) -> None:
        bits = np.array([[True, False], [False, True]])
        assert read(saved(tmp_path, bits), manifest).tolist() == [[1, 0], [0, 1]]

    @pytest.mark.parametrize(
        ("name", "dtype"), [("mask.png", np.uint16), ("mask.tif", np.uint16), ("mask.tif", np.int32)]
    )
    def test_wide_pixels(self, tmp_path: Path, manifest: Manifest, name: str, dtype: type) -> None:
        assert read(saved(tmp_path, LINES.astype(dtype), name), manifest).tolist() == [[0, 1, 2], [-1, 1, 0]]

    def test_wide_ids_can_be_mapped(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[0, 26001]], np.uint16))
        with pytest.raises(EvaluationError, match="has ids 26001"):
            read(path, manifest)
        assert read(path, manifest, mapping={26001: 1}).tolist() == [[0, 1]]

    def test_a_gif(self, tmp_path: Path, manifest: Manifest) -> None:
        picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(tmp_path / "mask.gif")
        assert read(tmp_path / "mask.gif", manifest).tolist() == [[0, 1], [1, 0]]

    @pytest.mark.parametrize(
        "palette", [[9, 9, 9, 255, 255, 255, 0, 0, 0], list(np.repeat(np.arange(256), 3)), [0, 0, 0, 7, 7, 7, 8, 8, 8]]
    )
    def test_every_page_of_a_gif_has_the_same_ids(self, tmp_path: Path, manifest: Manifest, palette: list[int]) -> None:
        """Pillow gives the pages after the first as colours."""
        ids = np.random.default_rng(0).integers(0, len(manifest.classes), (3, 8, 9), np.uint8)
        pages = [Image.frombytes("P", (9, 8), each.tobytes()) for each in ids]
        for page in pages:
            page.putpalette(palette)
        pages[0].save(tmp_path / "mask.gif", save_all=True, append_images=pages[1:], optimize=False)
        reader = MaskReader(manifest)
        for number, expected in enumerate(ids, start=1):
            np.testing.assert_array_equal(reader.read(tmp_path / "mask.gif", page=number).ids, expected)

    def test_a_page_of_a_gif_whose_palette_is_ambiguous(self, tmp_path: Path, manifest: Manifest) -> None:
        pages = [Image.frombytes("P", (2, 1), bytes(each)) for each in ([0, 1], [1, 2])]
        for page in pages:
            page.putpalette([7, 7, 7, 7, 7, 7, 8, 8, 8])
        pages[0].save(tmp_path / "mask.gif", save_all=True, append_images=pages[1:], optimize=False)
        with pytest.raises(EvaluationError, match="2 colours that are not of exactly one class"):
            MaskReader(manifest).read(tmp_path / "mask.gif", page=2)


class TestColors:
    def test_of_the_bundle(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[ROAD, SKY], [CAR, ROAD]], np.uint8))
        assert read(path, manifest).tolist() == [[0, 2], [1, 0]]

    def test_opaque_alpha(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[(*SKY, 255), (*CAR, 255)]], np.uint8))
        assert read(path, manifest).tolist() == [[2, 1]]

    def test_an_ignored_class(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[ROAD, SKY]], np.uint8))
        assert read(path, manifest, ignore=(2,)).tolist() == [[0, -1]]

    def test_others_are_named(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[ROAD, (0, 0, 0)], [(9, 8, 7), ROAD]], np.uint8))
        with pytest.raises(EvaluationError, match=r"2 colours .* of the bundle: 0,0,0, 9,8,7\. Say what they are"):
            read(path, manifest)
        assert read(path, manifest, mapping={(0, 0, 0): None, (9, 8, 7): 1}).tolist() == [[0, -1], [1, 0]]

    def test_grey_as_rgb(self, tmp_path: Path, manifest: Manifest) -> None:
        """Kvasir stores two values three times; whether they are ids or colours, only the user knows."""
        path = saved(tmp_path, np.array([[(0, 0, 0), (255, 255, 255)]], np.uint8))
        with pytest.raises(EvaluationError, match="colours"):
            read(path, manifest)
        assert read(path, manifest, mapping={0: 0, 255: 1}).tolist() == [[0, 1]]

    def test_a_black_mask_is_not_class_0(self, tmp_path: Path, manifest: Manifest) -> None:
        with pytest.raises(EvaluationError, match="colours"):
            read(saved(tmp_path, np.zeros((2, 2, 3), np.uint8)), manifest)

    def test_a_colour_of_two_classes(self, tmp_path: Path, manifest: Manifest) -> None:
        twins = dataclasses.replace(manifest, classes=(*manifest.classes, ClassInfo(3, "water", SKY)))
        with pytest.raises(EvaluationError, match="not of exactly one class"):
            read(saved(tmp_path, np.array([[ROAD, SKY]], np.uint8)), twins)

    def test_jpeg(self, tmp_path: Path, manifest: Manifest, rng: np.random.Generator) -> None:
        colors = np.array([ROAD, CAR, SKY], np.uint8)[rng.integers(0, 3, (32, 32))]
        with pytest.raises(EvaluationError, match=r"is a lossy JPEG, .*save it as PNG"):
            read(saved(tmp_path, colors, "mask.jpg"), manifest)

    def test_a_palette_in_another_order(self, tmp_path: Path, manifest: Manifest) -> None:
        """Tools that reduce a colour mask to a palette number the colours as they come."""
        picture = Image.fromarray(np.array([[0, 1]], np.uint8))
        picture.putpalette([*SKY, *ROAD])
        picture.save(tmp_path / "mask.png")
        with pytest.raises(EvaluationError, match=r"0 has the colour of class 2 \(sky\), not of class 0 \(road\)"):
            read(tmp_path / "mask.png", manifest)
        assert read(tmp_path / "mask.png", manifest, mapping={0: 2, 1: 0}).tolist() == [[2, 0]]


class TestMapping:
    def test_comes_before_void(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, LINES)
        assert read(path, manifest, mapping={255: 2, 0: None}).tolist() == [[-1, 1, 2], [2, 1, -1]]

    def test_numpy_numbers(self, tmp_path: Path, manifest: Manifest) -> None:
        rules = {np.int64(255): np.uint8(1), (np.uint8(0),) * 3: np.int16(0)}
        assert read(saved(tmp_path, LINES), manifest, mapping=rules).tolist() == [[0, 1, 2], [1, 1, 0]]
        assert read(saved(tmp_path, LINES), manifest, ignore=(np.int64(1),)).tolist() == [[0, -1, 2], [-1, -1, 0]]

    def test_one_based(self, tmp_path: Path, manifest: Manifest) -> None:
        path = saved(tmp_path, np.array([[0, 1, 2, 3, 255]], np.uint8))
        assert read(path, manifest, one_based=True).tolist() == [[-1, 0, 1, 2, -1]]
        assert read(path, manifest, one_based=True, ignore=(3,)).tolist() == [[-1, 0, 1, -1, -1]]
        assert MaskReader(manifest, ignore=(3,), rules=MaskRules(one_based=True)).ignored == {2}

    def test_one_based_has_a_last_id(self, tmp_path: Path, manifest: Manifest) -> None:
        with pytest.raises(EvaluationError, match="has ids 4; expected the classes 1 to 3"):
            read(saved(tmp_path, np.array([[4]], np.uint8)), manifest, one_based=True)

    @pytest.mark.parametrize(
        "mapping",
        [{255: 3}, {255: -1}, {-1: 0}, {70000: 0}, {1.5: 0}, {True: 0}, {"1": 0}, {(1, 2): 0}, {(1, 2, 300): 0}],
    )
    def test_what_leads_nowhere(self, manifest: Manifest, mapping: dict[int, int]) -> None:
        with pytest.raises(EvaluationError):
            MaskReader(manifest, rules=MaskRules(mapping=mapping))

    def test_void_by_its_number(self, tmp_path: Path, manifest: Manifest) -> None:
        assert read(saved(tmp_path, LINES), manifest, mapping={2: 255}).tolist() == [[0, 1, -1], [-1, 1, 0]]

    def test_the_message_says_how(self, tmp_path: Path, manifest: Manifest) -> None:
        with pytest.raises(EvaluationError, match=r"has ids 128; .*ignore them.*if they are classes.*--mask-map 128="):
            read(saved(tmp_path, np.array([[0, 128]], np.uint8)), manifest)


class TestPatterns:
    def make(self, folder: Path, *names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def test_a_suffix(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path, "a_mask.gif", "b_mask.gif", "a.png")
        pairs = pair_by_stem([Path("b.jpg"), Path("a.jpg")], folder, MaskRules(pattern="*_mask.gif"))
        assert pairs == [Pair(Path(f"{x}.jpg"), folder / f"{x}_mask.gif") for x in "ba"]

    def test_both_end_differently(self, tmp_path: Path) -> None:
        names = ["aachen_000000_000019", "ulm_000001_000019"]
        folder = self.make(tmp_path, *(f"{name.partition('_')[0]}/{name}_gtFine_labelIds.png" for name in names))
        images = [Path(f"{name}_leftImg8bit.png") for name in names]
        pairs = pair_by_stem(images, folder, MaskRules(pattern="**/*_gtFine_labelIds.png"))
        assert [pair.mask.parent.name for pair in pairs] == ["aachen", "ulm"]
        assert [pair.mask.name for pair in pairs] == [f"{name}_gtFine_labelIds.png" for name in names]

    def test_a_prefix(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path, "mask-a.png")
        assert pair_by_stem([Path("a.jpg")], folder, MaskRules(pattern="mask-*.png"))[0].mask == folder / "mask-a.png"

    def test_a_beginning_alone_does_not_match(self, tmp_path: Path) -> None:
        """`a_2` has no mask of its own; that of `a` is not it."""
        folder = self.make(tmp_path, "a_mask.png", "b_mask.png")
        with pytest.raises(EvaluationError, match=r"1 of 3 pictures have no mask, e\.g\. .*a_2_mask\.png"):
            pair_by_stem([Path("a.jpg"), Path("a_2.jpg"), Path("b.jpg")], folder, MaskRules(pattern="*_mask.png"))

    def test_two_masks(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path, "x/a_m.png", "y/a_m.png")
        with pytest.raises(EvaluationError, match="two masks are of one picture"):
            pair_by_stem([Path("a.jpg")], folder, MaskRules(pattern="**/*_m.png"))

    @pytest.mark.parametrize("pattern", ["mask.png", "*_*.png", "**/mask.png", "a?*.png", ""])
    def test_no_pattern(self, pattern: str) -> None:
        with pytest.raises(EvaluationError, match="is no pattern for masks"):
            MaskRules(pattern=pattern)


class TestTruthThrownAway:
    """Masks of 0 and 255, as ISIC, Kvasir and Carvana store them, with a bundle in which 255 is void."""

    def pairs(self, folder: Path, masks: list[NDArray[np.uint8]], rules: MaskRules | None = None) -> list[Pair]:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for index, mask in enumerate(masks):
            saved(folder / "masks", mask, f"{index}.png")
            saved(folder / "images", np.tile(np.uint8([200, 20, 20]), (*mask.shape, 1)), f"{index}.png")
        return pair_by_stem(sorted((folder / "images").iterdir()), folder / "masks", rules)

    def lesion(self, side: int, value: int = 255) -> NDArray[np.uint8]:
        mask = np.zeros((64, 64), np.uint8)
        mask[:side, :side] = value
        return mask

    @pytest.mark.parametrize("side", [40, 16, 2])
    def test_is_refused(self, color_bundle: Bundle, tmp_path: Path, side: int) -> None:
        """Only class 0 is left, however small the rest is."""
        pairs = self.pairs(tmp_path, [self.lesion(side)])
        with pytest.raises(EvaluationError, match=r"are 255, which is void .*no mask holds class 1, class 2.*=1.*\n?"):
            evaluate(load(color_bundle.path), pairs)

    def test_much_void_and_a_missing_class(self, color_bundle: Bundle, tmp_path: Path) -> None:
        mask = self.lesion(20)
        mask[40:] = 1
        with pytest.raises(EvaluationError, match=r"no mask holds class 2: .*--mask-map 255=2.*--ignore 255"):
            evaluate(load(color_bundle.path), self.pairs(tmp_path, [mask]))

    def test_mapped(self, color_bundle: Bundle, tmp_path: Path) -> None:
        rules = MaskRules(mapping={255: 1})
        scores = evaluate(load(color_bundle.path), self.pairs(tmp_path, [self.lesion(32)]), rules=rules).scores
        assert scores.confusion[1].tolist() == [32 * 32, 0, 0]
        assert (scores.miou, scores.void_share, scores.absent) == (0.375, 0.0, (2,))

    def test_told(self, color_bundle: Bundle, tmp_path: Path) -> None:
        pairs = self.pairs(tmp_path, [self.lesion(32)])
        scores = evaluate(load(color_bundle.path), pairs, ignore=(255,)).scores
        assert (scores.void_share, scores.assumed_void_share, scores.absent) == (0.25, 0.0, (1, 2))

    def test_a_border_of_void_is_fine(self, color_bundle: Bundle, tmp_path: Path) -> None:
        mask = self.lesion(32, 1)
        mask[32, :32] = 255
        scores = evaluate(load(color_bundle.path), self.pairs(tmp_path, [mask])).scores
        assert (scores.void_share, scores.absent) == (1 / 128, (2,))

    def test_every_class_somewhere_is_fine(self, color_bundle: Bundle, tmp_path: Path) -> None:
        masks = [self.lesion(50, value) for value in (255, 1, 2)]
        assert evaluate(load(color_bundle.path), self.pairs(tmp_path, masks)).scores.absent == ()

    def test_an_evaluation_that_is_resumed_knows(self, color_bundle: Bundle, tmp_path: Path) -> None:
        pairs, state = self.pairs(tmp_path, [self.lesion(32)]), tmp_path / "state.jsonl"
        for _ in range(2):
            with pytest.raises(EvaluationError, match="no mask holds"):
                evaluate(load(color_bundle.path), pairs, state=state)
        assert len(state.read_text().splitlines()) == 2
        with pytest.raises(EvaluationError, match="another evaluation: its masks is None"):
            evaluate(load(color_bundle.path), pairs, state=state, rules=MaskRules(mapping={255: 1}))

    def test_numbers_of_numpy(self, color_bundle: Bundle, tmp_path: Path) -> None:
        """The state of an evaluation is JSON, which takes none."""
        pairs, rules = self.pairs(tmp_path, [self.lesion(32)]), MaskRules(mapping={np.uint8(255): np.int64(1)})
        state = tmp_path / "state.jsonl"
        for kind in (int, np.int64):
            scores = evaluate(load(color_bundle.path), pairs, ignore=(kind(2),), rules=rules, state=state).scores
            assert scores.absent == ()
