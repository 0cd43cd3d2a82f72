from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_filters import matrix_of
from tolerances import CRF_GRADIENT_RELATIVE

from atrous import _native
from atrous.crf.torch import dense_crf_loss
from atrous.errors import ArgumentError, CRFError, DeviceError, ShapeError

SIGMAS = {"sigma_xy_px": 6.0, "sigma_rgb": 25.0}


@pytest.fixture
def batch(rng):
    """Probabilities [2, 3, 6, 7], images and a mask."""
    probabilities = torch.softmax(torch.from_numpy(rng.normal(size=(2, 3, 6, 7)).astype(np.float32)), 1)
    images = torch.from_numpy(rng.integers(0, 60, (2, 6, 7, 3), dtype=np.uint8))
    return probabilities, images, torch.from_numpy(rng.uniform(size=(2, 6, 7)) < 0.7)


def oracle(probabilities, images, mask, normalization):
    """Σ_k s_kᵀ W (1 − s_k) in float64, with the lattice's own matrix."""
    total = 0
    for planes, image, inside in zip(probabilities.flatten(2), images.numpy(), mask.flatten(1), strict=True):
        lattice = _native.Filter()
        lattice.build_bilateral(image, (6.0, 6.0), (25.0, 25.0, 25.0), normalization)
        w = torch.from_numpy(matrix_of(lattice))
        s, rest = planes * inside, (1 - planes) * inside
        total = total + (s * (rest @ w.T)).sum()
    return total


@pytest.mark.parametrize("normalization", ["none", "symmetric"])
@pytest.mark.parametrize("is_masked", [True, False])
def test_value_and_gradient(batch, normalization, is_masked):
    probabilities, images, mask = batch
    options = {**SIGMAS, "normalization": normalization, "reduction": "sum"}
    given = probabilities.clone().requires_grad_()
    loss = dense_crf_loss(given, images, mask=mask if is_masked else None, **options)
    (gradient,) = torch.autograd.grad(loss, given)
    double = probabilities.double().requires_grad_()
    inside = mask.double() if is_masked else torch.ones_like(mask, dtype=torch.float64)
    expected = oracle(double, images, inside, normalization)
    assert loss.item() == pytest.approx(expected.item(), rel=CRF_GRADIENT_RELATIVE)
    (wanted,) = torch.autograd.grad(expected, double)
    assert (gradient - wanted).abs().max() <= CRF_GRADIENT_RELATIVE * wanted.abs().max()
    if is_masked:
        assert not gradient[(~mask)[:, None].expand_as(gradient)].any()


def test_the_oracle_passes_gradcheck(batch):
    probabilities, images, mask = batch
    double = probabilities[:1, :, :3, :4].double().requires_grad_()
    crop = images[:1, :3, :4].contiguous()
    assert torch.autograd.gradcheck(lambda s: oracle(s, crop, mask[:1, :3, :4].double(), "none"), double)


def test_mean_is_over_the_pixels_that_take_part(batch):
    probabilities, images, mask = batch
    total = dense_crf_loss(probabilities, images, mask=mask, reduction="sum", **SIGMAS)
    mean = dense_crf_loss(probabilities, images, mask=mask, **SIGMAS)
    assert mean.item() == pytest.approx(total.item() / mask.sum().item(), rel=1e-6)
    nothing = dense_crf_loss(probabilities, images, mask=torch.zeros_like(mask), **SIGMAS)
    assert nothing.item() == 0


def test_one_label_costs_nothing_and_cutting_through_a_colour_does():
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images[..., 4:, :] = 200
    along, across = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    along[:, 0, :, :4] = along[:, 1, :, 4:] = 1
    across[:, 0, :4] = across[:, 1, 4:] = 1
    whole = torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)], 1)
    costs = [dense_crf_loss(each, images).item() for each in (whole, along, across)]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[1] < 0.01 * costs[2]


def test_minimizing_it_joins_scribbles():
    """Two pixels are labelled; the loss spreads them over their colours."""
    images = torch.zeros(1, 10, 12, 3, dtype=torch.uint8)
    images[:, :, 6:] = 180
    logits = torch.zeros(1, 2, 10, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(40):
        probabilities = torch.softmax(logits, 1)
        seeds = -torch.log(probabilities[0, 0, 5, 1]) - torch.log(probabilities[0, 1, 5, 10])
        loss = seeds + dense_crf_loss(probabilities, images, normalization="symmetric")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits[0].argmax(0) == (torch.arange(12) >= 6)).float().mean() == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"probabilities": torch.ones(2, 3, 6, 7).double()}, ShapeError, "probabilities must be float32"),
        ({"probabilities": torch.full((2, 3, 6, 7), torch.nan)}, CRFError, "probabilities must be finite"),
        ({"probabilities": torch.ones(2, 3, 6, 7, device="meta")}, DeviceError, "on meta"),
        ({"images": torch.zeros(2, 3, 6, 7, dtype=torch.uint8)}, ShapeError, "channels go last"),
        ({"mask": torch.ones(2, 6, 8)}, ShapeError, r"the mask must be \[2, 6, 7\] of bool"),
        ({"mask": torch.full((2, 6, 7), 255)}, ShapeError, "got other values"),
        ({"mask": "all"}, ShapeError, "got str"),
        ({"sigma_rgb": 0.0}, CRFError, "sigma_rgb is a standard deviation"),
        ({"sigma_xy_px": "1"}, ArgumentError, "sigma_xy_px must be float"),
        ({"normalization": "after"}, CRFError, "normalization must be none or symmetric"),
        ({"reduction": "none"}, CRFError, "reduction must be one of mean, sum"),
        ({"threads": 5000}, CRFError, "threads must be 0 to"),
    ],
)
def test_refuses(batch, change, error, message):
    given = {"probabilities": batch[0], "images": batch[1], **change}
    with pytest.raises(error, match=message):
        dense_crf_loss(given.pop("probabilities"), given.pop("images"), **given)
