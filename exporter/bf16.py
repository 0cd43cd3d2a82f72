"""Verification that a bundle keeps its labels in the bfloat16 of the CPU at hand."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from ..arguments import check_arguments
from ..bundle import Bundle, extend_bundle
from ..errors import EngineError
from ..manifest import Verification
from ..runtime.backends import cpu_backend
from ..runtime.backends.cpu import bf16_name, in_bf16, this_cpu
from ..runtime.backends.select import canonical_artifact
from ..runtime.image import ImageSource
from .verify import TOLERANCES, require_passed
from .verify.bundle import verify_backend


@check_arguments
def add_bf16(
    bundle: Bundle,
    *,
    images: Sequence[ImageSource] = (),
    masks: str | os.PathLike[str] | None = None,
) -> tuple[Bundle, Verification]:
    """Compare the FP32 graph in bfloat16 with itself in FP32, and record that its labels hold on this kind of CPU.

    No graph is added: a CPU with bfloat16 computes the FP32 graph in it (`load(precision="bf16")`). The record lets
    `load(fast=True)` take it. A record for this kind of CPU is replaced. If anything fails, the bundle is unchanged.

    Args:
        bundle: a bundle with an FP32 graph.
        images: images like those in production; synthetic ones when empty. Files, where there are masks.
        masks: a folder with a mask `NAME.png` for each image; the mean IoU is then compared as well.

    Returns:
        The reopened bundle, and the comparison.

    Raises:
        EngineError: the bundle has no FP32 graph, this CPU has no bfloat16, or OpenVINO is not installed.
        ExportError: too many labels change, or the mean IoU drops too far.
        EvaluationError: there are masks, and they do not fit the images.
        BundleError: a file was changed, or the bundle cannot be written.
        ImageError, ShapeError: an image is unusable.
    """
    bundle = bundle.reopen()
    spec = cpu_backend()
    if masks is not None and not images:
        raise EngineError("masks belong to images: pass both")
    source = canonical_artifact(spec, bundle, "bf16")
    stored = next(each for each in bundle.manifest.artifacts if each.file == source.file)
    folder = None if masks is None else Path(masks)
    check = verify_backend(bundle, spec.open(bundle, in_bf16(stored)), images=images, masks=folder)
    require_passed(check, TOLERANCES["bf16"])
    with extend_bundle(bundle, source=stored) as staged:
        manifest = staged.manifest
        others = (
            each
            for each in manifest.verification
            if (each.artifact, each.cpu) != (bf16_name(stored.file, spec.name), this_cpu())
        )
        staged.write_manifest(dataclasses.replace(manifest, verification=(*others, check)))
    return Bundle.open(bundle.path), check
