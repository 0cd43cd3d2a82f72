"""The C++ runtime beside the Python runtime: one bundle, one picture, one engine, in turns in one process.

    python benchmarks/bench_cpp.py --bundle out/demo/street.atrous --library build/cpp-release/libatrous.so

Checks first that both give the same labels. The picture is a photo that scikit-learn ships, cut and resized to --size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from harness import RESULTS, time_in_turns, write_report
from PIL import Image
from sklearn.datasets import load_sample_image

import atrous

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cpp_library import Library

#: Of what is compared; a pixel may differ where two logits are equal but for their last bits.
MIN_AGREEMENT = 0.9999


def make_picture(height: int, width: int) -> np.ndarray:
    """A photo [height, width, 3] uint8."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((width, height)))


def main(
    bundle: Annotated[Path, typer.Option(help="What to run.")],
    library: Annotated[Path, typer.Option(help="libatrous.so of a release build.")],
    size: Annotated[str, typer.Option(help="HxW of the picture.")] = "513x513",
    threads: Annotated[int, typer.Option(help="Of both.")] = 2,
    repeats: Annotated[int, typer.Option(help="Rounds that are timed.")] = 20,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS / "cpp.json",
) -> None:
    """Time both runtimes without and with the CRF, and write JSON."""
    height, width = (int(side) for side in size.split("x"))
    picture = make_picture(height, width)
    cpp = Library(library)
    rows = []
    for crf in (False, True):
        python = atrous.load(bundle, backend="openvino", crf=crf, threads=threads)
        with cpp.segmenter(bundle, backend=b"openvino", crf=int(crf), threads=threads) as segmenter:
            agreement = float((segmenter(picture).labels == python(picture).labels).mean())
            if agreement < MIN_AGREEMENT:
                raise SystemExit(f"the labels differ: agreement {agreement}")
            calls = {"python": lambda python=python: python(picture), "cpp": lambda s=segmenter: s(picture)}
            times = time_in_turns(calls, warmup=3, repeats=repeats)
        ratio = times["cpp"]["median_ms"] / times["python"]["median_ms"]
        rows.append({"crf": crf, "agreement": agreement, **times, "cpp_over_python": round(ratio, 3)})
        print(rows[-1])
    write_report(
        out,
        packages=["numpy", "openvino"],
        bundle=bundle.name,
        size=[height, width],
        threads=threads,
        repeats=repeats,
        library_bytes=library.resolve().stat().st_size,
        rows=rows,
    )


if __name__ == "__main__":
    typer.run(main)
