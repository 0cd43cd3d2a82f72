"""Routes of an inference in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from ..runtime.result import Result
from .images import ENCODED, image_of
from .models import VERSION
from .protocol import (
    HEADER_LENGTH,
    InferAnswer,
    InferRequest,
    RequestedOutput,
    encode_answer,
    json_length,
    parse_request,
)
from .refusals import bad_request
from .responses import PiecewiseResponse
from .service import Service, Task, service_of, trace_of

#: Names of outputs.
LABELS: Final = "LABELS"
CONFIDENCE: Final = "CONFIDENCE"
PROBABILITIES: Final = "PROBABILITIES"
_OUTPUTS: Final = (LABELS, CONFIDENCE, PROBABILITIES)
_PARAMETERS: Final = ("crf", "precision")
#: Copying bytes is at least so many times as fast as writing the same numbers in JSON.
_COPY_EASE: Final = 16
#: Parameters of clients and servers of the protocol that change nothing about labels.
_IGNORED: Final = ("binary_data_output", "timeout", "priority")


async def infer(request: Request) -> Response:
    """Answer `POST /v2/models/NAME[/versions/V]/infer`."""
    service, trace = service_of(request), trace_of(request)
    model = service.models.find(request.path_params["name"], request.path_params.get("version", VERSION))
    trace.model = model.name
    model.scheduler.check_room()  # before the body is read, so that a refusal costs little
    holding = service.hold(request)
    body = await service.read_body(request, holding)
    length = json_length(request.headers.get(HEADER_LENGTH), len(body), service.limits.json_bytes)
    with trace.measure("parse"):
        asked = await service.run(length, parse_request, body, length)
        _check_parameters(asked)
        outputs = _chosen_outputs(asked)
        opened = model.opened
        bands = opened.bundle.manifest.input.bands
        encoded = sum(len(each.values) for each in asked.inputs.values() if each.name == ENCODED)
        pixels = await service.run(encoded, image_of, asked.inputs, bands, service.limits, holding)
    names = [each.name for each in outputs]
    task = Task(model, opened.choose(asked.parameters), pixels, lambda result: _arrays(result, names))
    service.check_probabilities(opened, task, holding, wanted=names != [LABELS])
    arrays: Any = await service.segment(request, task)
    return await _answer(request, service, asked.id, outputs, arrays)


async def _answer(
    request: Request,
    service: Service,
    request_id: str,
    outputs: Sequence[RequestedOutput],
    arrays: Sequence[NDArray[Any]],
) -> Response:
    trace = trace_of(request)
    answer = InferAnswer(
        trace.model,
        VERSION,
        request_id,
        [(output.name, values, output.binary) for output, values in zip(outputs, arrays, strict=True)],
    )
    work = sum(
        values.nbytes // (_COPY_EASE if output.binary else 1) for output, values in zip(outputs, arrays, strict=True)
    )
    with trace.measure("encode"):
        body, header_length = await service.run(work, encode_answer, answer)
    headers = {"Server-Timing": trace.server_timing}
    if header_length is None:
        return PiecewiseResponse(body, headers=headers, media_type="application/json")
    headers[HEADER_LENGTH] = str(header_length)
    return PiecewiseResponse(body, headers=headers, media_type="application/octet-stream")


def _check_parameters(asked: InferRequest) -> None:
    unknown = asked.parameters.keys() - {*_PARAMETERS, *_IGNORED}
    if unknown:
        raise bad_request(f"unknown parameter {min(unknown)[:40]!r}; this server has {' and '.join(_PARAMETERS)}")


def _chosen_outputs(asked: InferRequest) -> tuple[RequestedOutput, ...]:
    """The outputs of an answer: those that are asked for, or the labels."""
    outputs = asked.outputs or (RequestedOutput(LABELS, asked.binary),)
    names = [each.name for each in outputs]
    for name in names:
        if name not in _OUTPUTS or names.count(name) > 1:
            raise bad_request(f"outputs are {', '.join(_OUTPUTS)}, each once; got {', '.join(map(repr, names))}")
    return outputs


def _arrays(result: Result, names: Sequence[str]) -> list[NDArray[Any]]:
    """The outputs of a result."""
    return [_array(result, name) for name in names]


def _array(result: Result, name: str) -> NDArray[Any]:
    if name == LABELS:
        return result.labels
    if name == PROBABILITIES:
        return result.probabilities
    return confidence_of(result.probabilities)


def confidence_of(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The largest of the probabilities [C, H, W] at each pixel, in units of 1/255."""
    confidence: NDArray[np.uint8] = np.rint(probabilities.max(axis=0) * 255).astype(np.uint8)
    return confidence
