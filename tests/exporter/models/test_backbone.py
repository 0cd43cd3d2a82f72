"""Strides become rates, under either rule."""

from __future__ import annotations

import pytest
import torch
from tolerances import ATROUS_EQUIVALENCE_RELATIVE
from torch import nn

from atrous.exporter.models.backbone import plan_stages
from atrous.exporter.models.resnet import CAFFE_RESNET, RESNET50_BLOCKS, ResNet


@pytest.mark.parametrize(
    ("output_stride", "rule", "expected"),
    [
        (32, "graded", [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)]),
        (16, "graded", [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]),
        (8, "graded", [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]),
        (16, "uniform", [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 2, 2)]),
        (8, "uniform", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 4, 4)]),
    ],
)
def test_resnet_stages(output_stride, rule, expected):
    assert plan_stages((1, 2, 2, 2), output_stride, stem_stride=4, rule=rule) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("delayed", [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 4, 4)]),
        ("entry", [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 2, 1), (1, 2, 1), (1, 4, 1), (1, 4, 1)]),
    ],
)
def test_mobilenet_stages(rule, expected):
    assert plan_stages((1, 2, 2, 2, 1, 2, 1), 8, stem_stride=2, rule=rule) == expected


def test_stages_that_never_strided_inherit_the_rate():
    plans = plan_stages((1, 2, 2, 2, 1, 2, 1), 8, stem_stride=2)
    assert plans == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 4), (1, 4, 4)]


@torch.no_grad()
def test_the_graded_rule_samples_what_the_strided_network_computes():
    """arXiv 1606.00915 §3.1: subsampled, the dense features are the strided network's, with the same weights."""
    strided, dense = (ResNet(RESNET50_BLOCKS, output_stride).eval() for output_stride in (32, 8))
    dense.load_state_dict(strided.state_dict())
    image = torch.rand(1, 3, 97, 65, generator=torch.Generator().manual_seed(0))
    (_, sparse_features), (_, dense_features) = strided(image), dense(image)
    sampled = dense_features[..., ::4, ::4]
    assert sampled.shape == sparse_features.shape
    assert (sampled - sparse_features).abs().max() <= ATROUS_EQUIVALENCE_RELATIVE * sparse_features.abs().max()


def test_caffe_layout_strides_in_the_reduction():
    with torch.device("meta"):
        entry = ResNet(RESNET50_BLOCKS, 8, style=CAFFE_RESNET).high_level[0][0]
        plain = ResNet(RESNET50_BLOCKS, 8).high_level[0][0]
    assert (entry.reduce[0].stride, entry.spatial[0].stride) == ((2, 2), (1, 1))
    assert (plain.reduce[0].stride, plain.spatial[0].stride) == ((1, 1), (2, 2))
    assert isinstance(entry.shortcut[0], nn.Conv2d)
    assert entry.shortcut[0].stride == (2, 2)
