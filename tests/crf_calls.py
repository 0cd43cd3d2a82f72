"""Calls of every public function of the dense CRF, with right arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from emulator.emulated_device import EmulatedDevice
from sandbox_calls import Call, Sandbox

from atrous import crf
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.cuda_queue import Queue


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
