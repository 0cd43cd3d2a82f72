"""Routes beside inference: health, metadata, metrics, opening bundles again, and the description of them all."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from .._version import __version__
from ..arrays import label_type
from ..errors import AtrousError
from .images import ENCODED, IMAGE, image_type
from .inference import CONFIDENCE, LABELS, PROBABILITIES
from .models import VERSION, Model
from .openapi import description, page
from .protocol import parse_object
from .refusals import RefusedError, bad_request
from .service import service_of, trace_of
from .tensors import DATATYPES

_PLATFORM: Final = "atrous"
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Bodies of requests that have little to say.
_SMALL_BYTES: Final = 64 << 10


async def live(_request: Request) -> Response:
    """Answer `GET /v2/health/live`: the event loop runs."""
    return JSONResponse({"live": True})


async def ready(_request: Request) -> Response:
    """Answer `GET /v2/health/ready`: all models are open, without which the server does not listen."""
    return JSONResponse({"ready": True})


async def server_metadata(_request: Request) -> Response:
    """Answer `GET /v2`."""
    extensions = ["binary_tensor_data", "model_repository", "model_configuration"]
    return JSONResponse({"name": "atrous", "version": __version__, "extensions": extensions})


async def model_ready(request: Request) -> Response:
    """Answer `GET /v2/models/NAME[/versions/V]/ready`."""
    model = _model_of(request)
    return JSONResponse({"name": model.name, "ready": True})


async def model_metadata(request: Request) -> Response:
    """Answer `GET /v2/models/NAME[/versions/V]`."""
    model = _model_of(request)
    inputs, outputs = _tensors(model)
    about = {"name": model.name, "versions": [VERSION], "platform": _PLATFORM}
    return JSONResponse({**about, "inputs": inputs, "outputs": outputs})


async def model_config(request: Request) -> Response:
    """Answer `GET /v2/models/NAME[/versions/V]/config`: Triton's form of it, with the bundle's identity and classes."""
    model = _model_of(request)
    inputs, outputs = ([_as_config(tensor) for tensor in tensors] for tensors in _tensors(model))
    backend = model.opened.first.backend
    parameters = {
        "artifact": backend.artifact.file,
        "sha256": backend.artifact.sha256,
        "backend": backend.name,
        "device": backend.device,
        "precisions": ",".join(model.opened.precisions),
        "classes": json.dumps(
            [{"id": each.id, "name": each.name, "color": each.color} for each in model.opened.first.classes]
        ),
    }
    config = {
        "name": model.name,
        "backend": _PLATFORM,
        "max_batch_size": 0,
        "input": inputs,
        "output": outputs,
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    return JSONResponse(config)


async def metrics(request: Request) -> Response:
    """Answer `GET /metrics`."""
    return Response(service_of(request).metrics.text(), media_type=_METRICS_TYPE)


async def repository_index(request: Request) -> Response:
    """Answer `POST /v2/repository/index`."""
    models = service_of(request).models
    return JSONResponse([{"name": each.name, "version": VERSION, "state": "READY", "reason": ""} for each in models])


async def load_model(request: Request) -> Response:
    """Answer `POST /v2/repository/models/NAME/load`: open the bundle again as it is now.

    Requests get the old one until the new one is open, and afterwards where it cannot be opened.
    """
    service = service_of(request)
    if not service.allow_reload:
        raise RefusedError(403, "this server does not open bundles again; start it with --allow-reload")
    model = service.models.find(request.path_params["name"])
    trace_of(request).model = model.name
    body = await service.read_body(request, service.hold(request))
    if len(body) > _SMALL_BYTES or (body and parse_object(body).get("parameters")):
        raise bad_request("a bundle is opened again as it is on the server: send no parameters and no files")
    try:
        await service.run_apart(model.reload)
    except AtrousError as exc:
        raise bad_request(f"model {model.name!r} stays as it is: {exc}") from exc
    return JSONResponse({"name": model.name, "sha256": model.opened.first.backend.artifact.sha256})


async def unload_model(_request: Request) -> Response:
    """Refuse `POST /v2/repository/models/NAME/unload`."""
    raise RefusedError(403, "this server keeps its models; stop it instead")


async def openapi(_request: Request) -> Response:
    """Answer `GET /openapi.json`."""
    return JSONResponse(description())


async def docs(_request: Request) -> Response:
    """Answer `GET /docs`, a page that needs nothing from elsewhere."""
    return HTMLResponse(page())


def _model_of(request: Request) -> Model:
    model = service_of(request).models.find(request.path_params["name"], request.path_params.get("version", VERSION))
    trace_of(request).model = model.name
    return model


def _tensors(model: Model) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Metadata of the inputs, of which a request has one, and of the outputs."""
    manifest = model.opened.bundle.manifest
    dtype, count = image_type(manifest.input.bands)
    classes = len(manifest.classes)
    inputs = [_tensor(IMAGE, DATATYPES[dtype], -1, -1, count), _tensor(ENCODED, "UINT8", -1)]
    outputs = [
        _tensor(LABELS, DATATYPES[label_type(classes).name], -1, -1),
        _tensor(CONFIDENCE, "UINT8", -1, -1),
        _tensor(PROBABILITIES, "FP32", classes, -1, -1),
    ]
    return inputs, outputs


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _as_config(tensor: dict[str, Any]) -> dict[str, Any]:
    entry = {"name": tensor["name"], "data_type": f"TYPE_{tensor['datatype']}", "dims": tensor["shape"]}
    return entry | ({"optional": True} if tensor["name"] in (IMAGE, ENCODED) else {})
