"""The runtime on the CPU: beside PyTorch, in tiles, in C++."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .results import Quote, Results, milliseconds, number, percent, short_version, table

_STAGES = ("preprocess", "inference", "postprocess", "total")


def _runtime(name: str) -> Quote:
    """The command, and a row for each contender."""

    def quote(results: Results) -> str:
        report = results[name]
        titles = {
            "torch": f"PyTorch {report['machine']['versions']['torch'].partition('+')[0]}",
            "openvino": f"atrous, OpenVINO {short_version(report, 'openvino')}",
            "onnxruntime": f"atrous, ONNX Runtime {short_version(report, 'onnxruntime')}",
        }
        torch = next(row for row in report["rows"] if row["contender"] == "torch")["total"]["median_ms"]
        rows = [
            [
                titles[row["contender"]],
                *(milliseconds(row[stage]["median_ms"]) for stage in _STAGES),
                "1" if row["contender"] == "torch" else number(row["total"]["median_ms"] / torch, 2),
            ]
            for row in report["rows"]
        ]
        height, width = report["size"]
        caption = f"`{report['command']}` (`{report['architecture']}`, {height}×{width}, {report['classes']} classes)"
        return f"{caption}\n\n{table(['ms', *_STAGES, '× PyTorch'], 'lrrrrr', rows)}"

    return quote


def _tiling(results: Results) -> str:
    whole, *tiled = sorted(results["tiling"]["rows"], key=lambda row: -_side(row))
    rows = [["whole", "", "", f"{whole['peak_mb']} MB"]]
    for row in tiled:
        shares = (percent(row[key], 1) for key in ("agreement", "agreement_near_seams"))
        rows.append([str(row["max_side"]), *shares, f"{row['peak_mb']} MB"])
    return table(["largest tile", "same labels", "within 16 px of a tile's edge", "peak memory"], "lrrr", rows)


def _cpu(results: Results) -> str:
    """The command with the load of the machine, and a row for each contender."""
    report = results["cpu"]
    base = {row["arch"]: row["median_ms"] for row in report["rows"] if row["library"] == "PyTorch eager"}
    rows = [
        [
            f"`{row['arch']}`",
            row["library"],
            row["precision"],
            row["form"],
            milliseconds(row["median_ms"]),
            number(row["median_ms"] / base[row["arch"]], 2),
            percent(row["agreement"], 1),
        ]
        for row in report["rows"]
    ]
    height, width = report["size"]
    before, after = report["load_average"]
    cpu, cores = report["cpu"], report["machine"]["cores"]
    caption = (
        f"`{report['command']}`, {height}×{width}, on {cores} cores of an {cpu['name']} ({' '.join(cpu['flags'])}); "
        f"load average {number(before, 1)} at the start and {number(after, 1)} at the end"
    )
    left_out = "; ".join(f"{each['name']} ({each['reason']})" for each in report["left_out"])
    head = ["network", "library", "precision", "form", "ms", "× PyTorch eager", "labels as FP32"]
    note = f"\n\nLeft out: {left_out}." if left_out else ""
    return f"{caption}\n\n{table(head, 'llllrrr', rows)}{note}"


def _side(row: Mapping[str, Any]) -> float:
    return float("inf") if row["max_side"] == "whole" else row["max_side"]


def _cpp(results: Results) -> str:
    report = results["cpp"]
    plain, crf = (next(row for row in report["rows"] if row["crf"] is wanted) for wanted in (False, True))
    height, width = report["size"]

    def times(row: Mapping[str, Any]) -> tuple[str, str, str]:
        cpp, python = (milliseconds(row[key]["median_ms"]) for key in ("cpp", "python"))
        return cpp, python, f"{number(row['cpp_over_python'], 2)} ×"

    cpp, python, ratio = times(plain)
    crf_cpp, crf_python, crf_ratio = times(crf)
    return (
        f"At {height}×{width} with {report['threads']} threads C++ takes {cpp} ms and Python {python} ms ({ratio}); "
        f"with the dense CRF {crf_cpp} and {crf_python} ms ({crf_ratio})."
    )


def _files(results: Results) -> str:
    """The command, and a row with and without the CRF."""
    report = results["files"]
    stages = ("preprocess", "inference", "crf", "postprocess", "write", "between", "total")
    rows = [
        [row["contender"], *(milliseconds(row[stage]["median_ms"]) for stage in stages), percent(row["share"], 1)]
        for row in report["rows"]
    ]
    height, width = report["size"]
    caption = f"`{report['command']}`, {height}×{width}"
    return f"{caption}\n\n{table(['ms', *stages, 'outside network and CRF'], 'lrrrrrrrr', rows)}"


def _library_size(results: Results) -> str:
    return f"{number(results['cpp']['library_bytes'] / 1e6, 1)} MB"


QUOTES: Mapping[str, Quote] = {
    "runtime-demo": _runtime("runtime-deeplabv3plus_efficientnet_lite0-368x480"),
    "runtime-resnet50": _runtime("runtime-deeplabv3_resnet50-513x513"),
    "files": _files,
    "tiling": _tiling,
    "cpu": _cpu,
    "cpp": _cpp,
    "cpp-size": _library_size,
}
