"""Random requests: right ones that are damaged, as a bad client, a broken proxy or an attacker sends them.

Run as `python tests/fuzz_requests.py PORT MODEL [COUNT]` against a server that runs, it prints how often each
status came, and fails where the server did not answer or one was 500.
"""

from __future__ import annotations

import copy
import io
import json
import random
import socket
import sys
from collections import Counter

from PIL import Image

_PATHS = (
    "/v2/models/{model}/infer",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/1/infer",
    "/v2/models/{model}",
    "/v2/models/{model}/config",
    "/v2/repository/index",
    "/v2/repository/models/{model}/load",
    "/segment?model={model}&format=json",
    "/segment?model={model}&format=overlay&alpha=0.5",
    "/v2/health/ready",
    "/metrics",
    "/",
)
_VALUES = (None, True, -1, 0, 3, 2**31, 10**30, 0.5, "", "LABELS", "\ud800", "x" * 300, [], {}, [[]], {"a": [1]})
_STATUSES = range(200, 600)


def make_request(rng: random.Random, model: str) -> bytes:
    """One request, somehow wrong or just right."""
    body, length = _body(rng)
    path = rng.choice(_PATHS).format(model=model)
    method = rng.choice(("POST", "POST", "POST", "GET", "PUT", "OPTIONS"))
    headers = {"Host": "x", "Content-Length": str(len(body)), "Inference-Header-Content-Length": str(length)}
    for name in list(headers):
        if rng.random() < 0.1:
            del headers[name]
    if rng.random() < 0.15:
        headers[rng.choice((*headers, "Content-Encoding", "Authorization", "X-Request-ID", "Expect"))] = rng.choice(
            ("-1", "0", "7", "999999999999", "gzip", "\xff", "a,b", "100-continue", "")
        )
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
    return _damaged(rng, request) if rng.random() < 0.25 else request


def ask(port: int, request: bytes) -> int | None:
    """Status of the answer; None where the server ended the connection or waits for more."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1 << 16)
        except (ConnectionError, BrokenPipeError):
            return None
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


def fuzz(port: int, model: str, count: int, seed: int = 0) -> Counter[int | None]:
    """Statuses of so many requests."""
    rng = random.Random(seed)
    return Counter(ask(port, make_request(rng, model)) for _ in range(count))


def _body(rng: random.Random) -> tuple[bytes, int]:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200)), rng.randrange(300)
    if kind == 1:
        file = io.BytesIO()
        Image.new("RGB", (rng.randrange(1, 60), rng.randrange(1, 60))).save(file, rng.choice(("PNG", "JPEG")))
        data = bytearray(file.getvalue())
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data), 0
    height, width = rng.randrange(1, 40), rng.randrange(1, 40)
    data = rng.randbytes(height * width * 3)
    tensor = {"name": "IMAGE", "datatype": "UINT8", "shape": [height, width, 3]}
    request: dict[str, object] = {"inputs": [tensor], "outputs": [{"name": "LABELS"}], "parameters": {}}
    if kind == 2:
        request["inputs"] = [{**tensor, "parameters": {"binary_data_size": len(data)}}]
    else:
        request["inputs"] = [{**tensor, "data": list(data)}]
    for _ in range(rng.choice((0, 0, 1, 2))):
        _change(rng, request)
    text = json.dumps(request).encode()
    return text + (data if kind == 2 else b""), len(text)


def _change(rng: random.Random, value: object) -> None:
    """Put a wrong value somewhere into a tree of JSON."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(min(len(value), 4))
        if rng.random() < 0.4 or not isinstance(value[key], dict | list):
            value[key] = copy.deepcopy(rng.choice(_VALUES))
            return
        value = value[key]


def _damaged(rng: random.Random, request: bytes) -> bytes:
    """Cut off, or with bytes changed."""
    if rng.random() < 0.5:
        return request[: rng.randrange(len(request))]
    data = bytearray(request)
    for _ in range(rng.randrange(1, 8)):
        data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
    return bytes(data)


def main() -> None:
    """Print the statuses."""
    port, model, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10_000
    found = fuzz(port, model, count)
    for status, times in sorted(found.items(), key=lambda each: str(each[0])):
        print(f"{status}: {times}")
    if found[500] or ask(port, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n") != 200:
        raise SystemExit("the server failed")


if __name__ == "__main__":
    main()
