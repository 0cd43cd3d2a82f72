"""Gate that every request passes: its id, the token, its place in logs and metrics, and errors as JSON."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Collection, Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import AtrousError
from .logs import FIELDS
from .metrics import Metrics
from .refusals import RefusedError, refusal_of
from .trace import Trace, request_id

#: Paths that need no token: whoever starts and stops servers asks them, and they tell nothing.
OPEN_PATHS: Final = ("/v2/health/live", "/v2/health/ready")
#: Routes of requests that match none, so that a stranger's paths do not become labels of metrics.
_NO_ROUTE: Final = "none"

_logger = logging.getLogger("atrous.serve")


class Gate:
    """ASGI application around another one.

    Args:
        app: what is behind the gate.
        metrics: counts and times every request.
        token: without which requests are refused, but those of `OPEN_PATHS`; None lets everybody in.
        open_paths: more paths that need no token.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, token: str | None, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._open_paths = {*OPEN_PATHS, *open_paths}
        self._expected = None if token is None else b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        trace = Trace(request_id(Headers(scope=scope).get("x-request-id")))
        scope.setdefault("state", {})["trace"] = trace
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = trace.request_id
            await send(message)

        try:
            self._check_token(scope)
            await self._app(scope, receive, send_traced)
        except ClientDisconnect:
            self._metrics.errors.labels(trace.model, "disconnected").inc()
            status = status or 499
        except Exception as exc:
            answer = self._answer_of(exc, trace)
            if status == 0:
                await _send_error(answer, scope, receive, send_traced)
        finally:
            trace.until_sent.close()
            self._finish(scope, trace, status, time.perf_counter() - start)

    def _check_token(self, scope: Scope) -> None:
        if self._expected is None or scope["path"] in self._open_paths:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._expected):
            raise RefusedError(401, "this server needs the header `Authorization: Bearer TOKEN`, with its token")

    def _answer_of(self, exc: Exception, trace: Trace) -> RefusedError:
        """Make of an exception what the client gets; the server's own faults go to the log."""
        refusal = refusal_of(exc) if isinstance(exc, AtrousError) else None
        if isinstance(exc, HTTPException):  # of Starlette's router
            refusal = RefusedError(exc.status_code, exc.detail.lower())
        if refusal is None:
            _logger.error("request failed: %s", exc, exc_info=exc, extra={FIELDS: {"request_id": trace.request_id}})
            refusal = RefusedError(
                500, f"the server failed ({type(exc).__name__}); its log has request {trace.request_id}"
            )
        self._metrics.errors.labels(trace.model, str(refusal.status)).inc()
        return refusal

    def _finish(self, scope: Scope, trace: Trace, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        self._metrics.observe_stages(trace.model, trace.stages_ms)
        if status == 200 and scope["path"] in OPEN_PATHS:
            return  # every few seconds, from every prober
        fields: Mapping[str, object] = {
            "request_id": trace.request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(seconds * 1e3, 2),
            "model": trace.model,
            "stages_ms": {stage: round(value, 2) for stage, value in trace.stages_ms.items()},
        }
        _logger.info("request", extra={FIELDS: fields})


async def _send_error(refusal: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import Response

    headers = {"Content-Type": "application/json"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps({"error": str(refusal)}).encode()
    await Response(body, refusal.status, headers)(scope, receive, send)
