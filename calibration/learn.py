"""Search by gradient for the weights of a dense CRF, on images with masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import check_arguments_besides, check_fields
from ..arrays import as_array, class_maps
from ..crf import Compatibility, CRFParams
from ..errors import ArgumentError, CRFError, ShapeError, importing
from ..runtime.metrics import iou

with importing("export", purpose="learn_crf"):
    import torch

    from ..crf.torch import DenseCRFLayer

Learnable = Literal["weights", "compatibility", "temperature"]

#: The temperature stays above this, and factors of weights above 0.
_MIN_TEMPERATURE = 0.05
#: Marginals are not below this in the logarithm.
_MIN_MARGINAL = 1e-6


@dataclass(frozen=True)
class Example:
    """An image with the network's probabilities and the truth.

    Args:
        probabilities: [C, H, W] floating point in [0, 1], before the CRF.
        image: [H, W, 3] uint8 RGB.
        mask: [H, W] integers: classes, or the id of `LearnOptions.ignore`.
    """

    probabilities: ArrayLike
    image: ArrayLike
    mask: ArrayLike


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """Options of the search by gradient.

    Args:
        learn: any of `weights` (a factor for each kernel and class), `compatibility` (a cost for each pair of classes)
            and `temperature`.
        iterations: mean-field updates, in learning and in deployment.
        epochs: passes over the images, at most.
        learning_rate: step size of Adam.
        batch_size: images between two steps.
        pull: strength of the regulariser, pull · Σ (parameter − start)².
        balance: exponent of the classes' weights in the loss: 0 weighs pixels alike, 1 classes alike.
        patience: epochs without a better score on held-out images before it stops.
        ignore: id in masks of pixels that do not count; None if there are none.
        seed: of the order of the images.
        threads: CPU threads; 0 uses all cores.

    Raises:
        ArgumentError: a value has the wrong type.
        CRFError: a value is out of range.
    """

    learn: tuple[str, ...] = ("weights", "compatibility", "temperature")
    iterations: int = 10
    epochs: int = 20
    learning_rate: float = 0.05
    batch_size: int = 4
    pull: float = 0.01
    balance: float = 0.5
    patience: int = 3
    ignore: int | None = 255
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.learn or not set(self.learn) <= set(get_args(Learnable)):
            raise CRFError(f"learn must be some of {', '.join(get_args(Learnable))}; got {', '.join(self.learn)}")
        for name, least in (("iterations", 1), ("epochs", 1), ("batch_size", 1), ("patience", 1), ("seed", 0)):
            if not least <= getattr(self, name) <= 2**31:
                raise CRFError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name, most in (("learning_rate", 10.0), ("pull", 1e6), ("balance", 1.0)):
            value = getattr(self, name)
            if not (0 <= value <= most and (value > 0 or name != "learning_rate")):
                raise CRFError(f"{name} must be 0 to {most:g}, got {value}")


@dataclass(frozen=True)
class Score:
    """Result of an epoch.

    Attributes:
        epoch: passes over the images so far; 0 is the start.
        train_loss: mean loss over the epoch, regulariser excluded; NaN at the start.
        held_out_loss: mean loss on the held-out images.
        held_out_miou: mean IoU on the held-out images, 0 to 1.
        held_out_iou: IoU of each class on the held-out images; NaN where a class is nowhere.
    """

    epoch: int
    train_loss: float
    held_out_loss: float
    held_out_miou: float
    held_out_iou: tuple[float, ...]


@dataclass(frozen=True)
class LearnedCRF:
    """Result of `learn_crf`: the best of all epochs on held-out images, the start included.

    Attributes:
        params: the parameters that were given, with the temperature that was learned.
        compatibility: what was learned of the classes.
        iterations: mean-field updates that it was learned for.
        best: the score that it was chosen for.
        history: scores of all epochs, that of the start first.
    """

    params: CRFParams
    compatibility: Compatibility
    iterations: int
    best: Score
    history: tuple[Score, ...]

    @property
    def is_better(self) -> bool:
        """True if an epoch was better than the start."""
        return self.best.epoch > 0


@check_arguments_besides("progress")
def learn_crf(
    train: Iterable[Example],
    held_out: Iterable[Example],
    params: CRFParams | None = None,
    *,
    compatibility: Compatibility | None = None,
    options: LearnOptions | None = None,
    progress: Callable[[Score], None] | None = None,
) -> LearnedCRF:
    """Learn weights of classes, compatibilities and the temperature of a dense CRF by gradient.

    The loss is the cross-entropy of the marginals. After each epoch the mean IoU on held-out images decides whether it
    is the best so far. Images are read one by one and again in each epoch, so `train` and `held_out` may load them from
    disk; standard deviations stay, since the lattices depend on them.

    Args:
        train: images to learn from: a list, or anything else that can be iterated over again.
        held_out: other images to choose by, likewise.
        params: parameters to start from, DeepLab v2's by default; a kernel of weight 0 stays out.
        compatibility: where to start from, the Potts model by default.
        options: see `LearnOptions`.
        progress: called with each score as it comes; what it raises, such as `KeyboardInterrupt`, ends the search.

    Returns:
        What was learned, and how it went.

    Raises:
        ArgumentError: an argument has the wrong type, or an iterator was given, which ends after the first epoch.
        ShapeError: arrays of an example do not fit each other, or a label is out of range.
        CRFError: there are no images, or no pixel has a label.
    """
    given = options if options is not None else LearnOptions()
    for name, examples in (("train", train), ("held_out", held_out)):
        if isinstance(examples, Iterator):
            raise ArgumentError(f"{name} must be a list of Example, or iterable more than once", argument=name)
    frequencies = _frequencies(train, "train", given)
    layer = DenseCRFLayer(
        params,
        num_classes=len(frequencies),
        iterations=given.iterations,
        compatibility=compatibility,
        threads=given.threads,
    )
    return _Search(layer, _class_weights(frequencies, given.balance), given).run(train, held_out, progress)


class _Search:
    """A layer on its way."""

    def __init__(self, layer: DenseCRFLayer, class_weights: torch.Tensor, options: LearnOptions) -> None:
        self.layer, self.options, self.class_weights = layer, options, class_weights
        groups = {
            "weights": (layer.bilateral, layer.gaussian),
            "compatibility": (layer.compatibility,),
            "temperature": (layer.temperature,),
        }
        self.learned = [parameter for name in dict.fromkeys(options.learn) for parameter in groups[name]]
        for parameter in layer.parameters():
            parameter.requires_grad_(any(parameter is each for each in self.learned))
        self.start = [parameter.detach().clone() for parameter in self.learned]
        self.optimizer = torch.optim.Adam(self.learned, lr=options.learning_rate)

    def run(
        self, train: Iterable[Example], held_out: Iterable[Example], progress: Callable[[Score], None] | None
    ) -> LearnedCRF:
        """Learn until it gets no better."""
        history = [self._score(0, math.nan, held_out)]
        best, kept = history[0], self._kept()
        order = np.random.default_rng(self.options.seed)
        for epoch in range(1, self.options.epochs + 1):
            if progress is not None:
                progress(history[-1])
            history.append(self._score(epoch, self._epoch(train, order), held_out))
            if history[-1].held_out_miou > best.held_out_miou:
                best, kept = history[-1], self._kept()
            elif epoch - best.epoch >= self.options.patience:
                break
        if progress is not None:
            progress(history[-1])
        params, compatibility = kept
        return LearnedCRF(params, compatibility, self.options.iterations, best, tuple(history))

    def _kept(self) -> tuple[CRFParams, Compatibility]:
        return self.layer.learned_params(), self.layer.learned_compatibility()

    def _epoch(self, train: Iterable[Example], order: np.random.Generator) -> float:
        """One pass; the mean loss of its images."""
        losses = []
        in_batch = 0
        for example in _shuffled(train, order):
            loss, _, _ = self._loss(example)
            (loss / self.options.batch_size).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            in_batch += 1
            if in_batch == self.options.batch_size:
                self._step()
                in_batch = 0
        if in_batch:
            self._step()
        return float(np.mean(losses))

    def _step(self) -> None:
        pulls = (((each - start) ** 2).sum() for each, start in zip(self.learned, self.start, strict=True))
        (self.options.pull * torch.stack(list(pulls)).sum()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.layer.temperature.clamp_(min=_MIN_TEMPERATURE)
            for factors in (self.layer.bilateral, self.layer.gaussian):
                factors.clamp_(min=0.0)

    def _loss(self, example: Example) -> tuple[torch.Tensor, NDArray[np.uint8], NDArray[np.int64]]:
        """Mean cross-entropy over the labelled pixels of an image, its labels after the CRF, and its mask."""
        probabilities, image, mask = _arrays(example, len(self.class_weights), self.options.ignore)
        logits = torch.from_numpy(np.log(np.maximum(probabilities, 1e-12)))[None]
        marginals = self.layer(logits, image[None])[0]
        known = torch.from_numpy(mask >= 0)
        truth = torch.from_numpy(mask).clamp_min(0)
        of_truth = marginals.gather(0, truth[None])[0]
        weights = self.class_weights[truth] * known
        loss = -(weights * of_truth.clamp_min(_MIN_MARGINAL).log()).sum() / weights.sum().clamp_min(1e-12)
        return loss, marginals.detach().argmax(0).numpy(), mask

    @torch.no_grad()
    def _score(self, epoch: int, train_loss: float, held_out: Iterable[Example]) -> Score:
        classes = len(self.class_weights)
        confusion = np.zeros((classes, classes), np.int64)
        losses = []
        for example in held_out:
            loss, labels, mask = self._loss(example)
            losses.append(loss.item())
            known = mask >= 0
            confusion += np.bincount(classes * mask[known] + labels[known], minlength=classes**2).reshape(
                confusion.shape
            )
        if not losses or not confusion.any():
            raise CRFError("held_out has no labelled pixel; take other images out of training for it")
        by_class = iou(confusion)
        return Score(epoch, train_loss, float(np.mean(losses)), float(np.nanmean(by_class)), tuple(by_class.tolist()))


def _arrays(
    example: object, classes: int | None, ignore: int | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    """Validate an example: its probabilities, image and mask, in which −1 is what does not count."""
    if not isinstance(example, Example):
        raise ArgumentError(f"images must be Example objects; got {type(example).__name__}", argument="train")
    probabilities = np.ascontiguousarray(class_maps(example.probabilities, "probabilities"), dtype=np.float32)
    count, height, width = probabilities.shape
    if classes is not None and count != classes:
        raise ShapeError(f"probabilities of all images must have as many classes; got {classes} and {count}")
    if not (probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-3):
        raise ShapeError("probabilities must be finite and lie in [0, 1]; apply softmax to logits first")
    image = as_array(example.image, "the image")
    mask = as_array(example.mask, "the mask")
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ShapeError(f"the image must be uint8 [{height}, {width}, 3], got {image.dtype} {list(image.shape)}")
    if mask.shape != (height, width) or not np.issubdtype(mask.dtype, np.integer):
        raise ShapeError(f"the mask must be integers [{height}, {width}], got {mask.dtype} {list(mask.shape)}")
    counted = np.ones(mask.shape, bool) if ignore is None else mask != ignore
    labels = np.where(counted, mask, 0).astype(np.int64)
    out_of_range = (labels < 0) | (labels >= count)
    if out_of_range.any():
        row, column = (int(index) for index in np.argwhere(out_of_range)[0])
        expected, actual = f"0 to {count - 1}", str(mask[row, column])
        raise ShapeError(
            f"labels must be {expected}, or {ignore} for pixels that do not count; got {actual} at row {row}, column "
            f"{column}. Say with LearnOptions(ignore=…) what marks them",
            expected=expected,
            actual=actual,
        )
    labels[~counted] = -1
    return probabilities, np.ascontiguousarray(image), labels


def _frequencies(examples: Iterable[Example], name: str, options: LearnOptions) -> NDArray[np.float64]:
    """Pixels of each class."""
    counts: NDArray[np.float64] | None = None
    for example in examples:
        probabilities, _, mask = _arrays(example, None if counts is None else len(counts), options.ignore)
        found = np.bincount(mask[mask >= 0], minlength=len(probabilities)).astype(np.float64)
        counts = found if counts is None else counts + found
    if counts is None or not counts.any():
        raise CRFError(f"{name} has no labelled pixel: there are no images, or all of every mask is ignored")
    return counts


def _class_weights(frequencies: NDArray[np.float64], balance: float) -> torch.Tensor:
    """Weight of each class in the loss, 0 of those that are nowhere; 1 on average over pixels."""
    shares = frequencies / frequencies.sum()
    weights = np.where(shares > 0, np.maximum(shares, 1e-12) ** -balance, 0.0)
    return torch.from_numpy((weights / (shares * weights).sum()).astype(np.float32))


def _shuffled(examples: Iterable[Example], order: np.random.Generator) -> Iterator[Example]:
    """Examples in a new order where they can be indexed, else as they come."""
    if isinstance(examples, (list, tuple)):
        for index in order.permutation(len(examples)):
            yield examples[index]
    else:
        yield from examples
