"""The page of a search: what stands in it, and that nothing of it runs or loads."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil

import pytest
from tuning_scenes import write_scenes

from atrous.bundle import Bundle
from atrous.calibration.report.model import SkippedImage
from atrous.calibration.tune.options import TuneOptions
from atrous.calibration.tune.page import render_html
from atrous.calibration.tune.plots import best_by_stage, plot_grid
from atrous.calibration.tune.report import TuningReport
from atrous.calibration.tune.text import headline, outcome, render_text
from atrous.calibration.tune.tune import tune
from atrous.manifest import ClassInfo

pytestmark = pytest.mark.slow  # in sum

_EVIL = "<script>alert(1)</script>&{{ 7*7 }}$x^2$"


@pytest.fixture(scope="module")
def report(color_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> TuningReport:
    folder = tmp_path_factory.mktemp("page")
    images, masks = write_scenes(folder, 4)
    bundle = Bundle.open(shutil.copytree(color_bundle.path, folder / "color.atrous"))
    return tune(bundle, images=images, masks=masks, options=TuneOptions(ignore=(9,)))[1]


def text_of(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split()))


def test_the_page_shows_the_numbers(report: TuningReport) -> None:
    page = render_html(report)
    text = text_of(page)
    for expected in (
        "CRF report: color",
        headline(report),
        "The bundle has these parameters now.",
        "bilateral_sigma_xy_px",
        "unary_temperature",
        "points of IoU against no CRF",
        "σ_rgb 3",
        "seconds an image, one thread, lattices included",
        report.fit.data_sha256,
        report.fit.model_sha256,
        report.samples[0].title,
    ):
        assert expected in text
    assert page.count("<svg") == 3
    assert page.count("data:image/") == 4 * len(report.samples)
    assert len(set(re.findall(r'\bid="([^"]+)"', page))) == len(re.findall(r'\bid="([^"]+)"', page))


def test_nothing_runs_or_loads(report: TuningReport) -> None:
    names = tuple(ClassInfo(each.id, _EVIL, each.color) for each in report.classes)
    page = render_html(dataclasses.replace(report, name=_EVIL, classes=names))
    assert "<script" not in page
    assert "49" not in text_of(page).split("{{ 7*7 }}")[0]
    assert not re.search(r'(?:src|href)="(?!data:|#|https://arxiv\.org/)', page)


def test_the_same_report_is_the_same_page(report: TuningReport) -> None:
    assert render_html(report) == render_html(report)


def test_a_search_in_vain(report: TuningReport) -> None:
    vain = dataclasses.replace(report, written=False, reason="nothing was better")
    assert outcome(vain) == "The bundle was not changed: nothing was better."
    assert outcome(vain) in render_text(vain)
    assert outcome(vain) in text_of(render_html(vain))
    assert "as demanded, although nothing was better" in outcome(dataclasses.replace(vain, written=True))


def test_harm_is_bracketed(report: TuningReport) -> None:
    fit = dataclasses.replace(report.fit, no_harm=0.0)
    trials = tuple(
        dataclasses.replace(each, standing=dataclasses.replace(each.standing, gain=1.25, harm=0.1))
        for each in report.trials
    )
    assert plot_grid(dataclasses.replace(report, fit=fit, trials=trials)).count("(+1.25)") == 48


def test_stages(report: TuningReport) -> None:
    stages = best_by_stage(report)
    assert [row[0] for row in stages] == ["grid", "temperature", "finalists", "large steps", "steps", "iterations"]
    assert stages[-1][1] == 7
    assert all(row[2] == 3 for row in stages)


def test_without_the_grid_there_is_no_plot_of_it(report: TuningReport) -> None:
    assert plot_grid(dataclasses.replace(report, trials=())) == ""


def test_text(report: TuningReport) -> None:
    lines = render_text(report).splitlines()
    assert lines[0] == headline(report)
    assert any(line.startswith("Found: w_b") for line in lines)
    assert any("sets of parameters" in line for line in lines)


def test_the_skipped_are_named(report: TuningReport) -> None:
    shown = dataclasses.replace(report, skipped=(SkippedImage("broken.jpg", "it is truncated"),))
    assert "broken.jpg it is truncated" in text_of(render_html(shown))
    assert "  broken.jpg: it is truncated" in render_text(shown)
