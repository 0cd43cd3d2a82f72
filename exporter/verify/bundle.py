"""Every artifact of a bundle, in every backend that runs here, against ONNX Runtime on the CPU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...arguments import check_arguments
from ...bundle import Bundle
from ...errors import DeviceError, EngineError, MissingDependencyError
from ...manifest import Artifact, Verification
from ...runtime.backends import BACKENDS, Backend, BackendSpec, backend_status, open_reference
from ...runtime.backends.cpu import bf16_evidence, bf16_name, in_bf16, this_cpu
from ...runtime.evaluation import evaluate, pair_by_stem
from ...runtime.image import ImageSource
from ...runtime.mask_rules import MaskRules
from ...runtime.metrics import Scores
from ...runtime.path import MAX_BATCH
from ...runtime.segmenter import Segmenter
from .compare import TOLERANCES
from .coverage import covering_probes
from .inputs import photo_inputs
from .prove import Named, prove


@dataclass(frozen=True)
class NotRun:
    """An artifact that could not be compared here, so that nothing is known of it."""

    artifact: str
    reason: str


@dataclass(frozen=True)
class BundleVerification:
    """Result of `verify_bundle`.

    Attributes:
        checks: the comparisons.
        not_run: artifacts that no comparison could be made of, e.g. engines for another GPU.
        reference_scores: of the reference, where there are masks.
    """

    checks: tuple[Verification, ...]
    not_run: tuple[NotRun, ...]
    reference_scores: Scores | None = None

    @property
    def passed(self) -> bool:
        """True if every comparison that was made is within its tolerance; says nothing of `not_run`."""
        return all(check.passed for check in self.checks)


@check_arguments
def verify_bundle(
    bundle: Bundle,
    *,
    images: Sequence[ImageSource] = (),
    masks: Path | None = None,
    ignore: Collection[int] = (),
    rules: MaskRules | None = None,
) -> BundleVerification:
    """Hash every file; run each ONNX graph in each installed backend, and each engine, against ONNX Runtime on the CPU.

    The reference is the FP32 graph, or the most precise one where a packed bundle has none. A backend of the CPU that
    refuses a graph is an error; an engine or a GPU that cannot be used here is reported.

    Args:
        bundle: what is verified.
        images: images to compare on; synthetic ones when empty. Files, where there are masks.
        masks: folder with a mask `NAME.png` for each image, whose mean IoU is then compared as well.
        ignore: ids of masks that are void, besides the bundle's own.
        rules: how masks are called and what their pixels mean.

    Raises:
        BundleError: a file was changed.
        EngineError: a backend of the CPU refuses an artifact.
        EvaluationError: there are masks without images, or they do not fit them; or a class is in no mask
            while much is void.
        ImageError, ShapeError: an image is unusable.
    """
    bundle.check()
    verifier = _Verifier(bundle, images, MaskRules() if rules is None else rules, masks=masks, ignore=ignore)
    checks: list[Verification] = []
    not_run: list[NotRun] = []
    for spec, artifact in _candidates(bundle):
        try:
            checks.append(verifier.check(spec.open(bundle, artifact)))
        except (EngineError, DeviceError, MissingDependencyError) as exc:
            if spec.device == "cpu":
                raise
            not_run.append(NotRun(f"{artifact.file} in {spec.name}", str(exc)))
    return BundleVerification(tuple(checks), tuple(not_run), verifier.reference_scores)


def verify_backend(
    bundle: Bundle, backend: Backend, *, images: Sequence[ImageSource] = (), masks: Path | None = None
) -> Verification:
    """Compare one opened backend with ONNX Runtime on the CPU; arguments and errors as of `verify_bundle`."""
    return _Verifier(bundle, images, MaskRules(), masks=masks, ignore=()).check(backend)


def _candidates(bundle: Bundle) -> Iterator[tuple[BackendSpec, Artifact]]:
    """Graphs in the backends that are available, then engines in theirs whether it is or not."""
    available = {status.name for status in backend_status() if status.available}
    for spec in sorted(BACKENDS.values(), key=lambda spec: spec.reads == "engine"):
        if spec.reads == "engine" or spec.name in available:
            yield from ((spec, artifact) for artifact in bundle.manifest.artifacts if _runs(spec, artifact))
            graph = bundle.find(kind="onnx", precision="fp32")
            if graph is not None and spec.bf16_objection() is None and bf16_evidence(bundle, spec.name) is not None:
                yield spec, in_bf16(graph)


def _runs(spec: BackendSpec, artifact: Artifact) -> bool:
    """True if the backend loads such an artifact somewhere: a tuned graph computes the same on every CPU."""
    if artifact.precision == "bf16" and spec.bf16_objection() is not None:
        return False
    if artifact.tuned_for is not None:
        return artifact.tuned_for.backend == spec.name
    return artifact.kind == spec.reads


class _Verifier:
    """Compares backends with the reference on the same images."""

    def __init__(
        self,
        bundle: Bundle,
        images: Sequence[ImageSource],
        rules: MaskRules,
        *,
        masks: Path | None,
        ignore: Collection[int],
    ) -> None:
        self._bundle = bundle
        self._reference = open_reference(bundle)
        self._images = images
        self._ignore = ignore
        self._rules = rules
        self._pairs = () if masks is None else tuple(pair_by_stem(images, masks, rules))

    def check(self, backend: Backend) -> Verification:
        """One backend with its artifact."""
        artifact = backend.artifact
        tolerance = TOLERANCES[artifact.precision]
        is_bf16 = artifact.precision == "bf16"
        name = f"{artifact.file} in {backend.name} ({backend.device})"
        candidate = Named(bf16_name(artifact.file, backend.name) if is_bf16 else name, backend.infer)
        reference = Named(
            f"{self._reference.artifact.file} in {self._reference.name} ({self._reference.device})",
            self._reference.infer,
        )
        channels = self._bundle.manifest.output.channels
        profile = artifact.engine.profile if artifact.engine else None
        inputs = self._bundle.manifest.input if profile is None else self._bundle.manifest.input.within(profile)
        max_batch = MAX_BATCH if profile is None else min(MAX_BATCH, profile.max[0])
        (found,) = prove(
            [candidate],
            reference,
            inputs,
            tolerance=tolerance,
            channels=channels,
            given=photo_inputs(self._images, inputs),
            probes=()
            if self._images
            else covering_probes(inputs, noise=artifact.precision == "fp32", max_batch=max_batch),
        )
        found = dataclasses.replace(found, cpu=this_cpu() if is_bf16 else None)
        if not self._pairs:
            return found
        delta = self._scores(backend).miou - self._reference_scores.miou
        passed = found.passed and delta >= -tolerance.max_miou_drop
        return dataclasses.replace(found, miou_delta=delta, passed=passed)

    @property
    def reference_scores(self) -> Scores | None:
        """Scores of the reference; None without masks."""
        return self._reference_scores if self._pairs else None

    @functools.cached_property
    def _reference_scores(self) -> Scores:
        return self._scores(self._reference)

    def _scores(self, backend: Backend) -> Scores:
        segmenter = Segmenter(self._bundle, backend)
        return evaluate(segmenter, self._pairs, ignore=self._ignore, rules=self._rules).scores
