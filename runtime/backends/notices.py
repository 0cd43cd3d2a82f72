"""Warnings about backends that are not used, each once a process."""

from __future__ import annotations

import functools
import logging

_log = logging.getLogger(__package__)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning that was not logged before."""
    _log.warning("%s", message)
