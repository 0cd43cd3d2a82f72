"""The dense CRF on the CPU beside pydensecrf: time, memory and agreement.

    pip install 'atrous[bench,demo]'
    python benchmarks/bench_crf.py --size 513x513x21 --size 1024x2048x19 --repeats 5

The picture is scikit-learn's china.jpg, as it is ("textured") and blurred ("plain"); the unaries are seeded coarse
logits, upsampled. Results are compared before anything is timed: max |ΔQ| ≤ 1e-4 and equal labels, or, with 16-bit
fractions, 1e-2 and all but 0.01 % of the labels; else the benchmark stops. Contenders take turns. Totals include
construction and all allocations; "first" makes a new `DenseCRF`, "next" reuses the buffers of an earlier call of the
same size, as on a video. The process keeps pages and the Gaussian lattice for both (docs/crf.md, Memory between calls).
An iteration is a ninth of the difference between ten and one of them, and construction what remains.

"Drop-in" calls `atrous.crf.pydensecrf` as users of pydensecrf do, and "floor" is a next call with `class_floor=1e-3` on
probabilities of which six classes are likely, whose labels are compared with those of exact inference. Every call but
"same" has another image than the last calls had, so that no bilateral lattice is found again.

Pydensecrf leaves the process's memory in small pages. Whoever takes large ones next has the system make them, which
costs hundreds of milliseconds on a virtual machine and says nothing about either contender: an untimed call follows
every turn of pydensecrf.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from gpu_check.gates import GATES, SETS
from harness import RESULTS, time_in_turns, write_report
from PIL import Image, ImageFilter
from pydensecrf_peer import peer
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_image

from atrous import _native
from atrous.crf import CRFParams, DenseCRF
from atrous.crf.params import Storage
from atrous.runtime.postprocess import upsample_probabilities
from atrous.runtime.preprocess import Geometry

_ITERATIONS = 10
_FEWER_ITERATIONS = 1
#: More than lattices are kept.
_PICTURES = 8
_CLASS_FLOOR = 1e-3
_LIKELY_CLASSES = 6

Probabilities = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


def scene(height: int, width: int, classes: int, *, plain: bool) -> tuple[Probabilities, Picture]:
    """Class probabilities [C, H, W] and an RGB image [H, W, 3]."""
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.BICUBIC)
    if plain:
        photo = photo.filter(ImageFilter.GaussianBlur(3))
    coarse = np.random.default_rng(0).normal(scale=3, size=(classes, height // 8 + 1, width // 8 + 1))
    # A copy: pydensecrf takes no read-only array.
    geometry = Geometry((height, width), (height, width), "none")
    return upsample_probabilities(coarse, geometry, align_corners=True), np.array(photo)


def ours(
    probabilities: Probabilities,
    image: Picture,
    params: CRFParams,
    iterations: int,
    threads: int,
    storage: Storage = "fp32",
) -> Probabilities:
    """Marginals [C, H, W] by a new `DenseCRF`."""
    return DenseCRF(params, iterations=iterations, threads=threads, storage=storage)(probabilities, image)


def drop_in(probabilities: Probabilities, image: Picture, params: CRFParams, iterations: int) -> Probabilities:
    """Marginals [C, H, W] by `atrous.crf.pydensecrf`, called as pydensecrf is."""
    return peer(probabilities, image, params, iterations, package="atrous.crf.pydensecrf")


def few_classes(probabilities: Probabilities) -> Probabilities:
    """The same with all but the first six classes below the floor everywhere, as photos have them."""
    likely = probabilities[:_LIKELY_CLASSES] / probabilities[:_LIKELY_CLASSES].sum(axis=0)
    others = np.full_like(probabilities[_LIKELY_CLASSES:], 0.1 * _CLASS_FLOOR)
    return np.concatenate([likely * (1 - others.sum(axis=0)), others])


def peak_mb(run: Callable[..., Probabilities], *arguments: object) -> float:
    """Peak memory of a process that does nothing else, over what its imports and arguments take."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_peak_here, (run, arguments))


def _peak_here(run: Callable[..., Probabilities], arguments: tuple[object, ...]) -> float:
    before = _high_water_mb()
    run(*arguments)
    return round(_high_water_mb() - before, 1)


def _high_water_mb() -> float:
    """From Linux's /proc: getrusage() would give a new process the peak of its parent."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def vertices(image: Picture, params: CRFParams) -> int:
    """Vertices of the bilateral lattice: what the time depends on besides the size."""
    bilateral = _native.Filter()
    bilateral.build_bilateral(image, (params.bilateral_sigma_xy_px,) * 2, (params.bilateral_sigma_rgb,) * 3)
    return bilateral.vertices


def measure(
    probabilities: Probabilities, image: Picture, params: CRFParams, *, threads: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """Checks agreement, then times pydensecrf and ours with each number of threads and storage."""
    expected = peer(probabilities, image, params, _ITERATIONS)
    agreement = {
        storage: _check(expected, ours(probabilities, image, params, _ITERATIONS, 0, storage), storage)
        for storage in GATES
    }
    _check(expected, drop_in(probabilities, image, params, _ITERATIONS), "fp32")
    pictures = itertools.cycle([np.roll(image, 7 * turn, axis=0) for turn in range(_PICTURES)])

    latest = [image]

    def on_new(run: Callable[..., object], maps: Probabilities, *options: object) -> Callable[[], object]:
        def call() -> object:
            latest[0] = next(pictures)
            return run(maps, latest[0], *options)

        return call

    def on_latest(run: Callable[..., object], maps: Probabilities) -> Callable[[], object]:
        return lambda: run(maps, latest[0])

    calls = {
        "peer": on_new(peer, probabilities, params, _ITERATIONS),
        "peer fewer": on_new(peer, probabilities, params, _FEWER_ITERATIONS),
        "after peer": on_new(ours, probabilities, params, _FEWER_ITERATIONS, 0),  # see above; not reported
        "drop-in": on_new(drop_in, probabilities, params, _ITERATIONS),
        "drop-in fewer": on_new(drop_in, probabilities, params, _FEWER_ITERATIONS),
    }
    contenders: dict[str, tuple[int, Storage]] = {
        f"atrous, threads {count}" + (", unorm16" if storage == "unorm16" else ""): (count, storage)
        for count, storage in itertools.product(threads, GATES)
    }
    few = few_classes(probabilities)
    for name, (count, storage) in contenders.items():
        kept, floored = (
            DenseCRF(params, iterations=_ITERATIONS, threads=count, storage=storage, class_floor=floor)
            for floor in (0.0, _CLASS_FLOOR)
        )
        _check_labels(kept.labels(few, image), floored.labels(few, image))
        calls[f"first {name}"] = on_new(ours, probabilities, params, _ITERATIONS, count, storage)
        calls[f"fewer {name}"] = on_new(ours, probabilities, params, _FEWER_ITERATIONS, count, storage)
        calls[f"next {name}"] = on_new(kept, probabilities)
        calls[f"same {name}"] = on_latest(kept, probabilities)
        calls[f"floor {name}"] = on_new(floored, few)
    times = time_in_turns(calls, warmup=0, repeats=repeats)  # the comparison warmed up
    rows = {"pydensecrf": _split(times["peer"], times["peer fewer"])}
    rows["atrous, drop-in"] = _split(times["drop-in"], times["drop-in fewer"])
    rows["atrous, drop-in"]["speedup_first"] = round(times["peer"]["median_ms"] / times["drop-in"]["median_ms"], 2)
    for name, (_, storage) in contenders.items():
        row = _split(times[f"first {name}"], times[f"fewer {name}"])
        for kind in ("first", "next", "same", "floor"):
            taken = times[f"{kind} {name}"]
            row |= {kind: taken, f"speedup_{kind}": round(times["peer"]["median_ms"] / taken["median_ms"], 2)}
        rows[name] = row | (agreement[storage] if storage != "fp32" else {})
    rows["atrous, drop-in"]["peak_mb"] = peak_mb(drop_in, probabilities, image, params, 1)
    rows["pydensecrf"]["peak_mb"] = peak_mb(peer, probabilities, image, params, 1)
    for name, options in contenders.items():
        rows[name]["peak_mb"] = peak_mb(ours, probabilities, image, params, 1, *options)
    return {**agreement["fp32"], "vertices": vertices(image, params), "rows": rows}


def _check(expected: Probabilities, got: Probabilities, storage: Storage) -> dict[str, Any]:
    """The largest difference from pydensecrf's marginals and the labels that differ, or the end."""
    difference = float(np.abs(got - expected).max())
    flips = int((got.argmax(axis=0) != expected.argmax(axis=0)).sum())
    most, share = GATES[storage]
    if difference > most or flips > share * got[0].size:
        raise SystemExit(f"{storage}: marginals differ by {difference:.1e} and {flips} labels flip; nothing timed.")
    return {"max_difference": difference, "flips": flips}


def _check_labels(exact: npt.NDArray[np.uint8], floored: npt.NDArray[np.uint8]) -> None:
    if (flips := int((exact != floored).sum())) > 1e-4 * exact.size:
        raise SystemExit(f"class_floor: {flips} labels flip; nothing timed.")


def _split(total: dict[str, Any], fewer: dict[str, Any]) -> dict[str, Any]:
    iteration = (total["median_ms"] - fewer["median_ms"]) / (_ITERATIONS - _FEWER_ITERATIONS)
    return {
        "total": total,
        "iteration_ms": round(iteration, 2),
        "construction_ms": round(total["median_ms"] - _ITERATIONS * iteration, 1),
    }


def print_case(title: str, case: dict[str, Any], console: Console) -> None:
    """One table a picture and parameter set."""
    heading = f"{title}: {case['vertices']:,} vertices, max |ΔQ| {case['max_difference']:.1e}, {case['flips']} flips"
    kinds = ("first", "next", "same", "floor")
    table = Table(
        "contender", "construction ms", "iteration ms", "total ms", "next ms", f"× {', '.join(kinds)}", "peak MB"
    )
    for name, row in case["rows"].items():
        following = f"{row['next']['median_ms']:.0f}" if "next" in row else ""
        speedup = " / ".join(f"{row[f'speedup_{kind}']:.2f}" for kind in kinds if f"speedup_{kind}" in row)
        table.add_row(
            name,
            f"{row['construction_ms']:.0f}",
            f"{row['iteration_ms']:.1f}",
            f"{row['total']['median_ms']:.0f}",
            following,
            speedup,
            f"{row['peak_mb']:.0f}",
        )
    console.print(heading, table)


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Bars of the time of a next picture, one panel a size, with how many times faster than pydensecrf."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(case["size"] for case in cases))
    figure = Figure(figsize=(11, 0.9 + 0.55 * len(cases)), layout="constrained")
    heights = [sum(case["size"] == size for case in cases) for size in sizes]
    panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
    for size, axes in zip(sizes, panels, strict=True):
        chosen = [case for case in cases if case["size"] == size]
        contenders = list(chosen[0]["rows"])
        thickness = 0.8 / len(contenders)
        for place, contender in enumerate(contenders):
            colour = "0.6" if place == 0 else f"C{place - 1}"
            rows = [case["rows"][contender] for case in chosen]
            seconds = [row.get("next", row["total"])["median_ms"] / 1e3 for row in rows]
            offsets = [row + (place - (len(contenders) - 1) / 2) * thickness for row in range(len(chosen))]
            bars = axes.barh(offsets, seconds, thickness * 0.92, label=contender, color=colour)
            speedups = [row.get("speedup_next") for row in rows]
            axes.bar_label(bars, [f"{s:.1f}×" if s else "" for s in speedups], padding=3, fontsize=8)
        axes.set_yticks(range(len(chosen)), [f"{case['params']} {case['picture']}" for case in chosen])
        axes.invert_yaxis()
        axes.set_title(size.replace("x", "×"), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    panels[-1].set_xlabel(f"seconds for a next picture: {_ITERATIONS} iterations, bilateral lattice included")
    figure.savefig(path, dpi=120)


def main(
    size: Annotated[list[str], typer.Option(help="HEIGHTxWIDTHxCLASSES; repeat for more.")] = ["513x513x21"],  # noqa: B006
    params: Annotated[list[str], typer.Option(help="P1, P2 or P3; repeat for more.")] = ["P1"],  # noqa: B006
    threads: Annotated[list[int], typer.Option(help="Threads of ours; repeat for more.")] = [1, 2],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=3)] = 5,
) -> None:
    """Time the dense CRF beside pydensecrf."""
    console = Console()
    out = RESULTS / "crf.json"
    cases: list[dict[str, Any]] = []
    for text, name, plain in itertools.product(size, params, (False, True)):
        height, width, classes = (int(part) for part in text.split("x"))
        probabilities, image = scene(height, width, classes, plain=plain)
        case = measure(probabilities, image, SETS[name], threads=tuple(threads), repeats=repeats)
        picture = "plain" if plain else "textured"
        print_case(f"{text} {picture} {name}", case, console)
        cases.append({"size": text, "picture": picture, "params": name, **case})
        # After each case, so that a long run that is cut off leaves what it has.
        write_report(out, packages=["numpy", "pydensecrf2"], iterations=_ITERATIONS, repeats=repeats, cases=cases)
        plot(cases, out.with_suffix(".png"))
    console.print(f"Wrote {out} and {out.with_suffix('.png').name}")


if __name__ == "__main__":
    typer.run(main)
