"""INT8 beside other tools, and what observing activations costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .results import Quote, Results, number, percent, table

_IMAGES = "8 / 32 / 128 images"
_PARTS_OF_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "modelopt": "ModelOpt",
    "atrous mse": "atrous mse (default)",
    "quantize mse": "quantize, mse",
}


def runs_of(results: Results) -> dict[str, dict[str, Any]]:
    """By subject, its runs by the number of pictures; those of atrous are of its later measurement."""
    rows = [*results["quantize"]["rows"], *results["quantize-atrous"]["rows"]]
    return {row["subject"]: row["runs"] for row in rows}


def _peers(results: Results) -> str:
    subjects = runs_of(results)
    fp32 = subjects.pop("FP32")["128"]
    # Of each tool the graph from the most pictures that it took was scored.
    scores = {subject: next(run for run in runs.values() if "miou" in run) for subject, runs in subjects.items()}
    best = {key: max(score[key] for score in scores.values()) for key in ("miou", "agreement")}

    def bold_if_best(key: str, score: Mapping[str, Any], text: str) -> str:
        return f"**{text}**" if score[key] == best[key] else text

    rows = [["FP32", number(fp32["miou"], 2), "", "", "", ""]]
    for subject, score in scores.items():
        runs = subjects[subject].values()
        rows.append(
            [
                _title(subject),
                bold_if_best("miou", score, number(score["miou"], 2)),
                number(score["drop"], 2, sign=True),
                bold_if_best("agreement", score, percent(score["agreement"], 2)),
                " / ".join("fails" if "failed" in run else _seconds(run["seconds"]) for run in runs),
                " / ".join("fails" if "failed" in run else str(run["peak_mib"]) for run in runs),
            ]
        )
    head = ["", "mean IoU %", "points lost", "labels as FP32", f"s, {_IMAGES}", f"MiB, {_IMAGES}"]
    return table(head, "lrrrrr", rows)


def _title(subject: str) -> str:
    for part, title in _PARTS_OF_TITLES.items():
        subject = subject.replace(part, title)
    return subject


def _seconds(value: float) -> str:
    return number(value, 1 if value < 10 else 0)


def _changed_labels(results: Results) -> str:
    subjects = ("onnxruntime MinMax", "atrous mse")
    peer, ours = (percent(1 - runs_of(results)[subject]["128"]["agreement"], 2) for subject in subjects)
    return f"change {peer} of the labels where ours change {ours}"


def _observing(results: Results) -> str:
    report = results["calibration"]
    least, middle, most = (f"{report['memory'][count]['peak_mib']:.0f}" for count in ("8", "32", "128"))
    return (
        f"{report['tensors']} tensors: a peak of {least} MiB with 8 images, {middle} with 32 and {most} with 128; "
        f"{number(report['times']['observe']['median_ms'], 1)} ms an image, reading and preparing it included, "
        f"{number(report['ratio'], 2)} × a plain inference"
    )


def _pairs(results: Results) -> str:
    ours, theirs = (sum(results["placement"]["pairs"][tool].values()) for tool in ("atrous", "modelopt"))
    return f"{theirs} on the graph that `atrous export` writes, where it ends in an `Expand`; atrous places {ours}"


def _pairs_onnxruntime(results: Results) -> str:
    pairs = results["placement"]["pairs"]["onnxruntime"]
    return f"places {sum(pairs.values())}: {sum(pairs.values()) - pairs['weights']} activations"


QUOTES: Mapping[str, Quote] = {
    "int8-peers": _peers,
    "int8-labels": _changed_labels,
    "int8-observing": _observing,
    "int8-pairs": _pairs,
    "int8-pairs-onnxruntime": _pairs_onnxruntime,
}
