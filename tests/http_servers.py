"""Servers to test, in processes and in threads, and requests as they go over the wire."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.serve.app import create_app
from atrous.serve.limits import Limits
from atrous.serve.metrics import Metrics
from atrous.serve.models import LoadOptions, Models
from atrous.serve.server import make_server, open_socket
from atrous.serve.service import Service

#: Seconds after which a test gives up on a server.
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error of the protocol, which is the whole body."""
        (message,) = self.json().values()
        assert self.json().keys() == {"error"}
        return message


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request over a connection of its own; underscores in the names of headers are hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def infer_body(image: NDArray[Any], *, outputs: Sequence[str] = ("LABELS",), **parameters: object) -> tuple[bytes, str]:
    """The body of a request to infer with binary tensors, and the length of its JSON."""
    types = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}
    tensor = {"name": "IMAGE", "datatype": types[image.dtype.name], "shape": list(image.shape)}
    text = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": image.nbytes}}],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
            "parameters": parameters,
        }
    ).encode()
    return text + image.tobytes(), str(len(text))


def infer(port: int, model: str, image: NDArray[Any], **options: Any) -> Answer:
    """Ask for the labels of an image."""
    body, length = infer_body(image, **options)
    return ask(port, "POST", f"/v2/models/{model}/infer", body, Inference_Header_Content_Length=length)


def labels_of(answer: Answer, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The labels of an answer in which nothing follows them."""
    assert answer.status == 200, answer.body
    return np.frombuffer(answer.body[int(answer.headers["inference-header-content-length"]) :], np.uint8).reshape(size)


class ServerProcess:
    """`atrous serve` in a process of its own, at a free port; ends with the block.

    Attributes:
        port: at which it listens.
        log: file that it logs to.
    """

    def __init__(self, folder: Path, *arguments: object, port: int = 0) -> None:
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "atrous", "serve", *map(str, arguments), "--threads=1", f"--port={port}"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"serving .* at http://[\d.]+:(\d+)$", self.said)
        assert found, self.log.read_text()
        self.port = int(found[1])

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged, each line of which is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def server_in_thread(
    *bundles: Path, limits: Limits | None = None, token: str | None = None, **options: Any
) -> Iterator[tuple[int, Service]]:
    """A server with limits of its own in a thread of this process: its port, and its service."""
    limits = limits or Limits()
    metrics = Metrics()
    models = Models(bundles, LoadOptions(threads=1, **options), limits, metrics)
    service = Service(models, limits, metrics, allow_reload=False)
    with open_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = make_server(create_app(service, token=token), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield port, service
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
