"""Time the studio in a browser: from a slider's event to the painted preview, and to the whole image.

    python benchmarks/bench_studio.py --bundle out/demo/street.atrous

The photo is scikit-learn's `china.jpg` at 500×375. Sliders move one at a time, with rests between, so that each
response is a first one; where a standard deviation moves, its lattice is built anew. The page measures itself: from the
time stamp of the event to the task behind the frame that shows the result. Labels of the whole image are compared with
those of a segmenter in this process first.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from harness import RESULTS, summarize, write_report
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console

import atrous

_SIZE = (500, 375)
_SLIDERS = (
    "bilateral_weight",
    "bilateral_sigma_xy_px",
    "bilateral_sigma_rgb",
    "gaussian_weight",
    "gaussian_sigma_xy_px",
)
_MEASURES = "() => performance.getEntriesByName('atrous: slider to preview').map((each) => each.duration)"
_REST_MS = 1500


@contextmanager
def running_studio(bundle: Path) -> Iterator[str]:
    """`atrous studio` in a process: the address of its page."""
    command = [sys.executable, "-m", "atrous", "studio", str(bundle), "--port=0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield re.findall(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


def photo() -> bytes:
    """The photo as a PNG."""
    source = resources.files("sklearn.datasets") / "images" / "china.jpg"
    file = io.BytesIO()
    with source.open("rb") as opened, Image.open(opened) as picture:
        picture.convert("RGB").resize(_SIZE).save(file, "PNG")
    return file.getvalue()


def check_labels(page: Page, bundle: Path, data: bytes) -> None:
    """Compare what the page saves with a segmenter; raises AssertionError where they differ."""
    with page.expect_download() as download:
        page.locator("#save-labels").click()
    expected = atrous.load(bundle, crf=True)(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), expected.labels)


def first_responses(page: Page, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each response by slider."""
    found: dict[str, list[float]] = {name: [] for name in _SLIDERS}
    for _ in range(repeats):
        for name in _SLIDERS:
            slider = page.locator(f"#crf-{name}")
            before = len(page.evaluate(_MEASURES))
            step = float(slider.get_attribute("step") or 1)
            slider.fill(f"{float(slider.input_value()) + step:g}")
            page.wait_for_timeout(_REST_MS)
            expect(page.locator("#frame")).to_have_attribute("data-preview", "false")
            measures = page.evaluate(_MEASURES)
            assert len(measures) == before + 1
            found[name].append(measures[-1])
    return found


def main(
    bundle: Annotated[Path, typer.Option(help="A bundle for photos of streets.")] = Path("out/demo/street.atrous"),
    out: Annotated[Path, typer.Option(help="Where to write the numbers.")] = RESULTS / "studio.json",
    repeats: Annotated[int, typer.Option(min=1, help="Movements of each slider.")] = 5,
    browser: Annotated[str, typer.Option(help="Chromium or Chrome.")] = shutil.which("chromium") or "chromium",
) -> None:
    """Measure, print and write."""
    data = photo()
    with (
        tempfile.NamedTemporaryFile(suffix=".png") as file,
        running_studio(bundle) as url,
        sync_playwright() as started,
    ):
        file.write(data)
        file.flush()
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        expect(page.locator("#legend li").first).to_be_visible()
        page.locator("#file").set_input_files(file.name)
        page.locator("#crf-on").check()
        expect(page.locator("#time-list")).to_contain_text("Dense CRF", timeout=60_000)
        check_labels(page, bundle, data)
        responses = first_responses(page, repeats)
        version = chromium.version
        chromium.close()
    first = responses[_SLIDERS[0]][0]
    everything = [each for times in responses.values() for each in times]
    rows: dict[str, Any] = {
        name: summarize(times) | {"max_ms": round(max(times), 1)} for name, times in responses.items()
    }
    rows["all"] = summarize(everything) | {"max_ms": round(max(everything), 1)}
    console = Console()
    console.print(f"the very first: {first:.1f} ms")
    for name, row in rows.items():
        console.print(f"{name:24} median {row['median_ms']:6.1f} ms, most {row['max_ms']:6.1f} ms")
    write_report(
        out,
        packages=["atrous", "openvino", "playwright"],
        browser=version,
        size=list(_SIZE),
        first_ms=first,
        responses=rows,
    )


if __name__ == "__main__":
    typer.run(main)
