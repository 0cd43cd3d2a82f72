"""Folders of a bundle that is being written: hidden beside its place, then in its place, then gone."""

from __future__ import annotations

import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import BundleError
from .files import exchange

MANIFEST_FILE: Final = "manifest.json"


def hidden_beside(target: Path, *, kind: str = "") -> Path:
    """A name that nobody else has. Known before the folder exists, so that Ctrl-C right after making it removes it."""
    return target.parent / f".{target.name}.{kind}{secrets.token_hex(8)}"


def asides(target: Path) -> list[Path]:
    """Bundles that stepped aside for a new one at `target` and are still there."""
    folders = _hidden(target, kind="old.")
    return [aside / target.name for aside in folders if (aside / target.name / MANIFEST_FILE).is_file()]


def _hidden(target: Path, *, kind: str = "") -> list[Path]:
    """Folders named by `hidden_beside`."""
    pattern = re.compile(re.escape(f".{target.name}.{kind}") + "[0-9a-f]{16}")
    try:
        return [entry for entry in target.parent.iterdir() if pattern.fullmatch(entry.name)]
    except OSError:
        return []


def remove_leftovers(target: Path) -> None:
    """Bring back the bundle, and remove the folders, of a writer that was killed; for the holder of the lock."""
    if not target.exists():
        for aside in asides(target)[:1]:
            with suppress(OSError):
                aside.rename(target)
    stale = _hidden(target)
    if target.exists():  # otherwise what stepped aside is all there is
        stale += _hidden(target, kind="old.")
    for folder in stale:
        discard(folder)


def discard(path: Path) -> None:
    """Remove a folder, or a link to one, as far as that is possible."""
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder that everyone may see, unless it is there; raises BundleError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BundleError(f"cannot write to {folder}: {exc.strerror}. Choose a writable folder.", path=folder) from exc


def make_private(folder: Path) -> None:
    """Make a new folder that nobody else may see; raises BundleError."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as exc:
        raise BundleError(
            f"cannot write to {folder.parent}: {exc.strerror}. Choose a writable folder.", path=folder.parent
        ) from exc


def publish(staging: Path, target: Path, *, overwrite: bool) -> None:
    """Put the bundle at `staging` at `target`; an old one there goes to `staging`, to be removed.

    Where two folders cannot be exchanged in one step, the old bundle steps aside first and comes back if anything goes
    wrong; in between there is nothing at `target`.
    """
    try:
        if not (overwrite and target.exists()):
            staging.rename(target)  # fails when another process has put a bundle there meanwhile
        elif not exchange(staging, target):
            _replace_in_two_steps(staging, target)
    except OSError as exc:
        raise BundleError(f"cannot put the bundle at {target}: {exc.strerror}", path=target) from exc


def _replace_in_two_steps(staging: Path, target: Path) -> None:
    aside = hidden_beside(target, kind="old.")
    old = aside / target.name
    try:
        make_private(aside)
        target.rename(old)
        staging.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
