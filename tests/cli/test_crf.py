from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from batch_runs import ids, lines, results
from command_line import Command

from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.runtime.image import load_image


@pytest.fixture
def maps(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Probabilities of five classes for each photo."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in "abc":
        values = rng.dirichlet(np.ones(5), size=(40, 50)).transpose(2, 0, 1)
        np.save(folder / f"{name}.npy", values.astype(np.float32))
    return folder


def refined(maps: Path, photo: Path, crf: DenseCRF) -> np.ndarray:
    return crf.labels(np.load(maps / f"{photo.stem}.npy"), load_image(photo))


def test_probabilities(atrous: Command, photos: Path, maps: Path, tmp_path: Path) -> None:
    options = ("--images", photos, "--probabilities", maps, "--out", tmp_path / "out")
    outcome = atrous("crf", *options, "--iterations", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("3 of 3 images done")
    crf = DenseCRF(CRFParams.deeplab_v2_resnet(), iterations=2)
    for photo in (photos / "a.png", photos / "b.jpg"):
        assert np.array_equal(ids(tmp_path / "out" / "labels" / f"{photo.stem}.png"), refined(maps, photo, crf))
    outcome = atrous("crf", *options, "--iterations", 3, "--resume")
    assert outcome.code == 1
    assert "is the ledger of another run: its crf is" in outcome.err


def test_parameters(atrous: Command, tiny_bundle: Bundle, photos: Path, maps: Path, tmp_path: Path) -> None:
    params = CRFParams.pydensecrf_readme()
    (tmp_path / "crf.json").write_text(json.dumps({**params.to_dict(), "iterations": 3}))
    common = ("--images", photos / "a.png", "--probabilities", maps, "--bundle", tiny_bundle.path)
    assert atrous("crf", *common, "--crf-params", tmp_path / "crf.json", "--out", tmp_path / "file").code == 0
    expected = refined(maps, photos / "a.png", DenseCRF(params, iterations=3))
    assert np.array_equal(ids(tmp_path / "file" / "labels" / "a.png"), expected)
    report = atrous("crf", *common, "--out", tmp_path / "bundle", "--workers", 2, "--json").json()
    assert report["crf"] == {**tiny_bundle.manifest.crf, "iterations": 10}
    assert report["workers"] == 2
    header = json.loads((tmp_path / "bundle" / "ledger.jsonl").read_text().splitlines()[0])
    assert len(header["class_names"]) == 5


def test_labels(atrous: Command, tiny_bundle: Bundle, photos: Path, maps: Path, tmp_path: Path) -> None:
    options = ("--images", photos, "--bundle", tiny_bundle.path, "--write", "both")
    assert atrous("crf", *options, "--probabilities", maps, "--out", tmp_path / "first").code == 0
    again = (*options, "--labels", tmp_path / "first" / "labels", "--confidence", 0.8)
    assert atrous("crf", *again, "--out", tmp_path / "again").code == 0
    assert len(results(tmp_path / "again")) == 6
    marginals = np.load(tmp_path / "again" / "probabilities" / "c.npy")
    assert marginals.shape == (5, 40, 50)
    assert abs(marginals.sum(axis=0) - 1).max() < 1e-3


class TestFailures:
    def test_are_named(self, atrous: Command, photos: Path, maps: Path, tmp_path: Path) -> None:
        np.save(maps / "b.npy", np.full((5, 40, 51), 0.2, np.float32))
        (maps / "c.npy").unlink()
        outcome = atrous("crf", "--images", photos, "--probabilities", maps, "--out", tmp_path / "out")
        assert outcome.code == 1
        assert "is [5, 40, 51]; expected [classes, 40, 50]" in outcome.err
        assert "there are no probabilities of this image" in outcome.err
        assert ["error" in line for line in lines(tmp_path / "out" / "ledger.jsonl")] == [False, True, True]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "there is nothing to refine"),
            (("--probabilities", "{maps}", "--labels", "{maps}"), "exclude each other"),
            (("--labels", "{maps}"), "pass --classes C or --bundle"),
            (("--probabilities", "{maps}", "--write", "masks"), "--write"),
        ],
    )
    def test_wrong_usage(
        self, atrous: Command, photos: Path, maps: Path, tmp_path: Path, options: tuple[str, ...], said: str
    ) -> None:
        given = tuple(text.format(maps=maps) for text in options)
        outcome = atrous("crf", "--images", photos, "--out", tmp_path / "out", *given)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--out", "{maps}"), "would lie among the images"),
            (("--crf-class-floor", "0.5"), "class_floor must be 0 to 0.01"),
            (("--max-errors", "0", "--images", "{maps}/../extra.png"), "have nothing to refine in"),
        ],
    )
    def test_refused(
        self, atrous: Command, photos: Path, maps: Path, tmp_path: Path, options: tuple[str, ...], said: str
    ) -> None:
        (tmp_path / "extra.png").write_bytes((photos / "a.png").read_bytes())
        given = tuple(text.format(maps=maps) for text in options)
        outcome = atrous("crf", "--images", photos, "--probabilities", maps, "--out", tmp_path / "out", *given)
        assert (outcome.code, outcome.out) == (1, "")
        assert said in outcome.err
