"""Tuned graphs: the one of a bundle that was measured with the backend and on the kind of CPU at hand."""

from __future__ import annotations

import logging

from ...bundle import Bundle
from ...manifest import Artifact, Tuning
from .cpu import this_cpu
from .notices import warn_once
from .spec import BackendSpec

_log = logging.getLogger(__package__)


def tuned_graph(bundle: Bundle, artifact: Artifact, spec: BackendSpec) -> Artifact | None:
    """The graph that was rewritten from `artifact` for this backend, its version and this kind of CPU, or None.

    Which one is taken is logged; where there are only graphs for others, a warning says once why none is.
    """
    misfits = []
    for each in bundle.manifest.artifacts:
        tuning = each.tuned_for
        if tuning is None or tuning.backend != spec.name or each.precision != artifact.precision:
            continue
        if each.provenance.get("from") != artifact.sha256:
            continue
        misfit = _misfit(tuning, spec)
        if misfit is None:
            _log.info(
                "%s: %s runs %s, tuned for this CPU, in place of %s", bundle.path, spec.name, each.file, artifact.file
            )
            return each
        misfits.append(f"{each.file} was tuned for {misfit}")
    if misfits:
        warn_once(
            f"{bundle.path}: {spec.name} runs {artifact.file} as it was exported: {'; '.join(misfits)}. To tune it for "
            f"this machine: atrous optimize {bundle.path}"
        )
    return None


def _misfit(tuning: Tuning, spec: BackendSpec) -> str | None:
    """Why a measurement does not hold here, as the end of "it was tuned for", or None."""
    if tuning.version != spec.version:
        return f"{spec.name} {tuning.version}; installed is {spec.version}"
    here = this_cpu()
    return None if tuning.cpu == here else f"{tuning.cpu}; this is {here}"
