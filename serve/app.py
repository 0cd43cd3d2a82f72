"""ASGI application of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from . import management
from .gate import Gate
from .inference import infer
from .pictures import segment
from .service import Service


def create_app(
    service: Service,
    *,
    token: str | None = None,
    routes: Sequence[BaseRoute] = (),
    open_paths: Collection[str] = (),
) -> Starlette:
    """Make the application; it closes the service when it ends.

    Args:
        service: what routes do their work with, which is `app.state.service`.
        token: without which requests are refused; None lets everybody in.
        routes: more of them, such as those of a page.
        open_paths: those of them that need no token.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    gate = Middleware(Gate, metrics=service.metrics, token=token, open_paths=open_paths)
    app = Starlette(
        routes=[*_protocol_routes(), *_own_routes(), *routes],
        middleware=[gate],
        exception_handlers={HTTPException: _pass_on},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


async def _pass_on(_request: Request, exc: Exception) -> Response:
    """Leave errors of the router to the gate, where all become answers."""
    raise exc


def _protocol_routes() -> list[Route]:
    """Routes of the Open Inference Protocol v2, and of Triton's extensions to it."""
    models = "/v2/models/{name}"
    by_version = [
        ("", management.model_metadata, "GET"),
        ("/ready", management.model_ready, "GET"),
        ("/config", management.model_config, "GET"),
        ("/infer", infer, "POST"),
    ]
    return [
        Route("/v2", management.server_metadata),
        Route("/v2/health/live", management.live),
        Route("/v2/health/ready", management.ready),
        *(
            Route(f"{models}{version}{tail}", endpoint, methods=[method])
            for tail, endpoint, method in by_version
            for version in ("", "/versions/{version}")
        ),
        Route("/v2/repository/index", management.repository_index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", management.load_model, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", management.unload_model, methods=["POST"]),
    ]


def _own_routes() -> list[Route]:
    return [
        Route("/segment", segment, methods=["POST"]),
        Route("/metrics", management.metrics),
        Route("/openapi.json", management.openapi),
        Route("/docs", management.docs),
    ]
