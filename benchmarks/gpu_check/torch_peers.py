"""PyTorch on this GPU with the networks of `networks.py`: eager, in FP32 and FP16, in both layouts. Prints JSON lines.

`torch_compiled.py` is the same for `torch.compile`, which takes a time limit of its own.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from engines import MIN_AGREEMENT, REPEATS, WARMUP, compare
from networks import NETWORKS, Network
from steps import is_rehearsal, sized
from timing import quartiles
from torch import nn

from atrous.bundle import Bundle
from atrous.exporter.torch_benchmark import torch_run

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to run a network.

    Attributes:
        name: what the report calls it.
        precision: `fp32` (convolutions in TF32, PyTorch's default) or `fp16`, the whole network cast.
        is_channels_last: the layout.
        wrap: makes what is called of the network.
    """

    name: str
    precision: str
    is_channels_last: bool
    wrap: Callable[[nn.Module], Forward] = nn.Module.eval


EAGER = (
    Variant("eager", "fp32", is_channels_last=False),
    Variant("eager channels_last", "fp32", is_channels_last=True),
    Variant("eager", "fp16", is_channels_last=False),
    Variant("eager channels_last", "fp16", is_channels_last=True),
)


def find_device() -> torch.device | None:
    """The GPU, or None without one; in a rehearsal the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu") if is_rehearsal() else None


def times_ms(forward: Forward, batch: torch.Tensor) -> list[float]:
    """Milliseconds of each run, the next one queued before the last is done, between events on the GPU."""
    for _ in range(WARMUP):
        forward(batch)
    if batch.device.type == "cpu":
        stamps = [time.perf_counter()]
        for _ in range(REPEATS):
            forward(batch)
            stamps.append(time.perf_counter())
        return [(end - start) * 1e3 for start, end in pairwise(stamps)]
    points = [torch.cuda.Event(enable_timing=True) for _ in range(REPEATS + 1)]
    points[0].record()
    for point in points[1:]:
        forward(batch)
        point.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairwise(points)]


def measure(model: nn.Module, variant: Variant, network: Network, device: torch.device) -> dict[str, Any]:
    """The times of one variant, or that its result is wrong."""
    dtype = torch.float16 if variant.precision == "fp16" else torch.float32
    layout = torch.channels_last if variant.is_channels_last else torch.contiguous_format
    batch = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, *network.size)).astype(np.float32))
    # Outside of inference mode: weights that are made in it have no versions, which CUDA graphs look at.
    cast = copy.deepcopy(model).to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    forward = variant.wrap(cast)
    with torch.inference_mode():
        expected = model(batch).numpy()
        sent = batch.to(device, dtype).contiguous(memory_format=layout)
        start = time.monotonic()
        got = forward(sent).float().cpu().numpy()
        found: dict[str, Any] = {"first_seconds": round(time.monotonic() - start, 2), **compare(got, expected)}
        if found["logit_agreement"] < MIN_AGREEMENT[variant.precision]:
            return {**found, "outcome": f"wrong result, {found['logit_agreement']:.2%} of labels agree: not timed"}
        found |= {"outcome": "runs", "network": quartiles(times_ms(forward, sent))}
    if network.path.exists():
        found["picture"] = quartiles(picture_times_ms(forward, device, network, variant.precision))
    return found


def picture_times_ms(forward: Forward, device: torch.device, network: Network, precision: str) -> list[float]:
    """Milliseconds of whole pictures to labels, one after the other."""
    run, picture = torch_run(forward, device, Bundle.open(network.path), precision), network.picture()
    samples = []
    for _ in range(WARMUP + REPEATS):
        start = time.perf_counter()
        run(picture)
        samples.append((time.perf_counter() - start) * 1e3)
    return samples[WARMUP:]


def rows(variants: Sequence[Variant]) -> Iterator[dict[str, Any]]:
    """A line for each network and variant."""
    device = find_device()
    if device is None:
        yield {"outcome": f"not run: PyTorch {torch.__version__} sees no GPU"}
        return
    for network in NETWORKS:
        model = network.model()
        for variant in variants:
            about = {"network_name": network.name, "size": network.size, "precision": variant.precision}
            row = {**about, "engine": f"torch {torch.__version__} {variant.name}"}
            torch.compiler.reset()  # nothing compiled for the network before is in the way
            try:
                yield {**row, **measure(model, variant, network, device)}
            except (RuntimeError, NotImplementedError) as exc:  # what PyTorch and its compiler raise
                yield {**row, "outcome": f"failed: {str(exc).strip()[:500]}"}


def report(variants: Sequence[Variant]) -> int:
    """Prints all; fails if a result was wrong."""
    wrong = False
    for row in rows(variants):
        wrong |= row["outcome"].startswith("wrong")
        print(json.dumps(row), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(report(sized(EAGER, rehearsal=EAGER[:1])))
