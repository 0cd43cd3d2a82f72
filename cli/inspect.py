"""`atrous inspect`: what is in a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from ..arguments import check_arguments
from ..bands import Bands
from ..bundle import Bundle
from ..manifest import ClassInfo, CrfFit, EngineIdentity, Manifest, SizePolicy
from .console import JsonFlag, print_json, print_table, verdict
from .evidence import describe_tuning, padding_cost, skipped_lines
from .options import BundleArgument


@check_arguments
def inspect(bundle: BundleArgument, *, as_json: JsonFlag = False) -> None:
    """Print what a bundle holds: classes, sizes, preprocessing, files, verification.

    Example: atrous inspect street.atrous
    """
    opened = Bundle.open(bundle)
    if as_json:
        print_json(json.loads(opened.manifest.to_json()))
        return
    _print_summary(opened.manifest)
    _print_artifacts(opened.manifest)


def _print_summary(manifest: Manifest) -> None:
    inputs, outputs = manifest.input, manifest.output
    table = Table(show_header=False, box=None, title=manifest.name, title_justify="left")
    table.add_row("made by", manifest.created_by)
    table.add_row("classes", _swatches(manifest.classes))
    table.add_row("channels", _channels(manifest))
    table.add_row("input", f"{_sizes(inputs.size)}, {inputs.bands or inputs.color_order}, resize: {inputs.resize}")
    if inputs.bands is not None:
        table.add_row("bands", _bands(inputs.bands))
    if (cost := padding_cost(manifest)) is not None:
        table.add_row("padding", cost)
    table.add_row("normalise", f"(pixel × {inputs.scale:g} − {list(inputs.mean)}) / {list(inputs.std)}")
    table.add_row("output", f"{outputs.head} at stride {outputs.stride}, align_corners: {outputs.align_corners}")
    if manifest.crf:
        table.add_row("crf", _crf(manifest.crf))
    if manifest.crf_fit:
        table.add_row("crf fitted", _fit(manifest.crf_fit))
    if manifest.license:
        table.add_row("licence", manifest.license)
    print_table(table)


def _fit(fit: CrfFit) -> str:
    scores = f"{fit.score_without:.4f} without, {fit.score_after:.4f} with it"
    return f"on {fit.images} images; {fit.metric} on {fit.held_out} others: {scores}"


def _crf(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} learned" if isinstance(value, Mapping) else f"{key} {value:g}" for key, value in values.items()
    )


def _bands(bands: Bands) -> str:
    pairs = zip(bands.names, bands.ranges, strict=True)
    return ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in pairs)


def _print_artifacts(manifest: Manifest) -> None:
    for artifact in manifest.artifacts:
        table = Table(show_header=False, box=None, title=artifact.file, title_justify="left")
        table.add_row("is", f"{artifact.kind}, {artifact.precision}, {artifact.bytes / 1e6:.1f} MB")
        table.add_row("SHA-256", artifact.sha256)
        if artifact.engine is not None:
            table.add_row("runs on", _requirements(artifact.engine))
        if artifact.tuned_for is not None:
            table.add_row("tuned", describe_tuning(artifact.tuned_for))
        table.add_row("made with", ", ".join(f"{key} {_brief(value)}" for key, value in artifact.provenance.items()))
        for check in manifest.verification:
            name, _, backend = check.artifact.partition(" in ")
            if name != artifact.file:
                continue
            numbers = f"max |Δ| {check.max_abs:.1e}, same class {check.argmax_agreement:.4%}, against {check.against}"
            where = f", in {backend}" if backend else ""
            table.add_row("verified", Text(f"{numbers}{where}: ") + verdict(passed=check.passed))
            for line in skipped_lines(check):
                table.add_row("", line)
        print_table(table)


def _channels(manifest: Manifest) -> str:
    channels = manifest.output.channels
    if channels.threshold is None:
        return "softmax, one for each class"
    return f"sigmoid of one: {manifest.classes[1].name} above {channels.threshold:g}"


def _brief(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A value that fits on a line: the number of entries of a table; `--json` has them all."""
    return len(value) if isinstance(value, dict) else value


def _swatches(classes: tuple[ClassInfo, ...]) -> Columns:
    return Columns(
        Text.assemble(("██ ", "rgb({},{},{})".format(*entry.color)), f"{entry.id} {entry.name}") for entry in classes
    )


def _requirements(engine: EngineIdentity) -> str:
    """The versions, GPU and shapes that an engine was built for."""
    wanted = [f"{engine.flavor} {engine.version}", f"compute capability {engine.compute_capability}"]
    if engine.hardware_compatibility != "none":
        wanted.append(f"hardware compatibility {engine.hardware_compatibility}")
    if engine.version_compatible:
        wanted.append("later versions")
    if engine.profile is not None:
        shapes = (engine.profile.min, engine.profile.opt, engine.profile.max)
        wanted.append("inputs " + " … ".join("×".join(map(str, shape)) for shape in shapes))
    return ", ".join(wanted)


def _sizes(policy: SizePolicy) -> str:
    low, mid, high = (f"{height}×{width}" for height, width in (policy.min, policy.opt, policy.max))
    if policy.is_fixed:
        return f"fixed {mid}"
    plus = f" plus {policy.offset}" if policy.offset else ""
    grid = "every size" if policy.multiple == 1 else f"multiples of {policy.multiple}{plus}"
    return f"{low} … {mid} … {high}, {grid}"
