"""Measured numbers in the documents are those of the results, and only a script writes them."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from emulator.emulated_device import EmulatedDevice
from gpu_scripts import script
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def update_docs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("update_docs")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the results, without those of GPUs."""
    folder = tmp_path / "results"
    folder.mkdir()
    for path in (BENCHMARKS / "results").glob("*.json"):
        if not path.name.startswith("gpu_"):
            shutil.copy(path, folder)
    return folder


@pytest.fixture
def root(tmp_path: Path, update_docs: ModuleType) -> Path:
    """A copy of the documents."""
    root = tmp_path / "repository"
    for path in update_docs.documents(ROOT):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_documents_are_up_to_date():
    command = [sys.executable, str(BENCHMARKS / "update_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_new_results_reach_every_document_that_quotes_them(update_docs, root, results):
    read = update_docs.Results(results)
    update_docs.update(root, read, check=False)  # the GPU's results, if there are any, are gone
    path = results / "fp16.json"
    report = json.loads(path.read_text())
    report["runs"]["FP16"]["miou"] = 12.346
    path.write_text(json.dumps(report))
    readme, precision = update_docs.update(root, read, check=True)
    assert readme.startswith("--- README.md, as it is")
    assert "12.35 % in FP16" in readme.splitlines()[-1]
    assert "+| FP16, as ONNX Runtime runs it | 12.346 % |" in precision
    assert "12.346" not in (root / "docs" / "precision.md").read_text(encoding="utf-8")
    assert update_docs.update(root, read, check=False) == []
    assert "12.346" in (root / "docs" / "precision.md").read_text(encoding="utf-8")
    assert update_docs.update(root, read, check=True) == []


def test_a_typed_number_is_an_error(update_docs, root, results):
    edit(root / "README.md", "Python ≥ 3.10", "It is 7 times faster and takes 3.5 ms. Python ≥ 3.10")
    (wrong,) = (
        each for each in update_docs.update(root, update_docs.Results(results), check=False) if "typing" in each
    )
    assert wrong == "README.md: quote measured numbers from results instead of typing '7 times', '3.5 ms'"


def test_a_quote_that_no_document_uses_is_an_error(update_docs, root, results):
    edit(root / "docs" / "cpp.md", "<!-- results: cpp-size -->", "")
    edit(root / "docs" / "cpp.md", "<!-- /results -->", "")
    assert "no document quotes cpp-size" in update_docs.update(root, update_docs.Results(results), check=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x <!-- results: speed -->1<!-- /results -->", "no quote is called 'speed'; there are camvid, "),
        ("x <!-- results: cpp-size -->1", "half a pair of markers"),
        ("x 1<!-- /results -->", "half a pair of markers"),
        ("x <!-- results: cpp -->1 <!-- results: cpp-size -->1<!-- /results --><!-- /results -->", "half a pair"),
        ("<!-- results: cpp-size -->1<!-- /results --> is *large*", "put the markers of 'cpp-size' on lines of"),
        ("- <!-- results: cpp-size -->1<!-- /results --> is *large*", "put the markers of 'cpp-size' on lines of"),
        ("x <!-- results: tiling -->1<!-- /results -->", "put the markers of 'tiling' on lines of"),
    ],
)
def test_markers_that_cannot_be_filled_in(update_docs, results, text, message):
    with pytest.raises(update_docs.QuoteError, match=re.escape(message)):
        update_docs.fill_in(text, update_docs.Results(results))


def test_code_links_and_sizes_are_no_typed_numbers(update_docs):
    code_and_quote = "```\n3 ms\n```\n<!-- results: a -->3 %<!-- /results -->"
    assert update_docs.typed_numbers(f"`max_ms=3 ms` [a](b-5%20ms.md) 368×480, 8 GPUs, 5 steps\n{code_and_quote}") == []


def test_readers_do_not_see_the_markers(update_docs):
    """Neither as text nor by what they do to the Markdown around them."""

    def seen(text: str) -> str:
        html = MarkdownIt("commonmark").enable("table").render(text)
        return re.sub(r"\s+", "", re.sub(r"<!--.*?-->", "", html))

    for path in update_docs.documents(ROOT):
        text = path.read_text(encoding="utf-8")
        assert seen(text) == seen(re.sub(r"<!-- /?results.*?-->\n?", "", text)), path


ENVIRONMENT = {"gpu": "NVIDIA Test 9000", "compute_capability": "9.9"}


def write_gpu_report(results: Path, name: str, steps: dict[str, Any]) -> None:
    path = results / f"gpu_nvidia_test_9000_{name}.json"
    path.write_text(json.dumps({"environment": ENVIRONMENT, "seconds": 1.0, "steps": steps}), encoding="utf-8")


def test_without_results_of_a_gpu_the_readme_says_so(update_docs, results):
    assert "has run on a GPU yet" in update_docs.QUOTES["gpu"](update_docs.Results(results))


def test_what_a_gpu_check_found(update_docs, results):
    steps = {
        "tests": {"status": "passed"},
        "pipeline": {"status": "passed, cut off"},
        "probe": {"status": "passed"},
        "memcheck": {"status": "failed"},
        "racecheck": {"status": "not run"},
    }
    write_gpu_report(results, "check", steps)
    assert update_docs.QUOTES["gpu"](update_docs.Results(results)) == (
        "`make gpu-check` on NVIDIA Test 9000 (compute capability 9.9): "
        "passed: tests, probe; passed, cut off: pipeline; failed: memcheck; not run: racecheck."
    )


def test_what_a_gpu_benchmark_found(update_docs, results, monkeypatch):
    """With the rows that the benchmark prints: of an emulator, so their times say nothing."""
    monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
    bench = script(monkeypatch, "crf")
    textured, plain = (bench.Scene(14, 22, 5, "P1", texture) for texture in ("textured", "plain"))
    rows = [
        *bench.gpu_rows(EmulatedDevice(), textured, 3000.0),
        *bench.peer_rows(textured),
        {**vars(plain), "storage": "fp32", "outcome": "wrong result, max|dQ| 0.5: not timed"},
        {**vars(plain), "peer": "pydensecrf", "outcome": "not run: no module named pydensecrf"},
        {**vars(plain), "parameters": "P2", "storage": "fp32", "frame": {"graph": {"median_ms": 1.0}}},
    ]
    write_gpu_report(results, "bench", {"crf": {"status": "passed, cut off", "rows": rows}})
    caption, _, head, _, *lines = update_docs.QUOTES["gpu"](update_docs.Results(results)).splitlines()
    assert caption.startswith("The dense CRF on NVIDIA Test 9000 (compute capability 9.9), ")
    assert head == "| size | | GPU, fp32 | GPU, unorm16 | atrous on the CPU | pydensecrf |"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:2] == ["14×22×5", "textured"]
    ours = [rows[0]["frame"]["graph"], rows[1]["frame"]["graph"], rows[2]["frame"]]
    assert [float(cell) for cell in cells[0][2:5]] == pytest.approx(
        [each["median_ms"] for each in ours], rel=0.005, abs=0.006
    )
    assert cells[1:] == [["14×22×5", "plain", "wrong result", "", "", "not run"]]


def test_a_gpu_benchmark_that_measured_nothing(update_docs, results):
    write_gpu_report(results, "bench", {"crf": {"status": "out of time", "rows": []}})
    said = update_docs.QUOTES["gpu"](update_docs.Results(results))
    assert said == "`make gpu-bench` on NVIDIA Test 9000 (compute capability 9.9) timed nothing: out of time."
