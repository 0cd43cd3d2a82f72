"""Errors and noise of a user's module and of torch, which become one `ExportError` with the whole cause."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

from torch import nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from ..errors import AtrousError, ExportError

#: Sequences that colour a terminal's text.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
#: Lines of torch's log that a message shows; `ExportError.log` has all.
_SHOWN_LINES = 20


def plain_text(text: str) -> str:
    """The text without the codes that colour a terminal."""
    return _ANSI.sub("", text)


def reason_of(error: BaseException) -> str:
    """The message of a foreign exception with its type, whole and without colours."""
    text = plain_text(str(error)).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def copy_module(model: nn.Module) -> nn.Module:
    """Copy a user's module to the CPU, in float32 and evaluation mode.

    Raises:
        ExportError: it cannot be copied, or has weights that were never set.
    """
    name = type(model).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of the gradients of TorchScript
            copied = copy.deepcopy(model)
            # Not chained: a `train` of the user's own, which freezes layers say, may return nothing.
            copied.cpu()
            copied.float()
            if not isinstance(copied, GraphModule):  # a program of torch.export has no modes: it is what was traced
                copied.eval()
            unset = [
                key
                for key, value in itertools.chain(copied.named_parameters(), copied.named_buffers())
                if is_lazy(value)
            ]
    except Exception as exc:
        kept = _uncopyable(model)
        hint = f" It keeps what has no copy in {', '.join(kept)}; set that to None first." if kept else ""
        raise ExportError(f"{name} cannot be copied, which exporting does: {reason_of(exc)}.{hint}") from exc
    if unset:
        raise ExportError(
            f"{name} has weights that were never set, {', '.join(unset)}: each run would make others. Load them, or "
            "run the network once before."
        )
    return copied


def _uncopyable(model: nn.Module) -> list[str]:
    """Attributes that no copy can be made of: locks, files, results of the network that carry a gradient."""
    found = []
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            try:
                if name != "_modules":  # they are looked at by themselves
                    copy.deepcopy(value)
            except Exception:
                found.append(f"{prefix}.{name}".lstrip("."))
    return found


@contextlib.contextmanager
def module_errors(model: nn.Module, shape: Sequence[int]) -> Iterator[None]:
    """Wrap whatever a user's module raises on an input of `shape`.

    Raises:
        ExportError: the block raised.
    """
    try:
        yield
    except AtrousError:
        raise
    except (Exception, SystemExit) as exc:  # a network that ends the program has failed as well
        raise ExportError(f"{type(model).__name__} fails on an input {list(shape)}: {reason_of(exc)}") from exc


@contextlib.contextmanager
def quiet_torch(failed: str, *, advice: str = "") -> Iterator[None]:
    """Keep back what torch logs, prints and warns of in the block; it is in the error, if there is one.

    What is written to `sys.stderr` meanwhile is passed on afterwards if nothing fails.

    Args:
        failed: what torch did not do, as in "torch `failed`: its reason".
        advice: what may help.

    Raises:
        ExportError: the block raised, with torch's whole reason and its log.
    """
    logged, printed = io.StringIO(), io.StringIO()
    try:
        with _logs_to(logged), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except AtrousError:
        raise
    except (Exception, SystemExit) as exc:  # torch's exceptions here share no base class
        log = plain_text(printed.getvalue() + logged.getvalue()).strip()
        said = f"torch {failed}: {_whole_reason(exc)}" + (f"\n{advice}" if advice else "")
        raise ExportError(said + _end_of(log), log=log) from exc
    else:
        sys.stderr.write(printed.getvalue())


def _whole_reason(error: BaseException) -> str:
    """The message, and what its causes add to it; torch's advice on reporting bugs comes last."""
    advice, _, summary = reason_of(error).partition("## Exception summary")
    texts = [summary.strip(), advice.strip()] if summary else [advice]
    cause = error.__cause__
    while cause is not None:
        text = plain_text(str(cause)).strip()
        if text and not any(text in known for known in texts):
            texts.append(f"caused by {reason_of(cause)}")
        cause = cause.__cause__
    return "\n".join(texts)


def _end_of(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    left_out = f" (the last {_SHOWN_LINES} of {len(lines)} lines)" if len(lines) > _SHOWN_LINES else ""
    return f"\ntorch's log{left_out}:\n" + "\n".join(lines[-_SHOWN_LINES:])


@contextlib.contextmanager
def _logs_to(stream: io.StringIO) -> Iterator[None]:
    """Send what torch logs to `stream` alone."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # its warnings are of deprecations inside torch, and of torchvision's absence
    names = [name for name in logging.root.manager.loggerDict if name == "torch" or name.startswith("torch.")]
    loggers = [logging.getLogger(name) for name in {"torch", *names}]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler] if logger.name == "torch" else []
        logger.propagate = logger.name != "torch"
    try:
        yield
    finally:
        exporter.setLevel(level)
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
