"""How accurate the demo's model is, in each precision and with the CRF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .int8 import runs_of
from .results import Quote, Results, number, percent, table


def _camvid(results: Results) -> str:
    plain, crf = (number(run["miou"], 3) for run in _camvid_runs(results))
    return f"mean IoU {plain}, with the CRF at untuned parameters {crf}"


def _camvid_runs(results: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    runs = results["camvid"]["runs"]
    return runs["DeepLab"], runs["DeepLab + CRF"]


def _camvid_classes(results: Results) -> str:
    runs = _camvid_runs(results)
    rows = [[name, *(number(run["iou"][name], 3) for run in runs)] for name in runs[0]["iou"]]
    rows.append(["**mean**", *(f"**{number(run['miou'], 3)}**" for run in runs)])
    return table(["class", "DeepLab", "with CRF"], "lrr", rows)


def _precisions(results: Results) -> str:
    fp16 = results["fp16"]["runs"]
    int8 = runs_of(results)["atrous.quantize mse"]["128"]
    fp32, half, eight = (f"{number(miou, 2)} %" for miou in (fp16["FP32"]["miou"], fp16["FP16"]["miou"], int8["miou"]))
    return (
        f"mean IoU on CamVid's validation set is {fp32} in FP32, {half} in FP16 and {eight} in INT8, "
        f"and {percent(int8['agreement'], 1)} of the pixels keep their label in INT8"
    )


def _fp16(results: Results) -> str:
    fp32, fp16, rounded = (results["fp16"]["runs"][name] for name in ("FP32", "FP16", "FP16, rounded"))
    rows = [["FP32", f"{number(fp32['miou'], 3)} %", ""]]
    for title, run in (("FP16, as ONNX Runtime runs it", fp16), ("FP16, rounded after every node", rounded)):
        rows.append([title, f"{number(run['miou'], 3)} %", percent(run["agreement"], 3)])
    return table(["graph", "mean IoU", "pixels labelled as in FP32"], "lrr", rows)


QUOTES: Mapping[str, Quote] = {
    "camvid": _camvid,
    "camvid-classes": _camvid_classes,
    "precisions": _precisions,
    "fp16": _fp16,
}
