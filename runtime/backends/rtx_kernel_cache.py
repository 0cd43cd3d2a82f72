"""Kernels that TensorRT-RTX compiles when an engine first meets a shape, kept for later contexts and processes."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from ...files import write_whole
from .tensorrt_types import RtxRuntimeCache, RtxRuntimeConfig

_log = logging.getLogger(__name__)


class RtxKernelCache:
    """One plan's kernels: its contexts share them, and a file keeps them.

    TensorRT-RTX judges the file: one of another GPU, driver or version is not used, and replaced. A file that cannot be
    read or written costs time, nothing else.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cache: RtxRuntimeCache = None
        self._saved = b""

    def attach(self, config: RtxRuntimeConfig) -> None:
        """Lets the context that is made with `config` use the kernels; the GPU must be current."""
        with self._lock:
            if self._cache is None:
                cache: RtxRuntimeCache = config.create_runtime_cache()
                self._load(cache)
                self._cache = cache
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        with self._lock:
            cache: RtxRuntimeCache = self._cache
            data = bytes(cache.serialize())
            if data == self._saved:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with write_whole(self._path) as temporary:
                    temporary.write_bytes(data)
            except OSError as exc:
                _log.info("compiled kernels are not kept in %s: %s", self._path, exc)
            self._saved = data

    def _load(self, cache: RtxRuntimeCache) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as exc:
            _log.info("compiled kernels cannot be read from %s: %s", self._path, exc)
            return
        if cache.deserialize(data):
            self._saved = data
