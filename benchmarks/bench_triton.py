"""Latency of one client against tritonserver, in Python and in C++, beside a `Segmenter` in this process.

Needs `make demo` and `make triton`; builds libatrous. Labels are compared before anything is timed, and requests of
the three take turns, so that a busy moment meets all of them.

    python benchmarks/bench_triton.py --out out/bench_triton.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient

WARM_UP = 3
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from cpp_library import build  # noqa: E402
from segmenters import picture  # noqa: E402
from triton_models import FLAVOURS, infer  # noqa: E402
from triton_server import SITE_PACKAGES, assemble_backends, run_server  # noqa: E402

import atrous  # noqa: E402
from atrous.serve.triton import TritonOptions, write_repository  # noqa: E402


def write_both(folder: Path, bundle: Path, *, crf: bool) -> Path:
    """A repository of the bundle in both flavours."""
    for flavour in FLAVOURS:
        link = folder / f"{flavour}.atrous"
        link.symlink_to(bundle.absolute())
        site_packages = SITE_PACKAGES if flavour == "python" else ()
        options = TritonOptions(flavour=flavour, site_packages=site_packages, backend="openvino", crf=crf)
        write_repository([link], folder / "models", options=options)
    return folder / "models"


def summary(times_s: list[float]) -> dict[str, float]:
    """Quantiles in milliseconds."""
    ms = np.array(times_s) * 1e3
    return {
        name: round(float(np.percentile(ms, q)), 2) for name, q in (("p50", 50), ("p25", 25), ("p75", 75), ("p99", 99))
    }


def measure(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each call, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def compute_ms(client: InferenceServerClient, model: str) -> float:
    """Milliseconds that the model has computed so far, by the server's own clock."""
    (found,) = client.get_inference_statistics(model)["model_stats"]
    return float(found["inference_stats"]["compute_infer"]["ns"]) / 1e6


def total(times_s: list[float]) -> float:
    """Mean in milliseconds: of latencies less that of computing, it is what everything around it costs."""
    return float(np.mean(times_s)) * 1e3


def main() -> None:
    """Compare, then time, then print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "out" / "demo" / "street.atrous")
    parser.add_argument("--size", default="368x480")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    image = picture((height, width))
    segment = atrous.load(args.bundle, backend="openvino", crf=args.crf)
    library = build("release") / "libtriton_atrous.so"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        models = write_both(folder, args.bundle, crf=args.crf)
        server = stack.enter_context(run_server(models, assemble_backends(folder / "backends", library), folder))
        client = stack.enter_context(server.client())
        for flavour in FLAVOURS:
            assert (infer(client, flavour, image, "LABELS")[0] == segment(image).labels).all()
        calls: dict[str, Callable[[], object]] = {"segmenter": lambda: segment(image).labels}
        calls |= {each: lambda each=each: infer(client, each, image, "LABELS") for each in FLAVOURS}
        measure(calls, WARM_UP)
        before = {each: compute_ms(client, each) for each in FLAVOURS}
        times = measure(calls, args.runs)
        after = {each: compute_ms(client, each) for each in FLAVOURS}
    result = {
        "bundle": args.bundle.name,
        "size": [height, width],
        "crf": args.crf,
        "runs": args.runs,
        "ms": {name: summary(each) for name, each in times.items()},
        "around_compute_ms": {
            name: round(total(times[name]) - (after[name] - before[name]) / args.runs, 2) for name in FLAVOURS
        },
        "overhead_ms": {
            name: round((float(np.median(times[name])) - float(np.median(times["segmenter"]))) * 1e3, 2)
            for name in FLAVOURS
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
