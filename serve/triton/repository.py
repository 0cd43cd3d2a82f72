"""Model repositories for Triton Inference Server, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Final

from ...arguments import check_arguments
from ...bundle import SUFFIX, Bundle, hash_file
from ...bundle_folders import MANIFEST_FILE, discard, hidden_beside, make_private
from ...errors import ServeError
from ...files import exchange
from ...runtime.backends.select import find_spec
from .config import segmenter_config
from .network import NetworkModel, network_models
from .options import TritonOptions
from .pbtxt import Message, pbtxt

CONFIG_FILE: Final = "config.pbtxt"
_VERSION: Final = "1"
_TEMPLATE: Final = "model.py.in"
_NO_FOLDERS: Final = "SITE_PACKAGES = ()\n"
#: A name that is the same as a folder, in a URL and in a client's code.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@check_arguments
def write_repository(
    bundles: Sequence[str | os.PathLike[str]],
    repository: str | os.PathLike[str],
    *,
    options: TritonOptions | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write models for Triton Inference Server that take pictures and give the labels of a `Segmenter`.

    A model is named like its bundle: `street.atrous` becomes `street`. Other models in the repository stay.

    Args:
        bundles: `NAME.atrous` directories.
        repository: the folder to write models into; made if it is not there.
        options: how the models run.
        overwrite: replace models of these names.

    Returns:
        The names of the models that were written.

    Raises:
        BundleError: one is no bundle, or damaged, or the repository's parent folder cannot be written.
        ServeError: names collide or are none for Triton, a model is there already, or the folder cannot be written.
        EngineError: unknown backend; or a bare network was asked for, and there is no graph of that precision.
    """
    chosen = options or TritonOptions()
    if chosen.backend != "auto":
        find_spec(chosen.backend)  # now, and not when a server loads the model
    named = _named([Path(bundle) for bundle in bundles])
    target = Path(repository).absolute()
    staging = hidden_beside(target / "models")  # inside, since the repository may be a volume of its own
    try:
        target.mkdir(parents=True, exist_ok=True)
        make_private(staging)
        for name, path in named.items():
            _write_models(staging, name, path, chosen)
        names = sorted(each.name for each in staging.iterdir())
        for name in names:
            _check_place(target / name, overwrite=overwrite)
        _publish(staging, target, names)
    except (OSError, shutil.Error) as exc:
        raise ServeError(f"cannot write the repository {repository}: {exc}. Its models are as they were") from exc
    finally:
        discard(staging)
        with suppress(OSError):  # it has models
            target.rmdir()
    return names


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """The bundles by the names of their models."""
    if not paths:
        raise ServeError("a repository needs at least one bundle; got none. Pass the path of a NAME.atrous directory")
    named: dict[str, Path] = {}
    for path in paths:
        name = path.absolute().name.removesuffix(SUFFIX)
        if not _NAME.fullmatch(name):
            raise ServeError(
                f"{name!r} is no name of a model: expected letters, digits, '_', '-' and '.'. Rename {path}"
            )
        if name in named:
            raise ServeError(f"{named[name]} and {path} would both be the model {name!r}. Rename one of them")
        named[name] = path
    return named


def _write_models(staging: Path, name: str, path: Path, options: TritonOptions) -> None:
    """Write the model of a bundle, and those of its bare network if they are wanted."""
    source = Bundle.open(path)
    version = _make_model(staging, name)
    inside = version / f"{name}{SUFFIX}"
    if options.link:
        inside.symlink_to(path.resolve(), target_is_directory=True)
    else:
        shutil.copytree(source.path, inside)
    bundle = Bundle.open(inside)
    bundle.check()  # the copy, so that nothing is served that was not hashed
    identity = hash_file(inside / MANIFEST_FILE)
    _write_config(staging / name, segmenter_config(name, bundle.manifest, identity, options))
    if options.flavour == "python":
        (version / "model.py").write_text(_model_code(options), encoding="utf-8")
    if options.bare_network:
        for each, model in network_models(name, bundle, options).items():
            _write_network(staging, each, bundle, model)


def _make_model(staging: Path, name: str) -> Path:
    """Make the folders of a model, and return that of its only version."""
    if (staging / name).exists():
        raise ServeError(f"two models would be called {name!r}. Rename a bundle")
    version = staging / name / _VERSION
    version.mkdir(parents=True)
    return version


def _write_config(folder: Path, config: Message) -> None:
    (folder / CONFIG_FILE).write_text(pbtxt(config), encoding="utf-8")


def _model_code(options: TritonOptions) -> str:
    """Text of `model.py`."""
    template = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    if not options.site_packages:
        return template
    folders = "".join(f"    {json.dumps(folder, ensure_ascii=False)},\n" for folder in options.site_packages)
    return template.replace(_NO_FOLDERS, f"SITE_PACKAGES = (\n{folders})\n")


def _write_network(staging: Path, name: str, bundle: Bundle, model: NetworkModel) -> None:
    version = _make_model(staging, name)
    for file, artifact in model.files.items():
        (version / file).write_bytes(bundle.read(artifact))
    _write_config(staging / name, model.config)


def _check_place(target: Path, *, overwrite: bool) -> None:
    """Check that a model may be written there."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise ServeError(f"{target} exists already. Choose another repository, or overwrite it on purpose")
    if not (target / CONFIG_FILE).is_file():
        raise ServeError(f"{target} exists and is no model of Triton: refusing to replace it")


def _publish(staging: Path, repository: Path, names: Sequence[str]) -> None:
    """Move models from `staging` into the repository; if one cannot be moved, those before it are taken back."""
    undo: list[Callable[[], object]] = []
    try:
        for name in names:
            new, target, old = staging / name, repository / name, staging / f"{name}.old"
            if os.path.lexists(target):
                if exchange(new, target):
                    undo.append(partial(exchange, new, target))
                    continue
                target.rename(old)
                undo.append(partial(old.rename, target))
            new.rename(target)
            undo.append(partial(target.rename, new))
    except BaseException:
        for step in reversed(undo):
            step()
        raise
