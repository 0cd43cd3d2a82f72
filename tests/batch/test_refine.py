from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from batch_runs import NAMES, ids, lines, results

from atrous.batch import (
    BatchOptions,
    LabelMaps,
    ProbabilityMaps,
    RefineOptions,
    Shard,
    WorkItem,
    refine_batch,
    segment_batch,
)
from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.errors import ArgumentError, BatchError
from atrous.runtime.image import load_image
from atrous.runtime.segmenter import Segmenter, load

CRF = DenseCRF(CRFParams.deeplab_v2_resnet(), iterations=3, threads=1)


@pytest.fixture
def maps(segmenter: Segmenter, items: list[WorkItem], tmp_path: Path) -> ProbabilityMaps:
    """The probabilities of the segmenter."""
    for item in items:
        path = tmp_path / "maps" / f"{item.name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, segmenter(item.image).probabilities)
    return ProbabilityMaps(folder=tmp_path / "maps")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_is_what_a_bundle_with_the_crf_gives(
    color_bundle: Bundle, items: list[WorkItem], maps: ProbabilityMaps, out: Path, tmp_path: Path
) -> None:
    refined = load(color_bundle.path, backend="onnxruntime", crf=CRF, threads=1)
    segment_batch(refined, items, tmp_path / "expected")
    summary = refine_batch(items, maps, out, CRF, refinement=RefineOptions(bundle=color_bundle))
    assert summary.done == 12
    assert results(out) == results(tmp_path / "expected")
    assert set(lines(summary.ledger)[0]["timings_ms"]) == {"read", "crf", "write"}


@pytest.mark.parametrize("workers", [1, 3])
def test_writes_probabilities(items: list[WorkItem], maps: ProbabilityMaps, out: Path, workers: int) -> None:
    refine_batch(items, maps, out, CRF, BatchOptions(workers=workers), refinement=RefineOptions(write="both"))
    assert len(results(out)) == 24
    for item in items:
        labels, marginals = CRF.labels_and_marginals(np.load(maps.find(item.name)), load_image(item.image))
        assert np.array_equal(np.load(out / "probabilities" / f"{item.name}.npy"), marginals)
        assert np.array_equal(ids(out / "labels" / f"{item.name}.png"), labels)


def test_refines_labels(segmenter: Segmenter, items: list[WorkItem], out: Path, tmp_path: Path) -> None:
    segment_batch(segmenter, items, tmp_path / "first")
    maps = LabelMaps(folder=tmp_path / "first" / "labels", classes=3)
    refine_batch(items, maps, out, CRF)
    name = NAMES[0]
    image = next(item.image for item in items if item.name == name)
    expected = CRF.labels(maps.read(name, (24, 40)), load_image(image))
    assert np.array_equal(ids(out / "labels" / f"{name}.png"), expected)


def test_resumes_and_shards(items: list[WorkItem], maps: ProbabilityMaps, out: Path, tmp_path: Path) -> None:
    refine_batch(items, maps, tmp_path / "whole", CRF)
    first = refine_batch(items, maps, out, CRF, BatchOptions(shard=Shard(1, 2)))
    rest = refine_batch(items, maps, out, CRF, BatchOptions(resume=True))
    assert (rest.done, rest.done_before) == (12 - first.done, first.done)
    assert results(out) == results(tmp_path / "whole")
    with pytest.raises(BatchError, match="is the ledger of another run: its crf is"):
        refine_batch(items, maps, out, DenseCRF(CRF.params, iterations=4), BatchOptions(resume=True))
    normalized = ProbabilityMaps(folder=maps.folder, normalize=True)
    with pytest.raises(BatchError, match="its refines is"):
        refine_batch(items, normalized, out, CRF, BatchOptions(resume=True))


class TestFailures:
    def test_are_lines(self, items: list[WorkItem], maps: ProbabilityMaps, out: Path, color_bundle: Bundle) -> None:
        maps.find(NAMES[2]).unlink()
        np.save(maps.find(NAMES[5]), np.full((3, 24, 40), np.nan, np.float32))
        np.save(maps.find(NAMES[7]), np.full((4, 31, 40), 0.25, np.float32))
        summary = refine_batch(items, maps, out, CRF, refinement=RefineOptions(bundle=color_bundle))
        errors = {line["name"]: line["error"] for line in lines(summary.ledger) if "error" in line}
        assert len(summary.failures) == 3
        assert "there are no probabilities of this image" in errors[NAMES[2]]
        assert "expected [classes, 29, 40]" in errors[NAMES[5]]
        assert "has 4 classes; the bundle has 3" in errors[NAMES[7]]

    def test_of_the_crf_name_the_image(self, items: list[WorkItem], maps: ProbabilityMaps, out: Path) -> None:
        tiny = DenseCRF(dataclasses.replace(CRF.params, bilateral_sigma_rgb=1e-9), iterations=1)
        with pytest.raises(BatchError, match=r"images failed, .*photos/day/01.png: .*sigma"):
            refine_batch(items, maps, out, tiny)

    def test_a_folder_without_maps_is_refused_before_work_begins(
        self, items: list[WorkItem], out: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(BatchError, match=r"more than 10 of 12 images, .* have nothing to refine in"):
            refine_batch(items, ProbabilityMaps(folder=tmp_path), out, CRF)
        assert not out.exists()

    def test_no_maps(self, items: list[WorkItem], out: Path) -> None:
        with pytest.raises(ArgumentError, match="maps must be ProbabilityMaps or LabelMaps"):
            refine_batch(items, "maps", out, CRF)


def test_a_ledger_says_how_maps_are_read(items: list[WorkItem], maps: ProbabilityMaps, out: Path) -> None:
    ledger = refine_batch(items[:1], maps, out, CRF).ledger
    header = json.loads(ledger.read_text().splitlines()[0])
    assert header["refines"] == {"probabilities": {"channels_last": False, "normalize": False}}
    assert header["crf"]["iterations"] == 3
