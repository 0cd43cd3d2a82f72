"""Graphs that answer probabilities instead of logits: taken apart where that is exact, otherwise refused.

The runtime upsamples logits and applies the softmax or sigmoid itself. Applied to probabilities it would flatten them:
softmax(softmax(9, 0)) is (0.73, 0.27).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..arrays import FloatArray
from ..errors import ExportError
from ..runtime.backends.onnxruntime import OnnxSession
from .final_activation import COMPARING, FinalActivation, computed_from_activations, find_final_activation, without

#: Batches of `probe_inputs` that are enough to see what an output is.
PROBES: Final = 2
#: Largest difference of probabilities that summation order and rounding make, in single and in half precision.
_EXACT_ABS: Final = 1e-5
_ROUNDED_ABS: Final = 4e-3
#: Largest deviation of their sum, beside how far a channel varies; rounding to 8 bits makes some as well.
_SUM_RELATIVE: Final = 1e-2
_ADVICE: Final = "Give the network without it: logits, at the resolution at which the last convolution makes them."

Run = Callable[[FloatArray], NDArray[Any]]


@dataclass(frozen=True)
class LogitsGraph:
    """A graph whose output is logits.

    Attributes:
        removed: what was taken from its end: `Softmax`, `Sigmoid` or `LogSigmoid`; None for nothing.
    """

    model: onnx.ModelProto
    removed: str | None

    def activated(self, run: Run) -> Run:
        """Probabilities [N, C, h, w] of the graph, whose logits `run` computes."""
        if self.removed is None:
            return run
        if self.removed == "Softmax":
            return lambda images: _softmax(run(images))
        return lambda images: _both(_sigmoid(run(images)))

    def logits(self, run: Run) -> Run:
        """Logits of the network before, whose output `run` computes; of a softmax up to a constant per position."""
        if self.removed is None:
            return run
        if self.removed == "Softmax":
            return lambda images: _log(run(images))
        if self.removed == "LogSigmoid":
            return lambda images: _logit(np.exp(run(images)))
        return lambda images: _logit(run(images))

    def original(self, run: Run) -> Run:
        """The same of the network before, whose output `run` computes."""
        if self.removed in (None, "Softmax"):
            return run
        if self.removed == "LogSigmoid":
            return lambda images: _both(np.exp(run(images)))
        return lambda images: _both(run(images))


def logits_graph(model: onnx.ModelProto, run: Run, batches: Sequence[FloatArray], *, name: str) -> LogitsGraph:
    """Take a final Softmax or Sigmoid away, and prove on `batches` that what is left are its logits.

    A LogSoftmax stays: the softmax of its output is that of its input, at every position and between them.

    Args:
        model: a graph with one output [N, channels, h, w].
        run: computes what the graph does.
        batches: inputs [N, 3, H, W].
        name: what messages call the network.

    Raises:
        ExportError: the output is no logits, and cannot be made logits.
    """
    outputs = [run(batch) for batch in batches]
    _refuse_what_is_not_finite(batches, outputs, name)
    found = find_final_activation(model)
    if found is not None:
        _refuse_what_is_not_separable(found, outputs[0].shape[1], name)
        if found.operator in ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"):
            return _taken_apart(model, found, batches, outputs, name)
    _refuse_probabilities(outputs, name)
    _refuse_what_activations_make(model, outputs, name)
    return LogitsGraph(model, None)


def _refuse_what_is_not_finite(batches: Sequence[FloatArray], outputs: Sequence[NDArray[Any]], name: str) -> None:
    for batch, output in zip(batches, outputs, strict=True):
        if not np.isfinite(output).all():
            raise ExportError(
                f"{name} itself returns NaN or infinity for an input {list(batch.shape)}, a photo normalized as was "
                "said. Are its weights loaded and finite, and are mean, std and scale those of its training?"
            )


def _refuse_what_is_not_separable(found: FinalActivation, channels: int, name: str) -> None:
    operator = found.operator
    end = f"{name} ends in {operator}"
    if operator in ("ArgMax", "Hardmax", "HardSigmoid", *COMPARING):
        raise ExportError(f"{end}, whose output is no logits and does not say which they were. {_ADVICE}")
    if channels == 1 and operator in ("Softmax", "LogSoftmax"):
        raise ExportError(
            f"{end} and returns one channel, of whose logits a softmax cannot be made. {_ADVICE} One channel is taken "
            "as a sigmoid's."
        )
    if channels == 1 and operator in ("Tanh", "Erf"):
        raise ExportError(
            f"{end}; one channel is taken as a sigmoid's logit, and {operator.lower()} is none. {_ADVICE}"
        )
    if channels > 1 and operator in ("Sigmoid", "LogSigmoid"):
        raise ExportError(
            f"{end} over {channels} channels, an independent yes or no for each (multi-label), so that a pixel may be "
            "several classes at once or none; a label is one class. If the classes exclude each other, give the "
            "network without it: the softmax of the logits is applied, whose most probable class is the same. If not, "
            "export one network for each class, with one channel."
        )
    if found.is_interpolated and operator in ("Softmax", "Sigmoid", "LogSigmoid"):
        raise ExportError(
            f"{end}, whose output is then interpolated. Interpolated probabilities are not the probabilities of "
            f"interpolated logits, which the runtime computes, so the two cannot be separated. {_ADVICE}"
        )


def _taken_apart(
    model: onnx.ModelProto,
    found: FinalActivation,
    batches: Sequence[FloatArray],
    outputs: Sequence[NDArray[Any]],
    name: str,
) -> LogitsGraph:
    stripped = without(model, found)
    session = OnnxSession(stripped.SerializeToString(), name=f"{name} without its {found.operator}", optimize=False)
    recompute = {
        "Softmax": _softmax,
        "Sigmoid": _sigmoid,
        "LogSigmoid": lambda logits: np.log(_sigmoid(logits)),
        "LogSoftmax": _softmax,
    }[found.operator]
    allowed = _EXACT_ABS if _is_single(model) else _ROUNDED_ABS
    for batch, output in zip(batches, outputs, strict=True):
        expected = _softmax(output) if found.operator == "LogSoftmax" else output
        actual = recompute(session.run(batch))
        if actual.shape != expected.shape or not np.abs(actual - expected).max() <= allowed:
            raise ExportError(
                f"{name} ends in {found.operator}, but not over the channels [N, channels, h, w], axis 1, that it "
                f"returns: over them it is another, or it is random. {_ADVICE}"
            )
    if found.operator == "LogSoftmax":
        return LogitsGraph(model, None)
    return LogitsGraph(stripped, found.operator)


def _refuse_what_activations_make(model: onnx.ModelProto, outputs: Sequence[NDArray[Any]], name: str) -> None:
    """Refuse scaled, rounded, averaged or otherwise changed probabilities; logarithms of them are logits."""
    activations, behind = computed_from_activations(model)
    if activations and not _are_log_probabilities(outputs):
        by = f", by {', '.join(behind)}," if behind else ""
        raise ExportError(
            f"{name} returns no logits: its output is computed from {' and '.join(activations)} alone{by} and softmax "
            f"or sigmoid would be applied to it once more. {_ADVICE}"
        )


def _are_log_probabilities(outputs: Sequence[NDArray[Any]]) -> bool:
    """True if values are the logarithms of a distribution over several channels, at every position."""
    if outputs[0].shape[1] == 1 or max(float(output.max()) for output in outputs) > _SUM_RELATIVE:
        return False
    sums = (np.exp(output, dtype=np.float64).sum(axis=1) for output in outputs)
    return all(np.abs(each - 1).max() <= _SUM_RELATIVE for each in sums)


def _refuse_probabilities(outputs: Sequence[NDArray[Any]], name: str) -> None:
    """Refuse values that are probabilities although no known operator makes them; a constant says nothing."""
    low = min(float(output.min()) for output in outputs)
    high = max(float(output.max()) for output in outputs)
    if not -_EXACT_ABS <= low < high:
        return
    if _are_log_probabilities([-output for output in outputs]):
        raise ExportError(
            f"{name} returns negative logarithms of probabilities (energies, losses), whose smallest is the most "
            f"probable class. Give the network without the minus sign, or without both. {_ADVICE}"
        )
    channels = outputs[0].shape[1]
    sums = np.concatenate([output.sum(axis=1, dtype=np.float64).ravel() for output in outputs])
    total = float(np.median(sums))
    # The answers of a network that was not trained hardly differ, and so does their sum, which then says nothing.
    lowest, highest = (
        extreme([extreme(output, axis=(0, 2, 3)) for output in outputs], axis=0) for extreme in (np.min, np.max)
    )
    spread = float((highest - lowest).max())
    if channels > 1 and spread > 0.1 * total and np.abs(sums - total).max() <= _SUM_RELATIVE * spread:
        seen = f"its {channels} channels are not negative and sum to {total:.3g} at every position, as after a softmax"
    elif high <= 1 + _EXACT_ABS and high - low > 0.5:
        seen = f"all values are between {low:.3g} and {high:.3g}, as after a sigmoid"
    else:
        return
    raise ExportError(
        f"{name} returns probabilities, not logits: {seen}. Softmax or sigmoid would be applied twice. {_ADVICE}"
    )


def _is_single(model: onnx.ModelProto) -> bool:
    """True if nothing is computed in half precision or INT8."""
    casts = [node for node in model.graph.node if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear")]
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return not halves and not casts


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * logits))  # exp(-logits) would overflow
    return result


def _both(probability: FloatArray) -> FloatArray:
    """1 − p and p [N, 2, h, w] of p [N, 1, h, w]."""
    return np.concatenate([1 - probability, probability], axis=1)


def _log(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Logarithms, those of 0 finite."""
    result: NDArray[Any] = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return result


def _logit(probabilities: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = _log(probabilities) - _log(1 - probabilities)
    return result
