"""Time a photo from its JPEG to the PNG of its labels, and what of it is neither the network nor the dense CRF.

    python benchmarks/bench_files.py --bundle out/demo/street.atrous

The photo is scikit-learn's `china.jpg`, resized to what the demo's network was tuned for and written as a JPEG again.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from harness import RESULTS, summarize, write_report
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import atrous

#: `preprocess` reads and decodes, too; `between` is what lies between the stages.
STAGES = ("preprocess", "inference", "crf", "postprocess", "write", "between")
_NETWORK_AND_CRF = ("inference", "crf")
_HEIGHT, _WIDTH = 368, 480


def make_photo(path: Path) -> Path:
    """A JPEG as cameras write them."""
    source = resources.files("sklearn.datasets") / "images" / "china.jpg"
    with source.open("rb") as file, Image.open(file) as picture:
        picture.convert("RGB").resize((_WIDTH, _HEIGHT)).save(path, quality=90)
    return path


def segment_file(segmenter: atrous.Segmenter, photo: Path, labels: Path) -> dict[str, float]:
    """Segment one file into another; milliseconds by stage."""
    start = time.perf_counter()
    result = segmenter(photo)
    segmented = time.perf_counter()
    result.save(labels)
    written = time.perf_counter()
    stages = dict.fromkeys(STAGES, 0.0) | dict(result.timings_ms)
    stages["between"] = (segmented - start) * 1e3 - sum(result.timings_ms.values())
    stages["write"] = (written - segmented) * 1e3
    return stages


def main(
    bundle: Annotated[Path, typer.Option(exists=True, help="The demo's bundle.")],
    repeats: Annotated[int, typer.Option(min=5)] = 40,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "files.json",
) -> None:
    """Time the demo's network with and without the dense CRF, in turns."""
    console = Console()
    segmenters = {"network": atrous.load(bundle), "network and CRF": atrous.load(bundle, crf=True)}
    samples: dict[str, defaultdict[str, list[float]]] = {name: defaultdict(list) for name in segmenters}
    with tempfile.TemporaryDirectory() as folder:
        photo = make_photo(Path(folder) / "photo.jpg")
        for turn in track(range(repeats + 3), "timing", transient=True):
            for name, segmenter in segmenters.items():
                stages = segment_file(segmenter, photo, Path(folder) / "labels.png")
                stages["total"] = sum(stages.values())
                stages["share"] = 1 - sum(stages[each] for each in _NETWORK_AND_CRF) / stages["total"]
                for each, value in stages.items() if turn >= 3 else ():
                    samples[name][each].append(value)
    rows = []
    table = Table("ms", *STAGES, "total", "outside both")
    for name, by_stage in samples.items():
        shares = by_stage.pop("share")
        share = round(sorted(shares)[len(shares) // 2], 4)
        rows.append({"contender": name, "share": share} | {each: summarize(ms) for each, ms in by_stage.items()})
        table.add_row(name, *(f"{rows[-1][each]['median_ms']:.2f}" for each in (*STAGES, "total")), f"{share:.1%}")
    console.print(table)
    write_report(out, packages=["numpy", "openvino", "pillow"], size=(_HEIGHT, _WIDTH), repeats=repeats, rows=rows)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
