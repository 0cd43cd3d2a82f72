"""Foreign state dicts: every key lands in its place, and the network computes what the original computes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from foreign_networks import FOREIGN, ForeignNet
from tolerances import ADAPTER_RELATIVE

from atrous.errors import CheckpointError
from atrous.exporter.checkpoints import load_into, num_classes_of
from atrous.exporter.models import ARCHITECTURES, create_model
from atrous.exporter.models.adapters import TRAINING_HEADS, detect_source, foreign_names

pytestmark = pytest.mark.slow  # in sum

# As torchvision documents them (`num_params` of the weights), auxiliary head included.
TORCHVISION_PARAMETERS = {
    "torchvision resnet50": 42_004_074,
    "torchvision resnet101": 60_996_202,
    "torchvision mobilenet_v3_large": 11_029_328,
}
# Deeper networks repeat the blocks of these, so their arithmetic says nothing new.
NUMERIC = (
    "torchvision resnet50",
    "torchvision mobilenet_v3_large",
    "smp v3 resnet50 os8",
    "smp v3 mobilenet_v2 os16",
    "smp v3+ resnet50 os16",
    "smp v3+ mobilenet_v2 os16",
    "kazuto1011 v2 resnet101",
    "kazuto1011 v3 resnet101 os16",
    "kazuto1011 v3+ resnet101 os16",
    "vainf v3 resnet50 os16",
    "vainf v3 mobilenet_v2 os8",
    "vainf v3+ resnet50 os16",
    "vainf v3+ mobilenet_v2 os8",
    "jfzhang95 v3+ resnet101 os16",
    "jfzhang95 v3+ xception os8",
    "jfzhang95 v3+ mobilenet_v2 os8",
    "mmseg v3 resnet50 d8",
    "mmseg v3+ resnet50 d8",
    "mmseg v3+ resnet101 d16",
    "mmseg v3 mobilenet_v2 d8",
    "mmseg v3+ mobilenet_v2 d8",
    "hf v3 mobilenet_v2 os8",
    "hf v3 mobilevit_xx_small os16",
)
FOREIGN_SOURCES = ("torchvision", "smp", "kazuto1011", "vainf", "jfzhang95", "mmseg", "hf")


@cache
def foreign_shapes(case):
    """The state dict of a foreign network without memory behind it."""
    net = ForeignNet(device="meta")
    FOREIGN[case][2](net, torch.empty(1, 3, 32, 32, device="meta"))
    return net


@cache
def build_on_meta(name, output_stride):
    with torch.device("meta"):
        return create_model(name, num_classes=21, output_stride=output_stride)


def create_on_cpu(name, output_stride):
    """Without the time that initializing weights takes."""
    with torch.device("meta"):
        return create_model(name, num_classes=21, output_stride=output_stride).to_empty(device="cpu").eval()


@pytest.mark.parametrize("case", FOREIGN)
def test_names_pair_every_key_with_one_of_the_same_shape(case):
    architecture, output_stride, _ = FOREIGN[case]
    foreign = foreign_shapes(case).state
    model = build_on_meta(architecture, output_stride)
    source = detect_source(foreign)
    assert source == case.split()[0]
    names = foreign_names(model, source, foreign)
    paired = {}
    for key, value in model.state_dict().items():
        module, _, parameter = key.rpartition(".")
        paired[f"{names[module]}.{parameter}"] = value.shape
    heads, _ = TRAINING_HEADS.get(source, ("-", ""))
    kept = {key: value.shape for key, value in foreign.items() if not key.startswith(heads)}
    assert paired == kept
    assert num_classes_of(foreign) == 21


@pytest.mark.parametrize("case", TORCHVISION_PARAMETERS)
def test_parameters_and_the_auxiliary_head_make_torchvisions_count(case):
    architecture, output_stride, _ = FOREIGN[case]
    net = foreign_shapes(case)
    assert net.parameters() == TORCHVISION_PARAMETERS[case]
    model = build_on_meta(architecture, output_stride)
    own = sum(parameter.numel() for parameter in model.parameters())
    # The running statistics of the auxiliary head's one normalization are no parameters.
    auxiliary = sum(
        value.numel()
        for key, value in net.state.items()
        if key.startswith("aux_classifier.") and "running" not in key and "num_batches" not in key
    )
    assert own + auxiliary == TORCHVISION_PARAMETERS[case]


@pytest.mark.parametrize("case", NUMERIC)
@torch.no_grad()
def test_computes_what_the_original_computes(case):
    architecture, output_stride, forward = FOREIGN[case]
    # segmentation-models-pytorch takes multiples of its output stride only; odd sizes elsewhere.
    size = (64, 96) if case.startswith("smp") else (65, 94)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    net = ForeignNet()
    expected = forward(net, image)
    model = create_on_cpu(architecture, output_stride)
    report = load_into(model, net.state)
    assert report.loaded + len(report.dropped) == len(net.state)
    actual = model(image)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= ADAPTER_RELATIVE * expected.abs().max()


def test_the_training_head_is_dropped_and_said_so():
    state = {
        key: torch.zeros(value.shape) for key, value in foreign_shapes("torchvision mobilenet_v3_large").state.items()
    }
    model = create_model("deeplabv3_mobilenet_v3_large", num_classes=21)
    report = load_into(model, state)
    reasons = set(report.dropped.values())
    assert report.source == "torchvision"
    assert "auxiliary head, used only in training" in reasons
    assert sum(key.startswith("aux_classifier.") for key in report.dropped) == 8
    assert all(key.startswith("aux_classifier.") or key.endswith("num_batches_tracked") for key in report.dropped)


def test_errors_use_the_foreign_names():
    state = {
        key: torch.zeros(value.shape) for key, value in foreign_shapes("torchvision mobilenet_v3_large").state.items()
    }
    state["backbone.0.0.surplus"] = state.pop("backbone.0.0.weight")
    state["backbone.1.block.0.0.weight"] = torch.zeros(16, 1, 5, 5)
    model = create_model("deeplabv3_mobilenet_v3_large", num_classes=21)
    before = model.backbone.stem[0].weight.clone()
    with pytest.raises(
        CheckpointError, match=r"missing backbone\.0\.0\.weight; unexpected backbone\.0\.0\.surplus"
    ) as caught:
        load_into(model, state)
    assert caught.value.missing == ("backbone.0.0.weight",)
    assert caught.value.unexpected == ("backbone.0.0.surplus",)
    assert caught.value.misshapen == {"backbone.1.block.0.0.weight": ((16, 1, 3, 3), (16, 1, 5, 5))}
    assert torch.equal(model.backbone.stem[0].weight, before)


@pytest.mark.parametrize(
    ("case", "architecture", "suggestion"),
    [
        ("smp v3 resnet50 os8", "deeplabv3_resnet50", "deeplabv3_resnet50_smp"),
        ("torchvision resnet50", "deeplabv3_resnet50_smp", "deeplabv3_resnet50,"),
        ("torchvision resnet50", "deeplabv3_mobilenet_v2", "deeplabv3_resnet50,"),
        ("smp v3+ mobilenet_v2 os16", "deeplabv3plus_efficientnet_lite0", "deeplabv3plus_mobilenet_v2"),
        ("smp v3+ resnet50 os16", "deeplab_aspp_l_vgg16", "deeplabv3plus_resnet50"),
        ("kazuto1011 v2 resnet101", "deeplabv3_resnet101", "deeplabv2_resnet101"),
    ],
)
def test_weights_that_fit_but_would_compute_something_else_are_refused(case, architecture, suggestion):
    model = build_on_meta(architecture, None)
    with pytest.raises(CheckpointError, match="weights do not fit") as caught:
        load_into(model, foreign_shapes(case).state)
    assert suggestion in str(caught.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("source", FOREIGN_SOURCES)
def test_the_registry_says_which_sources_fit(name, source):
    model = build_on_meta(name, None)
    assert (foreign_names(model, source, ()) is not None) == (source in ARCHITECTURES[name].sources)


def test_the_multi_scale_wrapper_of_kazuto1011_is_optional():
    model = build_on_meta("deeplabv2_resnet101", 8)
    bare = {key.removeprefix("base.") for key in foreign_shapes("kazuto1011 v2 resnet101").state}
    assert detect_source(bare) == "kazuto1011"
    assert set(foreign_names(model, "kazuto1011", bare).values()) == {key.rpartition(".")[0] for key in bare}
