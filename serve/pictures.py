"""Route for people with curl: an image in, its labels out as a PNG, an overlay or JSON."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from ..runtime.result import DEFAULT_ALPHA, Result
from .images import decode
from .refusals import RefusedError, bad_request
from .responses import PiecewiseResponse
from .rle import class_runs
from .service import Task, query_flag, service_of, trace_of

_QUERY: Final = ("alpha", "crf", "format", "model", "precision")


async def segment(request: Request) -> Response:
    """Answer `POST /segment`."""
    service, trace = service_of(request), trace_of(request)
    query = request.query_params
    if unknown := query.keys() - set(_QUERY):
        raise bad_request(f"unknown parameter {min(unknown)[:40]!r}; expected {', '.join(_QUERY)}")
    model = service.models.find(query["model"]) if "model" in query else service.models.only()
    trace.model = model.name
    write, media_type = _chosen_format(request)
    model.scheduler.check_room()
    holding = service.hold(request)
    body = await service.read_body(request, holding)
    opened = model.opened
    parameters: dict[str, Any] = {"precision": query["precision"]} if "precision" in query else {}
    crf = query_flag(request, "crf")
    segmenter = opened.choose(parameters if crf is None else {**parameters, "crf": crf})
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise RefusedError(415, "send the file itself as the body: curl --data-binary @photo.jpg")
    with trace.measure("decode"):
        bands = opened.bundle.manifest.input.bands
        pixels = await service.run_apart(decode, body, bands, service.limits, holding)
    task = Task(model, segmenter, pixels, lambda result: result)
    service.check_probabilities(opened, task, holding, wanted=False)
    result: Any = await service.segment(request, task)
    with trace.measure("encode"):
        content = await service.run_apart(write, result)
    return PiecewiseResponse(content, headers={"Server-Timing": trace.server_timing}, media_type=media_type)


def _chosen_format(request: Request) -> tuple[Callable[[Result], bytes], str]:
    """The function that writes an answer, and its media type."""
    query = request.query_params
    text = query.get("alpha", str(DEFAULT_ALPHA))
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise bad_request(f"alpha is a share between 0 and 1; got {text[:40]!r}")
    formats: Mapping[str, tuple[Callable[[Result], bytes], str]] = {
        "png": (labels_png, "image/png"),
        "overlay": (lambda result: _overlay_png(result, alpha), "image/png"),
        "json": (_json, "application/json"),
    }
    chosen = query.get("format", "png")
    if chosen not in formats:
        raise bad_request(f"format must be one of {', '.join(formats)}; got {chosen[:40]!r}")
    return formats[chosen]


def labels_png(result: Result) -> bytes:
    """The file that `Result.save` writes."""
    file = io.BytesIO()
    result.colored().save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _overlay_png(result: Result, alpha: float) -> bytes:
    file = io.BytesIO()
    result.overlay(alpha).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _json(result: Result) -> bytes:
    """The size, and each class that is there with its name, colour, pixels and runs as COCO has them."""
    size = list(result.labels.shape)
    segments = []
    for class_id, counts in class_runs(result.labels).items():
        about = result.classes[class_id]
        segments.append(
            {
                "id": class_id,
                "name": about.name,
                "color": list(about.color),
                "pixels": sum(counts[1::2]),
                "segmentation": {"size": size, "counts": counts},
            }
        )
    timings = {stage: round(value, 3) for stage, value in result.timings_ms.items()}
    return json.dumps({"size": size, "segments": segments, "timings_ms": timings}).encode()
