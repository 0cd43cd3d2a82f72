"""A bundle gets the CRF that fits its data, or stays as it is; whatever is wrong with the data is said."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tuning_scenes import write_scenes

import atrous
from atrous.bundle import Bundle
from atrous.calibration.tune.candidate import Candidate
from atrous.calibration.tune.logits_cache import LogitsCache
from atrous.calibration.tune.options import TuneOptions
from atrous.calibration.tune.report import TuningReport
from atrous.calibration.tune.scenes import Scenes
from atrous.calibration.tune.score import Scorer
from atrous.calibration.tune.tune import HTML_FILE, TEXT_FILE, tune
from atrous.crf import Compatibility, CRFParams
from atrous.crf.stored import stored_crf
from atrous.errors import BundleError, CRFError, EvaluationError
from atrous.runtime.backends import open_backend
from atrous.runtime.evaluation import Pair, evaluate, pair_by_stem, pair_digest
from atrous.runtime.masks import MaskReader
from atrous.runtime.segmenter import load

pytestmark = pytest.mark.slow  # in sum

VOID = TuneOptions(ignore=(9,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six images and masks; read-only."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def bundle(color_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle of colours, to be changed."""
    return Bundle.open(shutil.copytree(color_bundle.path, tmp_path / "out" / "color.atrous"))


@pytest.fixture(scope="module")
def tuned(
    color_bundle: Bundle, data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, TuningReport]:
    """The bundle with the CRF that fits, and the report; read-only."""
    path = shutil.copytree(color_bundle.path, tmp_path_factory.mktemp("tuned") / "color.atrous")
    told: dict[str, list[tuple[int, int]]] = {}

    def progress(what: str, done: int, total: int) -> None:
        told.setdefault(what, []).append((done, total))

    found = tune(Bundle.open(path), images=data[0], masks=data[1], options=VOID, progress=progress)
    assert told["running the network"] == [(number, 6) for number in range(1, 7)]
    assert {"searching: grid", "searching: steps", "scoring held-out images"} <= told.keys()
    assert all(done <= total for steps in told.values() for done, total in steps)
    return found


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images of which the network sees one class too often, and masks; read-only."""
    return write_scenes(tmp_path_factory.mktemp("biased"), 16, blue=8)


@pytest.fixture(scope="module")
def learned(
    color_bundle: Bundle, biased: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, TuningReport]:
    """The bundle with what was learned on top of the search; read-only."""
    path = shutil.copytree(color_bundle.path, tmp_path_factory.mktemp("learned") / "color.atrous")
    options = dataclasses.replace(VOID, learn=True)
    return tune(Bundle.open(path), images=biased[0], masks=biased[1], options=options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFound:
    def test_the_crf_is_better_where_the_search_did_not_look(self, tuned):
        extended, report = tuned
        fit = report.fit
        assert report.written
        assert report.reason is None
        assert (fit.images, fit.held_out, fit.metric, fit.no_harm) == (4, 2, "miou", 0.5)
        assert fit.score_after > fit.score_before
        assert fit.score_after > fit.score_without + 0.02
        assert report.after_held_out.harm <= 0.5
        low, high = fit.gain_interval
        assert low <= fit.score_after - fit.score_without <= high
        assert {path.name for path in extended.path.parent.iterdir() if path.suffix == ".tune"} == set()

    def test_the_bundle_holds_what_was_found(self, tuned):
        extended, report = tuned
        manifest = extended.manifest
        assert manifest.crf == stored_crf(report.after.params, report.after.iterations)
        assert manifest.crf_fit == report.fit
        assert manifest.crf_fit.model_sha256 == manifest.artifacts[0].sha256
        assert {TEXT_FILE, HTML_FILE} <= contents(extended.path).keys()
        crf = load(extended.path, crf=True).crf
        assert (crf.params, crf.iterations) == (report.after.params, report.after.iterations)
        extended.check()

    def test_held_out_scores_are_those_of_eval(self, tuned, data):
        extended, report = tuned
        pairs = pair_by_stem(sorted(data[0].iterdir()), data[1])
        held = [pair for pair in pairs if Path(pair.image).name in {each.title for each in report.samples}]
        assert len(held) == report.fit.held_out
        for crf, expected in ((False, report.fit.score_without), (True, report.fit.score_after)):
            found = evaluate(load(extended.path, crf=crf), held, ignore=(9,))
            assert found.scores.miou == pytest.approx(expected)

    @pytest.mark.parametrize("metric", ["trimap", "boundary-f"])
    def test_other_metrics(self, bundle, data, metric):
        _, report = tune(bundle, images=data[0], masks=data[1], metric=metric, options=VOID)
        assert report.fit.metric == metric
        assert report.fit.score_after > report.fit.score_without

    def test_a_sample_of_the_images_in_a_folder_of_ones_own(self, bundle, data, tmp_path):
        """Without room for logits the network runs again."""
        work = tmp_path / "work"
        work.mkdir()
        (work / "notes.txt").write_text("mine")
        options = dataclasses.replace(VOID, max_images=4, seed=3, work=work, cache_bytes=0)
        _, report = tune(bundle, images=data[0], masks=data[1], holdout=0.5, options=options)
        assert (report.fit.images, report.fit.held_out, report.fit.seed) == (2, 2, 3)
        assert contents(work) == {"notes.txt": b"mine"}
        assert not bundle.path.with_suffix(".tune").exists()


class TestLearned:
    def test_what_was_learned_is_better_and_is_what_runs(self, learned, bundle, biased):
        _, searched = tune(bundle, images=biased[0], masks=biased[1], options=VOID)
        extended, report = learned
        after, before = report.after, searched.after
        assert report.written
        assert after.compatibility is not None
        assert after.params == dataclasses.replace(before.params, unary_temperature=after.params.unary_temperature)
        assert after.iterations == before.iterations
        assert report.searched.gain > searched.searched.gain
        assert report.fit.score_after > searched.fit.score_after
        assert extended.manifest.crf == stored_crf(after.params, after.iterations, after.compatibility)
        assert load(extended.path, crf=True).crf.compatibility == after.compatibility
        assert "with learned costs of pairs of classes" in (extended.path / TEXT_FILE).read_text()

    def test_held_out_scores_are_those_of_eval(self, learned, biased):
        extended, report = learned
        pairs = pair_by_stem(sorted(biased[0].iterdir()), biased[1])
        held = [pair for pair in pairs if Path(pair.image).name in {each.title for each in report.samples}]
        assert len(held) == report.fit.held_out
        found = evaluate(load(extended.path, crf=True), held, ignore=(9,))
        assert found.scores.miou == pytest.approx(report.fit.score_after)

    def test_the_next_search_compares_with_it(self, learned, biased, tmp_path):
        again = Bundle.open(shutil.copytree(learned[0].path, tmp_path / "again.atrous"))
        _, report = tune(again, images=biased[0], masks=biased[1], options=VOID)
        assert report.before == learned[1].after
        assert report.fit.score_before == learned[1].fit.score_after
        assert not report.written

    def test_what_is_no_better_is_not_taken(self, bundle, data, tuned):
        options = dataclasses.replace(VOID, learn=True)
        _, report = tune(bundle, images=data[0], masks=data[1], options=options)
        assert report.after == tuned[1].after

    def test_too_few_images(self, bundle, data):
        options = dataclasses.replace(VOID, learn=True, max_images=2)
        with pytest.raises(EvaluationError, match="two images or more besides the held-out ones"):
            tune(bundle, images=data[0], masks=data[1], options=options)


class TestNothingBetter:
    @pytest.fixture
    def perfect(self, bundle, data, tmp_path) -> Path:
        """Masks that the network finds to the pixel."""
        folder = tmp_path / "perfect"
        folder.mkdir()
        segmenter = load(bundle.path)
        for path in sorted(data[0].iterdir()):
            segmenter(path).save(folder / path.name)
        return folder

    def test_says_so_and_writes_nothing(self, bundle, data, perfect):
        before = contents(bundle.path)
        _, report = tune(bundle, images=data[0], masks=perfect, options=VOID)
        assert not report.written
        assert report.reason == "no parameters were better than no CRF on the held-out images"
        assert contents(bundle.path) == before

    def test_writes_it_when_told(self, bundle, data, perfect):
        options = dataclasses.replace(VOID, write_anyway=True)
        extended, report = tune(bundle, images=data[0], masks=perfect, options=options)
        assert report.written
        assert report.reason
        assert extended.manifest.crf_fit == report.fit


class TestInterrupted:
    def test_a_search_goes_on_to_the_same_end(self, bundle, data, tuned):
        """Ctrl-C in the middle of the search; the counts that were made are not made again."""
        steps = 0

        def interrupt(what: str, *_: int) -> None:
            nonlocal steps
            steps += what == "searching: large steps"
            if steps == 3:
                raise KeyboardInterrupt

        before = contents(bundle.path)
        with pytest.raises(KeyboardInterrupt):
            tune(bundle, images=data[0], masks=data[1], options=VOID, progress=interrupt)
        assert contents(bundle.path) == before
        work = bundle.path.with_suffix(".tune")
        lines = (work / "scores.jsonl").read_bytes().count(b"\n")
        assert lines > 150
        done: list[int] = []
        extended, report = tune(
            bundle,
            images=data[0],
            masks=data[1],
            options=VOID,
            progress=lambda what, *_: done.append(1) if what == "searching: grid" else None,
        )
        assert not done  # the grid was known
        assert (report.after, report.fit) == (tuned[1].after, tuned[1].fit)
        assert report.trials == tuned[1].trials
        assert extended.manifest.crf == tuned[0].manifest.crf
        assert not work.exists()

    def test_a_killed_search_goes_on(self, bundle, data, tuned):
        work = bundle.path.with_suffix(".tune")
        command = [sys.executable, "-m", "atrous", "tune", bundle.path, "--images", data[0], "--masks", data[1]]
        running = subprocess.Popen([*command, "--ignore", "9"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        log = work / "scores.jsonl"
        while running.poll() is None and not (log.exists() and log.stat().st_size > 20_000):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert log.exists()
        _, report = tune(bundle, images=data[0], masks=data[1], options=VOID)
        assert (report.after, report.fit) == (tuned[1].after, tuned[1].fit)
        assert not work.exists()


class TestBadInput:
    @pytest.fixture
    def masks(self, data, tmp_path) -> Callable[[Callable[[np.ndarray], np.ndarray]], Path]:
        """`masks(change)`: the masks, each changed."""

        def make(change: Callable[[np.ndarray], np.ndarray]) -> Path:
            folder = tmp_path / "changed"
            folder.mkdir()
            for path in data[1].iterdir():
                Image.fromarray(change(np.array(Image.open(path)))).save(folder / path.name)
            return folder

        return make

    def refused(self, bundle: Bundle, match: str, **arguments: object) -> None:
        before = contents(bundle.path)
        kind = arguments.pop("error", EvaluationError)
        with pytest.raises(kind, match=match):
            tune(bundle, **{"options": VOID, **arguments})
        assert contents(bundle.path) == before

    def test_a_class_in_no_mask_is_left_out_of_the_scores(self, bundle, data, masks):
        folder = masks(lambda mask: np.where(mask == 2, 9, mask))
        _, report = tune(bundle, images=data[0], masks=folder, options=VOID)
        assert report.scored.tolist() == [True, True, False]
        assert report.scores.absent == (2,)
        assert np.isnan(report.iou_after[2])
        assert report.after_held_out.harm <= 0.5

    def test_one_image(self, bundle, data, tmp_path):
        (tmp_path / "one").mkdir()
        shutil.copy(data[0] / "0.png", tmp_path / "one")
        self.refused(bundle, "two images or more", images=tmp_path / "one", masks=data[1])

    def test_all_void(self, bundle, data, masks):
        folder = masks(lambda mask: np.full_like(mask, 9))
        self.refused(bundle, "every pixel is void", images=data[0], masks=folder)

    def test_all_but_one_void(self, bundle, data, masks):
        folder = masks(lambda mask: np.full_like(mask, 9))
        shutil.copy(data[1] / "0.png", folder)
        self.refused(bundle, "only 1 of 6 masks", images=data[0], masks=folder)

    def test_labels_out_of_range(self, bundle, data, masks):
        folder = masks(lambda mask: np.where(mask == 2, 7, mask))
        self.refused(bundle, r"has ids 7; expected the classes 0 to 2", images=data[0], masks=folder)

    def test_masks_of_another_size(self, bundle, data, masks):
        self.refused(bundle, "expected the same size", images=data[0], masks=masks(lambda mask: mask[:-1]))

    def test_a_missing_mask(self, bundle, data, tmp_path):
        self.refused(bundle, "have no mask", images=data[0], masks=tmp_path)

    def test_much_void_that_nobody_named(self, bundle, data, masks):
        folder = masks(lambda mask: np.where(mask > 1, 255, mask))
        self.refused(bundle, "are 255, which is void", images=data[0], masks=folder)

    def test_unreadable_images(self, bundle, data, tmp_path):
        folder = Path(shutil.copytree(data[0], tmp_path / "images"))
        (folder / "3.png").write_bytes(b"no image")
        _, report = tune(bundle, images=folder, masks=data[1], options=VOID)
        assert [each.name for each in report.skipped] == ["3.png"]
        assert report.fit.images + report.fit.held_out == 5
        (folder / "4.png").write_bytes(b"no image")
        self.refused(bundle, "2 of 6 pairs cannot be read", images=folder, masks=data[1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"holdout": 0.0}, "holdout is a share"),
            ({"holdout": 1.0}, "holdout is a share"),
            ({"no_harm": -1.0}, "no_harm is a number of points"),
            ({"no_harm": float("nan")}, "no_harm is a number of points"),
        ],
    )
    def test_numbers_out_of_range(self, bundle, data, arguments, message):
        self.refused(bundle, message, images=data[0], masks=data[1], error=CRFError, **arguments)

    def test_options_out_of_range(self):
        with pytest.raises(CRFError, match="max_images must be 2 or more"):
            TuneOptions(max_images=1)
        with pytest.raises(CRFError, match="cache_bytes must be 0 or more"):
            TuneOptions(cache_bytes=-1)

    def test_parameters_of_the_bundle_that_are_unusable(self, bundle, data):
        manifest = json.loads((bundle.path / "manifest.json").read_text())
        manifest["crf"]["bilateral_sigma_rgb"] = -1
        (bundle.path / "manifest.json").write_text(json.dumps(manifest))
        self.refused(Bundle.open(bundle.path), "must be positive", images=data[0], masks=data[1], error=CRFError)

    def test_a_bundle_that_changes_meanwhile(self, bundle, data):
        def change(*_: object) -> None:
            manifest = json.loads((bundle.path / "manifest.json").read_text())
            manifest["classes"][0]["name"] = "other"
            (bundle.path / "manifest.json").write_text(json.dumps(manifest))

        with pytest.raises(BundleError, match="was replaced"):
            tune(bundle, images=data[0], masks=data[1], options=VOID, progress=change)


class TestScenes:
    CANDIDATES = (
        None,
        Candidate(CRFParams.deeplab_v2_resnet()),
        Candidate(CRFParams.deeplab_v2_resnet(), 3),
        Candidate(dataclasses.replace(CRFParams.deeplab_v2_resnet(), bilateral_weight=1.5, unary_temperature=2.0)),
        Candidate(CRFParams.deeplab_v2_vgg(), 5),
        Candidate(dataclasses.replace(CRFParams.deeplab_v2_vgg(), gaussian_weight=0.0)),
    )

    @pytest.mark.parametrize("name", ["color_bundle", "tiny_bundle"])
    def test_labels_are_those_of_the_runtime(self, request, data, tmp_path, name):
        """Bit for bit, in any order, with lattices and logits that are used again; `tiny_bundle` cuts tiles."""
        bundle: Bundle = request.getfixturevalue(name)
        pair = Pair(data[0] / "0.png", data[1] / "0.png")
        if name == "tiny_bundle":
            pair = Pair(tmp_path / "large.png", tmp_path / "mask.png")
            rng = np.random.default_rng(0)
            Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((200, 150)).save(pair.image)
            Image.fromarray(np.zeros((150, 200), np.uint8)).save(pair.mask)
        digest = pair_digest(pair)
        classes = len(bundle.manifest.classes)
        factors = [0.5 + index for index in range(classes)]
        pairs = [[-1.5 if row == column else 0.1 * row for column in range(classes)] for row in range(classes)]
        learned = Compatibility(bilateral=factors, gaussian=factors[::-1], matrix=pairs)
        candidates = (*self.CANDIDATES, Candidate(CRFParams.deeplab_v2_resnet(), 4, learned))
        for _ in range(2):  # with the network, and with what it left on the disk
            backend = open_backend(bundle, threads=1)
            reader = MaskReader(bundle.manifest, ignore=(9,))
            scenes = Scenes(bundle, backend, reader, "miou", LogitsCache(tmp_path / "logits", 1 << 20))
            scene = scenes.load(pair, digest)
            for candidate in candidates:
                crf = False if candidate is None else candidate.crf()
                expected = load(bundle.path, crf=crf)(pair.image).labels
                assert np.array_equal(scenes.label(scene, candidate), expected)
            together = scenes.count(pair, digest, candidates)
            for candidate, rows in zip(reversed(candidates), reversed(together), strict=True):
                assert np.array_equal(scenes.count(pair, digest, [candidate])[0], rows)
        assert (tmp_path / "logits" / f"{digest}.npz").is_file()

    def test_a_damaged_cache_costs_time_only(self, tmp_path):
        cache = LogitsCache(tmp_path, 1000)
        logits = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        cache.add("a", logits, (24, 32))
        found, size = cache.find("a")
        assert np.array_equal(found, logits)
        assert size == (24, 32)
        (tmp_path / "a.npz").write_bytes(b"PK")
        assert cache.find("a") is None
        cache.add("large", np.zeros((1, 100, 100), np.float32), (100, 100))
        assert cache.find("large") is None

    def test_standing_and_interval(self):
        """Two classes, of which one gains what the other loses."""
        scorer = Scorer(None, None, "miou", frozenset())  # type: ignore[arg-type]
        without = np.array([[[50, 40], [60, 60], [60, 60]]] * 4)
        counts = np.array([[[54, 38], [60, 60], [60, 60]]] * 4)
        standing = scorer.stand(None, counts, without)
        iou = [each / (120 - each) for each in (50, 40, 54, 38)]
        assert standing.gain == pytest.approx(50 * (iou[2] - iou[0] + iou[3] - iou[1]))
        assert standing.harm == pytest.approx(100 * (iou[1] - iou[3]))
        assert scorer.interval(counts, without, seed=0) == pytest.approx((standing.gain, standing.gain))


def test_it_is_part_of_the_interface(tuned):
    assert atrous.tune is tune
    assert isinstance(tuned[1], TuningReport)
