"""Evaluation of real segmenters on folders of pictures and masks."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import needs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix

import atrous
from atrous.bundle import Bundle
from atrous.errors import EvaluationError
from atrous.exporter.classes import read_classes
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.trained_model import load_trained
from atrous.runtime.evaluation import Evaluation, Pair, evaluate, pair_by_stem
from atrous.runtime.segmenter import Segmenter, load

TRAINED = Path(__file__).parents[2] / "examples" / "train_camvid"
VOID = 255
PICTURES = 6


@pytest.fixture
def segmenter(color_bundle: Bundle) -> Segmenter:
    return load(color_bundle.path, backend="onnxruntime", threads=1)


@pytest.fixture
def pairs(tmp_path: Path, rng: np.random.Generator) -> list[Pair]:
    """Pictures of noise in colour patches, with masks of those patches and some void."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(PICTURES):
        mask = rng.integers(0, 3, (8, 5 + index), np.uint8).repeat(11, 0).repeat(9, 1)
        picture = rng.integers(0, 160, (*mask.shape, 3), np.uint8) + 95 * np.eye(3, dtype=np.uint8)[mask]
        Image.fromarray(picture).save(tmp_path / "images" / f"{index}.png")
        mask[:7] = VOID
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    return pair_by_stem(sorted((tmp_path / "images").iterdir()), tmp_path / "masks")


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.array(picture)


def assert_same(found: Evaluation, expected: Evaluation) -> None:
    assert found.pictures == expected.pictures
    for name, value in vars(expected.scores).items():
        assert np.array_equal(getattr(found.scores, name), value, equal_nan=True), name


class TestPairs:
    def test_are_of_one_stem_in_the_order_of_the_pictures(self, tmp_path: Path) -> None:
        for stem in "ab":
            (tmp_path / f"{stem}.png").touch()
        images = [Path("elsewhere/b.jpg"), Path("a.webp")]
        assert pair_by_stem(images, tmp_path) == [Pair(image, tmp_path / f"{image.stem}.png") for image in images]

    def test_missing_masks(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        with pytest.raises(EvaluationError, match=r"2 of 3 pictures have no mask, e\.g\. .*b\.png") as caught:
            pair_by_stem([Path("a.jpg"), Path("b.jpg"), Path("c.jpg")], tmp_path)
        assert caught.value.path == tmp_path / "b.png"

    def test_two_pictures_for_one_mask(self, tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="several pictures are called 'a'"):
            pair_by_stem([Path("a.jpg"), Path("a.png")], tmp_path)

    def test_no_pictures(self, tmp_path: Path, segmenter: Segmenter) -> None:
        with pytest.raises(EvaluationError, match="nothing to evaluate"):
            pair_by_stem([], tmp_path)
        with pytest.raises(EvaluationError, match="nothing to evaluate"):
            evaluate(segmenter, [])


class TestScores:
    @pytest.mark.parametrize("workers", [1, 4])
    @pytest.mark.parametrize("crf", [False, True])
    def test_confusion_equals_scikit_learn(
        self, color_bundle: Bundle, pairs: list[Pair], workers: int, *, crf: bool
    ) -> None:
        segmenter = load(color_bundle.path, crf=crf)
        found = evaluate(segmenter, pairs, workers=workers)
        truth = np.concatenate([pixels(pair.mask).ravel() for pair in pairs])
        labels = np.concatenate([segmenter(pair.image).labels.ravel() for pair in pairs])
        assert np.array_equal(found.scores.confusion, confusion_matrix(truth[truth != VOID], labels[truth != VOID]))
        assert 0.3 < found.scores.miou < 1
        assert found.pictures == len(found.latencies_ms) == PICTURES
        assert found.skipped == ()

    def test_are_the_same_for_any_number_of_workers(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        expected = evaluate(segmenter, pairs, workers=1)
        for workers in (2, 3, 20):
            assert_same(evaluate(segmenter, pairs, workers=workers), expected)

    def test_further_ids_to_ignore(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        mask = pixels(pairs[0].mask)
        mask[20:40] = 77
        Image.fromarray(mask).save(pairs[0].mask)
        found = evaluate(segmenter, pairs[:1], ignore=(77,))
        assert found.scores.confusion.sum() == np.count_nonzero(mask < 3)

    def test_ignored_class(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        found = evaluate(segmenter, pairs, ignore=(1,)).scores
        assert not found.confusion[1].any()
        assert found.confusion[:, 1].any()
        assert found.miou == pytest.approx((found.iou[0] + found.iou[2]) / 2)

    def test_progress_is_told_in_order_from_the_calling_thread(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        heard: list[tuple[int, int]] = []
        evaluate(segmenter, pairs, workers=3, progress=lambda done: heard.append((done, threading.get_ident())))
        assert heard == [(done, threading.get_ident()) for done in range(1, PICTURES + 1)]


class TestBadInput:
    def test_unreadable_pairs_are_named_and_skipped(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        expected = evaluate(segmenter, [pairs[0], *pairs[2:4], pairs[5]])
        pairs[1].image.write_bytes(b"")
        pairs[4].mask.write_bytes(b"not a picture")
        found = evaluate(segmenter, pairs)
        assert [each.pair for each in found.skipped] == [pairs[1], pairs[4]]
        assert "is empty" in found.skipped[0].reason
        assert str(pairs[4].mask) in found.skipped[1].reason
        assert_same(found, expected)

    def test_too_many_unreadable_pairs(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        for pair in pairs[2:]:
            pair.image.write_bytes(b"")
        assert len(evaluate(segmenter, pairs, max_unreadable=4).skipped) == 4
        with pytest.raises(EvaluationError, match="4 of 6 pairs cannot be read, more than the 3 that may be skipped"):
            evaluate(segmenter, pairs, max_unreadable=3)

    def test_only_unreadable_pairs(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        for pair in pairs:
            pair.image.write_bytes(b"")
        with pytest.raises(EvaluationError, match="6 of 6 pairs cannot be read, all of them"):
            evaluate(segmenter, pairs)

    def test_a_mask_of_another_size(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        Image.fromarray(pixels(pairs[3].mask).T).save(pairs[3].mask)
        with pytest.raises(EvaluationError, match=r"3\.png is 72×88, but its picture .* is 88×72") as caught:
            evaluate(segmenter, pairs)
        assert caught.value.path == pairs[3].mask

    def test_ids_out_of_range(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        mask = pixels(pairs[2].mask)
        mask[0, 0], mask[9, 9] = 11, 3
        Image.fromarray(mask).save(pairs[2].mask)
        with pytest.raises(EvaluationError, match=r"ids 3, 11; expected the classes 0 to 2, or void \(255\)"):
            evaluate(segmenter, pairs)

    @pytest.mark.parametrize("wrong", [-1, 65536])
    def test_ids_to_ignore_that_no_pixel_can_have(self, segmenter: Segmenter, pairs: list[Pair], wrong: int) -> None:
        with pytest.raises(EvaluationError, match=f"from 0 to 65535; got {wrong}"):
            evaluate(segmenter, pairs, ignore=(wrong,))

    def test_no_workers(self, segmenter: Segmenter, pairs: list[Pair]) -> None:
        with pytest.raises(EvaluationError, match="workers must be 1 or more; got 0"):
            evaluate(segmenter, pairs, workers=0)


class TestResuming:
    @pytest.fixture
    def state(self, tmp_path: Path) -> Path:
        return tmp_path / "state.jsonl"

    def test_runs_only_what_is_missing(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        evaluate(segmenter, pairs[:4], state=state)
        before = state.read_bytes()
        found = evaluate(segmenter, pairs, state=state)
        lines = state.read_bytes()
        assert lines.startswith(before)
        assert [json.loads(line).get("picture") for line in lines.splitlines()] == [
            None,
            *(f"{index}.png" for index in range(PICTURES)),
        ]
        assert_same(found, evaluate(segmenter, pairs))
        again = evaluate(segmenter, pairs, state=state)
        assert_same(again, found)
        assert again.latencies_ms == tuple(json.loads(line)["latency_ms"] for line in lines.splitlines()[1:])

    @pytest.mark.parametrize("lost_bytes", [1, 40, 2000])
    def test_after_an_interrupted_write(
        self, segmenter: Segmenter, pairs: list[Pair], state: Path, lost_bytes: int
    ) -> None:
        expected = evaluate(segmenter, pairs, state=state)
        whole = state.read_bytes()
        state.write_bytes(whole[:-lost_bytes])
        assert_same(evaluate(segmenter, pairs, state=state), expected)
        assert len(state.read_bytes().splitlines()) == 1 + PICTURES

    def test_after_an_error(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        good = pairs[4].mask.read_bytes()
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(pairs[4].mask)
        with pytest.raises(EvaluationError, match="is 3×3"):
            evaluate(segmenter, pairs, state=state)
        assert len(state.read_bytes().splitlines()) == 1 + 4
        pairs[4].mask.write_bytes(good)
        assert_same(evaluate(segmenter, pairs, state=state), evaluate(segmenter, pairs))

    def test_changed_files_are_run_again(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        evaluate(segmenter, pairs, state=state)
        Image.fromarray(pixels(pairs[0].image)[:, ::-1]).save(pairs[0].image)
        Image.fromarray((pixels(pairs[1].mask) != 1).astype(np.uint8)).save(pairs[1].mask)
        assert_same(evaluate(segmenter, pairs, state=state), evaluate(segmenter, pairs))

    def test_a_pair_that_vanished_is_unreadable(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        pairs[2].image.unlink()
        (skipped,) = evaluate(segmenter, pairs, state=state).skipped
        assert skipped.pair == pairs[2]

    def test_of_another_evaluation(
        self, color_bundle: Bundle, segmenter: Segmenter, pairs: list[Pair], state: Path
    ) -> None:
        evaluate(segmenter, pairs, state=state)
        before = state.read_bytes()
        with pytest.raises(
            EvaluationError, match=r"another evaluation: its ignored is \[255\], this one's is \[2, 255"
        ):
            evaluate(segmenter, pairs, ignore=(2,), state=state)
        with pytest.raises(EvaluationError, match="another evaluation: its crf is None"):
            evaluate(load(color_bundle.path, backend="onnxruntime", crf=True), pairs, state=state)
        assert state.read_bytes() == before

    @pytest.mark.parametrize("text", ["\n", "notes", "notes\n", "[1]\n", '{"format": "other"}\n', '"x"\n'])
    def test_a_file_that_is_no_state_is_left_alone(
        self, segmenter: Segmenter, pairs: list[Pair], state: Path, text: str
    ) -> None:
        state.write_text(text)
        with pytest.raises(EvaluationError, match="is not the state of an evaluation, or is damaged in line 1"):
            evaluate(segmenter, pairs, state=state)
        assert state.read_text() == text

    def test_a_first_line_without_its_end(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        evaluate(segmenter, pairs, state=state)
        state.write_bytes(state.read_bytes().splitlines()[0])
        with pytest.raises(EvaluationError, match="damaged in line 1: the line has no end"):
            evaluate(segmenter, pairs, state=state)

    def test_an_empty_file_is_a_new_state(self, segmenter: Segmenter, pairs: list[Pair], state: Path) -> None:
        state.touch()
        assert_same(evaluate(segmenter, pairs, state=state), evaluate(segmenter, pairs))
        assert len(state.read_bytes().splitlines()) == 1 + PICTURES

    @pytest.mark.parametrize(
        "change",
        [
            {"rings": [[10**6], [1]]},
            {"rings": [[1, 2], [1]]},
            {"rings": 3},
            {"boundary": [[1]]},
            {"latency_ms": "fast"},
            {"boundary": None},
        ],
    )
    def test_a_damaged_line(
        self, segmenter: Segmenter, pairs: list[Pair], state: Path, change: dict[str, object]
    ) -> None:
        evaluate(segmenter, pairs, state=state)
        lines = state.read_text().splitlines()
        lines[2] = json.dumps(json.loads(lines[2]) | change)
        state.write_text("\n".join(lines) + "\n")
        with pytest.raises(EvaluationError, match="damaged in line 3"):
            evaluate(segmenter, pairs, state=state)

    def test_where_nothing_can_be_written(self, segmenter: Segmenter, pairs: list[Pair], tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="missing"):
            evaluate(segmenter, pairs, state=tmp_path / "missing" / "state.jsonl")


@pytest.mark.slow
@needs.CAMVID.unless("ATROUS_CAMVID" in os.environ)
def test_the_trained_model_on_camvid(tmp_path: Path) -> None:
    """Mean IoU as in benchmarks/results/camvid.json, to its last digit."""
    trained = load_trained(TRAINED / "deeplab.safetensors", classes=read_classes(TRAINED / "classes.json"))
    bundle = atrous.export(
        trained.model,
        tmp_path / "street.atrous",
        classes=trained.classes,
        size=(368, 480),
        preprocessing=Preprocessing(trained.architecture.normalization),
        align_corners=trained.architecture.align_corners,
    )
    folder = Path(os.environ["ATROUS_CAMVID"]) / "val"
    pairs = pair_by_stem(sorted((folder / "images").iterdir()), folder / "masks")
    for crf, expected in ((False, 0.6947), (True, 0.7002)):
        found = evaluate(load(bundle.path, crf=crf), pairs, ignore=(11,))
        assert (found.pictures, round(found.scores.miou, 4)) == (101, expected)
