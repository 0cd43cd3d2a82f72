from __future__ import annotations

import copy
import hashlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from reference_networks import settled
from tiny_networks import (
    Answering,
    BranchingOnPixels,
    Counting,
    FailingWhenSmall,
    Interrupted,
    KeepingItsResult,
    NormalizingInPlace,
    OnGrid,
    PoolingByKernel,
    RememberingSize,
    TinyDeepLab,
    Turning,
    Unsteady,
)
from tolerances import (
    DEINTERLACED_EXPORT_RELATIVE,
    EXPORT_RELATIVE,
    REFERENCE_EXPORT_RELATIVE,
    STANDALONE_PROBABILITIES_ABS,
)
from torch import nn

import atrous
from atrous.bundle import Bundle
from atrous.errors import BundleError, ExportError
from atrous.exporter.export import export
from atrous.exporter.models import MultiScale
from atrous.exporter.onnx_export import StandaloneHead
from atrous.exporter.options import ExportOptions
from atrous.exporter.sizes import DynamicSize

pytestmark = pytest.mark.slow  # in sum

ODD_SHAPES = [(1, 3, 33, 47), (2, 3, 17, 65), (3, 3, 64, 16)]
FIXED = (33, 46)


def run(bundle: Bundle, images: torch.Tensor, file: str = "model.fp32.onnx") -> NDArray[Any]:
    session = onnxruntime.InferenceSession(bundle.path / file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": images.numpy()})
    return output


def holding(value: object) -> nn.Module:
    network = TinyDeepLab()
    network.kept = value
    return network


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def relative_error(actual: NDArray[Any], expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected.numpy()).max() / expected.abs().max())


def operators(bundle: Bundle, file: str = "model.fp32.onnx") -> list[str]:
    return [node.op_type for node in onnx.load(bundle.path / file).graph.node]


def rates(bundle: Bundle) -> set[int]:
    return {
        rate
        for node in onnx.load(bundle.path / "model.fp32.onnx").graph.node
        for attribute in node.attribute
        if attribute.name == "dilations"
        for rate in attribute.ints
    }


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class TestBundle:
    def test_manifest(self, dynamic_bundle: Bundle, classes: tuple[str, ...]) -> None:
        manifest = dynamic_bundle.manifest
        assert manifest.name == "street"
        assert tuple(entry.name for entry in manifest.classes) == classes
        assert (manifest.output.stride, manifest.output.align_corners) == (4, False)
        (artifact,) = manifest.artifacts
        assert (artifact.kind, artifact.precision, artifact.file) == ("onnx", "fp32", "model.fp32.onnx")
        assert artifact.provenance["model"] == "TinyDeepLab"
        assert artifact.provenance["atrous"] == "dilated"

    def test_was_verified_over_its_claim_in_every_backend(self, dynamic_bundle: Bundle) -> None:
        sizes = dynamic_bundle.manifest.input.size
        checks = dynamic_bundle.manifest.verification
        assert {check.artifact for check in checks} == {"model.fp32.onnx", "model.fp32.onnx in openvino (CPU)"}
        for check in checks:
            assert check.passed
            assert check.against.startswith("torch ")
            assert {sizes.min, sizes.opt, sizes.max} <= {shape[2:] for shape in check.inputs}
            assert {shape[0] for shape in check.inputs} == {1, 2, 3, 8}
            assert set(check.pictures) == {"photo", "noise"}
            assert (len(check.pictures), check.skipped) == (len(check.inputs), ())

    def test_holds_nothing_else(self, dynamic_bundle: Bundle) -> None:
        assert sorted(path.name for path in dynamic_bundle.path.iterdir()) == ["manifest.json", "model.fp32.onnx"]

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
    def test_runs(self, dynamic_bundle: Bundle, backend: str, rng: np.random.Generator) -> None:
        image = rng.integers(0, 256, (45, 61, 3), np.uint8)
        labels = atrous.load(dynamic_bundle.path, backend=backend)(image).labels
        assert labels.shape == (45, 61)
        assert labels.max() < 5

    def test_the_model_is_not_changed(self, sizes: DynamicSize, classes: tuple[str, ...], folder: Path) -> None:
        model = TinyDeepLab().train()
        before = copy.deepcopy(model.state_dict())
        export(model, folder / "street.atrous", classes=classes, size=sizes)
        assert model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_half_and_double_weights_become_float32(self, classes: tuple[str, ...], folder: Path) -> None:
        for dtype in (torch.float16, torch.float64):
            export(TinyDeepLab().to(dtype), folder / f"{dtype}.atrous", classes=classes, size=FIXED)


class TestGraph:
    """The graph that lies in the bundle computes what torch computes."""

    @pytest.mark.parametrize("shape", ODD_SHAPES)
    def test_any_size_and_batch(self, network: nn.Module, dynamic_bundle: Bundle, shape: tuple[int, ...]) -> None:
        images = picture(*shape)
        with torch.inference_mode():
            expected = network(images)
        assert relative_error(run(dynamic_bundle, images), expected) <= EXPORT_RELATIVE

    def test_one_odd_size(self, network: nn.Module, classes: tuple[str, ...], folder: Path) -> None:
        bundle = export(network, folder / "street.atrous", classes=classes, size=FIXED)
        assert bundle.manifest.input.size.is_fixed
        assert not bundle.manifest.input.takes_batches
        for check in bundle.manifest.verification:
            assert (set(check.inputs), check.pictures) == ({(1, 3, *FIXED)}, ("photo", "photo", "photo", "noise"))
        images = picture(1, 3, *FIXED)
        with torch.inference_mode():
            assert relative_error(run(bundle, images), network(images)) <= EXPORT_RELATIVE

    def test_one_size_with_batches(self, network: nn.Module, classes: tuple[str, ...], folder: Path) -> None:
        options = ExportOptions(dynamic_batch=True)
        bundle = export(network, folder / "street.atrous", classes=classes, size=FIXED, options=options)
        assert bundle.manifest.input.size.is_fixed
        for check in bundle.manifest.verification:
            assert {shape[0] for shape in check.inputs} == {1, 2, 3, 8}
        images = picture(5, 3, *FIXED)
        with torch.inference_mode():
            assert relative_error(run(bundle, images), network(images)) <= EXPORT_RELATIVE
        pictures = [np.full((30, 40, 3), 20 * index, np.uint8) for index in range(5)]
        segmenter = atrous.load(bundle)
        for one, each in zip(segmenter.batch(pictures), pictures, strict=True):
            assert np.array_equal(one.labels, segmenter(each).labels)

    @pytest.mark.parametrize("multiple", [None, 8])
    def test_logits_on_a_grid(self, classes: tuple[str, ...], folder: Path, multiple: int | None) -> None:
        sizes = DynamicSize((17, 17), (33, 49), (65, 65), multiple)
        bundle = export(OnGrid(), folder / "street.atrous", classes=classes, size=sizes, align_corners=True)
        policy, output = bundle.manifest.input.size, bundle.manifest.output
        assert (policy.min, policy.opt, policy.max) == ((17, 17), (33, 49), (65, 65))
        assert (policy.multiple, policy.offset) == (multiple or 1, 1)
        assert (output.stride, output.align_corners) == (4, True)

    def test_a_model_that_writes_to_its_input(self, classes: tuple[str, ...], folder: Path) -> None:
        model = NormalizingInPlace().eval()
        bundle = export(model, folder / "street.atrous", classes=classes, size=FIXED)
        images = picture(1, 3, *FIXED)
        with torch.inference_mode():
            assert relative_error(run(bundle, images), model(images.clone())) <= EXPORT_RELATIVE

    @pytest.mark.slow
    def test_scales_fused_in_one_graph(
        self, network: nn.Module, classes: tuple[str, ...], sizes: DynamicSize, folder: Path
    ) -> None:
        model = MultiScale(network).eval()
        bundle = export(model, folder / "street.atrous", classes=classes, size=sizes)
        assert operators(bundle).count("Resize") == 4  # two images and two score maps
        assert operators(bundle).count("Max") == 2
        for shape in ODD_SHAPES:
            images = picture(*shape)
            with torch.inference_mode():
                assert relative_error(run(bundle, images), model(images)) <= EXPORT_RELATIVE


@pytest.fixture(scope="module")
def deinterlaced(
    network: nn.Module, classes: tuple[str, ...], sizes: DynamicSize, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The tiny network with both additions: deinterlaced, and a standalone graph of labels."""
    path = tmp_path_factory.mktemp("deinterlaced") / "street.atrous"
    return export(
        network, path, classes=classes, size=sizes, options=ExportOptions(atrous="deinterlaced", head="labels")
    )


class TestDeinterlaced:
    @pytest.mark.slow
    def test_has_no_atrous_convolution_left(self, deinterlaced: Bundle, dynamic_bundle: Bundle) -> None:
        assert rates(dynamic_bundle) == {1, 2, 5}
        assert rates(deinterlaced) <= {1}
        assert deinterlaced.manifest.artifacts[0].provenance["atrous"] == "deinterlaced"
        assert deinterlaced.manifest.verification[0].passed

    @pytest.mark.parametrize("shape", ODD_SHAPES)
    def test_equals_the_dilated_form(
        self, deinterlaced: Bundle, dynamic_bundle: Bundle, shape: tuple[int, ...]
    ) -> None:
        images = picture(*shape)
        expected = torch.from_numpy(run(dynamic_bundle, images))
        assert relative_error(run(deinterlaced, images), expected) <= DEINTERLACED_EXPORT_RELATIVE


@pytest.mark.parametrize("size", [FIXED, None], ids=["fixed", "dynamic"])
def test_split_into_taps(
    size: tuple[int, int] | None,
    network: nn.Module,
    classes: tuple[str, ...],
    sizes: DynamicSize,
    dynamic_bundle: Bundle,
    folder: Path,
) -> None:
    options = ExportOptions(atrous="taps")
    bundle = export(network, folder / "street.atrous", classes=classes, size=size or sizes, options=options)
    assert rates(bundle) <= {1}
    assert bundle.manifest.artifacts[0].provenance["atrous"] == "taps"
    for shape in ODD_SHAPES if size is None else [(1, 3, *size)]:
        images = picture(*shape)
        expected = torch.from_numpy(run(dynamic_bundle, images))
        assert relative_error(run(bundle, images), expected) <= DEINTERLACED_EXPORT_RELATIVE


def test_auto_measures_beside_the_dilated_graph(network: nn.Module, classes: tuple[str, ...], folder: Path) -> None:
    options = ExportOptions(atrous="auto")
    bundle = export(network, folder / "street.atrous", classes=classes, size=FIXED, options=options)
    canonical, *tuned = bundle.manifest.artifacts
    assert max(rates(bundle)) > 1
    assert canonical.provenance["atrous"] == "dilated"
    assert all(each.tuned_for is not None and each.provenance["from"] == canonical.sha256 for each in tuned)


class TestStandaloneHead:
    def test_labels(self, network: nn.Module, deinterlaced: Bundle) -> None:
        wrapped = StandaloneHead(network, "labels", align_corners=False)
        for shape in ODD_SHAPES:
            images = picture(*shape)
            labels = run(deinterlaced, images, "model.fp32.labels.onnx")
            assert labels.dtype == np.uint8
            with torch.inference_mode():
                expected = wrapped(images).numpy()
            assert labels.shape == expected.shape
            assert (labels == expected).mean() >= 0.999  # near ties, as in verification

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_probabilities(
        self, network: nn.Module, classes: tuple[str, ...], folder: Path, align_corners: bool
    ) -> None:
        bundle = export(
            network,
            folder / "street.atrous",
            classes=classes,
            size=FIXED,
            align_corners=align_corners,
            options=ExportOptions(head="probabilities"),
        )
        images = picture(1, 3, *FIXED)
        with torch.inference_mode():
            expected = StandaloneHead(network, "probabilities", align_corners=align_corners)(images).numpy()
        actual = run(bundle, images, "model.fp32.probabilities.onnx")
        assert actual.shape == (1, 5, *FIXED)
        assert np.abs(actual - expected).max() <= STANDALONE_PROBABILITIES_ABS

    def test_is_there_beside_what_the_runtime_loads(self, deinterlaced: Bundle) -> None:
        kinds = {artifact.file: artifact.kind for artifact in deinterlaced.manifest.artifacts}
        assert kinds == {"model.fp32.onnx": "onnx", "model.fp32.labels.onnx": "standalone"}
        verified = [check.artifact for check in deinterlaced.manifest.verification]
        assert verified == ["model.fp32.onnx", "model.fp32.onnx in openvino (CPU)", "model.fp32.labels.onnx"]
        assert atrous.load(deinterlaced.path).backend.artifact.kind == "onnx"


class Freezing(TinyDeepLab):
    """Keeps its normalization as it is while training, and forgets to return itself."""

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        self.stem.training = False


def test_a_train_that_returns_nothing(classes: tuple[str, ...], folder: Path) -> None:
    bundle = export(Freezing(), folder / "a.atrous", classes=classes, size=FIXED)
    images = picture(1, 3, *FIXED)
    np.testing.assert_allclose(run(bundle, images), TinyDeepLab().eval()(images).detach(), atol=1e-5)


class TestRefusals:
    """Whatever goes wrong, there is no bundle, and no trace of one."""

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: Answering("three axes"), r"expected one float32 tensor \[N, C, h, w\]"),
            (lambda: Answering("float16"), r"returns torch\.float16"),
            (BranchingOnPixels, "torch cannot export BranchingOnPixels"),
            (Unsteady, "does not compute what torch"),
            (Counting, "does not compute what torch .* behave differently between calls"),
            (
                lambda: FailingWhenSmall(40),
                "FailingWhenSmall fails on an input .*ValueError: images of 33 px are too small",
            ),
            (KeepingItsResult.with_a_result, "cannot be copied, .*It keeps what has no copy in last;"),
            (lambda: holding([torch.ones(1, requires_grad=True) * 2]), "has no copy in kept;"),
            (lambda: holding(threading.Lock()), "cannot pickle '_thread.lock' object.* has no copy in kept;"),
            (lambda: nn.Sequential(nn.LazyConv2d(5, 4, 4)), "never set, 0.weight, 0.bias: each run would make others"),
            (lambda: Turning(lambda _: sys.exit("no GPU")), r"fails on an input .*SystemExit: no GPU"),
            (lambda: TinyDeepLab(4), r"returns \[1, 4, 9, 12\]; expected \[N, 5, h, w\]"),
        ],
    )
    def test_models(self, make: Callable[[], nn.Module], said: str, classes: tuple[str, ...], folder: Path) -> None:
        with pytest.raises(ExportError, match=said):
            export(make(), folder / "street.atrous", classes=classes, size=FIXED)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("size", "said"),
        [
            ((0, 32), "must be positive"),
            (DynamicSize((64, 64), (32, 32), (128, 128)), "min ≤ opt ≤ max"),
            (DynamicSize((16, 16), (33, 33), (64, 64), 8), r"multiple=8 .* k · 8; got .* The nearest range is 16x16:"),
        ],
    )
    def test_sizes(
        self, network: nn.Module, classes: tuple[str, ...], folder: Path, size: DynamicSize, said: str
    ) -> None:
        with pytest.raises(ExportError, match=said):
            export(network, folder / "street.atrous", classes=classes, size=size)
        assert list(folder.iterdir()) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("multiple", [None, 16])
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: Turning(lambda image: image.shape[2] > 100), r"H <= 100 only"),
            (lambda: Turning(lambda image: image.shape[0] > 1), r"The inputs that differ: 1×3×.* by its batch"),
            (PoolingByKernel, r"PoolingByKernel decides by the size of its input"),
            (RememberingSize, r"answers an input \[1, 3, 32, 32\] otherwise when it has seen another size before"),
        ],
    )
    def test_networks_that_decide_by_the_shape(
        self, make: Callable[[], nn.Module], said: str, multiple: int | None, folder: Path
    ) -> None:
        size = DynamicSize((32, 32), (64, 64), (128, 128), multiple)
        with pytest.raises(ExportError, match=said):
            export(make(), folder / "street.atrous", classes=["a", "b", "c"], size=size)

    def test_a_network_that_fails_at_the_best_size_names_others(self, folder: Path) -> None:
        size = DynamicSize((65, 65), (97, 97), (129, 129))
        said = (
            r"Turning fails on an input \[1, 3, 97, 97\]: ZeroDivisionError[^$]*k · 4; got .*is 68x68:100x100:128x128"
        )
        network = Turning(lambda image: image.shape[2] % 4 == 0 or 1 / 0)
        with pytest.raises(ExportError, match=said):
            export(network, folder / "a.atrous", classes=["a", "b", "c"], size=size)

    def test_a_network_that_raises_at_the_smallest_size(self, classes: tuple[str, ...], folder: Path) -> None:
        sizes = DynamicSize((32, 32), (64, 64), (128, 128), multiple=16)
        with pytest.raises(
            ExportError, match=r"on an input \[1, 3, 32, 32\]: ValueError: images of 32 px are too small"
        ):
            export(FailingWhenSmall(40), folder / "street.atrous", classes=classes, size=sizes)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("call", [1, 2, 3])
    def test_ctrl_c(self, classes: tuple[str, ...], folder: Path, call: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            export(Interrupted(call), folder / "street.atrous", classes=classes, size=FIXED)
        assert list(folder.iterdir()) == []

    def test_a_name_that_is_no_bundle(self, network: nn.Module, classes: tuple[str, ...], folder: Path) -> None:
        with pytest.raises(BundleError, match=r"ends in '\.atrous'"):
            export(network, folder / "street.onnx", classes=classes, size=FIXED)
        assert list(folder.iterdir()) == []

    def test_a_path_below_a_file(self, network: nn.Module, classes: tuple[str, ...], folder: Path) -> None:
        (folder / "file").write_text("")
        with pytest.raises(BundleError, match="cannot write to"):
            export(network, folder / "file" / "street.atrous", classes=classes, size=FIXED)


class TestExistingBundle:
    @pytest.fixture
    def existing(self, network: nn.Module, classes: tuple[str, ...], folder: Path) -> Path:
        return export(network, folder / "street.atrous", classes=classes, size=FIXED).path

    def test_is_kept_unless_asked(self, network: nn.Module, classes: tuple[str, ...], existing: Path) -> None:
        before = digest(existing)
        with pytest.raises(BundleError, match="exists already"):
            export(network, existing, classes=classes, size=FIXED)
        assert digest(existing) == before

    def test_is_replaced_on_purpose(self, network: nn.Module, classes: tuple[str, ...], existing: Path) -> None:
        bundle = export(network, existing, classes=classes, size=(16, 24), overwrite=True)
        assert bundle.manifest.input.size.opt == (16, 24)
        assert list(existing.parent.iterdir()) == [existing]

    @pytest.mark.parametrize("model", [Unsteady, lambda: Interrupted(3)])
    def test_is_kept_when_its_successor_fails(
        self, model: Callable[[], nn.Module], classes: tuple[str, ...], existing: Path
    ) -> None:
        before = digest(existing)
        with pytest.raises((ExportError, KeyboardInterrupt)):
            export(model(), existing, classes=classes, size=FIXED, overwrite=True)
        assert digest(existing) == before
        assert list(existing.parent.iterdir()) == [existing]


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return settled("deeplabv3plus_efficientnet_lite0", classes=5)


@pytest.mark.slow
class TestEfficientNetLite0:
    """The architecture of the demo: depthwise and separable convolutions, image pooling, a decoder."""

    @pytest.mark.parametrize(
        ("size", "shapes"),
        [
            (DynamicSize((32, 32), (64, 48), (96, 96)), [(2, 3, 65, 97), (1, 3, 32, 80), (1, 3, 47, 33)]),
            ((65, 97), [(1, 3, 65, 97)]),
        ],
        ids=["dynamic", "fixed"],
    )
    def test_deinterlaced_graph(
        self,
        lite0: nn.Module,
        classes: tuple[str, ...],
        folder: Path,
        size: DynamicSize,
        shapes: list[tuple[int, ...]],
    ) -> None:
        bundle = export(
            lite0, folder / "street.atrous", classes=classes, size=size, options=ExportOptions(atrous="deinterlaced")
        )
        assert rates(bundle) <= {1}
        assert bundle.manifest.output.stride == 4
        for shape in shapes:
            images = picture(*shape)
            with torch.inference_mode():
                assert relative_error(run(bundle, images), lite0(images)) <= REFERENCE_EXPORT_RELATIVE
