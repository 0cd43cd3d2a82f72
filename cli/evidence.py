"""Evidence of a new bundle in words: its comparisons, the inputs left out, the cost of padding."""

from __future__ import annotations

from collections import Counter

from ..manifest import Manifest, Tuning, Verification
from .console import errors, print_line


def print_evidence(manifest: Manifest) -> None:
    """Print each comparison of a new bundle, what it left out, and what padding costs."""
    for check in manifest.verification:
        numbers = f"max |Δ| {check.max_abs:.1e}, same class {check.argmax_agreement:.4%}"
        print_line(f"{check.artifact}: {numbers} against {check.against}, on {len(check.inputs)} inputs")
    for line in dict.fromkeys(line for check in manifest.verification for line in skipped_lines(check)):
        print_line(line, console=errors)
    if (cost := padding_cost(manifest)) is not None:
        print_line(cost, console=errors)


def skipped_lines(check: Verification) -> list[str]:
    """A sentence for each input that was not run."""
    return [f"not run: {'×'.join(map(str, each.input))}: {each.reason}" for each in check.skipped]


def failed_lines(check: Verification) -> list[str]:
    """A sentence for each shape at which the logits differ beyond the tolerance."""
    return [
        f"{check.artifact} differs from {check.against} beyond the tolerance at {'×'.join(map(str, shape))}: "
        "atrous verify will fail there"
        for shape in check.failed
    ]


def padding_cost(manifest: Manifest) -> str | None:
    """Sentence on the labels that padding changes; None where it was not measured."""
    padding, size = manifest.input.padding, manifest.input.size
    if padding is None:
        return None
    to = "the one size" if size.is_fixed else f"multiples of {size.multiple}"
    pictures = " and ".join(f"{height}×{width}" for height, width in padding.sizes)
    return f"padding to {to} keeps {padding.agreement:.2%} of the labels without it (pictures of {pictures})"


def tuned_lines(manifest: Manifest) -> list[str]:
    """A sentence for each tuned graph."""
    return [f"{each.file}: {describe_tuning(each.tuned_for)}" for each in manifest.artifacts if each.tuned_for]


def describe_tuning(tuning: Tuning) -> str:
    """Sentence on what a tuned graph gains, and where."""
    forms = ", ".join(f"{count} {form}" for form, count in Counter(layer.form for layer in tuning.layers).items())
    times = f"{tuning.tuned_ms:.1f} ms in place of {tuning.canonical_ms:.1f}"
    return f"{times} in {tuning.backend} {tuning.version} on {tuning.cpu}, {tuning.threads} threads: {forms}"
