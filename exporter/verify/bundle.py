"""Every artifact of a bundle, in every backend that runs here, against ONNX Runtime on the CPU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...arrays import FloatArray
from ...bundle import Bundle
from ...errors import DeviceError, EngineError, MissingDependencyError
from ...manifest import Artifact, EngineProfile, InputSpec, Verification
from ...runtime.backends import BACKENDS, Backend, BackendSpec, backend_status, open_reference
from ...runtime.evaluation import evaluate, pair_by_stem
from ...runtime.image import ImageSource
from ...runtime.segmenter import Segmenter
from .compare import TOLERANCES, compare
from .inputs import photo_inputs, probe_inputs


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
    """

    checks: tuple[Verification, ...]
    not_run: tuple[NotRun, ...]

    @property
    def passed(self) -> bool:
        """True if every comparison that was made is within its tolerance; says nothing of `not_run`."""
        return all(check.passed for check in self.checks)


def verify_bundle(
    bundle: Bundle,
    *,
    images: Sequence[ImageSource] = (),
    masks: Path | None = None,
    ignore: Collection[int] = (),
) -> BundleVerification:
    """Hash every file; run each ONNX graph in each installed backend, and each engine, against ONNX Runtime on the CPU.

    The reference is the FP32 graph, or the most precise one where a packed bundle has none. A backend of the CPU that
    refuses a graph is an error; an engine or a GPU that cannot be used here is reported.

    Args:
        bundle: what is verified.
        images: pictures to compare on; synthetic ones when empty. Files, where there are masks.
        masks: folder with a mask `NAME.png` for each picture, whose mean IoU is then compared as well.
        ignore: ids of masks that are void, besides the bundle's own.

    Raises:
        BundleError: a file was changed.
        EngineError: a backend of the CPU refuses an artifact.
        EvaluationError: there are masks without pictures, or they do not fit them.
        ImageError, ShapeError: a picture is unusable.
    """
    bundle.check()
    verifier = _Verifier(bundle, images, masks, ignore)
    checks: list[Verification] = []
    not_run: list[NotRun] = []
    for spec, artifact in _candidates(bundle):
        try:
            checks.append(verifier.check(spec.open(bundle, artifact)))
        except (EngineError, DeviceError, MissingDependencyError) as exc:
            if spec.device == "cpu":
                raise
            not_run.append(NotRun(f"{artifact.file} in {spec.name}", str(exc)))
    return BundleVerification(tuple(checks), tuple(not_run))


def _candidates(bundle: Bundle) -> Iterator[tuple[BackendSpec, Artifact]]:
    """Graphs in the backends that are available, then engines in theirs whether it is or not."""
    available = {status.name for status in backend_status() if status.available}
    for spec in sorted(BACKENDS.values(), key=lambda spec: spec.reads == "engine"):
        if spec.reads == "engine" or spec.name in available:
            yield from ((spec, artifact) for artifact in bundle.manifest.artifacts if artifact.kind == spec.reads)


class _Verifier:
    """Compares backends with the reference on the same pictures."""

    def __init__(
        self, bundle: Bundle, images: Sequence[ImageSource], masks: Path | None, ignore: Collection[int]
    ) -> None:
        self._bundle = bundle
        self._reference = open_reference(bundle)
        self._images = images
        self._ignore = ignore
        self._pairs = () if masks is None else tuple(pair_by_stem(images, masks))

    def check(self, backend: Backend) -> Verification:
        """One backend with its artifact."""
        artifact = backend.artifact
        profile = artifact.engine.profile if artifact.engine else None
        tolerance = TOLERANCES[artifact.precision]
        found = compare(
            backend.infer,
            self._reference.infer,
            _inputs(self._images, self._bundle.manifest.input, profile),
            artifact=f"{artifact.file} in {backend.name} ({backend.device})",
            against=f"{self._reference.artifact.file} in {self._reference.name} ({self._reference.device})",
            channels=self._bundle.manifest.output.channels,
            tolerance=tolerance,
        )
        if not self._pairs:
            return found
        delta = self._miou(backend) - self._reference_miou
        passed = found.passed and delta >= -tolerance.max_miou_drop
        return dataclasses.replace(found, miou_delta=delta, passed=passed)

    @functools.cached_property
    def _reference_miou(self) -> float:
        return self._miou(self._reference)

    def _miou(self, backend: Backend) -> float:
        return float(evaluate(Segmenter(self._bundle, backend), self._pairs, ignore=self._ignore).scores.miou)


def _inputs(images: Sequence[ImageSource], inputs: InputSpec, profile: EngineProfile | None) -> list[FloatArray]:
    """Prepared pictures [N, 3, H, W] of sizes that the bundle and the engine both take."""
    if profile is None:
        return photo_inputs(images, inputs) or probe_inputs(inputs)
    fitting = inputs.within(profile)
    batches = photo_inputs(images, fitting) or probe_inputs(fitting)
    return [batch for batch in batches if len(batch) <= profile.max[0]]
