"""Tuned graphs put into a bundle by hand, for tests of what loads them; nobody says that they are faster."""

from __future__ import annotations

import dataclasses

import onnx

from atrous.bundle import Bundle, extend_bundle
from atrous.evidence import CpuKind, TunedLayer, Tuning
from atrous.exporter.passes import SplitAtrousConvIntoTaps, run_passes
from atrous.manifest import Precision
from atrous.runtime.backends import BACKENDS
from atrous.runtime.backends.cpu import this_cpu

FILE = "tuned/by-hand.onnx"


def put_tuned(
    bundle: Bundle, backend: str, *, precision: Precision = "fp32", cpu: CpuKind | None = None, version: str = ""
) -> Bundle:
    """The FP32 graph with its atrous convolutions split into taps, as tuned for a backend on a kind of CPU."""
    source = bundle.find(kind="onnx", precision="fp32")
    assert source is not None
    graph = run_passes(onnx.load_from_string(bundle.read(source)), [SplitAtrousConvIntoTaps()])
    tuning = Tuning(
        backend=backend,
        version=version or BACKENDS[backend].version,
        cpu=cpu or this_cpu(),
        threads=1,
        input=(1, 3, *bundle.manifest.input.size.opt),
        layers=(TunedLayer("conv", "taps", {"dilated": 2.0, "taps": 1.0}),),
        canonical_ms=3.0,
        tuned_ms=2.0,
    )
    with extend_bundle(bundle) as staged:
        staged.write(FILE, graph.SerializeToString())
        artifact = staged.artifact(FILE, kind="tuned", precision=precision, provenance={"from": source.sha256})
        staged.add(dataclasses.replace(artifact, tuned_for=tuning))
    return Bundle.open(bundle.path)
