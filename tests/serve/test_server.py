"""The life of a server: what it says, how it ends, a token, bundles that are replaced."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from http_servers import Answer, ServerProcess, ask, infer, labels_of, server_in_thread
from segmenters import picture
from tiny_graphs import color_layers, make_bundle
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

import atrous
from atrous.bundle import Bundle
from atrous.errors import ServeError
from atrous.serve.app import create_app
from atrous.serve.server import open_socket, read_token

TOKEN = "correct-horse-battery"


def test_logs_are_json_with_request_ids(server: ServerProcess) -> None:
    ask(server.port, "GET", "/v2/models/tiny", X_Request_ID="my-id.1")
    made = ask(server.port, "GET", "/v2/models/nobody", X_Request_ID="not allowed\t").headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)
    while not any(line.get("request_id") == made for line in server.lines()):
        time.sleep(0.01)
    lines = {line["request_id"]: line for line in server.lines() if "request_id" in line}
    assert lines["my-id.1"]["status"] == 200
    assert lines["my-id.1"]["model"] == "tiny"
    assert (lines[made]["status"], lines[made]["path"]) == (404, "/v2/models/nobody")


def test_metrics(server: ServerProcess) -> None:
    infer(server.port, "tiny", picture((20, 20)))
    ask(server.port, "POST", "/segment?model=tiny", b"no image")
    ask(server.port, "GET", "/no/such/path")
    answer = ask(server.port, "GET", "/metrics")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'atrous_requests_total{route="/v2/models/{name}/infer",status="200"}' in text
    assert 'atrous_requests_total{route="none",status="404"}' in text
    assert 'atrous_errors_total{model="tiny",reason="400"}' in text
    for stage in ("receive", "parse", "queue", "preprocess", "inference", "postprocess", "encode"):
        assert f'atrous_stage_seconds_count{{model="tiny",stage="{stage}"}}' in text
    assert 'atrous_queue_images{model="tiny"} 0.0' in text
    assert 'atrous_batch_images_count{model="tiny"}' in text
    assert "/no/such/path" not in text


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "not found"),
        ("GET", "/segment", 405, "method not allowed"),
        ("DELETE", "/v2", 405, "method not allowed"),
        ("POST", "/v2/repository/models/tiny/unload", 403, "this server keeps its models; stop it instead"),
    ],
)
def test_errors_of_routes_are_the_protocols(
    server: ServerProcess, method: str, path: str, status: int, message: str
) -> None:
    answer = ask(server.port, method, path)
    assert (answer.status, answer.error) == (status, message)


def test_openapi_has_every_route_but_its_own(server: ServerProcess, tiny_bundle: Bundle) -> None:
    described = ask(server.port, "GET", "/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    found = {(method, path) for path, operations in described["paths"].items() for method in operations}
    with server_in_thread(tiny_bundle.path) as (_, service):
        routes = create_app(service).routes
    known = {
        (method.lower(), route.path)
        for route in routes
        for method in route.methods - {"HEAD"}
        if "versions" not in route.path and route.path not in ("/docs", "/openapi.json")
    }
    assert found | {("post", "/v2/repository/models/{name}/unload")} == known
    page = ask(server.port, "GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(rb"(?:src|href)=\S*//", page.body)  # needs nothing from elsewhere


@pytest.fixture(scope="module")
def guarded(tiny_bundle: Bundle):
    """Port of a server that wants a token."""
    with server_in_thread(tiny_bundle.path, token=TOKEN) as (port, _):
        yield port


class TestToken:
    @pytest.mark.parametrize("header", [None, "", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN}", "Bearer ", "Bearer é"])
    def test_is_missing_or_wrong(self, guarded: int, header: str | None) -> None:
        headers = {} if header is None else {"Authorization": header}
        for method, path in (("GET", "/v2"), ("POST", "/segment"), ("GET", "/metrics"), ("GET", "/nothing")):
            answer = ask(guarded, method, path, **headers)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "needs the header `Authorization: Bearer TOKEN`" in answer.error

    def test_lets_requests_in(self, guarded: int) -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{guarded}") as client:
            assert client.is_server_ready()  # without a token
            assert client.get_server_metadata(headers={"Authorization": f"Bearer {TOKEN}"})["name"] == "atrous"

    def test_is_read_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        assert read_token(file) == TOKEN

    @pytest.mark.parametrize("content", ["", "short", "with spaces in between it"])
    def test_that_is_none(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "token"
        file.write_text(content)
        with pytest.raises(ServeError, match="holds no token: expected at least 16 characters without spaces"):
            read_token(file)

    def test_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ServeError, match="cannot read a token from"):
            read_token(tmp_path / "missing")


@pytest.mark.slow
class TestEnd:
    def test_finishes_what_has_begun(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        image = picture((300, 400))
        answers: list[Answer] = []
        with ServerProcess(tmp_path, tiny_bundle.path, "--backend=onnxruntime") as running:
            idle = http.client.HTTPConnection("127.0.0.1", running.port)
            idle.connect()
            idle.request("GET", "/v2")
            idle.getresponse().read()
            threads = [
                threading.Thread(target=lambda: answers.append(infer(running.port, "tiny", image, crf=True)))
                for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            while self.taken(running.port) < 3:  # one that is not accepted yet is reset with the socket
                time.sleep(0.01)
            assert running.end() == 0
            for thread in threads:
                thread.join()
            idle.close()
            with pytest.raises(ConnectionRefusedError):
                ask(running.port, "GET", "/v2/health/live")
        expected = atrous.load(tiny_bundle, backend="onnxruntime", threads=1, crf=True)(image).labels
        assert len(answers) == 3
        for answer in answers:
            np.testing.assert_array_equal(labels_of(answer, (300, 400)), expected)

    @staticmethod
    def taken(port: int) -> float:
        """Images in the queue, in work or done."""
        text = ask(port, "GET", "/metrics").body.decode()
        waiting = re.findall(r'^atrous_queue_images\{model="tiny"\} (\S+)$', text, re.MULTILINE)
        begun = re.findall(r'^atrous_batch_images_sum\{model="tiny"\} (\S+)$', text, re.MULTILINE)
        return sum(map(float, (*waiting, *begun)))

    def test_ctrl_c(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        with ServerProcess(tmp_path, tiny_bundle.path) as running:
            assert running.end(signal.SIGINT) == 130
            assert "Traceback" not in running.log.read_text()

    def test_a_server_that_was_killed_starts_again(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        image = picture((200, 200))
        with ServerProcess(tmp_path, tiny_bundle.path, "--backend=onnxruntime") as running:
            failures: list[Exception] = []

            def run() -> None:
                try:
                    while True:
                        infer(running.port, "tiny", image, crf=True)
                except (OSError, http.client.HTTPException) as exc:
                    failures.append(exc)

            threads = [threading.Thread(target=run) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            running.end(signal.SIGKILL)
            for thread in threads:
                thread.join()
            assert len(failures) == 4
            with ServerProcess(tmp_path, tiny_bundle.path, "--backend=onnxruntime", port=running.port) as again:
                assert infer(again.port, "tiny", image).status == 200


@pytest.mark.slow
class TestReload:
    def test_a_replaced_bundle_is_served_from_then_on(self, tmp_path: Path) -> None:
        bundle = tmp_path / "swap.atrous"
        make_bundle(bundle, color_layers(8), fixed=(16, 16))
        red = np.zeros((16, 16, 3), np.uint8)
        red[..., 0] = 255
        with ServerProcess(tmp_path, bundle, "--allow-reload", "--backend=onnxruntime") as running:

            def first_label() -> int:
                return int(labels_of(infer(running.port, "swap", red), (16, 16))[0, 0])

            with triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
                assert first_label() == 0
                shutil.rmtree(bundle)
                assert first_label() == 0
                with pytest.raises(InferenceServerException, match="is not an atrous bundle"):
                    client.load_model("swap")
                assert first_label() == 0
                swapped = color_layers(8)
                swapped[0].weight[:] = swapped[0].weight[::-1].copy()
                make_bundle(bundle, swapped, fixed=(16, 16))
                assert first_label() == 0
                client.load_model("swap")
                assert first_label() == 2
                with pytest.raises(InferenceServerException, match="send no parameters and no files"):
                    client.load_model("swap", config="{}")
                with pytest.raises(InferenceServerException, match="there is no model 'other'"):
                    client.load_model("other")


class TestAddresses:
    def test_everybody_is_said_where_there_is_no_token(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        with ServerProcess(tmp_path, tiny_bundle.path, "--host=0.0.0.0") as running:
            assert running.said.startswith("serving tiny at http://0.0.0.0:")
            (warning,) = [line["message"] for line in running.lines() if line["level"] == "warning"]
            assert warning.startswith("everybody who reaches this address may use it")

    def test_a_port_that_is_taken(self) -> None:
        with open_socket("127.0.0.1", 0) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ServeError, match=f"cannot listen at 127.0.0.1 port {port}: .*; choose others"):
                open_socket("127.0.0.1", port)

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300])
    def test_a_host_that_is_not_here(self, host: str) -> None:
        with pytest.raises(ServeError, match=f"cannot listen at {host} port 0"):
            open_socket(host, 0)
