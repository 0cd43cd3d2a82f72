"""What `learn_crf` makes of the dense CRF on CamVid: mean IoU without a CRF, with P1, and with what was learned.

    python benchmarks/bench_crf_learn.py BUNDLE CAMVID --images 36

Images to learn from and images to choose the epoch by are evenly spread over CamVid's training split, and none of them
is in both; the scores are those of the whole validation split, which nothing was fitted on. The interval is a
percentile bootstrap over its images.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from harness import RESULTS, write_report
from PIL import Image
from rich.console import Console

import atrous
from atrous.calibration.learn import Example, LearnOptions, Score, learn_crf
from atrous.crf import CRFParams, DenseCRF
from atrous.runtime.metrics import iou

_VOID = 11
_RESAMPLES = 2000

Confusion = npt.NDArray[np.int64]


def examples(segmenter: atrous.Segmenter, folder: Path, every: slice) -> list[Example]:
    """Probabilities of the network, images and masks."""
    found = []
    for path in sorted((folder / "images").iterdir())[every]:
        result = segmenter(path)
        mask = np.asarray(Image.open(folder / "masks" / path.with_suffix(".png").name))
        found.append(Example(result.probabilities, result.image, mask))
    return found


def confusion(labels: npt.NDArray[Any], mask: npt.NDArray[Any], classes: int) -> Confusion:
    """Pixels of class `row` that were labelled `column`."""
    known = mask != _VOID
    cells = classes * mask[known].astype(np.int64) + labels[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def miou(counts: Confusion) -> float:
    """Mean IoU of counts [C, C]."""
    return float(np.nanmean(iou(counts)))


def interval(before: Confusion, after: Confusion) -> tuple[float, float]:
    """95 % bootstrap interval of the gain in points of mean IoU; counts [images, C, C]."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(before), size=len(before))
        gains.append(100 * (miou(after[chosen].sum(0)) - miou(before[chosen].sum(0))))
    low, high = np.percentile(gains, [2.5, 97.5])
    return round(float(low), 2), round(float(high), 2)


def main(
    bundle: Path,
    camvid: Path,
    images: Annotated[int, typer.Option(help="Training images, a third of which choose the epoch.")] = 36,
    epochs: int = 6,
    iterations: int = 5,
    learn: Annotated[list[str], typer.Option()] = ["weights", "compatibility", "temperature"],  # noqa: B006
) -> None:
    """Learn on CamVid's training images and score on its validation images."""
    console = Console()
    segmenter = atrous.load(bundle)
    names = [each.name for each in segmenter.classes]
    total = len(list((camvid / "train" / "images").iterdir()))
    chosen = examples(segmenter, camvid / "train", slice(None, None, max(1, total // images)))
    train = [each for index, each in enumerate(chosen) if index % 3]
    held_out = chosen[::3]
    start = CRFParams.deeplab_v2_resnet()
    options = LearnOptions(learn=tuple(learn), iterations=iterations, epochs=epochs, batch_size=4, ignore=_VOID)

    def say(score: Score) -> None:
        console.print(
            f"epoch {score.epoch}: held-out mean IoU {score.held_out_miou:.4f}, loss {score.held_out_loss:.4f}"
        )

    begin = time.perf_counter()
    learned = learn_crf(train, held_out, start, options=options, progress=say)
    seconds = time.perf_counter() - begin
    crfs = {
        "P1": DenseCRF(start),
        "learned": DenseCRF(learned.params, iterations=iterations, compatibility=learned.compatibility),
    }
    counts: dict[str, list[Confusion]] = {name: [] for name in ("none", *crfs)}
    for index in range(len(list((camvid / "val" / "images").iterdir()))):
        (example,) = examples(segmenter, camvid / "val", slice(index, index + 1))
        mask = np.asarray(example.mask)
        counts["none"].append(confusion(np.asarray(example.probabilities).argmax(0), mask, len(names)))
        for name, crf in crfs.items():
            counts[name].append(confusion(crf.labels(example.probabilities, example.image), mask, len(names)))
    stacked = {name: np.stack(each) for name, each in counts.items()}
    plain = 100 * iou(stacked["none"].sum(0))
    rows = {}
    for name, each in stacked.items():
        by_class = 100 * iou(each.sum(0))
        rows[name] = {
            "miou": round(miou(each.sum(0)) * 100, 2),
            "gain_interval": interval(stacked["none"], each),
            "change_by_class": {label: round(float(d), 2) for label, d in zip(names, by_class - plain, strict=True)},
        }
        console.print(name, rows[name])
    write_report(
        RESULTS / "crf-learn.json",
        packages=["numpy", "torch"],
        train=len(train),
        held_out=len(held_out),
        val=len(stacked["none"]),
        learned={"params": learned.params.to_dict(), "compatibility": learned.compatibility.to_dict()},
        seconds=round(seconds, 1),
        history=[[each.epoch, each.train_loss, each.held_out_loss, each.held_out_miou] for each in learned.history],
        rows=rows,
    )


if __name__ == "__main__":
    typer.run(main)
