"""A real tritonserver, from the wheel that `make triton` installs, on ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tritonclient.http as client
from needs import TRITON

WHEEL = Path(sys.prefix) / "tritonserver"
SERVER = WHEEL / "pytriton" / "tritonserver"
STUB = SERVER / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
#: Folders in which the stub, which embeds the system's Python, finds this environment's packages.
SITE_PACKAGES = (sysconfig.get_paths()["purelib"],)

#: Seconds until every model must have been loaded, on a machine that may stand still for a while.
START_S = 300

needs_triton = TRITON.unless(STUB.exists())


@dataclass
class Server:
    """A server that runs.

    Attributes:
        port: of HTTP.
        log: everything that it said.
    """

    port: int
    metrics_port: int
    log: Path

    def client(self, **options: object) -> client.InferenceServerClient:
        """A client of its own connection."""
        return client.InferenceServerClient(f"127.0.0.1:{self.port}", **options)


def free_ports(number: int) -> list[int]:
    """Ports that nobody has."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def assemble_backends(folder: Path, atrous_backend: Path | None = None) -> Path:
    """A folder of backends: Python's, with the stub of this Python, and atrous' if it was built."""
    shutil.copytree(SERVER / "backends" / "python", folder / "python")
    shutil.copy(STUB, folder / "python")
    if atrous_backend is not None:
        (folder / "atrous").mkdir()
        (folder / "atrous" / atrous_backend.name).symlink_to(atrous_backend)
    return folder


@contextmanager
def run_server(repository: Path, backends: Path, folder: Path, *options: str) -> Iterator[Server]:
    """Runs tritonserver until the block ends; fails with its log where it ends before.

    Args:
        repository: of the models, all of which must load.
        backends: what `assemble_backends` made.
        folder: for the log.
        options: of tritonserver, besides those that keep it on this machine.
    """
    http_port, metrics_port = free_ports(2)
    command = [
        *(SERVER / "bin" / "tritonserver", "--model-repository", repository, "--backend-directory", backends),
        *("--disable-auto-complete-config", "--allow-grpc=false", "--http-address=127.0.0.1"),
        *(f"--http-port={http_port}", f"--metrics-port={metrics_port}", "--metrics-address=127.0.0.1"),
        *("--exit-timeout-secs=10", "--cache-directory", SERVER / "caches", *options),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(WHEEL / "nvidia_pytriton.libs")}
    log = folder / "tritonserver.log"
    with log.open("w") as output:
        process = subprocess.Popen([*map(str, command)], env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            server = Server(http_port, metrics_port, log)
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=START_S)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with server.client() as probe:
                if probe.is_server_ready():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"tritonserver did not get ready:\n{server.log.read_text(encoding='utf-8')[-9000:]}")
