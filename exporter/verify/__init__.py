"""Verification of artifacts: the inputs, the comparison, and all artifacts of a bundle."""

from __future__ import annotations

from .compare import FP32_TOLERANCE, TOLERANCES, Comparison, Infer, Tolerance, require_passed
from .coverage import Probe, covering_probes
from .inputs import photo_inputs, probe_inputs, synthetic_photo
from .padding import measure_padding
from .prove import Named, cpu_backends, open_on_cpu, prove

__all__ = [
    "FP32_TOLERANCE",
    "TOLERANCES",
    "Comparison",
    "Infer",
    "Named",
    "Probe",
    "Tolerance",
    "covering_probes",
    "cpu_backends",
    "measure_padding",
    "open_on_cpu",
    "photo_inputs",
    "probe_inputs",
    "prove",
    "require_passed",
    "synthetic_photo",
]
