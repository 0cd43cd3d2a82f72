"""Options of a model repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ...arguments import MAX_THREADS, check_fields
from ...errors import ServeError
from ...manifest import Precision, Size

Flavour = Literal["python", "cpp"]

#: Images of one request or batch, and instances of a model: more are a mistake.
_MOST: Final = 1024
_LEAST: Final = {"instances": 1, "max_batch": 0, "queue": 1, "queue_timeout_ms": 0, "batch_delay_us": 0, "threads": 0}


@dataclass(frozen=True)
class TritonOptions:
    """Options of the models in a repository.

    Attributes:
        flavour: `python` runs in Triton's Python backend with atrous installed there; `cpp` in `libtriton_atrous.so`.
        instances: of each model, which work at the same time; on GPUs, of each GPU.
        gpu: whether instances are on GPUs, one on each, or on the CPU.
        max_batch: 0 for images [H, W, bands] without a batch axis; else the most images of [N, H, W, bands], which
            Triton collects from requests of equal sizes.
        batch_delay_us: how long a request waits for others to make a batch, in µs.
        queue: requests that may wait; further ones are refused at once.
        queue_timeout_ms: how long a request may wait before it is refused, in ms; 0 for as long as it takes.
        warm_up: sizes (height, width) of images that are segmented before the model is ready; none for the bundle's
            best size.
        cache: answer repeated images from the response cache of a server that has one.
        backend, precision: as `atrous.load` takes them.
        crf: refine with the dense CRF, with the bundle's parameters.
        threads: CPU threads of an instance; 0 for its share of all cores.
        bare_network: also write models that take and give the network's own tensors.
        link: link the bundle into the repository instead of copying it.
        site_packages: folders in which the server's Python finds atrous, where its own are not enough.

    Raises:
        ArgumentError: a field has a wrong type.
        ServeError: a number is out of range.
    """

    flavour: Flavour = "python"
    instances: int = 1
    gpu: bool = False
    max_batch: int = 0
    batch_delay_us: int = 0
    queue: int = 64
    queue_timeout_ms: int = 0
    warm_up: tuple[Size, ...] = ()
    cache: bool = False
    backend: str = "auto"
    precision: Literal["auto", Precision] = "auto"
    crf: bool = False
    threads: int = 0
    bare_network: bool = False
    link: bool = False
    site_packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ServeError(f"{name} must be {least} or more; got {getattr(self, name)}")
        for name, most in {"instances": _MOST, "max_batch": _MOST, "threads": MAX_THREADS}.items():
            if getattr(self, name) > most:
                raise ServeError(f"{name} must be {most} at most; got {getattr(self, name)}")
        for height, width in self.warm_up:
            if min(height, width) < 1:
                raise ServeError(f"warm_up has sizes of images, from 1×1; got {height}×{width}")
