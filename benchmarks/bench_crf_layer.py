"""The dense CRF in training, and on volumes: time and memory of the way back beside inference, and of 128³ points.

    pip install 'atrous[export,bench,demo]'
    python benchmarks/bench_crf_layer.py --repeats 5

The picture and the unaries are those of bench_crf.py. Before anything is timed the layer's marginals are compared with
`DenseCRF`'s, bit for bit, and its gradient, after three iterations on a part of the image, with a central difference
along a random direction of all parameters: ten iterations amplify a small step beyond what a difference tells.
"Forward" and "backward" are of one image, whose lattices the process keeps from the one for the other; "inference" is
`DenseCRF` on the same image, whose bilateral lattice is built each time. Peak memory is that of a process which does
nothing else, over its imports and the inputs. The volume is a noisy ball of three classes, with 2.5 mm between slices
and 0.7 mm within; its time includes the construction of both lattices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer
from bench_crf import Picture, Probabilities, peak_mb, scene
from gpu_check.gates import SETS
from harness import RESULTS, time_in_turns, write_report
from rich.console import Console

from atrous.crf import DenseCRF, FeatureCRF, Kernel
from atrous.crf.torch import DenseCRFLayer

_ITERATIONS = 10
_FEWER_ITERATIONS = 3
#: Of the directional derivative, in single precision.
_AGREEMENT = 0.02
_STEP = 3e-4
_SPACING_MM = (2.5, 0.7, 0.7)


def infer(probabilities: Probabilities, image: Picture, name: str) -> Probabilities:
    """Marginals by a new `DenseCRF`."""
    return DenseCRF(SETS[name], iterations=_ITERATIONS)(probabilities, image)


def train(probabilities: Probabilities, image: Picture, name: str) -> Probabilities:
    """Gradient of the logits after a way there and back."""
    logits, images = tensors(probabilities, image)
    layer = DenseCRFLayer(SETS[name], num_classes=len(probabilities), iterations=_ITERATIONS)
    layer(logits, images).square().mean().backward()
    assert logits.grad is not None
    return logits.grad.numpy()


def tensors(probabilities: Probabilities, image: Picture) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [1, C, H, W] that require a gradient, and an image."""
    logits = torch.from_numpy(np.log(np.maximum(probabilities, 1e-12)))[None].requires_grad_()
    return logits, torch.from_numpy(image)[None]


def check(probabilities: Probabilities, image: Picture, name: str) -> dict[str, float]:
    """Compare the layer with `DenseCRF` and with a central difference; the relative difference, or the end."""
    logits, images = tensors(probabilities, image)
    layer = DenseCRFLayer(SETS[name], num_classes=len(probabilities), iterations=_ITERATIONS)
    softmax = torch.softmax(logits, 1)[0].detach().numpy()
    if not (layer(logits, images)[0].detach().numpy() == infer(softmax, image, name)).all():
        raise SystemExit("the layer's marginals are not DenseCRF's; nothing timed.")
    logits, images = tensors(probabilities[:, :120, :160], image[:120, :160])
    layer = DenseCRFLayer(SETS[name], num_classes=len(probabilities), iterations=_FEWER_ITERATIONS)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(logits.shape, generator=generator)
    parameters = list(layer.parameters())
    directions = [torch.randn(each.shape, generator=generator) for each in parameters]
    gradients = torch.autograd.grad((layer(logits, images) * weights).mean(), parameters)
    expected = sum(float((g.double() * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def loss_at(step: float) -> float:
        with torch.no_grad():
            for each, direction in zip(parameters, directions, strict=True):
                each.add_(step * direction)
            value = float((layer(logits, images).double() * weights).mean())
            for each, direction in zip(parameters, directions, strict=True):
                each.sub_(step * direction)
        return value

    found = (loss_at(_STEP) - loss_at(-_STEP)) / (2 * _STEP)
    difference = abs(found - expected) / abs(expected)
    if difference > _AGREEMENT:
        raise SystemExit(f"a directional derivative is {expected:.4e}, its difference {found:.4e}; nothing timed.")
    return {"gradient_difference": difference}


def measure(probabilities: Probabilities, image: Picture, name: str, repeats: int) -> dict[str, Any]:
    """Check, then time inference, forward and backward in turns, and measure memory."""
    agreement = check(probabilities, image, name)
    crf = DenseCRF(SETS[name], iterations=_ITERATIONS)
    layer = DenseCRFLayer(SETS[name], num_classes=len(probabilities), iterations=_ITERATIONS)
    pictures = itertools.cycle([np.roll(image, 7 * turn, axis=0) for turn in range(8)])
    latest: dict[str, Any] = {}

    def inference() -> None:
        crf(probabilities, next(pictures))

    def forward() -> None:
        logits, images = tensors(probabilities, next(pictures))
        latest["loss"] = layer(logits, images).square().mean()

    def backward() -> None:
        latest["loss"].backward()

    calls: dict[str, Callable[[], object]] = {"inference": inference, "forward": forward, "backward": backward}
    times = time_in_turns(calls, warmup=1, repeats=repeats)
    inputs_mb = round((probabilities.nbytes + image.nbytes) / 2**20, 1)
    peaks = {
        "inference_peak_mb": peak_mb(infer, probabilities, image, name),
        "layer_peak_mb": peak_mb(train, probabilities, image, name),
        "inputs_mb": inputs_mb,
    }
    ratio = round(times["backward"]["median_ms"] / times["forward"]["median_ms"], 2)
    return {**agreement, **times, "backward_over_forward": ratio, **peaks}


def refine_volume(side: int) -> Probabilities:
    """Marginals [3, side, side, side] of a noisy ball."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:side, :side, :side].astype(np.float32) - side / 2
    radius = np.sqrt(z**2 + y**2 + x**2) / side
    truth = (radius < 0.35).astype(int) + (radius < 0.2)
    scan = truth * 200 + rng.normal(scale=30, size=truth.shape)
    logits = 1.5 * (truth == np.arange(3)[:, None, None, None]) + rng.normal(size=(3, *truth.shape))
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    kernels = [
        Kernel.of_positions(truth.shape, sigma=1.5, spacing=_SPACING_MM, weight=3),
        Kernel.of_image(scan[None], sigma=8, sigma_values=60, spacing=_SPACING_MM, weight=4),
    ]
    marginals = FeatureCRF(kernels, iterations=_ITERATIONS)(probabilities)
    before, after = ((maps.argmax(0) != truth).mean() for maps in (probabilities, marginals))
    if after > 0.2 * before:
        raise SystemExit(f"{before:.3%} of the volume's labels are wrong before and {after:.3%} after; nothing timed.")
    return marginals


def main(
    size: Annotated[list[str], typer.Option(help="HEIGHTxWIDTHxCLASSES; repeat for more.")] = ["513x513x21"],  # noqa: B006
    params: Annotated[str, typer.Option(help="P1, P2 or P3.")] = "P1",
    side: Annotated[int, typer.Option(help="Points along each axis of the volume; 0 for none.")] = 128,
    repeats: Annotated[int, typer.Option(min=3)] = 5,
) -> None:
    """Time the layer there and back, and a volume."""
    console = Console()
    cases = []
    for text, plain in itertools.product(size, (False, True)):
        height, width, classes = (int(part) for part in text.split("x"))
        case = measure(*scene(height, width, classes, plain=plain), params, repeats)
        cases.append({"size": text, "picture": "plain" if plain else "textured", "params": params, **case})
        console.print(cases[-1])
    volume: dict[str, Any] = {}
    if side:
        volume = {"side": side, **time_in_turns({"total": lambda: refine_volume(side)}, warmup=0, repeats=3)}
        volume["peak_mb"] = peak_mb(refine_volume, side)
        console.print(volume)
    out = RESULTS / "crf-layer.json"
    write_report(out, packages=["numpy", "torch"], iterations=_ITERATIONS, repeats=repeats, cases=cases, volume=volume)
    console.print(f"Wrote {out}")


if __name__ == "__main__":
    typer.run(main)
