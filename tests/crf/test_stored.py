"""A dense CRF survives being stored, and one that says nothing has DeepLab v2's parameters."""

from __future__ import annotations

import json

import pytest

from atrous.crf import CRFParams
from atrous.crf.stored import crf_from_stored, stored_crf
from atrous.errors import CRFError

VGG = CRFParams.deeplab_v2_vgg()


def test_it_survives_json():
    crf = crf_from_stored(json.loads(json.dumps(stored_crf(VGG, 3))), threads=1, class_floor=0.001)
    assert (crf.params, crf.iterations, crf.threads, crf.class_floor) == (VGG, 3, 1, 0.001)


@pytest.mark.parametrize(
    ("values", "params", "iterations"),
    [
        ({}, CRFParams.deeplab_v2_resnet(), 10),
        ({"iterations": 4}, CRFParams.deeplab_v2_resnet(), 4),
        (VGG.to_dict(), VGG, 10),
        ({name: value for name, value in VGG.to_dict().items() if name != "unary_temperature"}, VGG, 10),
    ],
    ids=["nothing", "iterations", "no iterations", "of schema 1.0"],
)
def test_what_is_not_said(values, params, iterations):
    crf = crf_from_stored(values)
    assert (crf.params, crf.iterations) == (params, iterations)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"iterations": 2.5}, "iterations must be a whole number"),
        ({"iterations": True}, "iterations must be a whole number"),
        ({"iterations": -1}, "iterations must be 0 or more"),
        ({"bilateral_weight": 3}, "missing CRF parameters"),
        ({**VGG.to_dict(), "surplus": 1}, "unknown CRF parameters: surplus"),
    ],
)
def test_other_values_are_refused(values, message):
    with pytest.raises(CRFError, match=message):
        crf_from_stored(values)
