from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import Command
from tuning_scenes import write_scenes

from atrous.bundle import Bundle
from atrous.calibration.tune.options import Metric

pytestmark = pytest.mark.slow  # in sum


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 4)


@pytest.fixture
def bundle(color_bundle: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(color_bundle.path, tmp_path / "color.atrous"))


@pytest.fixture
def arguments(bundle: Bundle, data: tuple[Path, Path]) -> tuple[Any, ...]:
    return ("tune", bundle.path, "--images", data[0], "--masks", data[1], "--ignore", 9)


def test_text_and_page(atrous: Command, arguments: tuple[Any, ...], bundle: Bundle, tmp_path: Path) -> None:
    outcome = atrous(*arguments, "--report", tmp_path / "page.html")
    assert outcome.code == 0
    assert "The bundle has these parameters now." in outcome.out
    assert "points (95 % interval" in outcome.out
    assert f"report: {bundle.path / 'reports/crf.html'}" in outcome.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == (bundle.path / "reports" / "crf.html").read_text(encoding="utf-8")
    assert "crf fitted" in atrous("inspect", bundle.path).out


def test_json(atrous: Command, arguments: tuple[Any, ...], bundle: Bundle) -> None:
    options = ("--holdout", 0.5, "--metric", "trimap", "--no-harm", 100, "--seed", 4, "--json")
    report = atrous(*arguments, *options).json()
    manifest = Bundle.open(bundle.path).manifest
    assert (report["images"], report["held_out"], report["metric"]) == (2, 2, "trimap")
    assert report["written"]
    assert report["reason"] is None
    assert manifest.crf == report["found"]
    assert manifest.crf_fit is not None
    assert manifest.crf_fit.score_after == report["score_after"]
    assert (manifest.crf_fit.seed, manifest.crf_fit.no_harm) == (4, 100)
    assert report["in_no_mask"] == []
    assert [each["crf"]["iterations"] for each in report["iterations"]] == [1, 2, 3, 5, 7, 10, 15]
    assert 0 < report["iterations"][0]["seconds"] < report["iterations"][-1]["seconds"]
    assert {each["stage"] for each in report["trials"]} >= {"grid", "temperature", "finalists", "iterations"}


def test_nothing_is_written_where_nothing_is_better(
    atrous: Command, arguments: tuple[Any, ...], bundle: Bundle, tmp_path: Path
) -> None:
    assert atrous(*arguments).code == 0
    before = (bundle.path / "manifest.json").read_bytes()
    outcome = atrous(*arguments, "--report", tmp_path / "page.html")
    assert outcome.code == 0
    assert "The bundle was not changed: the parameters that the bundle has are as good" in outcome.out
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert (tmp_path / "page.html").is_file()
    assert "although" in atrous(*arguments, "--write-anyway").out


def test_ctrl_c_goes_on(arguments: tuple[Any, ...], bundle: Bundle, atrous: Command) -> None:
    command = [sys.executable, "-m", "atrous", *map(str, arguments)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    log = bundle.path.with_suffix(".tune") / "scores.jsonl"
    while running.poll() is None and not (log.exists() and log.stat().st_size > 10_000):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert atrous(*arguments).code == 0
    assert not log.parent.exists()


def test_errors_are_said(atrous: Command, arguments: tuple[Any, ...], bundle: Bundle, tmp_path: Path) -> None:
    for options, message in (
        (("--holdout", 2), "holdout is a share of the images"),
        (("--report", tmp_path / "missing" / "page.html"), "cannot write the report"),
    ):
        outcome = atrous(*arguments, *options)
        assert outcome.code == 1
        assert message in outcome.err
    assert atrous("tune", bundle.path).code == 2


def test_the_help_lists_the_metrics(atrous: Command) -> None:
    assert "|".join(get_args(Metric)) in atrous("tune", "--help").out
