"""Metrics of a server, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .._version import __version__

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES: Final = (1, 2, 3, 4, 5, 6, 7, 8)


class Queue(Protocol):
    """A queue whose length is watched."""

    @property
    def waiting(self) -> int:
        """Images that wait."""
        ...


class Metrics:
    """Counters and histograms of one server, in a registry of its own.

    Attributes:
        requests: finished requests by route, as the protocol writes it, and status.
        seconds: time of each request by route, from its header to the end of its answer.
        stage_seconds: time of each stage of an image by model.
        batch_images: images that shared an inference, by model.
        refused: requests that were refused or failed, by reason: the status and, of the server's own, the error.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter("atrous_requests", "Requests answered.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "atrous_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=own
        )
        self.stage_seconds = Histogram(
            "atrous_stage_seconds", "Time of a stage of an image.", ["model", "stage"], buckets=_SECONDS, registry=own
        )
        self.batch_images = Histogram(
            "atrous_batch_images", "Images in a batch.", ["model"], buckets=_BATCHES, registry=own
        )
        self.errors = Counter("atrous_errors", "Requests refused or failed.", ["model", "reason"], registry=own)
        self.held_bytes = Gauge("atrous_held_bytes", "Bytes of requests and answers in memory.", registry=own)
        self._waiting = Gauge("atrous_queue_images", "Images that wait for a model.", ["model"], registry=own)
        Gauge("atrous_build", "Version of atrous.", ["version"], registry=own).labels(__version__).set(1)

    def watch_queue(self, model: str, queue: Queue) -> None:
        """Report the length of a model's queue as it is when somebody asks."""
        self._waiting.labels(model).set_function(lambda: queue.waiting)

    def observe_stages(self, model: str, stages_ms: Mapping[str, float]) -> None:
        """Count the stages of one image, in milliseconds."""
        for stage, value in stages_ms.items():
            self.stage_seconds.labels(model, stage).observe(value / 1e3)

    def text(self) -> bytes:
        """All of them, for Prometheus."""
        return generate_latest(self._registry)
