"""Receptive-field arithmetic: which inputs an output depends on, against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atrous.exporter.models.deeplab_v2 import ASPP_L_RATES, ASPP_S_RATES, LARGE_FOV_RATES, DeepLabV2
from atrous.exporter.models.deeplab_v3 import ASPP, PyramidStyle, aspp_rates
from atrous.exporter.models.layers import (
    ConvBNAct,
    ImagePooling,
    SeparableConv,
    resize_to,
)

PUBLISHED_RATES = sorted({*LARGE_FOV_RATES, *ASPP_S_RATES, *ASPP_L_RATES, *aspp_rates(16), *aspp_rates(8)})


def support(module, length, channels=2):
    """Rows that the centre output depends on, found by its gradient; the field is square."""
    module.eval()
    for parameter in module.parameters():
        # Positive weights on a positive image: no gradient is cancelled or stopped by a ReLU.
        nn.init.constant_(parameter, 0.01)
    image = torch.ones(1, channels, length, length, requires_grad=True)
    output = module(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    used = image.grad[0].abs().sum(0) > 0
    rows, columns = used.any(1).nonzero().flatten().tolist(), used.any(0).nonzero().flatten().tolist()
    assert rows == columns
    assert int(used.sum()) == len(rows) ** 2
    return rows


@pytest.mark.parametrize("rate", PUBLISHED_RATES)
@pytest.mark.parametrize("is_separable", [False, True])
def test_an_atrous_branch_sees_three_rows_a_rate_apart(rate, is_separable):
    layer = SeparableConv(2, 2, rate=rate) if is_separable else ConvBNAct(2, 2, 3, rate=rate)
    length = 2 * rate + 5
    centre = length // 2
    rows = support(layer, length)
    assert rows == [centre - rate, centre, centre + rate]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_each_branch_of_the_pyramid_has_its_own_field(output_stride):
    rates = aspp_rates(output_stride)
    length = 2 * max(rates) + 3
    centre = length // 2
    pointwise, *atrous, pooling = ASPP(2, rates=rates, style=PyramidStyle(channels=2)).branches
    assert support(pointwise, length) == [centre]
    for branch, rate in zip(atrous, rates, strict=True):
        assert support(branch, length) == [centre - rate, centre, centre + rate]
    assert support(pooling, length) == list(range(length))


def test_the_summed_pyramid_sees_every_rate():
    class Features(nn.Module):
        low_level_channels = out_channels = 2

        def forward(self, image):
            return image, image

    length = 2 * max(ASPP_L_RATES) + 3
    centre = length // 2
    model = DeepLabV2(Features(), 2)
    for branch, rate in zip(model.pyramid.branches, ASPP_L_RATES, strict=True):
        assert support(branch, length) == [centre - rate, centre, centre + rate]
    image = torch.ones(1, 2, length, length, requires_grad=True)
    model(image)[0, 0, centre, centre].backward()
    seen = (image.grad[0, 0, centre] != 0).nonzero().flatten().tolist()
    assert seen == sorted({centre, *(centre + sign * rate for sign in (-1, 1) for rate in ASPP_L_RATES)})


def test_the_rates_of_both_output_strides_cover_the_same_image_area():
    assert [16 * rate for rate in aspp_rates(16)] == [8 * rate for rate in aspp_rates(8)]


def test_image_pooling_is_constant_over_the_map():
    pooled = ImagePooling(2, 3).eval()(torch.rand(1, 2, 4, 5))
    assert pooled.shape == (1, 3, 4, 5)
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))


def test_separable_convolution_without_inner_norm_is_two_bare_convolutions():
    inner, outer = SeparableConv(4, 6, inner_norm=False)
    assert isinstance(inner, nn.Conv2d)
    assert inner.groups == 4
    assert isinstance(outer, ConvBNAct)


def test_resize_takes_the_size_of_the_other_map():
    resized = resize_to(torch.rand(1, 2, 3, 3), torch.rand(1, 7, 5, 9), align_corners=True)
    assert resized.shape == (1, 2, 5, 9)
