"""The deployable artifact: a directory `NAME.atrous/` with a manifest and the files that it lists.

A bundle is written whole or not at all (`stage_bundle`), by one writer at a time, and nothing in it is loaded before
its path, size and SHA-256 have been checked (`Bundle.open`, `Bundle.read`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from .arguments import check_arguments, check_fields
from .bundle_folders import (
    MANIFEST_FILE,
    asides,
    discard,
    hidden_beside,
    make_folder,
    make_private,
    publish,
    remove_leftovers,
)
from .bundle_lock import lock_bundle
from .errors import BundleError
from .manifest import Artifact, ArtifactKind, Manifest, Precision, Verification

SUFFIX: Final = ".atrous"
ENGINE_FOLDER: Final = "engines"
TUNED_FOLDER: Final = "tuned"
_HASH_CHUNK_BYTES: Final = 1 << 20
#: How long a reader waits for a bundle that steps aside, on filesystems that cannot exchange two folders.
_STEPPING_ASIDE_S: Final = 1.0
#: Times that a reader finds the bundle neither at its path nor aside before it is not there.
_MISSES: Final = 5


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: `path` to the directory and its validated `manifest`."""

    path: Path
    manifest: Manifest

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    @check_arguments
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle: validate its manifest; every listed file must lie inside it, exist, and have the stated size.

        Contents are hashed when they are read, by `read` or `check`.

        Raises:
            BundleError: not a bundle, a damaged or foreign manifest, or a file missing, truncated or outside.
        """
        folder = Path(path)
        while True:
            text = _read_manifest(folder)
            try:
                bundle = cls(folder, Manifest.from_json(text))
            except BundleError as exc:
                raise BundleError(f"{folder}: {exc}", path=folder) from exc
            try:
                for artifact in bundle.manifest.artifacts:
                    bundle._check_size(artifact)
            except BundleError:
                if _read_manifest(folder) != text:  # replaced meanwhile: its files belong to another manifest
                    continue
                raise
            return bundle

    @property
    def is_current(self) -> bool:
        """False if the bundle at `path` was changed or replaced after this one was opened."""
        try:
            return Manifest.from_json(_read_manifest(self.path)) == self.manifest
        except BundleError:
            return False

    def reopen(self) -> Bundle:
        """Open the bundle as it is now, and hash every file.

        Raises:
            BundleError: as `open` and `check`.
        """
        while True:
            bundle = Bundle.open(self.path)
            try:
                bundle.check()
            except BundleError:
                if bundle.is_current:
                    raise
            else:
                return bundle

    @check_arguments
    def find(self, *, kind: ArtifactKind, precision: Precision | None = None) -> Artifact | None:
        """The first artifact of that kind (and precision), or None."""
        for artifact in self.manifest.artifacts:
            if artifact.kind == kind and precision in (None, artifact.precision):
                return artifact
        return None

    @check_arguments
    def read(self, artifact: Artifact) -> bytes:
        """The bytes of an artifact, hashed before they are given out: what is checked is what is loaded.

        Raises:
            BundleError: the content does not have the SHA-256 of the manifest.
        """
        path = self.path_of(artifact)
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise BundleError(f"cannot read {path}: {exc.strerror}", path=path) from exc
        self._compare_hash(artifact, hashlib.sha256(data).hexdigest())
        return data

    def check(self) -> None:
        """Hash every artifact; raises `BundleError` at the first that differs from the manifest."""
        for artifact in self.manifest.artifacts:
            self._check_size(artifact)
            path = self.path_of(artifact)
            try:
                actual = hash_file(path)
            except OSError as exc:
                raise BundleError(f"cannot read {path}: {exc.strerror}", path=path) from exc
            self._compare_hash(artifact, actual)

    @check_arguments
    def path_of(self, artifact: Artifact) -> Path:
        """The path of an artifact; raises `BundleError` when it lies outside the bundle."""
        relative = PurePosixPath(artifact.file)
        path = self.path / relative
        # resolve() as well: a symbolic link inside the bundle can point out of it.
        escapes = relative.is_absolute() or ".." in relative.parts or "\\" in artifact.file
        try:
            inside = not escapes and path.resolve().is_relative_to(self.path.resolve())
        except (OSError, RuntimeError, ValueError) as exc:  # a circle of links; a name that no file can have
            raise BundleError(f"{self.path}: artifact path {artifact.file!r} is unusable: {exc}", path=path) from exc
        if not inside:
            raise BundleError(
                f"{self.path}: artifact path {artifact.file!r} leads out of the bundle; refusing to open it",
                path=path,
            )
        return path

    def _check_size(self, artifact: Artifact) -> None:
        path = self.path_of(artifact)
        try:
            found = path.is_file()
            actual = path.stat().st_size if found else 0
        except OSError as exc:
            raise BundleError(f"cannot read {path}: {exc.strerror}", path=path) from exc
        if not found:
            raise BundleError(
                f"{self.path}: {artifact.file} is listed in the manifest but missing. "
                "Copy the whole directory again, or export it again.",
                path=path,
            )
        if actual != artifact.bytes:
            raise BundleError(
                f"{path} has {actual} bytes; the manifest says {artifact.bytes}. It is truncated or was replaced.",
                path=path,
            )

    def _compare_hash(self, artifact: Artifact, actual: str) -> None:
        if actual != artifact.sha256:
            if not self.is_current:
                raise BundleError(
                    f"{self.path} was changed by another writer since it was opened, and {artifact.file} with it; "
                    "open it again",
                    path=self.path / artifact.file,
                )
            raise BundleError(
                f"{self.path / artifact.file} has SHA-256 {actual}; the manifest says {artifact.sha256}. "
                "The file was changed or damaged after export: nothing was loaded. Export it again.",
                path=self.path / artifact.file,
            )


@dataclass(frozen=True)
class StagedBundle:
    """A bundle being written, in a temporary directory beside its final place."""

    path: Path

    def artifact(
        self,
        file: str,
        *,
        kind: ArtifactKind,
        precision: Precision,
        provenance: Mapping[str, Any],
    ) -> Artifact:
        """Describe a file that was written to `path / file`: its size and hash as they are now."""
        path = self.path / file
        return Artifact(
            kind=kind,
            precision=precision,
            file=file,
            sha256=hash_file(path),
            bytes=path.stat().st_size,
            provenance=provenance,
        )

    def write(self, file: str, data: bytes) -> None:
        """Write a file of the bundle; one of that name that was there before is replaced.

        Args:
            file: its path in the bundle, with `/` between folders.
            data: what it is to hold.

        Raises:
            BundleError: it cannot be written.
        """
        path = self.path / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A file that was copied here has the mode of its original, which may forbid writing; removing it needs
            # nothing but a writable folder.
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        except OSError as exc:
            raise BundleError(f"cannot write {file}: {exc.strerror}. The bundle is as it was.", path=path) from exc

    def write_manifest(self, manifest: Manifest) -> Bundle:
        """Write `manifest.json` and open the staged bundle, so that a wrong one fails before it is published.

        Engines and tuned graphs that it does not list are removed: they were made from a graph that is no more.
        """
        listed = {self.path / artifact.file for artifact in manifest.artifacts}
        try:
            (self.path / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
            derived = {file for folder in (ENGINE_FOLDER, TUNED_FOLDER) for file in self.path.glob(f"{folder}/*")}
            for file in derived - listed:
                file.unlink()
        except OSError as exc:
            raise BundleError(f"cannot write to {self.path}: {exc.strerror}", path=self.path) from exc
        except UnicodeEncodeError as exc:
            raise BundleError(f"the manifest has text that is not Unicode: {exc.reason}", path=self.path) from exc
        return Bundle.open(self.path)

    def add(self, artifact: Artifact, *verification: Verification) -> Bundle:
        """Add an artifact, whose file is there, to the manifest; see `Manifest.with_artifact` and `write_manifest`."""
        return self.write_manifest(self.manifest.with_artifact(artifact, *verification))

    @property
    def manifest(self) -> Manifest:
        """Manifest as it was copied or written last; raises `BundleError` if there is none."""
        return Manifest.from_json(_read_manifest(self.path))


@contextmanager
def stage_bundle(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[StagedBundle]:
    """Write a bundle whole or not at all, as the only writer of `path`.

    Files go to a temporary directory beside `path`, which takes its place when the block ends without an exception;
    whatever happens before, also Ctrl-C, leaves `path` as it was. Another writer is waited for, and what one that was
    killed left behind is removed.

    Args:
        path: the bundle to make; must end in `.atrous`.
        overwrite: replace an existing bundle at `path`.

    Raises:
        BundleError: the name is wrong, something is in the way, the folder cannot be written, or another writer does
            not end (`bundle_lock.lock_bundle`).
    """
    target = Path(path)
    _check_target(target, overwrite=overwrite)
    make_folder(target.parent)
    with lock_bundle(target) as is_alone:
        if is_alone:
            remove_leftovers(target)
        _check_target(target, overwrite=overwrite)  # again: another writer may have put a bundle there
        staging = hidden_beside(target)
        try:
            make_private(staging)
            yield StagedBundle(staging)
            staging.chmod(0o755)  # a bundle is to be served to others
            publish(staging, target, overwrite=overwrite)
        finally:
            discard(staging)


@contextmanager
def extend_bundle(bundle: Bundle, *, source: Artifact | None = None) -> Iterator[StagedBundle]:
    """Add to a bundle, or change it, whole or not at all: yields a copy that takes its place as in `stage_bundle`.

    The copy is of the bundle as it is now, with what others added since `bundle` was opened.

    Args:
        bundle: the bundle to change.
        source: the artifact that the addition is made from, with the preprocessing and classes of `bundle`.

    Raises:
        BundleError: the bundle's name does not end in `.atrous`, its folder cannot be written, or `source` was replaced
            since `bundle` was opened, or what it is given.
    """
    target = bundle.path.resolve()  # so that a link to it stays a link to it
    with stage_bundle(target, overwrite=True) as staged:
        try:
            shutil.copytree(target, staged.path, dirs_exist_ok=True)
        except (OSError, shutil.Error) as exc:
            raise BundleError(f"cannot copy {target} to change it: {exc}", path=target) from exc
        now, before = staged.manifest, bundle.manifest
        # The same graph with another preprocessing has other activations, and other labels.
        is_other = (now.input, now.output, now.classes) != (before.input, before.output, before.classes)
        if source is not None and (is_other or source not in now.artifacts):
            raise BundleError(
                f"{target}: {source.file} was replaced, or its preprocessing or classes, while something was made "
                "from it. The bundle is as it was; do it again.",
                path=target,
            )
        yield staged


def _read_manifest(folder: Path) -> str:
    """Text of `manifest.json`; raises BundleError where there is none."""
    patience = time.monotonic() + _STEPPING_ASIDE_S
    misses = 0
    while True:
        try:
            return (folder / MANIFEST_FILE).read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise BundleError(f"{folder / MANIFEST_FILE} is not UTF-8 text: {exc}", path=folder) from exc
        except OSError as exc:
            is_absent = isinstance(exc, FileNotFoundError)
            aside = next(iter(asides(folder)), None) if is_absent else None
            # Nothing at either place may also mean that the writer ended between our two looks.
            misses += is_absent and aside is None
            if is_absent and misses < _MISSES and time.monotonic() < patience:
                time.sleep(0.01)
                continue
            hint = "Expected a directory made by `atrous export` or `atrous pack`."
            if aside is not None:
                hint = f"A writer was killed while it replaced the bundle, which is at {aside}: move it back."
            raise BundleError(
                f"{folder} is not an atrous bundle: cannot read {MANIFEST_FILE} ({exc.strerror}). {hint}", path=folder
            ) from exc
        except ValueError as exc:  # a path that no file can have
            raise BundleError(f"{str(folder)!r} is not an atrous bundle: {exc}", path=folder) from exc


def hash_file(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise BundleError(f"a bundle's name ends in {SUFFIX!r}; got {target.name!r}", path=target)
    if not target.exists():
        return
    if not overwrite:
        raise BundleError(f"{target} exists already. Choose another name, or overwrite it on purpose.", path=target)
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(f"{target} exists and is not a bundle: refusing to replace it", path=target)
