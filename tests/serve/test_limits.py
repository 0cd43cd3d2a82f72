"""Requests that are too large, too slow, or lie about themselves."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from http_servers import PATIENCE_S, ServerProcess, ask, infer, infer_body, labels_of, server_in_thread
from segmenters import picture

import atrous
from atrous.bundle import Bundle
from atrous.errors import ArgumentError, ServeError
from atrous.serve.limits import Budget, Limits
from atrous.serve.refusals import RefusedError

INFER = "/v2/models/tiny/infer"


def bomb(side: int) -> bytes:
    """A PNG of `side`² black pixels in one bit each, which zlib makes a thousandth of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class TestSizes:
    @pytest.mark.parametrize("side", [30_000, 1_000])
    def test_a_bomb_is_not_decoded(self, server: ServerProcess, side: int) -> None:
        file = bomb(side)
        assert len(file) < 150_000
        start = time.monotonic()
        answer = ask(server.port, "POST", "/segment?model=tiny", file)
        assert answer.status == 413
        assert "too large" in answer.error or "1000×1000 pixels, of at most 200000" in answer.error
        assert time.monotonic() - start < 10  # decoding 900 million pixels takes longer

    def test_of_an_image(self, server: ServerProcess) -> None:
        answer = infer(server.port, "tiny", np.zeros((1, 200_001, 3), np.uint8))
        assert (answer.status, answer.error) == (413, "the image has 1×200001 pixels, of at most 200000")

    def test_of_a_body(self, server: ServerProcess) -> None:
        answer = ask(server.port, "POST", INFER, b"x" * 1_000_001)
        assert (answer.status, answer.error) == (413, "the body has 1000001 bytes, of at most 1000000")

    def test_of_a_body_that_does_not_say(self, server: ServerProcess) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(17):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            assert b" 413 " in connection.recv(1000).splitlines()[0]

    def test_of_json(self, tiny_bundle: Bundle) -> None:
        with server_in_thread(tiny_bundle.path, limits=Limits(json_bytes=1000)) as (port, _):
            answer = ask(port, "POST", INFER, b" " * 1001)
            assert answer.status == 413
            assert "1001 bytes of JSON, of at most 1000; send tensors as binary data" in answer.error
            assert infer(port, "tiny", picture((50, 70))).status == 200

    def test_of_probabilities(self, tiny_bundle: Bundle) -> None:
        with server_in_thread(tiny_bundle.path, limits=Limits(probability_bytes=20_000)) as (port, _):
            image = picture((40, 40))
            for options in ({"outputs": ["PROBABILITIES"]}, {"outputs": ["LABELS", "CONFIDENCE"]}, {"crf": True}):
                answer = infer(port, "tiny", image, **options)
                assert answer.status == 413
                assert "the probabilities of 5 classes at 40×40 take 32000 bytes, of at most 20000" in answer.error
            assert infer(port, "tiny", image).status == 200

    def test_of_all_requests_together(self, tiny_bundle: Bundle) -> None:
        with server_in_thread(tiny_bundle.path, limits=Limits(held_bytes=5_000)) as (port, service):
            answer = infer(port, "tiny", picture((50, 70)))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "of at most 5000" in answer.error
            assert infer(port, "tiny", picture((20, 20))).status == 200
            assert service.budget.held_bytes == 0


class TestLies:
    """Bodies that are not what they say."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"shape": [16, 17, 3]}, "has 816 bytes; its binary_data_size is 768"),
            ({"shape": [16, -16, 3]}, "has no shape"),
            ({"shape": [2**31, 2**31, 3]}, "has no shape"),
            ({"shape": [2**30, 2**30, 3]}, "its binary_data_size is 768"),
            ({"shape": "16,16,3"}, "has no shape"),
            ({"parameters": {"binary_data_size": 10**12}}, "has binary_data_size 1000000000000; the body has 768"),
            ({"parameters": {"binary_data_size": -1}}, "has binary_data_size -1"),
            ({"parameters": {"binary_data_size": True}}, "has binary_data_size True"),
            ({"parameters": {"binary_data_size": 767}}, "its binary_data_size is 767"),
            ({"parameters": {}}, "has no data: expected a list of numbers, or binary_data_size"),
            ({"parameters": {}, "data": [1, 2]}, "has data of shape [2]; expected [16, 16, 3], or flat"),
            ({"parameters": {}, "data": [[1], [1, 2]]}, "has data that is"),
            ({"parameters": {}, "shape": [1, 1, 3], "data": [0, 256, 0]}, "takes whole numbers from 0 to 255"),
            ({"parameters": {}, "shape": [1, 1, 3], "data": [0, -1, 0]}, "takes whole numbers from 0 to 255"),
            ({"parameters": {}, "shape": [1, 1, 3], "data": [0, 0.5, 0]}, "takes whole numbers from 0 to 255"),
            ({"parameters": {}, "shape": [1, 1, 3], "data": ["0", "1", "2"]}, "that is not all numbers"),
            ({"datatype": 3}, "datatype of 'IMAGE' must be a string"),
            ({"name": ["IMAGE"]}, "the name of an input must be a string"),
            ({"name": "ENCODED", "datatype": "BYTES", "shape": [1]}, "expected 4 that say how many follow, and those"),
        ],
    )
    def test_of_a_tensor(self, server: ServerProcess, change: dict[str, object], message: str) -> None:
        tensor = {
            "name": "IMAGE",
            "datatype": "UINT8",
            "shape": [16, 16, 3],
            "parameters": {"binary_data_size": 768},
            **change,
        }
        text = json.dumps({"inputs": [tensor]}).encode()
        answer = ask(server.port, "POST", INFER, text + b"\0" * 768, Inference_Header_Content_Length=str(len(text)))
        assert answer.status == 400
        assert message in answer.error

    @pytest.mark.parametrize("length", ["-1", "99999", "abc", "1e3", "9" * 5000, ""])
    def test_of_the_length_of_the_json(self, server: ServerProcess, length: str) -> None:
        answer = ask(server.port, "POST", INFER, b"{}" + b"\0" * 50, Inference_Header_Content_Length=length)
        assert answer.status == 400
        assert "expected 0 to 52, the bytes of the body" in answer.error

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "the body is not JSON"),
            (b"\xff\xfe", "the body is not JSON"),
            (b"[]", "the body must be an object"),
            (b"{}", "inputs must be a list"),
            (b'{"inputs": [' + b"{}, " * 20 + b"{}]}", "inputs must be a list of at most 16 objects"),
            (b'{"inputs": [], "outputs": 3}', "outputs must be a list"),
            (b'{"inputs": [], "id": 3}', "id must be a string"),
            (b'{"inputs": [], "parameters": []}', "parameters must be an object"),
            (b'{"inputs": []}', "expected one input, IMAGE or ENCODED; got none"),
            (b'{"inputs": NaN}', "NaN is no number of JSON"),
            (b"[" * 100_000, "the body is not JSON"),
            (b'{"inputs": [], "id": ' + b"1" * 10_000 + b"}", "the body is not JSON"),
        ],
    )
    def test_malformed_json(self, server: ServerProcess, body: bytes, message: str) -> None:
        answer = ask(server.port, "POST", INFER, body)
        assert answer.status == 400
        assert message in answer.error

    def test_bytes_of_nobody(self, server: ServerProcess) -> None:
        body, length = infer_body(picture((16, 16)))
        answer = ask(server.port, "POST", INFER, body + b"more", Inference_Header_Content_Length=length)
        assert (answer.status, answer.error) == (400, "the body has 4 bytes that belong to no input")


@pytest.fixture(scope="module")
def impatient(tiny_bundle: Bundle) -> Iterator[int]:
    """Port of a server that waits a second for headers and bodies, and for clients to read."""
    with server_in_thread(tiny_bundle.path, limits=Limits(header_s=1, body_s=1, send_s=1)) as (port, _):
        yield port


class TestSlowClients:
    @pytest.mark.parametrize("beginning", [b"", b"POST /v2/mod", b"GET /v2 HTTP/1.1\r\nX: "])
    def test_a_header_that_does_not_end(self, impatient: int, beginning: bytes) -> None:
        with socket.create_connection(("127.0.0.1", impatient), timeout=PATIENCE_S) as connection:
            connection.sendall(beginning)
            assert _rest(connection) == b""

    def test_a_header_without_end(self, impatient: int) -> None:
        with socket.create_connection(("127.0.0.1", impatient), timeout=PATIENCE_S) as connection:
            header = b"GET /v2 HTTP/1.1\r\n" + (b"X-Header: " + b"x" * 1000 + b"\r\n") * 10_000
            with pytest.raises(ConnectionError):
                connection.sendall(header)

    def test_a_body_that_does_not_come(self, impatient: int) -> None:
        with socket.create_connection(("127.0.0.1", impatient), timeout=PATIENCE_S) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n12345".encode())
            assert b" 408 " in connection.recv(1000).splitlines()[0]

    def test_an_answer_that_is_not_read(self, tiny_bundle: Bundle) -> None:
        body, length = infer_body(np.zeros((700, 700, 3), np.uint8), outputs=["PROBABILITIES"])
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += f"Inference-Header-Content-Length: {length}\r\n\r\n"
        with (
            server_in_thread(tiny_bundle.path, limits=Limits(send_s=1)) as (port, service),
            socket.socket() as connection,
        ):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE_S)
            connection.connect(("127.0.0.1", port))
            connection.sendall(head.encode() + body)
            assert _until(lambda: service.budget.held_bytes > 700 * 700 * 5 * 4)  # also while it is being sent
            assert _until(lambda: service.budget.held_bytes == 0)
            assert len(_rest(connection)) < 700 * 700 * 5 * 4

    def test_others_are_served_meanwhile(self, impatient: int, tiny: atrous.Segmenter) -> None:
        waiting = [socket.create_connection(("127.0.0.1", impatient)) for _ in range(50)]
        try:
            image = picture((50, 70))
            labels = labels_of(infer(impatient, "tiny", image), (50, 70))
            assert (labels == tiny(image).labels).mean() > 0.999  # of another backend
        finally:
            for each in waiting:
                each.close()


@pytest.mark.slow
class TestOverload:
    def test_refuses_at_once_and_keeps_what_it_took(self, tiny_bundle: Bundle) -> None:
        image = picture((200, 300))
        options = {"backend": "onnxruntime", "crf": True}
        with server_in_thread(tiny_bundle.path, limits=Limits(queue=2), **options) as (port, service):
            answers, lock = [], threading.Lock()

            def run() -> None:
                start = time.monotonic()
                answer = infer(port, "tiny", image)
                with lock:
                    answers.append((answer, time.monotonic() - start))

            threads = [threading.Thread(target=run) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            expected = atrous.load(tiny_bundle, backend="onnxruntime", threads=1, crf=True)(image).labels
            refused = [answer for answer, _ in answers if answer.status == 503]
            assert len(refused) >= 5
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            assert refused[0].error == "model 'tiny' has 2 images waiting"
            accepted = [answer for answer, _ in answers if answer.status != 503]
            assert len(accepted) >= 3
            for answer in accepted:
                np.testing.assert_array_equal(labels_of(answer, (200, 300)), expected)
            assert service.budget.held_bytes == 0

    def test_images_that_wait_too_long(self, tiny_bundle: Bundle) -> None:
        with server_in_thread(tiny_bundle.path, limits=Limits(wait_s=0.05)) as (port, _):
            answer = infer(port, "tiny", picture((300, 300)), crf=True)
            assert answer.status == 503
            assert "was not segmented within 0.05 s" in answer.error
            assert _until(lambda: infer(port, "tiny", picture((20, 20))).status == 200)

    def test_a_client_that_goes_away_is_not_waited_for(self, tiny_bundle: Bundle) -> None:
        body, length = infer_body(picture((300, 300)), crf=True)
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += f"Inference-Header-Content-Length: {length}\r\n\r\n"
        with server_in_thread(tiny_bundle.path) as (port, service):
            for _ in range(8):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(head.encode() + body)
            assert _until(lambda: b'reason="disconnected"' in service.metrics.text())
            assert _until(lambda: service.budget.held_bytes == 0)


class TestValues:
    @pytest.mark.parametrize("value", [0, -1])
    def test_must_be_above_0(self, value: int) -> None:
        with pytest.raises(ServeError, match=f"the limit queue must be above 0 and finite; got int {value}"):
            Limits(queue=value)

    def test_must_be_finite(self) -> None:
        with pytest.raises(ServeError, match="the limit wait_s must be above 0 and finite; got float inf"):
            Limits(wait_s=float("inf"))

    def test_must_be_numbers(self) -> None:
        with pytest.raises(ArgumentError, match="pixels must be int; got str 'many'"):
            Limits(pixels="many")

    def test_a_budget_gives_back_what_was_held(self) -> None:
        budget = Budget(10)
        with budget.hold() as holding:
            holding.add(7)
            with pytest.raises(RefusedError, match="holds 7 bytes of requests, of at most 10"):
                holding.add(4)
            assert budget.held_bytes == 7
        assert budget.held_bytes == 0


def _rest(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection, whichever way."""
    received = io.BytesIO()
    try:
        while data := connection.recv(1 << 16):
            received.write(data)
    except ConnectionError:
        pass
    return received.getvalue()


def _until(condition) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
