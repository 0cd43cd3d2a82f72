"""Calls of every public function but those of the dense CRF and the command line, with right arguments."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from sandbox_calls import CLASSES, Call, Sandbox

import atrous
from atrous import crf
from atrous.exporter.normalization import IMAGENET
from atrous.runtime.image import ImageFile, load_image


def python_calls(box: Sandbox) -> list[Call]:
    """Everything in `atrous.__all__`, and the public methods of its classes."""
    import torch

    segmenter = atrous.load(box.bundle, backend="onnxruntime", threads=1)
    result = segmenter(box.image)
    artifact = box.bundle.manifest.artifacts[0]
    network = torch.nn.Conv2d(3, 3, 8, stride=8)

    def streamed(images: Any, stabilize: Any) -> list[atrous.Result]:
        return list(segmenter.stream(images, stabilize=stabilize))

    normalization = atrous.Preprocessing(IMAGENET)
    return [
        Call("Bundle", lambda: (atrous.Bundle, {"path": box.bundle.path, "manifest": box.bundle.manifest})),
        Call("Bundle.open", lambda: (atrous.Bundle.open, {"path": box.bundle.path})),
        Call("Bundle.find", lambda: (box.bundle.find, {"kind": "onnx", "precision": "fp32"})),
        Call("Bundle.read", lambda: (box.bundle.read, {"artifact": artifact})),
        Call("Bundle.path_of", lambda: (box.bundle.path_of, {"artifact": artifact})),
        Call(
            "DynamicSize", lambda: (atrous.DynamicSize, dict.fromkeys(("min", "opt", "max"), (8, 8)) | {"multiple": 8})
        ),
        Call("Bands", lambda: (atrous.Bands, dataclasses.asdict(atrous.Bands.of(2)))),
        Call(
            "Bands.of",
            lambda: (
                atrous.Bands.of,
                {"names": 2, "dtype": "uint8", "ranges": None, "colors": None, "crf_weights": None},
            ),
        ),
        Call("Preprocessing.input_spec", lambda: (normalization.input_spec, {"size": box.bundle.manifest.input.size})),
        Call(
            "Preprocessing",
            lambda: (atrous.Preprocessing, {"normalization": IMAGENET, "resize": "none", "pad_value": (1, 2, 3)}),
        ),
        Call(
            "ExportOptions",
            lambda: (atrous.ExportOptions, {"crf": None, "license": "x", "atrous": "dilated", "head": "logits"}),
        ),
        Call("PackOptions", lambda: (atrous.PackOptions, {"crf": None, "license": "x"})),
        Call(
            "QuantizeOptions",
            lambda: (atrous.QuantizeOptions, {"ignore": (), "max_images": 3, "calibration": None, "seed": 0}),
        ),
        Call(
            "TuneOptions",
            lambda: (atrous.TuneOptions, {"ignore": (), "max_images": 3, "seed": 0, "gaussian": False, "work": None}),
        ),
        Call(
            "BuilderOptions",
            lambda: (
                atrous.BuilderOptions,
                {
                    "workspace_bytes": 1,
                    "optimization_level": 3,
                    "timing_cache": "x",
                    "hardware_compatibility": "none",
                    "version_compatible": False,
                    "atrous": "dilated",
                },
            ),
        ),
        Call(
            "export",
            lambda: (
                atrous.export,
                {
                    "model": network,
                    "path": box.new(),
                    "classes": CLASSES,
                    "size": (16, 16),
                    "preprocessing": normalization,
                    "align_corners": False,
                    "options": None,
                    "overwrite": False,
                    "bands": None,
                },
            ),
        ),
        Call(
            "pack",
            lambda: (
                atrous.pack,
                {
                    "graph": box.graph,
                    "path": box.new(),
                    "classes": CLASSES,
                    "size": (16, 16),
                    "preprocessing": None,
                    "align_corners": False,
                    "options": None,
                    "overwrite": False,
                    "bands": None,
                },
            ),
        ),
        Call("add_bf16", lambda: (atrous.add_bf16, {"bundle": box.copy(), "images": [box.image], "masks": None})),
        Call("add_fp16", lambda: (atrous.add_fp16, {"bundle": box.copy(), "images": [box.image], "keep": ()})),
        Call(
            "quantize",
            lambda: (
                atrous.quantize,
                {
                    "bundle": box.copy(),
                    "images": [box.image],
                    "masks": None,
                    "method": "mse",
                    "max_drop": None,
                    "keep": (),
                    "options": None,
                    "progress": lambda *_: None,
                },
            ),
        ),
        Call(
            "tune",
            lambda: (
                atrous.tune,
                {
                    "bundle": box.copy(),
                    "images": [box.image],
                    "masks": box.images,
                    "metric": "miou",
                    "holdout": 0.25,
                    "no_harm": 0.5,
                    "options": None,
                    "progress": lambda *_: None,
                },
            ),
        ),
        Call(
            "optimize",
            lambda: (
                atrous.optimize,
                {
                    "bundle": box.copy(),
                    "backend": "onnxruntime",
                    "precision": "fp32",
                    "progress": lambda *_: None,
                },
            ),
        ),
        Call(
            "build_engine",
            lambda: (
                atrous.build_engine,
                {
                    "bundle": box.copy(),
                    "precision": "fp32",
                    "backend": "auto",
                    "sm": ("0",),
                    "size": None,
                    "batch": 1,
                    "options": None,
                    "progress": None,
                },
            ),
        ),
        Call(
            "load",
            lambda: (
                atrous.load,
                {
                    "bundle": box.bundle,
                    "backend": "onnxruntime",
                    "precision": "auto",
                    "crf": False,
                    "threads": 1,
                    "workers": 1,
                    "fast": False,
                },
            ),
        ),
        Call(
            "Segmenter",
            lambda: (
                atrous.Segmenter,
                {"bundle": box.bundle, "backend": segmenter.backend, "crf": None, "threads": 1, "workers": 1},
            ),
        ),
        Call("load_image", lambda: (load_image, {"source": box.images / "a.png", "page": 1, "bits": None})),
        Call("ImageFile", lambda: (ImageFile, {"path": box.images / "a.png", "page": 1, "bits": None})),
        Call("Segmenter()", lambda: (segmenter, {"image": box.image})),
        Call("Segmenter.submit", lambda: (segmenter.submit, {"image": box.image})),
        Call("Segmenter.stream", lambda: (streamed, {"images": [box.image], "stabilize": 0.0})),
        Call("Segmenter.batch", lambda: (segmenter.batch, {"images": [box.image]})),
        Call("Segmenter.submit_batch", lambda: (segmenter.submit_batch, {"images": [box.image]})),
        Call(
            "Result",
            lambda: (
                atrous.Result,
                {
                    "labels": result.labels,
                    "image": result.image,
                    "classes": result.classes,
                    "timings_ms": {},
                    "_compute_probabilities": lambda: None,
                },
            ),
        ),
        Call("Result.overlay", lambda: (result.overlay, {"alpha": 0.5})),
        Call("Result.save", lambda: (result.save, {"path": box.folder / "labels.png"})),
    ]


def documented_calls(box: Sandbox) -> list[Call]:
    """What README and docs import from submodules besides."""
    import torch
    from safetensors.torch import save_file

    from atrous.exporter import checkpoints, models, normalization
    from atrous.exporter.classes import read_classes
    from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes
    from atrous.exporter.trained_model import load_trained
    from atrous.exporter.verify.bundle import verify_bundle
    from atrous.exporter.weight_files import read_weights
    from atrous.runtime.evaluation import Pair, evaluate, pair_by_stem
    from atrous.runtime.mask_rules import MaskRules
    from atrous.runtime.result import save_picture

    segmenter = atrous.load(box.bundle, backend="onnxruntime", threads=1)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
    weights = {"classifier.weight": torch.zeros(3, 4, 1, 1)}
    save_file(weights, box.folder / "weights.safetensors")
    (box.folder / "names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    pair = Pair(box.images / "a.png", box.images / "a.png")
    trained = {"architecture": "missing", "classes": None, "output_stride": None, "source": "auto"}
    rules = {"pattern": "*.png", "mapping": {255: 1}, "one_based": False}

    def scores(segmenter, pairs, ignore=(), rules=None, workers=1, state=None, max_unreadable=10):
        """Without `progress`, whose own exceptions are the caller's."""
        options = {"ignore": ignore, "rules": rules, "workers": workers, "state": state}
        return evaluate(segmenter, pairs, **options, max_unreadable=max_unreadable)

    return [
        Call("create_model", lambda: (models.create_model, {"name": "missing", "num_classes": 3})),
        Call("find_architecture", lambda: (models.find_architecture, {"name": "deeplabv3_resnet50"})),
        Call("MultiScale", lambda: (models.MultiScale, {"model": network, "scales": (0.5, 1.0)})),
        Call("load_into", lambda: (checkpoints.load_into, {"model": network, "state_dict": weights})),
        Call("num_classes_of", lambda: (checkpoints.num_classes_of, {"state_dict": weights})),
        Call("read_weights", lambda: (read_weights, {"path": box.folder / "weights.safetensors"})),
        Call("load_trained", lambda: (load_trained, {"checkpoint": box.folder / "weights.safetensors", **trained})),
        Call("read_classes", lambda: (read_classes, {"path": box.folder / "names.txt"})),
        Call("run_passes", lambda: (run_passes, {"model": box.graph, "passes": [DeinterlaceAtrousConv()]})),
        Call("verify_bundle", lambda: (verify_bundle, {"bundle": box.bundle, "images": [box.image]})),
        Call("Pair", lambda: (Pair, {"image": pair.image, "mask": pair.mask})),
        Call("evaluate", lambda: (scores, {"segmenter": segmenter, "pairs": [pair]})),
        *video_calls(box, segmenter),
        *batch_calls(box, segmenter),
        Call("pair_by_stem", lambda: (pair_by_stem, {"images": [pair.image], "masks": box.images, "rules": None})),
        Call("MaskRules", lambda: (MaskRules, rules)),
        Call(
            "save_picture", lambda: (save_picture, {"picture": segmenter(box.image).overlay(), "path": box.new_png()})
        ),
        Call("Normalization", lambda: (normalization.Normalization, dataclasses.asdict(IMAGENET))),
        Call("find_normalization", lambda: (normalization.find_normalization, {"name": "imagenet"})),
    ]


def batch_calls(box: Sandbox, segmenter: atrous.Segmenter) -> list[Call]:
    """Runs over data sets."""
    from atrous.batch import (
        BatchOptions,
        LabelMaps,
        ProbabilityMaps,
        RefineOptions,
        Shard,
        WorkOptions,
        find_work,
        refine_batch,
        segment_batch,
    )

    def segment(segmenter, items, out, options=None, overlay=None):
        """Without `progress`, whose own exceptions are the caller's."""
        return segment_batch(segmenter, items, out, options, overlay=overlay)

    def refine(items, maps, out, crf, options=None, refinement=None):
        """The same."""
        return refine_batch(items, maps, out, crf, options, refinement=refinement)

    items = find_work([box.images])
    labels = LabelMaps(folder=box.images, classes=3)
    work = {"root": None, "keep_endings": False, "column": None, "page": None, "bits": None, "besides": None}
    return [
        Call("Shard", lambda: (Shard, {"index": 1, "count": 2})),
        Call("Shard.parse", lambda: (Shard.parse, {"text": "1/2"})),
        Call("WorkOptions", lambda: (WorkOptions, work)),
        Call("find_work", lambda: (find_work, {"sources": [box.images], "options": None})),
        Call(
            "BatchOptions",
            lambda: (BatchOptions, {"resume": True, "shard": Shard(), "workers": 1, "max_errors": 1}),
        ),
        Call(
            "segment_batch",
            lambda: (segment, {"segmenter": segmenter, "items": items, "out": box.new().parent, "overlay": None}),
        ),
        Call(
            "ProbabilityMaps",
            lambda: (ProbabilityMaps, {"folder": box.images, "channels_last": False, "normalize": False}),
        ),
        Call(
            "LabelMaps",
            lambda: (LabelMaps, {"folder": box.images, "classes": 3, "confidence": 0.7, "void": (255,)}),
        ),
        Call("RefineOptions", lambda: (RefineOptions, {"write": "labels", "bundle": None})),
        Call(
            "refine_batch",
            lambda: (
                refine,
                {
                    "items": items,
                    "maps": labels,
                    "out": box.new().parent,
                    "crf": crf.DenseCRF(iterations=1, threads=1),
                    "refinement": None,
                },
            ),
        ),
    ]


def video_calls(box: Sandbox, segmenter: atrous.Segmenter) -> list[Call]:
    """Of videos, where PyAV is installed."""
    if importlib.util.find_spec("av") is None:
        return []
    import av

    from atrous.runtime.video import segment_video

    source = box.folder / "clip.mp4"
    with av.open(str(source), "w") as writer:
        stream = writer.add_stream("libx264", rate=5)
        stream.width = stream.height = 16
        writer.mux(stream.encode(av.VideoFrame.from_ndarray(box.image, format="rgb24")))
        writer.mux(stream.encode())
    files = {"source": source, "target": box.folder / "overlay.mp4", "labels": None}
    return [Call("segment_video", lambda: (segment_video, {"segmenter": segmenter, **files, "alpha": 0.5}))]
