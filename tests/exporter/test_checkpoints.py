"""Weights copied into a network: every key accounted for, every misfit named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_networks import FOREIGN, ForeignNet
from safetensors.torch import save_file
from torch import nn

from atrous.errors import CheckpointError
from atrous.exporter.checkpoints import CheckpointMetadata, describe_checkpoint, load_into, num_classes_of
from atrous.exporter.models import create_model
from atrous.exporter.weight_files import read_weights

NAME = "deeplabv3plus_efficientnet_lite0"


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        "backbone.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "classifier.weight": torch.randn(5, 4, 1, 1, generator=generator),
        "classifier.bias": torch.randn(5, generator=generator),
        "norm.num_batches_tracked": torch.tensor(3),
    }


def test_metadata(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    def metadata(**stated: str) -> CheckpointMetadata:
        path = tmp_path / "a.safetensors"
        save_file(weights, path, metadata=stated)
        return describe_checkpoint(read_weights(path), path)

    assert metadata(architecture=NAME, classes="sky, road,car", output_stride="16") == CheckpointMetadata(
        NAME, ("sky", "road", "car"), 16
    )
    assert metadata() == CheckpointMetadata()
    with pytest.raises(CheckpointError, match="invalid output_stride 'sixteen'"):
        metadata(output_stride="sixteen")


def test_the_classes_are_those_of_the_last_convolution(weights):
    assert num_classes_of(weights) == 5
    assert num_classes_of(create_model(NAME, num_classes=11).state_dict()) == 11
    with torch.device("meta"):
        assert num_classes_of(create_model("deeplab_aspp_s_vgg16", num_classes=7).state_dict()) == 7
        assert num_classes_of(create_model("deeplabv2_resnet101", num_classes=9).state_dict()) == 9
    del weights["classifier.weight"]
    with pytest.raises(CheckpointError, match=r"has no known classifier: expected one of classifier\.4\.weight"):
        num_classes_of(weights)


def test_own_weights_round_trip_through_fp16(tmp_path):
    torch.manual_seed(0)
    trained = create_model(NAME, num_classes=11)
    path = tmp_path / "deeplab.safetensors"
    half = {key: value.half() if value.is_floating_point() else value for key, value in trained.state_dict().items()}
    save_file(half, path, metadata={"architecture": NAME})
    model = create_model(NAME, num_classes=11)
    report = load_into(model, read_weights(path).weights)
    assert report.source == "atrous"
    assert report.loaded + len(report.dropped) == len(trained.state_dict())
    assert set(report.dropped.values()) == {"batch normalization's step counter, used only in training"}
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, half[key].float()), key


def test_any_module_takes_its_own_keys():
    model = nn.Sequential(nn.Conv2d(2, 3, 1))
    report = load_into(model, {"0.weight": torch.ones(3, 2, 1, 1), "0.bias": torch.zeros(3)})
    assert (report.source, report.loaded, report.dropped) == ("atrous", 2, {})
    assert torch.equal(model[0].weight, torch.ones(3, 2, 1, 1))


def test_another_number_of_classes_is_explained():
    with torch.device("meta"):
        model = create_model("deeplabv3_mobilenet_v3_large", num_classes=11)
        net = ForeignNet(device="meta")
        FOREIGN["torchvision mobilenet_v3_large"][2](net, torch.empty(1, 3, 32, 32))
    with pytest.raises(CheckpointError, match="the checkpoint has 21 classes, the model has 11") as caught:
        load_into(model, net.state)
    assert caught.value.misshapen == {
        "classifier.4.weight": ((11, 256, 1, 1), (21, 256, 1, 1)),
        "classifier.4.bias": ((11,), (21,)),
    }


def test_keys_that_do_not_fit_are_counted_shown_in_part_and_kept_in_full(weights):
    model = create_model(NAME, num_classes=11)
    with pytest.raises(CheckpointError) as caught:
        load_into(model, weights)
    error = caught.value
    assert "does not fit DeepLabV3Plus" in str(error)
    assert "backbone.stem.0.weight" in error.missing
    assert f"and {len(error.missing) - 5} more" in str(error)
    assert error.unexpected == ("backbone.weight",)
    assert error.misshapen == {"classifier.weight": ((11, 128, 1, 1), (5, 4, 1, 1)), "classifier.bias": ((11,), (5,))}
    assert "classifier.weight (model [11, 128, 1, 1], checkpoint [5, 4, 1, 1])" in str(error)
    expected = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    assert f"2 of {len(expected)} expected keys are present" in str(error)


def test_a_stated_source_is_believed():
    state = create_model(NAME, num_classes=3).state_dict()
    with pytest.raises(CheckpointError, match="smp weights do not fit"):
        load_into(create_model(NAME, num_classes=3), state, source="smp")
    assert load_into(create_model(NAME, num_classes=3), state, source="atrous").source == "atrous"
