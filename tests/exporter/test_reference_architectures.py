"""Every reference architecture goes the whole way: exported, verified against torch, and again in every backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference_networks import settled

from atrous.exporter.description import DynamicSize, Preprocessing
from atrous.exporter.export import export
from atrous.exporter.models import ARCHITECTURES
from atrous.exporter.verify import verify_bundle
from atrous.manifest import Size


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exports_and_verifies(name: str, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[name]
    output_stride = architecture.default_output_stride
    size: Size | DynamicSize
    if name != (twin := name.replace("101", "50")) and twin in ARCHITECTURES:
        # Only deeper than its twin, which is tried at every size; tracing one size takes half the time.
        size = (65, 49) if architecture.align_corners else (64, 48)
    else:
        size = DynamicSize((32, 32), (64, 48), (96, 96), multiple=architecture.size_multiple(output_stride))
    bundle = export(
        settled(name, classes=5),
        tmp_path / f"{name}.atrous",
        classes=["sky", "road", "car", "tree", "person"],
        size=size,
        preprocessing=Preprocessing(architecture.normalization),
        align_corners=architecture.align_corners,
    )
    assert bundle.manifest.output.stride == architecture.logits_stride(output_stride)
    for check in verify_bundle(bundle):
        assert check.passed, check
