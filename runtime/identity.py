"""All that labels depend on besides the image, as JSON: by it, a run that is resumed knows itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..crf import DenseCRF
from ..crf.stored import crf_to_stored
from .augmentation import AugmentedSegmenter
from .segmenter import Segmenter


def segmenter_identity(segmenter: Segmenter | AugmentedSegmenter) -> dict[str, Any]:
    """Graph, backend, preprocessing and CRF of a segmenter."""
    backend = segmenter.backend
    return {
        "artifact": backend.artifact.file,
        "sha256": backend.artifact.sha256,
        "precision": backend.artifact.precision,
        "backend": f"{backend.name} on the {backend.device}",
        "input": dataclasses.asdict(segmenter.bundle.manifest.input),
        "channels": dataclasses.asdict(segmenter.bundle.manifest.output.channels),
        "crf": crf_identity(segmenter.crf) if segmenter.crf else None,
        "classes": len(segmenter.classes),
    }


def crf_identity(crf: DenseCRF) -> dict[str, Any]:
    """Parameters of a CRF; threads, which change nothing, are left out."""
    return {**crf_to_stored(crf), "class_floor": crf.class_floor}
