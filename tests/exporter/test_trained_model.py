from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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
