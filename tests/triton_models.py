"""Models of both flavours for a real tritonserver, and what they must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from triton_server import SITE_PACKAGES, Server
from tritonclient import http

import atrous
from atrous.bundle import Bundle
from atrous.serve.triton import Flavour, TritonOptions, write_repository

FLAVOURS: tuple[Flavour, ...] = ("python", "cpp")
MAX_BATCH = 4
#: µs that a batch waits to be filled.
DELAY_US = 300_000
#: Requests that may wait for the model `cpp_narrow`.
QUEUE = 2
#: The bundle and the options of each model, whose name is `FLAVOUR_NAME`.
_MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "tiny": ("tiny", {}),
    "many": ("many", {}),
    "batched": ("tiny", {"max_batch": MAX_BATCH, "batch_delay_us": DELAY_US, "instances": 2}),
    "color": ("color", {}),
    "floats": ("floats", {}),
    "narrow": ("tiny", {"queue": QUEUE, "crf": True}),
    "refined": ("tiny", {"crf": True, "cache": True, "warm_up": ((40, 48), (64, 96))}),
}
#: Each instance in Python is a process that imports OpenVINO: as many as there is something to learn from.
_IN_PYTHON = ("tiny", "many", "batched")
_TYPES = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}


@dataclass(frozen=True)
class Served:
    """A server of the models, and the bundles behind them."""

    server: Server
    bundles: dict[str, Bundle]

    def segmenter(self, name: str, *, crf: bool = False) -> atrous.Segmenter:
        """The segmenter that a model of this bundle must agree with."""
        return atrous.load(self.bundles[name], backend="openvino", threads=1, crf=crf)


def write_models(folder: Path, bundles: dict[str, Bundle]) -> Path:
    """A repository with all models."""
    for flavour in FLAVOURS:
        for name in _IN_PYTHON if flavour == "python" else _MODELS:
            bundle, options = _MODELS[name]
            link = folder / f"{flavour}_{name}.atrous"
            link.symlink_to(bundles[bundle].path)
            site_packages = SITE_PACKAGES if flavour == "python" else ()
            chosen = {"flavour": flavour, "site_packages": site_packages, "threads": 1, "backend": "openvino"}
            write_repository([link], folder / "models", options=TritonOptions(**chosen | options))
    return folder / "models"


def tensor(values: np.ndarray, name: str = "IMAGE", *, binary: bool = True) -> http.InferInput:
    """An input of a request."""
    made = http.InferInput(name, values.shape, _TYPES[values.dtype.name])
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def outputs(*names: str) -> list[http.InferRequestedOutput]:
    """Outputs to ask for."""
    return [http.InferRequestedOutput(name) for name in names]


def infer(client: http.InferenceServerClient, model: str, values: np.ndarray, *names: str) -> Sequence[np.ndarray]:
    """What the model gives for an image: the outputs of these names."""
    answer = client.infer(model, [tensor(values)], outputs=outputs(*names))
    return [answer.as_numpy(name) for name in names]
