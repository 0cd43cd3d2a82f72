from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from batch_runs import NAMES, ids, lines, make_photos, results
from PIL import Image

from atrous.batch import BatchOptions, Progress, Shard, WorkItem, find_work, segment_batch
from atrous.bundle import Bundle, hash_file
from atrous.crf import CRFParams
from atrous.errors import BatchError, ImageError
from atrous.runtime.segmenter import Segmenter, load

RESUME = BatchOptions(resume=True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class TestResults:
    def test_labels_are_those_of_the_segmenter(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path, tmp_path: Path
    ) -> None:
        summary = segment_batch(segmenter, items, out)
        assert (summary.images, summary.done, summary.done_before, summary.failures) == (12, 12, 0, ())
        assert sorted(results(out)) == sorted(f"labels/{name}.png" for name in NAMES)
        for item in items:
            segmenter(item.image).save(tmp_path / "one.png")
            assert (out / "labels" / f"{item.name}.png").read_bytes() == (tmp_path / "one.png").read_bytes()

    def test_a_line_says_what_was_done(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        summary = segment_batch(segmenter, items, out)
        found = lines(summary.ledger)
        assert [line["name"] for line in found] == sorted(NAMES)
        line, item = found[0], items[0]
        labels = out / "labels" / f"{item.name}.png"
        assert line["input"] == str(item.image)
        assert line["size"] == list(ids(labels).shape)
        assert line["outputs"] == {"labels": [f"labels/{item.name}.png", labels.stat().st_size, hash_file(labels)]}
        shares = {str(index): round(float(share), 6) for index in range(3) if (share := np.mean(ids(labels) == index))}
        assert line["classes"] == shares
        assert set(line["timings_ms"]) == {"read", "preprocess", "inference", "postprocess", "write"}
        assert line["ms"] == pytest.approx(sum(line["timings_ms"].values()), abs=0.01)

    @pytest.mark.parametrize("workers", [1, 3])
    def test_overlays(self, segmenter: Segmenter, items: list[WorkItem], out: Path, workers: int) -> None:
        segment_batch(segmenter, items, out, BatchOptions(workers=workers), overlay=0.5)
        assert len(results(out)) == 24
        with Image.open(out / "overlays" / f"{NAMES[0]}.jpg") as overlay:
            assert overlay.size == (40, 24)
        with pytest.raises(ImageError, match="alpha is a share"):
            segment_batch(segmenter, items, out, overlay=2)

    def test_progress_counts_what_is_on_the_disk(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        seen: list[int] = []

        def note(state: Progress) -> None:
            assert len(lines(out / "ledger.jsonl")) >= state.done > sum(seen[-1:])
            assert state.total == 12
            seen.append(state.done)

        segment_batch(segmenter, items, out, progress=note)
        assert seen[-1] == 12


class TestResume:
    def test_runs_only_what_is_missing(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        segment_batch(segmenter, items[:5], out)
        before = (out / "ledger.jsonl").read_bytes()
        times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
        summary = segment_batch(segmenter, items, out, RESUME)
        assert (summary.done, summary.done_before) == (7, 5)
        assert (out / "ledger.jsonl").read_bytes().startswith(before)
        assert all(path.stat().st_mtime_ns == at for path, at in times.items())
        again = segment_batch(segmenter, items, out, RESUME)
        assert (again.done, again.done_before) == (0, 12)

    def test_without_resume_nothing_is_touched(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        segment_batch(segmenter, items[:2], out)
        with pytest.raises(BatchError, match=r"holds a run already, whose ledger is ledger.jsonl. Go on .*--resume"):
            segment_batch(segmenter, items, out)
        assert len(results(out)) == 2

    @pytest.mark.parametrize("lost_bytes", [1, 40, 500])
    def test_a_line_that_was_cut_off(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path, lost_bytes: int
    ) -> None:
        ledger = segment_batch(segmenter, items, out).ledger
        expected, whole = results(out), ledger.read_bytes()
        ledger.write_bytes(whole[:-lost_bytes])
        left = whole[:-lost_bytes].count(b"\n") - 1
        assert segment_batch(segmenter, items, out, RESUME).done_before == left
        assert results(out) == expected
        assert len(lines(ledger)) == 12

    def test_a_header_that_was_cut_off(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        ledger = segment_batch(segmenter, items[:2], out).ledger
        ledger.write_bytes(ledger.read_bytes()[:100])
        assert segment_batch(segmenter, items[:2], out, RESUME).done == 2

    def test_results_that_are_gone_or_cut_are_made_again(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path
    ) -> None:
        segment_batch(segmenter, items, out)
        expected = results(out)
        (out / "labels" / f"{NAMES[0]}.png").unlink()
        (out / "labels" / f"{NAMES[1]}.png").write_bytes(b"")
        assert segment_batch(segmenter, items, out, RESUME).done == 2
        assert results(out) == expected

    def test_leftovers_of_a_killed_run_are_removed(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path
    ) -> None:
        labels = out / "labels" / "night"
        labels.mkdir(parents=True)
        (labels / ".00.png.0123456789abcdef.tmp").touch()
        (labels / ".elsewhere.png.0123456789abcdef.tmp").touch()
        segment_batch(segmenter, items, out, RESUME)
        assert [path.name for path in labels.glob(".*")] == [".elsewhere.png.0123456789abcdef.tmp"]

    def test_of_another_run(self, color_bundle: Bundle, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        ledger = segment_batch(segmenter, items[:2], out).ledger
        before = ledger.read_bytes()
        refined = load(color_bundle.path, backend="onnxruntime", crf=CRFParams.deeplab_v2_resnet(), threads=1)
        with pytest.raises(BatchError, match="is the ledger of another run: its crf is None, this one's is"):
            segment_batch(refined, items, out, RESUME)
        with pytest.raises(BatchError, match=r"its overlay is None, this one's is 0.5"):
            segment_batch(segmenter, items, out, RESUME, overlay=0.5)
        assert ledger.read_bytes() == before

    def test_of_another_bundle(
        self, tiny_bundle: Bundle, segmenter: Segmenter, items: list[WorkItem], out: Path
    ) -> None:
        segment_batch(segmenter, items[:2], out)
        with pytest.raises(BatchError, match="is the ledger of another run: its sha256 is"):
            segment_batch(load(tiny_bundle.path, backend="onnxruntime"), items, out, RESUME)

    @pytest.mark.parametrize(
        "damage",
        [
            {"outputs": None},
            {"outputs": {"labels": ["labels/x.png"]}},
            {"outputs": {"labels": ["labels/x.png", "many", ""]}},
        ],
    )
    def test_a_damaged_line(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path, damage: dict[str, object]
    ) -> None:
        ledger = segment_batch(segmenter, items[:3], out).ledger
        text = ledger.read_text().splitlines()
        text[2] = json.dumps(json.loads(text[2]) | damage)
        ledger.write_text("\n".join(text) + "\n")
        with pytest.raises(BatchError, match="is not the ledger of a run, or is damaged in line 3"):
            segment_batch(segmenter, items, out, RESUME)

    @pytest.mark.slow
    def test_after_sigkill(self, color_bundle: Bundle, tmp_path: Path, segmenter: Segmenter) -> None:
        """Killed twice with images in work, then left alone: the results of an undisturbed run, and nothing besides."""
        photos = make_photos(tmp_path / "many", tuple(f"{index:03}" for index in range(150)))
        out, expected = tmp_path / "killed", tmp_path / "undisturbed"
        segment_batch(segmenter, find_work([photos]), expected)
        command = [sys.executable, "-m", "atrous", "batch", color_bundle.path, photos, "--out", out, "--resume"]
        command += ["--backend", "onnxruntime", "--threads", "1"]
        for least in (20, 70):
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                while (
                    not (out / "ledger.jsonl").exists() or len((out / "ledger.jsonl").read_bytes().splitlines()) < least
                ):
                    assert process.poll() is None, process.stderr.read()
                    time.sleep(0.002)
                process.kill()
        recorded = [line["name"] for line in lines(out / "ledger.jsonl")]
        done = subprocess.run([*command, "--json"], capture_output=True, check=True)
        assert json.loads(done.stdout)["done_before"] == len(recorded) >= 69
        assert len(lines(out / "ledger.jsonl")) == 150
        assert results(out) == results(expected)


class TestShards:
    def test_together_are_one_run(self, segmenter: Segmenter, items: list[WorkItem], out: Path, tmp_path: Path) -> None:
        segment_batch(segmenter, items, tmp_path / "whole")
        parts = [segment_batch(segmenter, items, out, BatchOptions(shard=Shard(index, 3))) for index in (1, 2, 3)]
        assert sum(part.done for part in parts) == 12
        assert sorted(path.name for path in out.glob("*.jsonl")) == [
            f"ledger.{index}-of-3.jsonl" for index in (1, 2, 3)
        ]
        assert results(out) == results(tmp_path / "whole")

    def test_of_another_number_go_on_with_what_is_done(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path
    ) -> None:
        first = segment_batch(segmenter, items, out, BatchOptions(shard=Shard(1, 3)))
        with pytest.raises(BatchError, match=r"holds a run already, whose ledger is ledger.1-of-3.jsonl"):
            segment_batch(segmenter, items, out, BatchOptions(shard=Shard(1, 2)))
        summary = segment_batch(segmenter, items, out, RESUME)
        assert (summary.done, summary.done_before) == (12 - first.done, first.done)

    def test_without_images_is_no_error(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        shard = next(part for index in range(1, 99) if items[0].name not in (part := Shard(index, 99)))
        summary = segment_batch(segmenter, items[:1], out, BatchOptions(shard=shard))
        assert (summary.images, summary.done) == (0, 0)


class TestTwoRuns:
    """Of one folder, at the same time."""

    @staticmethod
    @contextmanager
    def running(segmenter: Segmenter, items: list[WorkItem], out: Path, shard: Shard) -> Iterator[None]:
        """Another process with the ledger of a shard open."""
        segment_batch(segmenter, items[:1], out, BatchOptions(shard=shard, resume=True))
        name = "ledger.jsonl" if shard.count == 1 else f"ledger.{shard.index}-of-{shard.count}.jsonl"
        code = (
            "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
        )
        command = [sys.executable, "-c", code, str(out / name)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield
            process.communicate(b"\n")

    def test_of_the_same_images(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        with self.running(segmenter, items, out, Shard()):
            with pytest.raises(BatchError, match="is being written by another run that is still running"):
                segment_batch(segmenter, items, out, RESUME)
            with pytest.raises(BatchError, match="some of the same images: its shards are 1, this one's 2"):
                segment_batch(segmenter, items, out, BatchOptions(resume=True, shard=Shard(1, 2)))
        assert segment_batch(segmenter, items, out, RESUME).done == 11

    def test_of_different_shards(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        with self.running(segmenter, items, out, Shard(1, 2)):
            assert segment_batch(segmenter, items, out, BatchOptions(shard=Shard(2, 2))).done > 0


class TestFailures:
    def test_are_lines_and_are_tried_again(
        self, segmenter: Segmenter, items: list[WorkItem], out: Path, photos: Path
    ) -> None:
        bad, gone = photos / f"{NAMES[3]}.png", photos / f"{NAMES[8]}.png"
        good = bad.read_bytes()
        bad.write_bytes(good[:200])
        gone_bytes = gone.read_bytes()
        gone.unlink()
        summary = segment_batch(segmenter, items, out)
        assert summary.done == 10
        assert {each.input for each in summary.failures} == {str(bad), str(gone)}
        failed = [line for line in lines(summary.ledger) if "error" in line]
        assert [set(line) for line in failed] == [{"name", "input", "size", "error"}] * 2
        assert "no such image" in failed[1]["error"]
        bad.write_bytes(good)
        gone.write_bytes(gone_bytes)
        again = segment_batch(segmenter, items, out, RESUME)
        assert (again.done, again.done_before) == (2, 10)

    def test_have_a_limit(self, segmenter: Segmenter, items: list[WorkItem], out: Path, photos: Path) -> None:
        for name in NAMES[:3]:
            (photos / f"{name}.png").write_bytes(b"")
        with pytest.raises(BatchError, match=r"3 images failed, more than the 2 that may: .*0 bytes.*--max-errors"):
            segment_batch(segmenter, items, out, BatchOptions(max_errors=2))
        assert sum("error" in line for line in lines(out / "ledger.jsonl")) == 3
        with pytest.raises(BatchError, match="1 images failed"):
            segment_batch(segmenter, items, out, BatchOptions(resume=True, max_errors=0))
        assert len(segment_batch(segmenter, items, out, BatchOptions(resume=True, max_errors=3)).failures) == 3

    @pytest.mark.slow
    @pytest.mark.parametrize(("most_bytes", "file"), [(2500, "ledger.jsonl"), (7000, "labels/")])
    def test_a_full_disk_ends_the_run(
        self,
        color_bundle: Bundle,
        segmenter: Segmenter,
        items: list[WorkItem],
        out: Path,
        photos: Path,
        rng: np.random.Generator,
        most_bytes: int,
        file: str,
    ) -> None:
        """A disk on which no file may be larger: the ledger, or the labels of a large image."""
        Image.fromarray(rng.integers(0, 256, (1024, 1024, 3), np.uint8)).save(photos / "large.png")
        items = find_work([photos])
        command = [sys.executable, "-m", "atrous", "batch", color_bundle.path, photos, "--out", out, "--resume"]
        done = subprocess.run(
            [*command, "--backend", "onnxruntime"],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
        )
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert f"BatchError: cannot write {out}/{file}" in done.stderr
        assert "--resume" in done.stderr
        assert not [name for name in results(out) if name.endswith(".tmp")]
        assert len(segment_batch(segmenter, items, out, RESUME).failures) == 0
        segment_batch(segmenter, items, out.with_name("whole"))
        assert results(out) == results(out.with_name("whole"))

    def test_a_folder_that_cannot_be_written(self, segmenter: Segmenter, items: list[WorkItem], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(BatchError, match="cannot write to"):
            segment_batch(segmenter, items, tmp_path / "file" / "out")

    def test_an_interruption_keeps_what_is_done(self, segmenter: Segmenter, items: list[WorkItem], out: Path) -> None:
        def interrupt(_: Progress) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            segment_batch(segmenter, items[:1], out, progress=interrupt)
        assert len(lines(out / "ledger.jsonl")) == 1
        assert segment_batch(segmenter, items, out, RESUME).done_before == 1


class TestOptions:
    @pytest.mark.parametrize(
        ("values", "said"),
        [({"workers": 0}, "workers must be 1 to"), ({"max_errors": -1}, "max_errors must be 0 or more")],
    )
    def test_out_of_range(self, values: dict[str, int], said: str) -> None:
        with pytest.raises(BatchError, match=said):
            BatchOptions(**values)
