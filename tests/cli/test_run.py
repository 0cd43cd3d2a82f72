from __future__ import annotations

import json
import shutil
from pathlib import Path

import needs
import numpy as np
import pytest
from command_line import Command
from PIL import Image

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.runtime.segmenter import load


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestOutputs:
    def test_labels_and_overlay_of_one_picture(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path
    ) -> None:
        outcome = atrous("run", tiny_bundle.path, photos / "a.png", "--out", tmp_path / "out")
        assert outcome.code == 0, outcome.err
        assert written(tmp_path / "out") == ["a.labels.png", "a.overlay.png"]
        with Image.open(tmp_path / "out" / "a.labels.png") as picture:
            labels = np.asarray(picture)
        assert np.array_equal(labels, load(tiny_bundle.path)(photos / "a.png").labels)

    @pytest.mark.parametrize("source", ["", "*.*g", "a.png"])
    def test_folders_and_globs(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path, source: str
    ) -> None:
        arguments = (photos / source, photos / "c.png", photos / "b.jpg")
        outcome = atrous("run", tiny_bundle.path, *arguments, "--out", tmp_path / "out")
        assert outcome.code == 0
        assert written(tmp_path / "out") == [f"{name}.{kind}.png" for name in "abc" for kind in ("labels", "overlay")]

    def test_default_folder(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert atrous("run", tiny_bundle.path, photos / "a.png").code == 0
        assert (tmp_path / "segmented" / "a.labels.png").is_file()

    def test_json(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        outcome = atrous("run", tiny_bundle.path, photos, "--out", tmp_path / "out", "--json")
        report = outcome.json()
        assert (outcome.code, outcome.err) == (0, "")
        assert report["precision"] == "fp32"
        assert report["crf"] is False
        assert report["failures"] == []
        assert [Path(row["input"]).name for row in report["results"]] == ["a.png", "b.jpg", "c.png"]
        for row in report["results"]:
            assert Path(row["labels"]).is_file()
            assert Path(row["overlay"]).is_file()
            assert set(row["timings_ms"]) == {"preprocess", "inference", "postprocess"}

    def test_crf(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        options = ("--crf", "--threads", "1", "--backend", "onnxruntime", "--out", tmp_path / "out", "--json")
        report = atrous("run", tiny_bundle.path, photos / "a.png", *options).json()
        assert report["crf"] is True
        assert report["backend"] == "onnxruntime"
        assert "crf" in report["results"][0]["timings_ms"]

    @needs.PYAV.importable("av")
    def test_video(self, atrous: Command, tiny_bundle: Bundle, tmp_path: Path, rng: np.random.Generator) -> None:
        import av

        with av.open(str(tmp_path / "clip.mp4"), "w") as writer:
            stream = writer.add_stream("libx264", rate=5)
            stream.width, stream.height = 64, 48
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
                writer.mux(stream.encode(frame))
            writer.mux(stream.encode())
        outcome = atrous("run", tiny_bundle.path, tmp_path / "clip.mp4", "--out", tmp_path / "out", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.json()["results"][0]["frames"] == 3
        assert written(tmp_path / "out") == ["clip.overlay.mp4"]
        options = ("--out", tmp_path / "out", "--labels", "--json")
        (row,) = atrous("run", tiny_bundle.path, tmp_path / "clip.mp4", *options).json()["results"]
        assert row["labels"] == str(tmp_path / "out" / "clip.labels")
        assert written(Path(row["labels"])) == ["000001.png", "000002.png", "000003.png"]


class TestNames:
    def test_one_stem_in_two_formats(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        shutil.copy(photos / "a.png", photos / "b.png")
        outcome = atrous("run", tiny_bundle.path, photos / "b.png", photos / "b.jpg", "--out", tmp_path / "out")
        assert outcome.code == 0
        assert written(tmp_path / "out") == [
            f"b.{x}.{kind}.png" for x in ("jpg", "png") for kind in ("labels", "overlay")
        ]

    def test_one_name_in_two_folders(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        shutil.copytree(photos, tmp_path / "more")
        outcome = atrous("run", tiny_bundle.path, photos, tmp_path / "more", "--out", tmp_path / "out", "--json")
        assert outcome.code == 0, outcome.err
        assert written(tmp_path / "out") == ["more", "photos"]
        expected = [f"{name}.{kind}.png" for name in "abc" for kind in ("labels", "overlay")]
        assert written(tmp_path / "out" / "more") == written(tmp_path / "out" / "photos") == expected
        for row in outcome.json()["results"]:
            folder, name = Path(row["input"]).parts[-2:]
            assert Path(row["labels"]) == tmp_path / "out" / folder / f"{Path(name).stem}.labels.png"

    def test_a_table_names_the_folders(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(photos, tmp_path / "more")
        outcome = atrous("run", tiny_bundle.path, photos, tmp_path / "more", "--out", tmp_path / "out")
        assert "more/a.overlay.png" in outcome.out
        assert outcome.out.endswith(f"in {tmp_path / 'out'}/\n")

    def test_a_folder_given_twice(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        sources = (photos, "photos", "photos/../photos", photos / "a.png")
        outcome = atrous("run", tiny_bundle.path, *sources, "--out", tmp_path / "out", "--json")
        assert outcome.code == 0, outcome.err
        assert len(outcome.json()["results"]) == 3
        assert written(tmp_path / "out") == [f"{name}.{kind}.png" for name in "abc" for kind in ("labels", "overlay")]


class TestWishes:
    def test_alpha(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        assert atrous("run", tiny_bundle.path, photos / "a.png", "--out", tmp_path / "out", "--alpha", 0).code == 0
        with Image.open(tmp_path / "out" / "a.overlay.png") as overlay, Image.open(photos / "a.png") as photo:
            assert np.array_equal(np.asarray(overlay), np.asarray(photo))
        assert atrous("run", tiny_bundle.path, photos / "a.png", "--alpha", 1.5).code == 2

    def test_crf_parameters(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        params = CRFParams.pydensecrf_readme()
        (tmp_path / "crf.json").write_text(json.dumps({**params.to_dict(), "iterations": 3}))
        options = ("--crf-params", tmp_path / "crf.json", "--backend", "onnxruntime", "--out", tmp_path / "out")
        report = atrous("run", tiny_bundle.path, photos / "a.png", *options, "--json").json()
        assert report["crf"] is True
        segmenter = load(tiny_bundle.path, backend="onnxruntime", crf=DenseCRF(params, iterations=3))
        with Image.open(tmp_path / "out" / "a.labels.png") as labels:
            assert np.array_equal(np.asarray(labels), segmenter(photos / "a.png").labels)

    def test_crf_class_floor(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        options = ("--backend", "onnxruntime", "--out", tmp_path / "out", "--crf-class-floor", 0.01)
        assert atrous("run", tiny_bundle.path, photos / "a.png", *options, "--crf").code == 0
        segmenter = load(tiny_bundle.path, backend="onnxruntime", crf=DenseCRF(class_floor=0.01))
        with Image.open(tmp_path / "out" / "a.labels.png") as labels:
            assert np.array_equal(np.asarray(labels), segmenter(photos / "a.png").labels)
        outcome = atrous("run", tiny_bundle.path, photos / "a.png", *options)
        assert outcome.code == 1
        assert "add --crf" in outcome.err
        outcome = atrous("run", tiny_bundle.path, photos / "a.png", "--crf", "--crf-class-floor", 0.5)
        assert outcome.code == 1
        assert "class_floor must be 0 to 0.01" in outcome.err

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "cannot read CRF parameters from"),
            ("[1]", "holds no CRF parameters; expected {"),
            ('{"bilateral_weight": 4}', "missing CRF parameters"),
            ('{"sxy": 4}', "missing CRF parameters"),
            ('{"iterations": 2.5}', "iterations must be a whole number"),
        ],
    )
    def test_other_crf_parameters(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path, text: str, said: str
    ) -> None:
        (tmp_path / "crf.json").write_text(text)
        outcome = atrous("run", tiny_bundle.path, photos / "a.png", "--crf-params", tmp_path / "crf.json")
        assert outcome.code == 1
        assert said in outcome.err
        assert "crf.json" in outcome.err

    def test_a_page(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        names = ("a.png", "c.png")
        pages = [Image.open(photos / name) for name in names]
        pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
        for page, name in enumerate(names, start=1):
            out = tmp_path / f"out{page}"
            assert atrous("run", tiny_bundle.path, tmp_path / "pages.tif", "--page", page, "--out", out).code == 0
            with Image.open(out / "pages.labels.png") as labels:
                assert np.array_equal(np.asarray(labels), load(tiny_bundle.path)(photos / name).labels)
        outcome = atrous("run", tiny_bundle.path, tmp_path / "pages.tif", "--page", 3, "--out", tmp_path / "out3")
        assert outcome.code == 1
        assert "has no page 3; it has 2" in outcome.err

    def test_bits(self, atrous: Command, tiny_bundle: Bundle, tmp_path: Path, rng: np.random.Generator) -> None:
        grey = rng.integers(0, 4096, (40, 50), np.uint16)
        Image.fromarray(grey).save(tmp_path / "x.png")
        outcome = atrous("run", tiny_bundle.path, tmp_path / "x.png", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert "--bits 12" in outcome.err
        outcome = atrous("run", tiny_bundle.path, tmp_path / "x.png", "--out", tmp_path / "out", "--bits", 12)
        assert outcome.code == 0, outcome.err
        with Image.open(tmp_path / "out" / "x.labels.png") as labels:
            assert np.array_equal(np.asarray(labels), load(tiny_bundle.path)((grey >> 4).astype(np.uint8)).labels)


class TestFailures:
    def test_a_bad_picture_is_named_and_the_others_are_done(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path
    ) -> None:
        whole = (photos / "b.jpg").read_bytes()
        (photos / "b.jpg").write_bytes(whole[: len(whole) // 2])
        outcome = atrous("run", tiny_bundle.path, photos, photos / "notes.txt", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert str(photos / "b.jpg") in outcome.err
        assert str(photos / "notes.txt") in outcome.err
        assert "2 of 4 inputs failed" in outcome.err
        assert written(tmp_path / "out") == [f"{name}.{kind}.png" for name in "ac" for kind in ("labels", "overlay")]

    def test_a_bad_picture_in_json(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        (photos / "b.jpg").write_bytes(b"")
        outcome = atrous("run", tiny_bundle.path, photos, "--out", tmp_path / "out", "--json")
        assert outcome.code == 1
        report = outcome.json()
        assert len(report["results"]) == 2
        (failure,) = report["failures"]
        assert failure["input"] == str(photos / "b.jpg")
        assert "0 bytes" in failure["error"]

    def test_all_bad(self, atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
        outcome = atrous("run", tiny_bundle.path, photos / "notes.txt", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert written(tmp_path / "out") == []

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--backend", "tpu"), "unknown backend 'tpu'"),
            (("--precision", "int8"), "no int8 ONNX graph"),
            (("--out", "{photos}/a.png"), "cannot write to"),
            (("--out", "{photos}/a.png/below"), "cannot write to"),
        ],
    )
    def test_options(
        self, atrous: Command, tiny_bundle: Bundle, photos: Path, options: tuple[str, ...], said: str
    ) -> None:
        outcome = atrous("run", tiny_bundle.path, photos / "b.jpg", *(text.format(photos=photos) for text in options))
        assert (outcome.code, outcome.out) == (1, "")
        assert said in outcome.err

    def test_nothing_to_segment(self, atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
        outcome = atrous("run", tiny_bundle.path, tmp_path / "*.png", "--out", tmp_path / "out")
        assert outcome.code == 1
        assert "no such file, folder or match" in outcome.err
        assert not (tmp_path / "out").exists()

    def test_negative_threads_are_wrong_usage(self, atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
        assert atrous("run", tiny_bundle.path, photos, "--threads", "-1").code == 2
