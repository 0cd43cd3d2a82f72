"""The plots of the report: well-formed SVG with every name as it is, whatever it is."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from quantization_reports import make_report

from atrous.calibration.report.model import LayerResult
from atrous.calibration.report.plots import plot_histogram, plot_sensitivity, plot_sqnr, short_name

_SVG = "{http://www.w3.org/2000/svg}"
#: Markup, matplotlib's formulas, back-references of regular expressions, other scripts, control characters.
HOSTILE_NAMES = ("<script>alert(1)</script>", "\"&amp;'", "$x_{", r"\1\g<0>", "街道/卷积", "a\x1bb\nc", "")


def _texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{_SVG}text")]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_shown_as_they_are(name: str) -> None:
    layers = [LayerResult(name, "Conv", sqnr_db=20.0, alone_drop=0.1, kept_gain=0.1)]
    assert short_name(name) in [*_texts(plot_sqnr(layers)), ""]
    assert short_name(name) in [*_texts(plot_sensitivity(layers)), ""]
    histogram = plot_histogram(dataclasses.replace(make_report().tensors[0], name=name), "h")
    assert short_name(name) in ET.fromstring(histogram).attrib["aria-label"]


def test_long_names_keep_both_ends() -> None:
    short = short_name("start" + "x" * 100 + "end")
    assert short.startswith("start")
    assert short.endswith("end")
    assert len(short) < 50


def test_plots_scale_and_refer_to_nothing_outside() -> None:
    report = make_report()
    for svg in (
        plot_sqnr(report.layers),
        plot_sensitivity(report.layers),
        plot_histogram(report.tensors[0], "h"),
    ):
        root = ET.fromstring(svg)
        assert "viewBox" in root.attrib
        assert "width" not in root.attrib
        assert "<image" not in svg
        references = [
            value
            for element in root.iter()
            for key, value in element.attrib.items()
            if key.endswith("href") or "url(" in value
        ]
        assert all("#" in value and ":" not in value for value in references)


def test_ids_of_two_plots_differ() -> None:
    tensor = make_report().tensors[0]
    ids = [
        {
            element.attrib["id"]
            for element in ET.fromstring(plot_histogram(tensor, key)).iter()
            if "id" in element.attrib
        }
        for key in ("first", "second")
    ]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


def test_references_follow_the_ids() -> None:
    root = ET.fromstring(plot_sqnr(make_report().layers))
    ids = {element.attrib.get("id") for element in root.iter()}
    targets = {value[1:] for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")}
    clips = {value[5:-1] for element in root.iter() for key, value in element.attrib.items() if key == "clip-path"}
    assert targets
    assert clips
    assert targets | clips <= ids


def test_the_same_report_draws_the_same_bytes() -> None:
    report = make_report()
    assert plot_sqnr(report.layers) == plot_sqnr(report.layers)


def test_nothing_measured_draws_nothing() -> None:
    assert plot_sqnr([LayerResult("a", "Conv"), LayerResult("b", "Conv", sqnr_db=float("inf"))]) == ""
    assert plot_sensitivity([]) == ""


@pytest.mark.parametrize("counts", [np.zeros(16), np.eye(1, 16)[0] * 9, np.eye(1, 2048, 2047)[0], np.ones(3)])
def test_histograms_of_odd_tensors(counts: np.ndarray) -> None:
    tensor = dataclasses.replace(
        make_report().tensors[0], counts=counts.astype(np.int64), bin_width=0.5, amax=0.0, max_abs=0.0
    )
    assert "amax 0" in _texts(plot_histogram(tensor, "h"))
