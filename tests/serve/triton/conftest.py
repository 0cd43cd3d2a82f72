"""One tritonserver for all tests, with the models of both flavours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from band_bundles import FLOATS, INFRARED, make_band_bundle
from cpp_library import PATH, build
from needs import BUILD_TOOLS, TRITON
from triton_models import Served, write_models
from triton_server import STUB, assemble_backends, run_server
from tritonclient import http

from atrous.bundle import Bundle


@pytest.fixture(scope="session")
def served(tiny_bundle: Bundle, color_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tritonserver with all models ready."""
    if not STUB.exists():
        TRITON.skip()
    if shutil.which("ninja", path=PATH) is None:
        BUILD_TOOLS.skip()
    folder = tmp_path_factory.mktemp("triton")
    bundles = {
        "tiny": tiny_bundle,
        "color": color_bundle,
        "floats": make_band_bundle(folder / "floats.atrous", FLOATS),
        "many": make_band_bundle(folder / "many.atrous", INFRARED, classes=300),
    }
    backends = assemble_backends(folder / "backends", build("release") / "libtriton_atrous.so")
    models = write_models(folder, bundles)
    with run_server(models, backends, folder, "--cache-config=local,size=10000000", "--log-verbose=1") as server:
        yield Served(server, bundles)


@pytest.fixture
def client(served: Served) -> Iterator[http.InferenceServerClient]:
    with served.server.client(concurrency=8) as client:
        yield client
