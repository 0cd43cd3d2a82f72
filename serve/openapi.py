"""Description of the routes: OpenAPI 3.1, and a page made of it."""

from __future__ import annotations

import html
from typing import Any, Final

from .._version import __version__

_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_PNG: Final = "image/png"

#: (method, path, summary, media types of the body, media types of the answer).
_ROUTES: Final[tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("get", "/v2/health/live", "The server runs.", (), (_JSON,)),
    ("get", "/v2/health/ready", "All models are open.", (), (_JSON,)),
    ("get", "/v2", "Name, version and extensions of the server.", (), (_JSON,)),
    ("get", "/v2/models/{name}", "Inputs and outputs of a model.", (), (_JSON,)),
    ("get", "/v2/models/{name}/config", "Bundle, precisions and classes of a model.", (), (_JSON,)),
    ("get", "/v2/models/{name}/ready", "The model is open.", (), (_JSON,)),
    (
        "post",
        "/v2/models/{name}/infer",
        "Segment an image: IMAGE or ENCODED in; LABELS, CONFIDENCE, PROBABILITIES out; parameters crf, precision.",
        (_JSON, _BINARY),
        (_JSON, _BINARY),
    ),
    (
        "post",
        "/segment",
        "Segment a JPEG or PNG, which is the body, into a palette PNG, an overlay, or runs in JSON.",
        ("image/jpeg", _PNG, _BINARY),
        (_PNG, _JSON),
    ),
    ("post", "/v2/repository/index", "List the models.", (), (_JSON,)),
    ("post", "/v2/repository/models/{name}/load", "Open a bundle again, where that is enabled.", (), (_JSON,)),
    ("get", "/metrics", "Metrics for Prometheus.", (), ("text/plain",)),
)
_QUERY: Final[dict[str, dict[str, Any]]] = {
    "model": {"type": "string"},
    "format": {"type": "string", "enum": ["png", "overlay", "json"], "default": "png"},
    "crf": {"type": "boolean"},
    "precision": {"type": "string"},
    "alpha": {"type": "number", "minimum": 0, "maximum": 1},
}


def description() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, takes, gives in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(path, summary, takes, gives)
    return {
        "openapi": "3.1.0",
        "info": {"title": "atrous", "version": __version__, "summary": "Segmentation over HTTP"},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"error": {"type": "string"}}}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, summary: str, takes: tuple[str, ...], gives: tuple[str, ...]) -> dict[str, Any]:
    error = {"description": "refused", "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "done", "content": {each: {} for each in gives}}, "default": error},
    }
    parameters = [_parameter("name", "path", {"type": "string"})] if "{name}" in path else []
    if path == "/segment":
        parameters += [_parameter(name, "query", schema) for name, schema in _QUERY.items()]
    if parameters:
        operation["parameters"] = parameters
    if takes:
        operation["requestBody"] = {"required": True, "content": {each: {} for each in takes}}
    return operation


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def page() -> str:
    """The routes as a table in HTML."""
    rows = "".join(
        f"<tr><td>{method.upper()}<td><code>{html.escape(path)}</code><td>{html.escape(summary)}"
        for method, path, summary, _, _ in _ROUTES
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>atrous</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>body{font:16px/1.5 system-ui;margin:2em auto;max-width:60em;padding:0 1em;color-scheme:light dark}"
        "td{padding:.3em 1em .3em 0;vertical-align:top}</style>"
        f"<h1>atrous {html.escape(__version__)}</h1><p>Segmentation over HTTP. <a href=openapi.json>openapi.json</a>"
        f"<table>{rows}</table><pre>curl --data-binary @photo.jpg 'http://127.0.0.1:8000/segment?format=overlay' "
        "-o overlay.png</pre>"
    )
