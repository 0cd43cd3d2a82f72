"""Files of weights: what is read, what is refused and how it is said."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from foreign_networks import FOREIGN, ForeignNet
from safetensors.torch import save_file
from torch import nn

from atrous.errors import CheckpointError
from atrous.exporter.checkpoints import (
    CheckpointMetadata,
    load_checkpoint,
    load_into,
    num_classes_of,
    read_metadata,
)
from atrous.exporter.models import create_model

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


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def saved(stored, path, **kwargs):
    torch.save(stored, path, **kwargs)
    return path


def test_reads_safetensors_and_both_torch_formats(weights, tmp_path):
    save_file(weights, tmp_path / "a.safetensors")
    for path in (
        tmp_path / "a.safetensors",
        saved(weights, tmp_path / "a.pth"),
        saved(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False),
    ):
        assert same(load_checkpoint(path), weights)
        assert same(load_checkpoint(str(path)), weights)


def test_the_content_decides_not_the_name(weights, tmp_path):
    save_file(weights, tmp_path / "weights.pth")
    saved(weights, tmp_path / "weights.safetensors")
    assert same(load_checkpoint(tmp_path / "weights.pth"), weights)
    assert same(load_checkpoint(tmp_path / "weights.safetensors"), weights)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "ema", "model_ema", "ema_state_dict"])
def test_takes_the_state_dict_out_of_a_training_checkpoint(weights, tmp_path, wrapper):
    stored = {wrapper: weights, "epoch": 7, "optimizer": {"lr": 0.1}}
    assert same(load_checkpoint(saved(stored, tmp_path / "a.pt")), weights)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_removes_prefixes_of_training_wrappers(weights, tmp_path, prefix):
    stored = {"state_dict": {prefix + key: value for key, value in weights.items()}}
    assert same(load_checkpoint(saved(stored, tmp_path / "a.pt")), weights)


def test_keeps_a_prefix_that_only_some_keys_have(weights, tmp_path):
    stored = {"module.extra": torch.ones(1), **weights}
    assert load_checkpoint(saved(stored, tmp_path / "a.pt")).keys() == stored.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_becomes_float32_and_integers_stay(weights, tmp_path, dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    save_file(stored, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", saved(stored, tmp_path / "a.pt")):
        loaded = load_checkpoint(path)
        assert loaded["norm.num_batches_tracked"].dtype == torch.int64
        assert loaded["classifier.bias"].dtype == torch.float32
        assert torch.equal(loaded["classifier.bias"], stored["classifier.bias"].float())


class _Touch:
    """Unpickled, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "ran"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Touch(proof), protocol=2))
    torch.save({"state_dict": {"w": torch.ones(1)}, "hook": _Touch(proof)}, tmp_path / "evil.pt")
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(
            CheckpointError, match=r"Save the weights alone: torch\.save\(model\.state_dict\(\), path\)"
        ):
            load_checkpoint(tmp_path / name)
    assert not proof.exists()


def test_a_whole_module_is_refused(tmp_path):
    path = saved(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is a pickle of Python objects, not plain weights"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([torch.ones(1)], "holds a list; expected a state dict"),
        (torch.ones(1), "holds a Tensor; expected a state dict"),
        ({}, "holds no state dict: no entries"),
        ({"epoch": 3, "loss": 0.5}, "holds no state dict: entries that are not tensors: epoch, loss"),
        ({"state_dict": {"w": torch.ones(1), "steps": 4}}, "entries that are not tensors: steps"),
        ({3: torch.ones(1)}, "entries that are not tensors: 3"),
    ],
)
def test_plain_data_that_is_no_state_dict_is_named(tmp_path, stored, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved(stored, tmp_path / "a.pt"))


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "photo.pth").write_bytes(b"\xff\xd8\xff\xe0 not weights at all")
    for path, message in [
        (tmp_path / "none.pth", "cannot read the checkpoint .*none.pth: No such file"),
        (tmp_path, "is a directory; expected a weights file"),
        (tmp_path / "empty.pth", r"is empty; copy or download it again"),
        (tmp_path / "photo.pth", "is neither a safetensors file nor a PyTorch checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)
        with pytest.raises(CheckpointError, match=message):
            read_metadata(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(weights, tmp_path, kind, share):
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        saved(weights, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="is truncated or damaged") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_metadata(weights, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(weights, path, metadata={"architecture": NAME, "classes": "sky, road,car", "output_stride": "16"})
    assert read_metadata(path) == CheckpointMetadata(NAME, ("sky", "road", "car"), 16)
    save_file(weights, path)
    assert read_metadata(path) == CheckpointMetadata()
    assert read_metadata(saved(weights, tmp_path / "a.pt")) == CheckpointMetadata()
    save_file(weights, path, metadata={"output_stride": "sixteen"})
    with pytest.raises(CheckpointError, match="invalid output_stride 'sixteen'"):
        read_metadata(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_metadata(path)


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
    report = load_into(model, load_checkpoint(path))
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
