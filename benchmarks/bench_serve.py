"""Time `atrous serve` on loopback: beside the segmenter in process, under overload, and beside a plain handler.

    python benchmarks/bench_serve.py --bundle out/demo/street.atrous

The photo is scikit-learn's `china.jpg` at the size of the demo's network, and its mirror images. Every answer is
compared with the labels of a segmenter in this process; times of a server are taken in turns with that segmenter's.
Needs fastapi and python-multipart for the plain handler (`fastapi_peer.py`), which is not compared: it upsamples and
rounds in its own way.
"""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from harness import RESULTS, summarize, write_report
from http_load import Client, Load, Request, closed_loop, open_loop, post
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

import atrous

_SIZE = (368, 480)
_CLIENTS = (1, 4, 16)
_OVERLOAD = 4
#: Connections that carry the overload: more than a server's queue, so that it is the server that refuses.
_CONNECTIONS = 80
Images = Sequence[NDArray[np.uint8]]


def photos() -> Images:
    """One photo and its mirror images."""
    source = resources.files("sklearn.datasets") / "images" / "china.jpg"
    with source.open("rb") as file, Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB").resize(_SIZE[::-1]))
    return [pixels, np.ascontiguousarray(pixels[::-1]), np.ascontiguousarray(pixels[:, ::-1])]


@contextmanager
def atrous_server(bundle: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`atrous serve` in a process: its port, and the process."""
    command = [sys.executable, "-m", "atrous", "serve", str(bundle), "--port=0", *options]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=-1, stderr=log, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(re.findall(r":(\d+)$", process.stdout.readline().strip())[0]), process
        finally:
            process.terminate()


@contextmanager
def plain_server(model: Path) -> Iterator[int]:
    """The handler that people write, in a process: its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("fastapi_peer.py")), str(model), str(port)]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def tensor_requests(segmenter: atrous.Segmenter, images: Images, *, crf: bool) -> list[Request]:
    """Requests of uint8 tensors, with the labels that must come back."""
    made = []
    for image in images:
        tensor = {"name": "IMAGE", "datatype": "UINT8", "shape": image.shape}
        asked = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": image.nbytes}}],
            "outputs": [{"name": "LABELS", "parameters": {"binary_data": True}}],
            "parameters": {"crf": crf},
        }
        text = json.dumps(asked).encode()
        labels = segmenter(image).labels.tobytes()
        content = post(
            "/v2/models/street/infer", text + image.tobytes(), Inference_Header_Content_Length=str(len(text))
        )
        made.append(Request(content, lambda body, labels=labels: body.endswith(labels)))
    return made


def file_requests(segmenter: atrous.Segmenter, images: Images) -> tuple[list[Request], list[Request]]:
    """Requests of PNG files for PNGs of labels, of `POST /segment` and of the plain handler."""
    ours, plain = [], []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        labels = segmenter(image).labels
        ours.append(Request(post("/segment", file.getvalue()), _is_png_of(labels)))
        head = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        body = head + file.getvalue() + b"\r\n--xx--\r\n"
        content = post("/predict", body, Content_Type="multipart/form-data; boundary=xx")
        plain.append(Request(content, lambda answer: answer.startswith(b"\x89PNG")))
    return ours, plain


def _is_png_of(labels: NDArray[np.uint8]) -> Callable[[bytes], bool]:
    def is_right(body: bytes) -> bool:
        with Image.open(io.BytesIO(body)) as picture:
            return bool((np.asarray(picture) == labels).all())

    return is_right


def overhead(
    port: int, segmenter: atrous.Segmenter, requests: Sequence[Request], images: Images, repeats: int
) -> dict[str, Any]:
    """A request and a call in turns, with one client: milliseconds of each, and of their difference."""
    client = Client(port)
    over_http, in_process = [], []
    for turn in range(repeats + 5):
        request, image = requests[turn % len(images)], images[turn % len(images)]
        start = time.perf_counter()
        status, body = client.ask(request.content)
        middle = time.perf_counter()
        segmenter(image)
        end = time.perf_counter()
        if status != 200 or not request.is_right(body):
            raise SystemExit(f"wrong answer {status}: {body[:300]!r}")
        if turn >= 5:
            over_http.append((middle - start) * 1e3)
            in_process.append((end - middle) * 1e3)
    differences = np.subtract(over_http, in_process).tolist()
    return {
        "http": summarize(over_http),
        "segmenter": summarize(in_process),
        "p50_difference_ms": round(float(np.median(over_http) - np.median(in_process)), 3),
        "paired": summarize(differences),
    }


def in_process(segmenter: atrous.Segmenter, images: Images, *, threads: int, seconds: float) -> float:
    """Images a second that a segmenter does for threads that call it without a pause."""
    done, until = [], time.perf_counter() + seconds

    def run(turn: int) -> None:
        while time.perf_counter() < until:
            segmenter(images[turn % len(images)])
            done.append(turn)
            turn += 1

    start = time.perf_counter()
    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return len(done) / (time.perf_counter() - start)


def throughput(
    port: int, segmenter: atrous.Segmenter, requests: Sequence[Request], images: Images, *, seconds: float, turns: int
) -> list[dict[str, Any]]:
    """Closed loops of 1, 4 and 16 clients, each in turns with the segmenter in process by itself."""
    rows = []
    for clients in _CLIENTS:
        total, ratios, own_rates = Load(), [], []
        for _ in range(turns):
            own = in_process(segmenter, images, threads=1, seconds=seconds / turns)
            load = closed_loop(port, requests, clients=clients, seconds=seconds / turns)
            ratios.append(len(load.latencies_ms) / load.seconds / own)
            own_rates.append(own)
            _add(total, load)
        ratio = {"median": round(float(np.median(ratios)), 3), "each": [round(each, 3) for each in ratios]}
        rows.append(
            {"clients": clients, **total.summary(), "segmenter_per_second": round(float(np.median(own_rates)), 2)}
        )
        rows[-1]["of_segmenter"] = ratio
    return rows


def overload(
    port: int, process: subprocess.Popen[str], requests: Sequence[Request], *, rate: float, seconds: float
) -> dict[str, Any]:
    """Arrivals at several times the rate that the server manages; memory before, in the middle and after."""
    memory: list[int] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(seconds / 20):
            memory.append(_resident_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    before = _resident_bytes(process.pid)
    watcher.start()
    load = open_loop(port, requests, rate=rate * _OVERLOAD, connections=_CONNECTIONS, seconds=seconds)
    watching.set()
    watcher.join()
    half = len(memory) // 2
    return {
        "arrivals_per_second": round(rate * _OVERLOAD, 1),
        "seconds": round(load.seconds, 1),
        **load.summary(),
        "failures": load.wrong[:5],
        "refused_max_ms": round(max(load.refused_ms, default=0.0), 1),
        "refused_within_50_ms": round(float(np.mean(np.array(load.refused_ms or [0.0]) <= 50)), 5),
        "alive": process.poll() is None,
        "resident_mb": {
            "before": round(before / 1e6),
            "most_in_first_half": round(max(memory[:half], default=0) / 1e6),
            "most_in_second_half": round(max(memory[half:], default=0) / 1e6),
        },
    }


def _resident_bytes(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


def _add(total: Load, load: Load) -> None:
    total.latencies_ms += load.latencies_ms
    total.refused_ms += load.refused_ms
    total.wrong += load.wrong
    total.seconds += load.seconds


def main(
    bundle: Annotated[Path, typer.Option(exists=True, help="The demo's bundle.")],
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of minutes.")] = False,
    only: Annotated[str, typer.Option(help="tensors, crf, overload or files; all by default.")] = "",
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS / "serve.json",
) -> None:
    """Measure, and write what was measured; with --only, into the parts that the file has already."""
    console, images = Console(), photos()
    seconds, turns, repeats = (4.0, 2, 20) if quick else (12.0, 4, 150)
    segmenter, with_crf = atrous.load(bundle), atrous.load(bundle, crf=True)
    parts: dict[str, Any] = json.loads(out.read_text())["parts"] if only and out.exists() else {}
    with atrous_server(bundle) as (port, process):
        if only in ("", "tensors"):
            requests = tensor_requests(segmenter, images, crf=False)
            parts["overhead"] = overhead(port, segmenter, requests, images, repeats)
            parts["tensors"] = throughput(port, segmenter, requests, images, seconds=seconds, turns=turns)
        if only in ("", "crf"):
            requests = tensor_requests(with_crf, images, crf=True)
            parts["overhead_crf"] = overhead(port, with_crf, requests, images, repeats // 5)
            parts["crf"] = throughput(port, with_crf, requests, images, seconds=seconds * 2 / 3, turns=turns)
        if only in ("", "overload"):
            requests = tensor_requests(segmenter, images, crf=False)
            rate = len(closed_loop(port, requests, clients=4, seconds=seconds / 4).latencies_ms) / (seconds / 4)
            parts["overload"] = overload(port, process, requests, rate=rate, seconds=5 if quick else 60)
        if only in ("", "files"):
            ours, plain = file_requests(segmenter, images)
            with plain_server(bundle / "model.fp32.onnx") as plain_port:
                parts["files"] = [
                    {
                        "server": name,
                        "clients": clients,
                        **closed_loop(to, sent, clients=clients, seconds=seconds / 3).summary(),
                    }
                    for clients in _CLIENTS
                    for name, to, sent in (
                        ("atrous serve", port, ours),
                        ("FastAPI and ONNX Runtime", plain_port, plain),
                    )
                ]
    packages = ["numpy", "openvino", "onnxruntime", "starlette", "uvicorn", "fastapi"]
    write_report(out, packages=packages, size=_SIZE, quick=quick, parts=parts)
    console.print_json(json.dumps(parts))
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
