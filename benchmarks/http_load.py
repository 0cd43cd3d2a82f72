"""Load on an HTTP server, from threads with a connection each: closed loops, and arrivals at a rate."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_READ_BYTES = 1 << 18


@dataclass
class Load:
    """What came back.

    Attributes:
        latencies_ms: of the requests that were answered with 200, from when they were due.
        refused_ms: of those that were answered with 503.
        wrong: answers of 200 with a wrong body, and other failures, in words.
        seconds: from the first request to the last answer.
    """

    latencies_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Percentiles and counts."""
        found: dict[str, Any] = {
            "requests": len(self.latencies_ms),
            "per_second": round(len(self.latencies_ms) / self.seconds, 2),
            "wrong": len(self.wrong),
        }
        for name, values in (("", self.latencies_ms), ("refused_", self.refused_ms)):
            if values:
                middle, high = np.percentile(values, [50, 99])
                found |= {f"{name}p50_ms": round(float(middle), 3), f"{name}p99_ms": round(float(high), 3)}
        return found | {"refused": len(self.refused_ms)}


@dataclass(frozen=True)
class Request:
    """Bytes to send, and a check of the answer's body."""

    content: bytes
    is_right: Callable[[bytes], bool]


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, content: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._socket.sendall(content)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._read()
        head = bytes(received[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + length:
            received += self._read()
        return int(head.split(b" ", 2)[1]), bytes(received[end + 4 :])

    def _read(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed_loop(port: int, requests: Sequence[Request], *, clients: int, seconds: float) -> Load:
    """Each client sends its next request when it has the answer to its last."""
    load, until = Load(), time.perf_counter() + seconds

    def run(number: int) -> None:
        client, turn = Client(port), number
        while (start := time.perf_counter()) < until:
            _ask(client, requests[turn % len(requests)], start, load)
            turn += 1

    _in_threads(run, clients, load)
    return load


def open_loop(port: int, requests: Sequence[Request], *, rate: float, connections: int, seconds: float) -> Load:
    """Requests are due at a rate, whatever comes back; a request waits for a free connection, which counts."""
    load, first = Load(), time.perf_counter() + 0.1
    numbers = iter(range(round(rate * seconds)))
    lock = threading.Lock()

    def run(_number: int) -> None:
        client = None  # a server ends connections on which nothing is asked
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due = first + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            client = client or Client(port)
            _ask(client, requests[number % len(requests)], due, load)

    _in_threads(run, connections, load)
    return load


def _ask(client: Client, request: Request, start: float, load: Load) -> None:
    try:
        status, body = client.ask(request.content)
    except (OSError, ValueError) as exc:
        load.wrong.append(str(exc))
        raise
    spent_ms = (time.perf_counter() - start) * 1e3
    if status == 503:
        load.refused_ms.append(spent_ms)
    elif status == 200 and request.is_right(body):
        load.latencies_ms.append(spent_ms)
    else:
        load.wrong.append(f"{status}: {body[:200]!r}")


def _in_threads(run: Callable[[int], None], count: int, load: Load) -> None:
    start = time.perf_counter()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - start
