from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import FOREIGN, ForeignNet
from safetensors.torch import save_file
from torch import nn

from atrous.errors import CheckpointError, ExportError
from atrous.exporter.classes import describe_classes, voc_color
from atrous.exporter.models import create_model
from atrous.exporter.trained_model import load_trained

ARCH = "deeplabv3plus_efficientnet_lite0"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return create_model(ARCH, num_classes=3, output_stride=8).state_dict()


def test_a_checkpoint_that_says_what_it_is(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "deeplab.safetensors"
    save_file(weights, path, metadata={"architecture": ARCH, "classes": "road, car, sky", "output_stride": "8"})
    trained = load_trained(path)
    assert (trained.architecture.name, trained.output_stride) == (ARCH, 8)
    assert [(entry.name, entry.color) for entry in trained.classes][1] == ("car", voc_color(1))
    assert set(trained.dropped) == {key for key in weights if key.endswith("num_batches_tracked")}
    loaded = trained.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items() if key not in trained.dropped)


def test_what_is_given_wins(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "deeplab.safetensors"
    save_file(weights, path, metadata={"architecture": "deeplabv3_resnet50", "classes": "a", "output_stride": "8"})
    classes = describe_classes(["road", "car", "sky"])
    trained = load_trained(path, architecture=ARCH, classes=classes, output_stride=16)
    assert (trained.architecture.name, trained.output_stride, trained.classes) == (ARCH, 16, classes)


def test_classes_are_numbered_and_strides_default(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "deeplab.pth")
    trained = load_trained(tmp_path / "deeplab.pth", architecture=ARCH)
    assert [entry.name for entry in trained.classes] == ["class 0", "class 1", "class 2"]
    assert trained.output_stride == 16


def test_an_architecture_must_be_known(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "deeplab.pth")
    with pytest.raises(
        ExportError, match="has no architecture in its metadata; pass architecture=NAME, or --arch NAME"
    ):
        load_trained(tmp_path / "deeplab.pth")


def test_another_number_of_classes(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "deeplab.pth")
    with pytest.raises(CheckpointError, match="has 3 classes, the model has 2"):
        load_trained(tmp_path / "deeplab.pth", architecture=ARCH, classes=describe_classes(["road", "car"]))


@pytest.mark.parametrize("names", [None, ["healthy", "lesion"]])
def test_one_channel_has_two_classes(tmp_path: Path, names: list[str] | None) -> None:
    torch.save(create_model(ARCH, num_classes=1, output_stride=16).state_dict(), tmp_path / "lesions.pth")
    classes = describe_classes(names) if names else None
    trained = load_trained(tmp_path / "lesions.pth", architecture=ARCH, classes=classes)
    assert [entry.name for entry in trained.classes] == (names or ["background", "foreground"])
    assert trained.model.eval()(torch.zeros(1, 3, 32, 32)).shape[1] == 1


def foreign(case: str) -> Weights:
    """Weights of a foreign network, with its names."""
    net = ForeignNet()
    with torch.no_grad():
        FOREIGN[case][2](net, torch.zeros(1, 3, 32, 32))
    return net.state


@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("jfzhang95 v3+ mobilenet_v2 os8", "decoder.last_conv.8.weight"),
        ("mmseg v3+ mobilenet_v2 d8", "decode_head.conv_seg.weight"),
        ("hf v3 mobilenet_v2 os8", "segmentation_head.classifier.convolution.weight"),
    ],
)
def test_files_as_the_projects_save_them(case: str, key: str, tmp_path: Path) -> None:
    architecture, stride, _ = FOREIGN[case]
    state, path = foreign(case), tmp_path / "checkpoint"
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    if case.startswith("jfzhang95"):
        torch.save({"epoch": 3, "state_dict": state, "optimizer": optimizer, "best_pred": 0.7}, path)
    elif case.startswith("mmseg"):
        meta = {"dataset_meta": {"classes": ["road"]}, "epoch": 1}
        torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, path)
    else:
        save_file(state, path)
    trained = load_trained(path, architecture=architecture, output_stride=stride)
    assert trained.recognised is not None
    assert trained.recognised.keys == (key,)
    assert str(trained.recognised).startswith("recognised as weights of ")
    loaded = sum(not name.endswith("num_batches_tracked") for name in trained.model.state_dict())
    assert loaded + len(trained.dropped.keys() & state.keys()) == len(state)


def test_weights_of_another_network_name_the_nearest_and_what_differs(tmp_path: Path) -> None:
    state = foreign("mmseg v3 mobilenet_v2 d8")
    state["backbone.layer1.0.conv.0.conv.weight"] = torch.zeros(32, 1, 5, 5)
    torch.save(state, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="mmseg weights do not fit") as caught:
        load_trained(tmp_path / "foreign.pth", architecture="deeplabv3_resnet50")
    _, recognised, nearest = str(caught.value).splitlines()
    assert recognised == "recognised as weights of mmsegmentation by decode_head.conv_seg.weight"
    count = re.fullmatch(
        r"The nearest is deeplabv3_mobilenet_v2_mmseg: (\d+) of its (\d+) tensors have this name and shape; the "
        r"first that differ: backbone\.layer1\.0\.conv\.0\.conv\.weight "
        r"\(network \[32, 1, 3, 3\], checkpoint \[32, 1, 5, 5\]\)",
        nearest,
    )
    assert count
    assert int(count[1]) == int(count[2]) - 1


@pytest.mark.slow  # compares all networks
def test_keys_of_no_project_are_taken_as_the_own_ones(weights: Weights, tmp_path: Path) -> None:
    torch.save({f"own.{key}": value for key, value in weights.items()} | weights, tmp_path / "own.pth")
    with pytest.raises(
        CheckpointError, match=r"(?s)unexpected own\..*weights of atrous by classifier\.weight"
    ) as caught:
        load_trained(tmp_path / "own.pth", architecture=ARCH)
    assert caught.value.unexpected
    assert f"The nearest is {ARCH}" in str(caught.value)


@pytest.mark.slow  # compares all networks
def test_weights_without_a_known_classifier_name_the_nearest_network(tmp_path: Path) -> None:
    state = foreign("hf v3 mobilenet_v2 os8")
    renamed = {
        key.replace("segmentation_head.classifier.convolution", "head.last"): each for key, each in state.items()
    }
    renamed["mobilenet_v2.conv_stem.first_conv.convolution.weight"] = torch.zeros(32, 4, 3, 3)
    torch.save(renamed, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError) as caught:
        load_trained(tmp_path / "foreign.pth", architecture=ARCH)
    first, nearest = str(caught.value).splitlines()
    assert first.startswith("the checkpoint has no known classifier: expected one of ")
    assert re.fullmatch(
        r"The nearest is deeplabv3_mobilenet_v2_hf: \d+ of its \d+ tensors have this name and shape; the first that "
        r"differ: mobilenet_v2\.conv_stem\.first_conv\.convolution\.weight \(network \[32, 3, 3, 3\], checkpoint "
        r"\[32, 4, 3, 3\]\)",
        nearest,
    )


def test_vainf_and_kazuto1011_as_they_save(tmp_path: Path) -> None:
    """The former unwraps DataParallel and keeps optimizer, schedule and score; the latter saves the plain state dict.

    Inside of DataParallel the latter has its multi-scale wrapper, whose network is `base`.
    """
    vainf, kazuto = foreign("vainf v3+ mobilenet_v2 os8"), foreign("kazuto1011 v3+ resnet101 os16")
    module = nn.DataParallel(nn.Conv2d(1, 1, 1))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / 100) ** 0.9)
    torch.save(
        {
            "cur_itrs": 500,
            "model_state": vainf,
            "optimizer_state": optimizer.state_dict(),
            "scheduler_state": scheduler.state_dict(),
            "best_score": np.float64(0.7),
        },
        tmp_path / "best_deeplabv3plus_mobilenet_voc_os16.pth",
    )
    torch.save(
        OrderedDict((f"base.{key.removeprefix('base.')}", value) for key, value in kazuto.items()),
        tmp_path / "checkpoint_final.pth",
    )
    first = load_trained(
        tmp_path / "best_deeplabv3plus_mobilenet_voc_os16.pth",
        architecture="deeplabv3plus_mobilenet_v2_vainf",
        output_stride=8,
    )
    second = load_trained(tmp_path / "checkpoint_final.pth", architecture="deeplabv3plus_resnet101_kazuto1011")
    for trained, state, source in ((first, vainf, "vainf"), (second, kazuto, "kazuto1011")):
        assert trained.recognised is not None
        assert trained.recognised.source == source
        own = {key: each for key, each in trained.model.state_dict().items() if not key.endswith("num_batches_tracked")}
        # Every tensor of the file is in the network, none twice.
        sums = sorted(float(each.double().sum()) for key, each in state.items() if "num_batches" not in key)
        assert sums == sorted(float(each.double().sum()) for each in own.values())
    assert set(first.dropped) >= {"cur_itrs", "optimizer_state", "scheduler_state", "best_score"}
