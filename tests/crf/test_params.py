from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from atrous.crf import CRFParams
from atrous.errors import CRFError


def test_presets_are_the_published_sets():
    assert dataclasses.astuple(CRFParams.deeplab_v2_resnet()) == (4, 67, 3, 3, 1, 1)
    assert dataclasses.astuple(CRFParams.deeplab_v2_vgg()) == (4, 121, 5, 3, 3, 1)


def test_parameters_survive_json():
    params = CRFParams.deeplab_v2_vgg()
    assert CRFParams.from_dict(json.loads(json.dumps(params.to_dict()))) == params


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(CRFParams)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None, True])
def test_values_that_are_not_finite_numbers_are_refused(name, value):
    with pytest.raises(CRFError, match=name):
        CRFParams.from_dict(CRFParams.deeplab_v2_resnet().to_dict() | {name: value})


@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint8, np.float16, np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(kind):
    """A grid search takes its values from `np.arange` or `np.linspace`."""
    params = CRFParams.from_dict({name: kind(value) for name, value in CRFParams.deeplab_v2_vgg().to_dict().items()})
    assert params == CRFParams.deeplab_v2_vgg()
    assert json.dumps(params.to_dict()) == json.dumps(CRFParams.deeplab_v2_vgg().to_dict())


@pytest.mark.parametrize("value", [np.float32("nan"), np.bool_(True), np.array([3.0]), np.complex64(3)])
def test_other_values_of_numpy_are_refused(value):
    with pytest.raises(CRFError, match="must be a finite number"):
        CRFParams.from_dict(CRFParams.deeplab_v2_resnet().to_dict() | {"gaussian_weight": value})


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["bilateral_sigma_xy_px", "bilateral_sigma_rgb", "gaussian_sigma_xy_px"])
def test_standard_deviations_must_be_positive(name, value):
    with pytest.raises(CRFError, match=f"{name}.*positive"):
        CRFParams.from_dict(CRFParams.deeplab_v2_resnet().to_dict() | {name: value})


def test_missing_and_unknown_names_are_listed():
    values = CRFParams.deeplab_v2_resnet().to_dict()
    with pytest.raises(CRFError, match=r"unknown.*sxy"):
        CRFParams.from_dict(values | {"sxy": 3.0})
    del values["gaussian_weight"]
    with pytest.raises(CRFError, match="missing CRF parameters: gaussian_weight"):
        CRFParams.from_dict(values)


def test_a_negative_weight_is_a_legal_choice():
    assert CRFParams.from_dict(CRFParams.deeplab_v2_resnet().to_dict() | {"gaussian_weight": -1}).gaussian_weight == -1
