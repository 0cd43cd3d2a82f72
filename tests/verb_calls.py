"""Calls of every verb of the command line, with right arguments."""

from __future__ import annotations

from sandbox_calls import Call, Sandbox

from atrous.cli import (
    add_bf16,
    add_fp16,
    batch,
    bench,
    build,
    doctor,
    export,
    optimize,
    pack,
    quantize,
    run,
    serve,
    studio,
    triton,
    tune,
    verify,
)
from atrous.cli import crf as refinement
from atrous.cli import eval as evaluate
from atrous.cli import inspect as inspection


def verb_calls(box: Sandbox) -> list[Call]:
    """The function of every verb."""
    path = box.bundle.path
    shape = {"classes": box.folder / "classes.txt", "size": "16x16", "dynamic": None}
    (box.folder / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    return [
        Call("atrous inspect", lambda: (inspection.inspect, {"bundle": path, "as_json": True})),
        Call("atrous doctor", lambda: (doctor.doctor, {"as_json": True})),
        Call("atrous pack", lambda: (pack.pack, {"graph": box.graph, "out": box.new(), **shape})),
        Call("atrous export", lambda: (export.export, {"checkpoint": box.graph, "out": box.new(), **shape})),
        Call("atrous add-fp16", lambda: (add_fp16.add_fp16, {"bundle": box.copy().path, "images": None, "keep": None})),
        Call(
            "atrous add-bf16", lambda: (add_bf16.add_bf16, {"bundle": box.copy().path, "images": None, "masks": None})
        ),
        Call("atrous quantize", lambda: (quantize.quantize, {"bundle": box.copy().path, "images": box.images})),
        Call(
            "atrous tune",
            lambda: (tune.tune, {"bundle": box.copy().path, "images": box.images, "masks": box.images}),
        ),
        Call(
            "atrous optimize",
            lambda: (optimize.optimize, {"bundle": box.copy().path, "backend": "onnxruntime", "precision": "fp32"}),
        ),
        Call("atrous build", lambda: (build.build, {"bundle": box.copy().path, "sm": ["0"], "precision": "fp32"})),
        Call(
            "atrous run",
            lambda: (
                run.run,
                {"bundle": path, "inputs": [str(box.images)], "out": box.folder / "out", "backend": "onnxruntime"},
            ),
        ),
        Call(
            "atrous batch",
            lambda: (
                batch.batch,
                {"bundle": path, "sources": [str(box.images)], "out": box.new().parent, "backend": "onnxruntime"},
            ),
        ),
        Call(
            "atrous crf",
            lambda: (
                refinement.crf,
                {"images": [str(box.images)], "labels": box.images, "classes": 3, "out": box.new().parent},
            ),
        ),
        # Refused for the token and for the host, so that no wrong value of one argument starts a server.
        Call(
            "atrous serve",
            lambda: (
                serve.serve,
                {"bundles": [path], "host": "192.0.2.1", "port": 0, "token_file": box.folder / "no-token"},
            ),
        ),
        Call(
            "atrous studio",
            lambda: (
                studio.studio,
                {"bundle": path, "host": "192.0.2.1", "port": 0, "token_file": box.folder / "no-token"},
            ),
        ),
        Call("atrous triton", lambda: (triton.triton, {"bundles": [path], "repository": box.new().parent})),
        Call("atrous verify", lambda: (verify.verify, {"bundle": path})),
        Call(
            "atrous eval",
            lambda: (evaluate.evaluate, {"bundle": path, "images": box.images, "masks": box.images, "workers": 1}),
        ),
        Call(
            "atrous bench",
            lambda: (
                bench.bench,
                {"bundle": path, "repeats": 3, "warmup": 1, "backend": ["onnxruntime"], "threads": 1},
            ),
        ),
    ]
