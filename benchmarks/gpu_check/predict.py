"""What the traffic model predicts for the cases with targets, before anything is measured; prints Markdown.

    python benchmarks/gpu_check/predict.py

`least` and `asked` are explained in `traffic.py`. "Expected" takes for each launch the longest of `least` at the rate
of a copy, `asked` at that of the second-level cache, and what even an empty kernel takes, and adds the gap between
kernels of a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from gates import SETS
from traffic import Traffic, frame, total

from atrous.crf.cuda_field import FieldSpec
from crf import ITERATIONS

#: Bytes a second: an H100 SXM's data sheet, what copies reach of that, and an assumption for its second-level cache.
DATA_SHEET, COPY, CACHE = 3.35e12, 3.0e12, 5.5e12
#: Milliseconds, assumptions: an empty kernel in a graph, and the gap before the next.
EMPTY_MS, GAP_MS = 2e-3, 1e-3
#: Class count, size and vertices, the Gaussian ones of P1 and the bilateral ones of `crf.make`'s pictures.
CASES = (
    ("513²×21 textured", 21, (513, 513), {"gaussian": 304_506, "bilateral": 560_500}),
    ("513²×21 plain", 21, (513, 513), {"gaussian": 304_506, "bilateral": 233_205}),
    ("1024×2048×19 textured", 19, (1024, 2048), {"gaussian": 2_422_943, "bilateral": 4_207_983}),
    ("1024×2048×19 plain", 19, (1024, 2048), {"gaussian": 2_422_943, "bilateral": 1_757_462}),
)


def model(classes: int, size: tuple[int, int], vertices: dict[str, int], storage: str) -> list[Traffic]:
    """All launches of a frame at P1."""
    return frame(FieldSpec(1, classes, *size, storage, ITERATIONS, "symmetric", SETS["P1"]), vertices)


def expected_ms(launches: Sequence[Traffic]) -> float:
    """See above."""
    return sum(max(1e3 * each.least / COPY, 1e3 * each.asked / CACHE, EMPTY_MS) + GAP_MS for each in launches)


def print_head(*columns: str) -> None:
    """The head of a table, whose first columns are words."""
    print(f"| {' | '.join(columns)} |")
    print("|---|---|" + "---:|" * (len(columns) - 2))


def print_totals() -> None:
    """A line for each case and storage."""
    print_head(
        "case", "", "GB an iteration, least / asked", "least at 3.35 TB/s, ms", "at 3.0", "asked at 3.0", "expected"
    )
    for name, classes, size, vertices in CASES:
        for storage in ("fp32", "unorm16"):
            launches = model(classes, size, vertices, storage)
            each = "{:.2f} / {:.2f}".format(*(value / ITERATIONS / 1e9 for value in total(launches, "iteration")))
            least, asked = total(launches)
            times = (1e3 * least / DATA_SHEET, 1e3 * least / COPY, 1e3 * asked / COPY, expected_ms(launches))
            print(f"| {name} | {storage} | {each} | {' | '.join(f'{ms:.2f}' for ms in times)} |")


def print_kernels(name: str, launches: Sequence[Traffic]) -> None:
    """A line for each kernel on each lattice, those first that take longest."""
    groups: dict[tuple[str, str, str], list[Traffic]] = {}
    for each in launches:
        groups.setdefault((each.part, each.lattice, each.kernel), []).append(each)
    print(f"\n{name}, one frame:\n")
    print_head("part", "lattice", "kernel", "launches", "MB a launch, least / asked", "expected ms", "share")
    whole = expected_ms(launches)
    for (part, lattice, kernel), group in sorted(groups.items(), key=lambda item: -expected_ms(item[1])):
        moved = "{:.1f} / {:.1f}".format(*(value / len(group) / 1e6 for value in total(group)))
        ms = expected_ms(group)
        print(f"| {part} | {lattice} | `{kernel}` | {len(group)} | {moved} | {ms:.3f} | {ms / whole:.1%} |")


def main() -> None:
    """The tables of `results/NOTES.md`."""
    print_totals()
    for storage in ("fp32", "unorm16"):
        name, classes, size, vertices = CASES[0]
        print_kernels(f"{name}, {storage}", model(classes, size, vertices, storage))


if __name__ == "__main__":
    main()
