"""The page in a real browser: what a user does, and what the page shows, saves and says."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from browsers import find_browser
from PIL import Image
from studio_servers import RunningStudio, studio_in_thread
from tolerances import BLENDED_ROUNDING

import atrous
from atrous.bundle import Bundle
from atrous.crf import CRFParams, DenseCRF
from atrous.serve.limits import Limits

playwright = needs.PLAYWRIGHT.load("playwright.sync_api")
pytestmark = pytest.mark.slow  # in sum

expect = playwright.expect
_WIDE = {"width": 1280, "height": 860}
_PHONE = {"width": 375, "height": 720}
_PATIENCE_MS = 60_000

#: Contrast of each visible text with what is painted behind it (WCAG 2.2, 1.4.3), where that is one colour.
_CONTRASTS = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0.7) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !node.checkVisibility({ visibilityProperty: true }) || node.closest(".hidden-text, .skip")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    found.push([text, (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""

#: What can be operated but has no name that a screen reader could say.
_NAMELESS = """() => [...document.querySelectorAll("button, input, select, [role], [tabindex='0']")]
  .filter((each) => each.checkVisibility() && !["presentation", "group", "status", "alert"].includes(each.role))
  .filter((each) => !each.ariaLabel && !each.getAttribute("aria-labelledby") && !each.title
    && !each.labels?.length && !each.textContent.trim())
  .map((each) => each.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = find_browser()
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        chromium = started.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """`visit(url)` opens a page; at the end it must have complained of nothing, and asked nobody else for anything."""
    contexts, complaints, foreign = [], [], []

    def open_page(url: str, **options: Any) -> Any:
        usual = {"viewport": _WIDE, "permissions": ["clipboard-read", "clipboard-write"]}
        context = browser.new_context(**usual | options)
        contexts.append(context)
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        own = (url.partition("#")[0], "blob:")
        page.on("request", lambda sent: foreign.append(sent.url) if not sent.url.startswith(own) else None)
        page.goto(url)
        return page

    expect.set_options(timeout=_PATIENCE_MS)
    yield open_page
    for context in contexts:
        context.close()
    # A refusal is a line of the console as well.
    assert [line for line in complaints if "Failed to load resource" not in line] == []
    assert foreign == []


@pytest.fixture
def page(visit: Callable[..., Any], studio: RunningStudio, photo: Path) -> Any:
    """The page with the photo on it, segmented."""
    opened = visit(studio.url)
    add(opened, photo)
    return opened


def add(page: Any, *files: Path) -> None:
    page.locator("#file").set_input_files([str(file) for file in files])
    expect(page.locator("#time-list")).to_contain_text("Network")


def settled(page: Any) -> None:
    """Wait for the whole image to be refined with what the sliders say."""
    expect(page.locator("#time-list")).to_contain_text("Dense CRF")
    expect(page.locator("#frame")).to_have_attribute("data-preview", "false")
    expect(page.locator("body")).to_have_attribute("aria-busy", "false")


def saved(page: Any, button: str) -> np.ndarray:
    with page.expect_download() as download:
        page.locator(button).click()
    return np.asarray(Image.open(download.value.path()))


def canvas(page: Any) -> np.ndarray:
    """The pixels that the page shows, [H, W, 3]."""
    url = page.evaluate("() => document.getElementById('canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def drag(page: Any, slider: str, value: float) -> None:
    """Move a slider as a hand does: one event after the other."""
    range_ = page.locator(f"#crf-{slider}")
    start = float(range_.input_value())
    for part in (0.25, 0.5, 0.75, 1):
        step = float(range_.get_attribute("step"))
        range_.fill(f"{round((start + (value - start) * part) / step) * step:g}")


class TestUpload:
    def test_shows_labels_and_shares(self, page: Any, segmenter: atrous.Segmenter, photo: Path) -> None:
        result = segmenter(photo)
        expected = np.asarray(result.overlay(0.6)).astype(int)
        assert np.abs(canvas(page) - expected).max() <= BLENDED_ROUNDING
        shares = page.locator("#legend .figure").all_text_contents()
        counts = np.bincount(result.labels.ravel(), minlength=5) / result.labels.size
        assert shares == [f"{share:.1%}".replace("%", " %") for share in counts]
        expect(page.locator("#status")).to_contain_text("photo.png, FP32: ")

    def test_saves_the_labels_of_the_segmenter(self, page: Any, labels: np.ndarray) -> None:
        np.testing.assert_array_equal(saved(page, "#save-labels"), labels)

    def test_of_several_files(self, page: Any, tmp_path: Path) -> None:
        other = tmp_path / "other.webp"  # which the page makes a PNG of
        Image.new("RGB", (60, 40), (200, 10, 10)).save(other, lossless=True)
        add(page, other)
        expect(page.locator("#strip button")).to_have_count(2)
        assert canvas(page).shape == (40, 60, 3)
        page.get_by_role("button", name="photo.png").click()
        assert canvas(page).shape == (200, 256, 3)

    @pytest.mark.parametrize("way", ["paste", "drop"])
    def test_by(self, visit: Callable[..., Any], studio: RunningStudio, photo: Path, way: str) -> None:
        page = visit(studio.url)
        expect(page.locator("#legend li")).to_have_count(5)
        page.evaluate(
            """([way, data]) => {
              const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
              const isPaste = way === "paste";
              const [Event, name] = isPaste ? [ClipboardEvent, "clipboardData"] : [DragEvent, "dataTransfer"];
              document.body.dispatchEvent(new Event(way, { [name]: transfer, bubbles: true, cancelable: true }));
            }""",
            [way, base64.b64encode(photo.read_bytes()).decode()],
        )
        expect(page.locator("#time-list")).to_contain_text("Network")
        assert canvas(page).shape == (200, 256, 3)

    def test_from_the_camera(self, visit: Callable[..., Any], two_precisions: Bundle) -> None:
        with studio_in_thread(two_precisions.path) as running:  # for images of more pixels
            page = visit(running.url)
            page.locator("#camera").click()
            expect(page.locator("#camera-dialog")).to_be_visible()
            page.locator("#shoot").click()
            expect(page.locator("#time-list")).to_contain_text("Network")
            assert len(np.unique(canvas(page).reshape(-1, 3), axis=0)) > 3
            assert page.locator("#video").evaluate("(video) => video.srcObject") is None


class TestErrors:
    def test_of_a_broken_file(self, page: Any, tmp_path: Path, photo: Path) -> None:
        broken = tmp_path / "broken.png"
        broken.write_bytes(photo.read_bytes()[:2000])
        page.locator("#file").set_input_files(str(broken))
        expect(page.locator("#alert")).to_be_visible()
        expect(page.locator("#alert-text")).to_contain_text("Is it truncated or damaged?")
        assert canvas(page).shape == (200, 256, 3)  # what was there stays
        add(page, photo)
        expect(page.locator("#alert")).to_be_hidden()

    def test_of_what_is_no_image(self, visit: Callable[..., Any], studio: RunningStudio, tmp_path: Path) -> None:
        page = visit(studio.url)
        notes = tmp_path / "notes.txt"
        notes.write_text("not an image")
        page.locator("#file").set_input_files(str(notes))
        expect(page.locator("#alert-text")).to_have_text("notes.txt is not an image that this browser can read.")
        expect(page.locator("#empty")).to_be_visible()

    def test_of_too_many_bytes(self, visit: Callable[..., Any], studio: RunningStudio, tmp_path: Path) -> None:
        page = visit(studio.url)
        large = tmp_path / "large.png"
        large.write_bytes(b"\x89PNG" + bytes(400_000))
        page.locator("#file").set_input_files(str(large))
        expect(page.locator("#alert-text")).to_contain_text("The image has 0.4 MiB; this studio takes up to 0.3 MiB.")

    def test_of_too_many_pixels(self, visit: Callable[..., Any], studio: RunningStudio, tmp_path: Path) -> None:
        page = visit(studio.url)
        large = tmp_path / "large.png"
        Image.new("RGB", (1000, 200)).save(large)
        page.locator("#file").set_input_files(str(large))
        expect(page.locator("#alert-text")).to_have_text("The image has 200×1000 pixels, of at most 100000.")
        page.locator("#alert-close").click()
        expect(page.locator("#alert")).to_be_hidden()

    def test_of_a_server_that_is_gone(self, visit: Callable[..., Any], tiny_bundle: Bundle, photo: Path) -> None:
        with studio_in_thread(tiny_bundle.path) as running:
            page = visit(running.url)
            add(page, photo)
            page.route("**/studio/api/**", lambda route: route.abort())
            page.locator("#crf-on").check()
            expect(page.locator("#alert-text")).to_have_text("The server does not answer. Is it still running?")
            page.unroute_all()


class TestSliders:
    def test_preview_and_then_refine(self, page: Any, two_precisions: Bundle, photo: Path) -> None:
        with page.expect_request(lambda sent: "preview=true" in sent.url):
            drag(page, "bilateral_sigma_rgb", 12)
        settled(page)
        assert page.locator("#right").input_value() == "fp32+crf"
        assert page.locator("#crf-on").is_checked()
        assert page.evaluate("() => performance.getEntriesByName('atrous: slider to preview').length") > 0
        params = CRFParams(**CRFParams.deeplab_v2_resnet().to_dict() | {"bilateral_sigma_rgb": 12.0})
        crf = DenseCRF(params, threads=1)
        expected = atrous.load(two_precisions, backend="onnxruntime", precision="fp32", crf=crf, threads=1)(photo)
        np.testing.assert_array_equal(saved(page, "#save-labels"), expected.labels)

    def test_take_numbers_beyond_them(self, page: Any) -> None:
        number = page.locator("input[data-name=bilateral_weight]")
        number.fill("25.5")
        settled(page)
        expect(page.locator("#snippet")).to_contain_text("bilateral_weight=25.5")
        number.fill("")  # which is none, and changes nothing
        expect(page.locator("#snippet")).to_contain_text("bilateral_weight=25.5")
        page.locator("#crf-reset").click()
        expect(page.locator("#snippet")).to_contain_text("bilateral_weight=4.0")
        settled(page)

    def test_send_an_image_again_that_the_server_forgot(self, page: Any, studio: RunningStudio) -> None:
        studio.studio.images._images.clear()
        drag(page, "gaussian_weight", 8)
        settled(page)
        expect(page.locator("#alert")).to_be_hidden()


class TestView:
    def test_hides_classes(self, page: Any, labels: np.ndarray, photo: Path) -> None:
        original = np.asarray(Image.open(photo)).astype(int)
        before = canvas(page)
        hidden = int(np.bincount(labels.ravel()).argmax())
        page.locator("#legend input").nth(hidden).uncheck()
        after = canvas(page)
        np.testing.assert_array_equal(after[labels == hidden], original[labels == hidden])
        np.testing.assert_array_equal(after[labels != hidden], before[labels != hidden])
        page.locator("#classes-all").click()
        np.testing.assert_array_equal(canvas(page), before)

    def test_splits_any_two(self, page: Any, photo: Path) -> None:
        original = np.asarray(Image.open(photo)).astype(int)
        overlay = canvas(page)
        page.locator("#split").click()
        half = original.shape[1] // 2
        np.testing.assert_array_equal(canvas(page)[:, :half], original[:, :half])
        np.testing.assert_array_equal(canvas(page)[:, half:], overlay[:, half:])
        names = page.locator("#left option").all_text_contents()
        assert names == ["Original", "FP32", "FP32 + CRF", "INT8", "INT8 + CRF"]
        page.locator("#left").select_option("int8+crf")
        settled_left = page.locator("#tag-left")
        expect(settled_left).to_have_text("INT8 + CRF")
        expect(page.locator("body")).to_have_attribute("aria-busy", "false")
        assert (canvas(page)[:, :half] != original[:, :half]).any()
        expect(page.locator("#tag-right")).to_have_text("FP32")

    def test_moves_the_divider(self, page: Any, photo: Path) -> None:
        original = np.asarray(Image.open(photo)).astype(int)
        page.locator("#split").click()
        box = page.locator("#canvas").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 3, steps=4)
        page.mouse.up()
        divider = page.locator("#divider")
        expect(divider).to_have_attribute("aria-valuenow", "75")
        np.testing.assert_array_equal(canvas(page)[:, :190], original[:, :190])
        divider.press("Home")
        expect(divider).to_have_attribute("aria-valuenow", "0")
        divider.press("Shift+ArrowRight")
        expect(divider).to_have_attribute("aria-valuenow", "10")

    def test_shows_class_and_confidence(self, page: Any, segmenter: atrous.Segmenter, photo: Path) -> None:
        result = segmenter(photo)
        box = page.locator("#canvas").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 100.5 / 256, box["y"] + box["height"] * 80.5 / 200)
        label, confidence = result.labels[80, 100], result.probabilities[:, 80, 100].max()
        shown = round(np.rint(confidence * 255) / 255 * 100)
        expect(page.locator("#readout-text")).to_have_text(f"{result.classes[label].name} · {shown} %")

    def test_fades_and_saves_what_is_seen(self, page: Any, segmenter: atrous.Segmenter, photo: Path) -> None:
        page.locator("#opacity").fill("25")
        expect(page.locator("#opacity-value")).to_have_text("25 %")
        expected = np.asarray(segmenter(photo).overlay(0.25)).astype(int)
        assert np.abs(saved(page, "#save")[..., :3] - expected).max() <= BLENDED_ROUNDING


class TestKeyboard:
    def test_does_everything(self, page: Any, photo: Path) -> None:
        original = np.asarray(Image.open(photo)).astype(int)
        before = canvas(page)
        page.keyboard.press("]")
        expect(page.locator("#opacity-value")).to_have_text("65 %")
        page.keyboard.press("[")
        page.keyboard.down(" ")
        np.testing.assert_array_equal(canvas(page), original)
        page.keyboard.up(" ")
        np.testing.assert_array_equal(canvas(page), before)
        page.keyboard.press("2")
        assert not page.locator("#legend input").nth(1).is_checked()
        page.keyboard.press("0")
        assert page.locator("#legend input").nth(1).is_checked()
        page.keyboard.press("s")
        expect(page.locator("#split")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#status")).to_have_text("Split view: Original and FP32")
        page.keyboard.press("s")
        page.keyboard.press("c")
        settled(page)
        page.keyboard.press("?")
        expect(page.locator("#keys-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        with page.expect_download():
            page.keyboard.press("Control+s")

    def test_reads_the_image_out(self, page: Any, segmenter: atrous.Segmenter, labels: np.ndarray) -> None:
        page.locator("#canvas").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        name = segmenter.classes[labels[120, 129]].name
        expect(page.locator("#status")).to_contain_text(name)
        expect(page.locator("#status")).to_contain_text("column 129, row 120")

    def test_reaches_and_names_all_controls(self, page: Any) -> None:
        page.locator("#split").click()
        assert page.evaluate(_NAMELESS) == []
        reached = []
        page.locator(".skip").focus()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("() => document.activeElement.id"))
        controls = {"open", "theme", "canvas", "divider", "left", "right", "split", "opacity", "save", "crf-on", "copy"}
        assert controls | {"crf-bilateral_weight", "crf-iterations", "crf-reset", "tab-python"} <= set(reached)


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_have_contrast(self, visit: Callable[..., Any], studio: RunningStudio, photo: Path, scheme: str) -> None:
        page = visit(studio.url, color_scheme=scheme)
        background = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
        weak = [each for each in page.evaluate(_CONTRASTS) if each[1] < 4.5]
        add(page, photo)
        page.locator("#split").click()
        loaded = page.evaluate(_CONTRASTS)
        assert len(loaded) > 40
        assert weak + [each for each in loaded if each[1] < 4.5] == []

    def test_can_be_chosen(self, visit: Callable[..., Any], studio: RunningStudio) -> None:
        page = visit(studio.url, color_scheme="dark")
        page.locator("#theme").click()
        assert page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == "light"
        page.reload()
        expect(page.locator("#theme")).to_have_attribute("aria-label", "Theme: light")
        assert page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == "light"

    @pytest.mark.parametrize("width", [320, 375, 800])
    def test_fit_the_screen(self, visit: Callable[..., Any], studio: RunningStudio, photo: Path, width: int) -> None:
        page = visit(studio.url, viewport=_PHONE | {"width": width}, has_touch=True)
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        add(page, photo)
        page.locator("#split").tap()
        page.locator("#crf-on").check()
        settled(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        box = page.locator("#frame").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(256 / 200, rel=0.02)


class TestSnippets:
    def test_in_python_give_the_labels(
        self, page: Any, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drag(page, "gaussian_weight", 6)
        settled(page)
        page.locator("#copy").click()
        code = page.evaluate("() => navigator.clipboard.readText()")
        shutil.copy(photo, tmp_path / "photo.png")
        monkeypatch.chdir(tmp_path)
        scope: dict[str, Any] = {}
        exec(code.replace("precision=", 'backend="onnxruntime", precision='), scope)
        np.testing.assert_array_equal(saved(page, "#save-labels"), scope["result"].labels)
        assert (tmp_path / "overlay.png").is_file()

    def test_on_the_command_line_give_the_labels(self, page: Any, photo: Path, tmp_path: Path) -> None:
        drag(page, "gaussian_weight", 6)
        settled(page)
        page.get_by_role("tab", name="Command line").click()
        command = page.locator("#snippet").inner_text()
        shutil.copy(photo, tmp_path / "photo.png")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        script = ["bash", "-ec", f"{command} --backend onnxruntime"]
        subprocess.run(script, cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, capture_output=True)
        assert json.loads((tmp_path / "crf.json").read_text())["gaussian_weight"] == 6
        np.testing.assert_array_equal(
            saved(page, "#save-labels"), np.asarray(Image.open(tmp_path / "segmented" / "photo.labels.png"))
        )


@contextmanager
def a_copy(bundle: Bundle, folder: Path, **options: Any) -> Iterator[RunningStudio]:
    with studio_in_thread(shutil.copytree(bundle.path, folder / "copy.atrous"), **options) as running:
        yield running


def test_parameters_go_into_the_bundle(
    visit: Callable[..., Any], tiny_bundle: Bundle, photo: Path, tmp_path: Path
) -> None:
    with a_copy(tiny_bundle, tmp_path, writable=True) as running:
        page = visit(running.url)
        add(page, photo)
        drag(page, "bilateral_weight", 9)
        page.locator("#crf-write").click()
        expect(page.locator("#toast")).to_have_text("Written to the bundle")
        drag(page, "bilateral_weight", 2)
        page.locator("#crf-reset").click()
        expect(page.locator("#crf-bilateral_weight")).to_have_value("9")
        settled(page)
    manifest = Bundle.open(tmp_path / "copy.atrous").manifest
    assert manifest.crf == {**(tiny_bundle.manifest.crf or {}), "bilateral_weight": 9, "iterations": 10}


def test_a_studio_that_does_not_write_has_no_button_for_it(page: Any) -> None:
    expect(page.locator("#crf-write")).to_be_hidden()


def test_a_token_opens_the_page(visit: Callable[..., Any], tiny_bundle: Bundle) -> None:
    with studio_in_thread(tiny_bundle.path, limits=Limits(), token="secret-of-the-studio") as running:
        page = visit(f"{running.url}#token=secret-of-the-studio")
        expect(page.locator("#legend li")).to_have_count(5)
        assert page.url == running.url
        other = visit(running.url)
        expect(other.locator("#token-dialog")).to_be_visible()
        other.locator("#token").fill("secret-of-the-studio")
        other.keyboard.press("Enter")
        expect(other.locator("#legend li")).to_have_count(5)
