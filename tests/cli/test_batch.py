from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from batch_runs import lines, results
from command_line import Command

from atrous.batch import Progress
from atrous.bundle import Bundle
from atrous.cli import batch_options
from atrous.runtime.segmenter import load

OPTIONS = ("--backend", "onnxruntime", "--threads", "1")


def test_labels_of_a_folder(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    outcome = atrous("batch", tiny_bundle.path, photos, "--out", tmp_path / "out", *OPTIONS)
    assert outcome.code == 0, outcome.err
    assert re.fullmatch(rf"3 of 3 images done in .* s, .*/s\nin {tmp_path}/out/, with ledger.jsonl\n", outcome.out)
    assert list(results(tmp_path / "out")) == [f"labels/{name}.png" for name in "abc"]
    load(tiny_bundle.path, backend="onnxruntime")(photos / "a.png").save(tmp_path / "a.png")
    assert (tmp_path / "out" / "labels" / "a.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_resume_and_json(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    common = (tiny_bundle.path, photos, "--out", tmp_path / "out", *OPTIONS)
    assert atrous("batch", *common, "--shard", "1/2").code == 0
    done = len(results(tmp_path / "out"))
    outcome = atrous("batch", *common)
    assert outcome.code == 1
    assert "holds a run already" in outcome.err
    report = atrous("batch", *common, "--resume", "--json").json()
    assert (report["images"], report["done"], report["done_before"]) == (3, 3 - done, done)
    assert (report["backend"], report["precision"], report["crf"]) == ("onnxruntime", "fp32", False)
    assert report["failed"] == []
    assert report["ledger"] == str(tmp_path / "out" / "ledger.jsonl")
    assert "done before" in atrous("batch", *common, "--resume").out


def test_crf_and_overlays(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (*OPTIONS, "--crf", "--overlay", 0.5, "--keep-endings")
    assert atrous("batch", tiny_bundle.path, photos / "b.jpg", "--out", out, *options).code == 0
    assert list(results(out)) == ["labels/b.jpg.png", "overlays/b.jpg.jpg"]
    assert "crf" in lines(out / "ledger.jsonl")[0]["timings_ms"]


def test_a_list_below_a_root(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"where\n{photos}/a.png\nphotos/c.png\n")
    options = (*OPTIONS, "--root", tmp_path, "--column", "where", "--out", tmp_path / "out")
    assert atrous("batch", tiny_bundle.path, tmp_path / "list.csv", *options).code == 0
    assert list(results(tmp_path / "out")) == ["labels/photos/a.png", "labels/photos/c.png"]


class TestFailures:
    def test_are_named(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        (photos / "b.jpg").write_bytes(b"")
        common = (tiny_bundle.path, photos, "--out", tmp_path / "out", *OPTIONS)
        outcome = atrous("batch", *common)
        assert outcome.code == 1
        assert outcome.out.startswith("2 of 3 images done")
        assert f"failed: {photos / 'b.jpg'} is empty (0 bytes)" in outcome.err
        assert "1 of 3 images failed" in outcome.err
        outcome = atrous("batch", *common, "--resume", "--json")
        assert (outcome.code, len(outcome.json()["failed"])) == (1, 1)
        outcome = atrous("batch", *common, "--resume", "--max-errors", 0)
        assert outcome.code == 1
        assert "more than the 0 that may" in outcome.err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--shard", "3/2"), "there is no shard 3 of 2"),
            (("--shard", "half"), "'half' is no shard"),
            (("--backend", "tpu"), "unknown backend"),
            (("--out", "{photos}"), "would lie among the images"),
            (("--out", "{photos}/.."), "would lie among the images"),
            (("--root", "{photos}/below"), "is not below the root"),
        ],
    )
    def test_options(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path, options: tuple[str, ...], said: str
    ) -> None:
        given = tuple(text.format(photos=photos) for text in options)
        outcome = atrous("batch", tiny_bundle.path, photos, "--out", tmp_path / "out", *given)
        assert (outcome.code, outcome.out) == (1, "")
        assert said in outcome.err
        assert not (tmp_path / "out").exists()

    def test_results_below_the_images_are_none_of_them(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path
    ) -> None:
        for _ in range(2):
            options = ("--out", photos / "out", "--resume", "--json", *OPTIONS)
            assert atrous("batch", tiny_bundle.path, photos, *options).json()["images"] == 3

    def test_nothing_to_do(self, atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "list.txt").touch()
        outcome = atrous("batch", tiny_bundle.path, tmp_path / "list.txt", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert "is empty" in outcome.err


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_options, "_QUIET_S", 0.0)
    with batch_options.batch_progress("segmenting") as show:
        time.sleep(0.01)
        show(Progress(total=12, done=3))
    said = capsys.readouterr().err
    assert re.fullmatch(r"segmenting: 3 of 12, [\d.]+/s, 0 min left\n", said)


def test_a_ledger_is_json(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    assert atrous("batch", tiny_bundle.path, photos, "--out", tmp_path / "out", *OPTIONS).code == 0
    header, *rest = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(header)["format"] == "atrous ledger 1"
    assert [json.loads(line)["name"] for line in rest] == ["a", "b", "c"]
