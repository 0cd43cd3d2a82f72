"""The HTML report: what stands in it, that nothing of it runs or loads, and how a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import find_browser
from PIL import Image
from quantization_reports import CLASSES, make_report, without_masks

from atrous.calibration.report.html import render_html
from atrous.calibration.report.model import LayerResult, QuantizationReport, Sample, SkippedImage
from atrous.calibration.report.text import headline, percent
from atrous.manifest import ClassInfo

pytestmark = pytest.mark.slow  # in sum

_EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}"
_WIDE, _PHONE = 1200, 375


class _Page(HTMLParser):
    """Counts tags and ids, and collects text, pictures and references of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids.update(value or "" for name, value in attrs if name == "id")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report() -> QuantizationReport:
    return make_report()


@pytest.fixture(scope="module")
def page(report: QuantizationReport) -> str:
    return render_html(report)


def test_the_page_shows_the_numbers(report: QuantizationReport, page: str) -> None:
    text = _Page(page).text
    assert report.accuracy.fp32 is not None
    for expected in (
        "INT8 report: street",
        headline(report),
        percent(report.accuracy.fp32.miou),
        "36 of 40",
        "The budget of 0.5 points holds",
        "the first convolution",
        "broken.jpg",
        "it is truncated",
        report.model_sha256,
        report.data_sha256,
        "onnxruntime 1.31.1",
        *(entry.name for entry in CLASSES),
        *(layer.name for layer in report.layers),
        *(tensor.name for tensor in report.tensors),
    ):
        assert expected in text


def test_the_page_holds_every_plot_and_picture(report: QuantizationReport, page: str) -> None:
    parsed = _Page(page)
    histograms = 12
    assert parsed.tags["svg"] == 2 + histograms
    assert parsed.tags["img"] == 3 * len(report.samples)
    assert parsed.tags["script"] == 0
    assert {name for name, count in parsed.ids.items() if count > 1} == set()


def test_the_page_refers_to_nothing_outside(page: str) -> None:
    for name, value in _Page(page).attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith(("data:image/png;base64,", "#"))
    style = re.findall(r"<style.*?</style>", page, re.DOTALL)
    assert "url(http" not in "".join(style)
    assert "@import" not in "".join(style)


def test_a_mask_of_differences_is_shown_pixel_by_pixel() -> None:
    image = np.full((4, 6, 3), 128, np.uint8)
    fp32 = np.zeros((4, 6), np.uint8)
    int8 = fp32.copy()
    int8[1, 2] = 1
    page = render_html(make_report(samples=(Sample("one", image, fp32, int8),), tensors=()))
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]
    assert [picture.size for picture in shown] == [(6, 4)] * 3
    expected = [np.asarray(CLASSES[0].color) + 0 * image, np.asarray([entry.color for entry in CLASSES])[int8]]
    for picture, colors in zip(shown[:2], expected, strict=True):
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colors)
    difference = np.asarray(shown[2].convert("RGB"))
    is_grey = (difference == difference[..., :1]).all(-1)
    np.testing.assert_array_equal(is_grey, fp32 == int8)


def test_large_pictures_are_made_smaller() -> None:
    labels = np.zeros((1000, 2000), np.uint8)
    sample = Sample("large", np.zeros((1000, 2000, 3), np.uint8), labels, labels)
    page = render_html(make_report(samples=(sample,), tensors=()))
    assert 'width="480" height="240"' in page
    assert "100.00 % of the pixels are labelled alike" in page


def test_without_masks_there_is_no_mean_iou(report: QuantizationReport) -> None:
    text = _Page(render_html(dataclasses.replace(without_masks(report), tensors=()))).text
    assert "mean IoU" not in text
    assert "points of agreement with FP32" in text


def test_a_report_with_the_least_in_it() -> None:
    report = without_masks(
        make_report(layers=(), tensors=(), steps=(), max_drop=None, samples=(), skipped=(), versions={})
    )
    parsed = _Page(render_html(report))
    assert parsed.tags["svg"] == parsed.tags["img"] == 0
    for absent in ("Samples", "Budget", "Sensitivity", "Histograms", "Skipped pictures"):
        assert absent not in parsed.text
    assert "No layer: all that can be INT8 is." in parsed.text


def _evil_report() -> QuantizationReport:
    report = make_report()
    return dataclasses.replace(
        report,
        name=_EVIL,
        created_by=_EVIL,
        method=_EVIL,
        classes=tuple(ClassInfo(entry.id, _EVIL, entry.color) for entry in CLASSES),
        skipped=(SkippedImage(_EVIL, _EVIL),),
        layers=(LayerResult(_EVIL, _EVIL, 20.0, 0.1, 0.1, _EVIL),),
        tensors=tuple(dataclasses.replace(tensor, name=_EVIL) for tensor in report.tensors),
        samples=tuple(dataclasses.replace(sample, title=_EVIL) for sample in report.samples),
        versions={_EVIL: _EVIL},
    )


def test_what_others_named_is_text_not_markup(report: QuantizationReport) -> None:
    evil = _Page(render_html(_evil_report()))
    assert evil.tags["script"] == 0
    assert evil.tags["img"] == 3 * len(report.samples)
    assert not [name for name, _ in evil.attributes if name.startswith("on")]
    assert evil.text.count(_EVIL) > len(report.tensors)


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


@dataclasses.dataclass(frozen=True)
class _View:
    """What a browser made of a page: its DOM as text, its console, the addresses that the page asked for."""

    dom: str
    console: list[str]
    requests: set[str]


def _run(browser: str, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={file.parent / 'profile'}"]
    return subprocess.run(
        [*command, *options, file.as_uri()], capture_output=True, text=True, check=True, timeout=120, encoding="utf-8"
    )


def _view(browser: str, file: Path) -> _View:
    log = file.with_suffix(".log")
    done = _run(browser, file, "--dump-dom", f"--log-net-log={log}")
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    # The browser itself looks for updates; such requests have no page that began them.
    requests = {
        event["params"]["url"]
        for event in json.loads(log.read_text("utf-8"))["events"]
        if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
    }
    return _View(done.stdout, console, requests)


def test_the_check_of_a_browser_sees_what_it_must(browser: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<img src='http://127.0.0.1:9/a.png'><script>console.error('boom')</script>", "utf-8")
    view = _view(browser, file)
    assert view.requests == {"http://127.0.0.1:9/a.png"}
    assert any("boom" in line for line in view.console)


@pytest.mark.parametrize("make", [make_report, _evil_report])
def test_a_browser_loads_the_page_alone_and_without_complaint(browser: str, tmp_path: Path, make: Any) -> None:
    made = make()
    page = render_html(made)
    # Without its policy, which would stop what the page asks for before it is seen.
    allowed, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert policies == 1
    for name, text in (("report.html", page), ("allowed.html", allowed)):
        file = tmp_path / name
        file.write_text(text, "utf-8")
        view = _view(browser, file)
        assert view.console == []
        assert view.requests == set()
        dom = _Page(view.dom)
        assert dom.tags == _Page(text).tags
        assert headline(made) in dom.text
        assert percent(made.accuracy.agreement) in dom.text


@pytest.fixture(scope="module")
def screenshot(browser: str, page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[np.ndarray]:
    file = tmp_path_factory.mktemp("screenshot") / "report.html"
    file.write_text(page, "utf-8")
    picture = file.with_suffix(".png")
    _run(browser, file, f"--screenshot={picture}", f"--window-size={_WIDE},2400")
    with Image.open(picture) as image:
        yield np.asarray(image.convert("RGB"))


def test_a_browser_paints_the_page(screenshot: np.ndarray) -> None:
    height, width, _ = screenshot.shape
    assert (height, width) == (2400, _WIDE)
    painted = (screenshot != 255).any(-1)
    assert painted[:100].mean() > 0.9  # the tinted head reaches across
    columns = np.flatnonzero(painted[300:].any(0))
    margin = 40
    assert columns.min() == pytest.approx(margin + 24, abs=30)
    assert columns.max() == pytest.approx(width - margin - 24, abs=30)
    assert len(np.unique(screenshot.reshape(-1, 3), axis=0)) > 100
    for color in (*(entry.color for entry in CLASSES[:3]), (0, 114, 178), (213, 94, 0)):
        assert (screenshot == color).all(-1).sum() > 100


@pytest.mark.parametrize("width", [_WIDE, _PHONE])
def test_nothing_is_wider_than_the_screen(browser: str, page: str, tmp_path: Path, width: int) -> None:
    opened = page.replace("<details", "<details open")
    measure = "document.title = document.querySelector('iframe').contentDocument.documentElement.scrollWidth"
    frame = f"<iframe width={width} height=800 style='border:0' srcdoc='{html.escape(opened)}'></iframe>"
    file = tmp_path / "frame.html"
    file.write_text(f"<!doctype html>{frame}<script>onload = () => {{ {measure} }}</script>", "utf-8")
    dom = _run(browser, file, "--dump-dom").stdout
    assert re.findall(r"<title>(\d+)</title>", dom) == [str(width)]
