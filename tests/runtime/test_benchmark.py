"""What is compared before it is timed, what is counted, and how contenders on a GPU differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from standins.fixtures import AddEngine

from atrous.bundle import Bundle
from atrous.errors import EngineError
from atrous.runtime.backends import BACKENDS, tensorrt
from atrous.runtime.benchmark import Contender, Latency, as_plain, bundle_contenders, measure

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def contender(label: int, calls: Iterator[int], *, precision: str = "fp32", crf: bool = False) -> Contender:
    """Answers one label everywhere; its stage "work" took as many milliseconds as calls before it."""

    def run(picture: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        return np.full(picture.shape[:2], label, np.uint8), {"work": float(next(calls))}

    return Contender(f"label {label}", "CPU", precision, crf, run)


def test_percentiles() -> None:
    assert Latency.of([float(value) for value in range(1, 102)]) == Latency(51, 91, 100, 51)


def test_contenders_take_turns_and_warm_up_is_not_counted() -> None:
    calls = itertools.count()
    rows = measure([contender(1, calls), contender(1, calls)], PICTURE, warmup=2, repeats=3)
    # Two calls compare, two rounds of two warm up; then the first has calls 6, 8, 10 and the second 7, 9, 11.
    assert [row.stages["work"].p50_ms for row in rows] == [8, 9]


def test_other_labels_in_fp32_are_not_timed() -> None:
    calls = itertools.count()
    with pytest.raises(EngineError, match=r"label 2 gives other labels than label 1: 0\.000% are equal.*Nothing was"):
        measure([contender(1, calls), contender(2, calls)], PICTURE)
    assert next(calls) == 2


def test_other_labels_in_lower_precision_are_reported() -> None:
    calls = itertools.count()
    rows = measure([contender(1, calls), contender(2, calls, precision="int8")], PICTURE, warmup=1, repeats=3)
    assert [row.agreement for row in rows] == [1, 0]


def test_the_crf_is_compared_with_the_crf() -> None:
    calls = itertools.count()
    rows = measure([contender(1, calls), contender(2, calls, crf=True)], PICTURE, warmup=1, repeats=3)
    assert [row["ratio"] for row in as_plain(rows, [])["rows"]] == [1, 1]


@pytest.mark.usefixtures("stand_ins")
def test_a_gpu_has_its_stages_and_several_pictures_in_work(
    tiny_bundle: Bundle, add_engine: AddEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "tensorrt", tensorrt.make_spec(EmulatedDevice))
    bundle = add_engine(tiny_bundle)
    contenders, left_out = bundle_contenders(bundle, backends=["onnxruntime", "tensorrt"], crf=False)
    assert left_out == []
    assert [each.run_many is not None for each in contenders] == [False, True]
    row = measure(contenders, PICTURE, warmup=1, repeats=3)[1]
    assert {"upload", "preprocess", "inference", "postprocess", "download"} <= set(row.stages)
    assert row.frames_per_second > 0
    assert row.agreement > 0.99


@pytest.mark.usefixtures("stand_ins")
def test_engines_are_left_out_where_they_do_not_fit(tiny_bundle: Bundle, add_engine: AddEngine) -> None:
    contenders, left_out = bundle_contenders(add_engine(tiny_bundle, compute_capability="1.0"), crf=False)
    assert contenders[0].name == "onnxruntime"
    assert "tensorrt fp32" in [each.name for each in left_out]
