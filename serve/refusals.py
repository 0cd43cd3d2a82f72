"""Requests that are refused, with the status that HTTP has for the reason."""

from __future__ import annotations

from ..errors import ArgumentError, AtrousError, ImageError, ShapeError

#: Errors of the library that are the client's: what was sent is no image for this network.
_OF_THE_CLIENT = (ArgumentError, ImageError, ShapeError)


class RefusedError(AtrousError):
    """A request is refused.

    Attributes:
        status: of HTTP.
        retry_after_s: seconds after which the client may try again; None where that would not help.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


def bad_request(message: str) -> RefusedError:
    """A request that no server of this protocol can answer."""
    return RefusedError(400, message)


def refusal_of(exc: AtrousError) -> RefusedError | None:
    """The refusal that an error of the library is; None for one that is the server's own."""
    if isinstance(exc, RefusedError):
        return exc
    return bad_request(str(exc)) if isinstance(exc, _OF_THE_CLIENT) else None
