"""Calls of every public function with arguments of every wrong kind, each in its turn, the others being right.

Run as `python tests/wrong_arguments.py`, it prints the table of docs/what-is-checked.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from emulator.emulated_device import EmulatedDevice
from segmenters import picture
from tiny_graphs import color_layers, make_bundle, save_graph

import atrous
from atrous import crf
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
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.cuda_queue import Queue
from atrous.errors import ArgumentError, AtrousError
from atrous.exporter.normalization import IMAGENET
from atrous.runtime.image import ImageFile, load_image

CLASSES = ("a", "b", "c")


class Unprintable:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def wrong_values() -> dict[str, list[Any]]:
    """Kind → values of it; new ones each time, since a function may keep or change them."""
    return {
        "None": [None],
        "bool": [True, False],
        "string": ["", "text", "a\0b", "\ud800", "x" * 5000, b"bytes", "1"],
        "number": [0, -1, 7, 0.5, 1j, 1e308],
        "huge number": [2**31, 2**63, 10**400, -(2**70)],
        "NaN and infinity": [math.nan, math.inf, -math.inf],
        "NumPy scalar": [np.int64(3), np.uint8(2), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("s")],
        "list and tuple": [[1, 2], (3, 4), [None], ["a", 1], [(1, 2), (3, 4)], (math.nan, 1), (2**70, 2**70)],
        "empty": [[], (), {}, set(), b"", np.empty(0), np.empty((0, 3), np.uint8), np.empty((0, 4, 4))],
        "mapping and set": [{"a": 1}, {1, 2}, frozenset({None})],
        "array": [
            np.zeros((2, 2)),
            np.zeros((2, 4, 4), np.float32),
            np.full((3, 16, 16), np.nan, np.float32),
            np.zeros((16, 16, 3), np.uint8),
            np.zeros((16, 16, 3), np.int64),
            np.array([None, "a"], object),
            np.array("text"),
        ],
        "function and type": [print, int, lambda: None, ...],
        "object": [object(), Unprintable(), iter([1]), Path("nowhere"), threading.Lock(), ValueError("x"), np],
    }


@dataclass(frozen=True)
class Call:
    """A public function, and arguments with which it succeeds.

    Attributes:
        name: as a user writes it.
        make: the function and its arguments by name or, where it takes them so, by place; made anew for each call.
    """

    name: str
    make: Callable[[], tuple[Callable[..., Any], Mapping[str, Any]]]

    def arguments(self) -> list[str]:
        """Names of all arguments, those with defaults too."""
        function, given = self.make()
        taken = inspect.signature(function).parameters.values()
        named = [each.name for each in taken if each.kind is not inspect.Parameter.VAR_KEYWORD]
        return list(dict.fromkeys([*given, *named]))


class Sandbox:
    """Bundles and images in a folder of their own, which a call may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = make_bundle(folder / "color.atrous", color_layers(8), fixed=(16, 16))
        self.graph = save_graph(folder / "graph.onnx", color_layers(8), size=(16, 16))
        self.image = picture((16, 16))
        self.images = folder / "images"
        self.images.mkdir()
        atrous.load(self.bundle)(self.image).save(self.images / "a.png")
        self._number = 0

    def new(self) -> Path:
        """A path of a bundle that is not there, in a folder of its own: writers look through the one they write to."""
        self._number += 1
        return self.folder / f"{self._number}" / "new.atrous"

    def new_png(self) -> Path:
        """A path of an image that is not there, in a folder that is."""
        self._number += 1
        return self.folder / f"{self._number}.png"

    def copy(self) -> atrous.Bundle:
        """A bundle to change; copied, since packing it anew for each call took most of the time."""
        return atrous.Bundle.open(shutil.copytree(self.bundle.path, self.new()))


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


def crf_calls(box: Sandbox) -> list[Call]:
    """Everything in `atrous.crf.__all__`, and the public methods of its classes."""
    params = crf.CRFParams.deeplab_v2_resnet().to_dict()
    dense = crf.DenseCRF(iterations=1, threads=1)
    maps = np.full((3, 16, 16), 1 / 3, np.float32)
    both = {"probabilities": maps, "image": box.image}
    return [
        Call("CRFParams", lambda: (crf.CRFParams, params)),
        Call("CRFParams.from_dict", lambda: (crf.CRFParams.from_dict, {"values": params})),
        Call(
            "DenseCRF",
            lambda: (
                crf.DenseCRF,
                {
                    "params": dense.params,
                    "iterations": 1,
                    "threads": 1,
                    "storage": "fp32",
                    "class_floor": 0.0,
                    "compatibility": None,
                },
            ),
        ),
        Call("DenseCRF()", lambda: (dense, both)),
        Call("DenseCRF.labels", lambda: (dense.labels, both)),
        Call("DenseCRF.labels_and_marginals", lambda: (dense.labels_and_marginals, both)),
        Call("release_memory", lambda: (crf.release_memory, {})),
        *feature_calls(maps),
        *gpu_calls(both),
    ]


def feature_calls(maps: np.ndarray) -> list[Call]:
    """The CRF over any features, and how classes interact."""
    kernel = crf.Kernel.of_positions((16, 16), sigma=2.0)
    over_features = crf.FeatureCRF([kernel], iterations=1, threads=1)
    factors = {"bilateral": (1.0, 1.0), "gaussian": (1.0, 1.0), "matrix": ((-1.0, 0.0), (0.0, -1.0))}
    return [
        Call("Compatibility", lambda: (crf.Compatibility, factors)),
        Call("Compatibility.from_dict", lambda: (crf.Compatibility.from_dict, {"values": factors})),
        Call(
            "FeatureCRF",
            lambda: (
                crf.FeatureCRF,
                {"kernels": [kernel], "iterations": 1, "threads": 1, "compatibility": None},
            ),
        ),
        Call("FeatureCRF()", lambda: (over_features, {"probabilities": maps})),
        Call("FeatureCRF.labels", lambda: (over_features.labels, {"probabilities": maps})),
        Call(
            "Kernel",
            lambda: (crf.Kernel, {"features": maps, "sigmas": 1.0, "weight": 1.0, "normalization": "symmetric"}),
        ),
        Call(
            "Kernel.of_positions",
            lambda: (crf.Kernel.of_positions, {"size": (4, 5), "sigma": 1.0, "spacing": 1.0, "weight": 1.0}),
        ),
        Call(
            "Kernel.of_image",
            lambda: (
                crf.Kernel.of_image,
                {"image": maps, "sigma": 1.0, "sigma_values": 1.0, "spacing": 1.0, "weight": 1.0},
            ),
        ),
        Call(
            "permutohedral_filter",
            lambda: (
                crf.permutohedral_filter,
                {"values": maps, "features": maps, "sigmas": 1.0, "normalization": "none", "threads": 1},
            ),
        ),
    ]


def learning_calls() -> list[Call]:
    """The CRF in training."""
    import torch

    from atrous.calibration.learn import Example, LearnOptions, learn_crf
    from atrous.crf.torch import DenseCRFLayer, dense_crf_loss, permutohedral_filter

    logits = torch.zeros(1, 3, 6, 7)
    images = torch.zeros(1, 6, 7, 3, dtype=torch.uint8)
    layer = DenseCRFLayer(num_classes=3, iterations=1, threads=1)
    options = LearnOptions(iterations=1, epochs=1, threads=1)
    example = Example(np.full((3, 6, 7), 1 / 3), np.zeros((6, 7, 3), np.uint8), np.zeros((6, 7), np.uint8))
    filtering = {"values": logits[0], "features": logits[0], "sigmas": 1.0, "normalization": "none", "threads": 1}
    loss = {"sigma_xy_px": 3.0, "sigma_rgb": 9.0, "mask": None, "normalization": "none", "reduction": "mean"}

    def learn(train: Any, held_out: Any, params: Any, compatibility: Any, options: Any) -> object:
        """Without `progress`, whose exceptions are its own."""
        return learn_crf(train, held_out, params, compatibility=compatibility, options=options)

    return [
        Call(
            "DenseCRFLayer",
            lambda: (
                DenseCRFLayer,
                {"params": layer.params, "num_classes": 3, "iterations": 1, "compatibility": None, "threads": 1},
            ),
        ),
        Call("DenseCRFLayer()", lambda: (layer.forward, {"logits": logits, "images": images})),
        Call(
            "dense_crf_loss",
            lambda: (dense_crf_loss, {"probabilities": logits, "images": images, **loss, "threads": 1}),
        ),
        Call("permutohedral_filter", lambda: (permutohedral_filter, filtering)),
        Call("Example", lambda: (Example, {"probabilities": 0, "image": 0, "mask": 0})),
        Call("LearnOptions", lambda: (LearnOptions, dataclasses.asdict(options))),
        Call(
            "learn_crf",
            lambda: (
                learn,
                {
                    "train": [example],
                    "held_out": [example],
                    "params": layer.params,
                    "compatibility": None,
                    "options": options,
                },
            ),
        ),
    ]


def gpu_calls(both: Mapping[str, Any]) -> list[Call]:
    """The CRF on a GPU, which an emulator stands for."""
    device = EmulatedDevice()
    on_gpu = CudaDenseCRF(iterations=1, device=device)
    on_gpu(**both)
    spec, status = on_gpu.field.spec, on_gpu.field.run()
    queue = Queue(device, device.stream())
    options = {"params": on_gpu.params, "iterations": 1, "storage": "fp32", "normalization": "symmetric"}
    options["class_floor"] = 0.0
    sizes = {"images": 1, "classes": 3, "height": 16, "width": 16}
    return [
        Call("CudaDenseCRF", lambda: (CudaDenseCRF, {**options, "compatibility": None, "device": device})),
        Call("CudaDenseCRF()", lambda: (on_gpu, both)),
        Call("CudaDenseCRF.labels", lambda: (on_gpu.labels, both)),
        Call("CudaDenseCRF.marginals_on_device", lambda: (on_gpu.marginals_on_device, both)),
        Call("CudaDenseCRF.labels_on_device", lambda: (on_gpu.labels_on_device, both)),
        Call("CudaDenseCRF.open_field", lambda: (on_gpu.open_field, {"queue": queue, **sizes})),
        Call("CudaDenseCRF.regrow_field", lambda: (on_gpu.regrow_field, {"queue": queue, "spec": spec})),
        Call("CudaDenseCRF.check_status", lambda: (on_gpu.check_status, {"status": status, "shape": (3, 16, 16)})),
    ]


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


#: What a call may do; anything else is foreign.
ARGUMENT, REFUSED, USAGE, SUCCEEDED = "ArgumentError", "another AtrousError", "wrong usage", "success"
OUTCOMES = (ARGUMENT, REFUSED, USAGE, SUCCEEDED)


def attempt(call: Call, argument: str, value: object) -> str:
    """Call with one wrong argument: one of `OUTCOMES`, or the foreign exception in words."""
    function, arguments = call.make()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            function(**{**arguments, argument: value})
    except ArgumentError:
        return ARGUMENT
    except AtrousError:
        return REFUSED
    except (typer.BadParameter, typer.Exit):
        return USAGE
    except Exception as exc:
        return f"{type(exc).__module__}.{type(exc).__name__}: {str(exc)[:200]}"
    return SUCCEEDED


def attempts(call: Call, kind: str) -> Iterator[tuple[str, str]]:
    """Every argument with every value of a kind: where, and what happened."""
    for argument in call.arguments():
        for number in range(len(wrong_values()[kind])):
            value = wrong_values()[kind][number]
            yield f"{call.name}({argument}=…{kind} {number})", attempt(call, argument, value)


def all_calls(folder: Path) -> list[Call]:
    """Every public function."""
    box = Sandbox(folder)
    return [*python_calls(box), *documented_calls(box), *crf_calls(box), *learning_calls(), *verb_calls(box)]


def count_outcomes(calls: Sequence[Call]) -> dict[str, Counter[str]]:
    """Kind → how often each outcome came; foreign exceptions as one, printed to standard error."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for kind in wrong_values():
        for call in calls:
            for where, outcome in attempts(call, kind):
                if outcome not in OUTCOMES:
                    print(f"{where}: {outcome}", file=sys.stderr)
                counts[kind][outcome if outcome in OUTCOMES else "foreign"] += 1
    return counts


def table(counts: Mapping[str, Counter[str]]) -> str:
    """Markdown."""
    columns = (*OUTCOMES, "foreign")
    rows = [f"| kind of value | calls | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    everything: Counter[str] = Counter()
    for kind, found in counts.items():
        rows.append(_row(kind, found, columns))
        everything += found
    return "\n".join([*rows, _row("all", everything, columns)])


def _row(kind: str, found: Counter[str], columns: Sequence[str]) -> str:
    return f"| {kind} | {found.total()} | {' | '.join(str(found[column]) for column in columns)} |"


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        calls = all_calls(Path(folder))
        arguments = sum(len(call.arguments()) for call in calls)
        print(f"{len(calls)} functions, {arguments} arguments\n\n{table(count_outcomes(calls))}")


if __name__ == "__main__":
    main()
