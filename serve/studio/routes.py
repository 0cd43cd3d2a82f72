"""Routes of a studio: the page, and what it asks for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ..._version import __version__
from ...runtime.preprocess import color_image
from ...runtime.result import DEFAULT_ALPHA
from ..images import decode
from ..pictures import labels_png
from ..protocol import parse_object
from ..refusals import bad_request
from ..service import query_flag, trace_of
from .assets import asset_routes
from .kept import KeptImage, Outcome
from .origin import SameOrigin
from .refinement import MOST_ITERATIONS, Refinement
from .studio import Studio, View

_API: Final = "/studio/api"
_PNG: Final = "image/png"
_CHOICES: Final = ("precision", "crf", "preview")
#: Bytes that are encoded on the event loop itself would hold it up, so all are encoded on threads.
_FRESH: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def studio_routes(studio: Studio) -> tuple[list[BaseRoute], list[str]]:
    """The routes, and the paths among them that need no token: files of the page, which tell nothing."""
    assets = asset_routes()
    api = _Api(studio)
    guarded = Mount(
        _API,
        routes=[
            Route("/config", api.config),
            Route("/images", api.add_image, methods=["POST"]),
            Route("/images/{image_id}/picture", api.picture),
            Route("/images/{image_id}/labels", api.labels),
            Route("/images/{image_id}/confidence", api.confidence),
            Route("/crf", api.write_crf, methods=["PUT"]),
        ],
        middleware=[Middleware(SameOrigin, is_local=studio.is_local)],
    )
    return [*assets, guarded], [route.path for route in assets]


class _Api:
    """Endpoints that answer from one studio."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def config(self, _request: Request) -> Response:
        """Answer `GET /studio/api/config`: what a page must know before it has an image."""
        return JSONResponse(_config(self._studio), headers=_FRESH)

    async def add_image(self, request: Request) -> Response:
        """Answer `POST /studio/api/images`: keep the image that is the body, and give it an id."""
        studio = self._studio
        service = studio.service
        trace_of(request).model = studio.model.name
        with service.budget.hold() as holding:
            body = await service.read_body(request, holding)
            with trace_of(request).measure("decode"):
                bands = studio.opened.bundle.manifest.input.bands
                pixels = await service.run_apart(decode, body, bands, service.limits, holding)
        image = studio.images.add(pixels)
        about = {"id": image.image_id, "height": pixels.shape[0], "width": pixels.shape[1]}
        return JSONResponse(about, 201, headers=_FRESH)

    async def picture(self, request: Request) -> Response:
        """Answer `GET /studio/api/images/ID/picture`: the image as the network sees it, upright and in sRGB."""
        image, bands = self._image_of(request), self._studio.opened.bundle.manifest.input.bands
        with trace_of(request).measure("encode"):
            content = await self._studio.service.run_apart(
                lambda: _png(Image.fromarray(color_image(image.pixels, bands)), compress_level=1)
            )
        return Response(content, headers=_FRESH, media_type=_PNG)

    async def labels(self, request: Request) -> Response:
        """Answer `GET /studio/api/images/ID/labels`: the palette PNG that `Result.save` writes.

        The header `X-Atrous-Step` says which pixels a preview has: every so many-th along both axes.
        """
        outcome, step = await self._outcome(request)
        return await self._answer(request, outcome, step, lambda: labels_png(outcome.result))

    async def confidence(self, request: Request) -> Response:
        """Answer `GET /studio/api/images/ID/confidence`: a grey PNG, the probability of each label times 255."""
        outcome, step = await self._outcome(request)
        picture = Image.fromarray(outcome.confidence)
        return await self._answer(request, outcome, step, lambda: _png(picture, compress_level=1))

    async def write_crf(self, request: Request) -> Response:
        """Answer `PUT /studio/api/crf`: write parameters into the bundle."""
        service = self._studio.service
        with service.budget.hold() as holding:
            body = await service.read_body(request, holding)
        await self._studio.write_crf(Refinement.parse(parse_object(body)))
        return JSONResponse(_config(self._studio), headers=_FRESH)

    async def _outcome(self, request: Request) -> tuple[Outcome, int]:
        trace_of(request).model = self._studio.model.name
        return await self._studio.outcome(request, self._image_of(request), _view_of(request))

    async def _answer(self, request: Request, outcome: Outcome, step: int, encode: Any) -> Response:  # noqa: ANN401
        trace = trace_of(request)
        with trace.measure("encode"):
            content = await self._studio.service.run_apart(encode)
        # Of a kept result as well, the times that it took: a page shows what an image costs.
        stages = {**outcome.result.timings_ms, "encode": trace.stages_ms["encode"]}
        timing = ", ".join(f"{stage};dur={value:.2f}" for stage, value in stages.items())
        return Response(
            content, headers={**_FRESH, "Server-Timing": timing, "X-Atrous-Step": str(step)}, media_type=_PNG
        )

    def _image_of(self, request: Request) -> KeptImage:
        return self._studio.images.find(request.path_params["image_id"])


def _view_of(request: Request) -> View:
    """View that the query of a request asks for."""
    query = dict(request.query_params)
    if "precision" not in query:
        raise bad_request("the query has no precision; GET /studio/api/config lists them")
    precision = query["precision"]
    is_refined, is_preview = query_flag(request, "crf"), query_flag(request, "preview")
    rest = {name: value for name, value in query.items() if name not in _CHOICES}
    refinement = Refinement.parse(rest) if is_refined else None
    return View(precision, refinement, bool(is_preview))


def _config(studio: Studio) -> dict[str, Any]:
    opened = studio.opened
    manifest, backend = opened.bundle.manifest, opened.first.backend
    refinement = Refinement.of_bundle(manifest)
    limits = studio.service.limits
    return {
        "name": studio.model.name,
        "bundle": studio.bundle,
        "version": __version__,
        "backend": backend.name,
        "device": backend.device,
        "precisions": list(opened.precisions),
        "classes": [{"name": each.name, "color": list(each.color)} for each in manifest.classes],
        "crf": {"params": refinement.params.to_dict(), "iterations": refinement.iterations},
        "most_iterations": MOST_ITERATIONS,
        "alpha": DEFAULT_ALPHA,
        "writable": studio.writable,
        "max_bytes": limits.body_bytes,
        "max_pixels": limits.pixels,
        "bands": None if manifest.input.bands is None else list(manifest.input.bands.names),
    }


def _png(picture: Image.Image, *, compress_level: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=compress_level)
    return file.getvalue()
