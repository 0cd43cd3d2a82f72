from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import Command
from reference_networks import settled
from safetensors.torch import save_file
from tolerances import REFERENCE_EXPORT_RELATIVE
from torch import nn

from atrous.bundle import Bundle
from atrous.exporter import pretrained
from atrous.exporter.models import MultiScale
from atrous.exporter.models.adapters import foreign_names

ARCH = "deeplabv3plus_efficientnet_lite0"
METADATA = {"architecture": ARCH, "classes": "road, car, sky", "output_stride": "16"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network of 3 classes that say what they are."""
    path = tmp_path_factory.mktemp("weights") / "deeplab.safetensors"
    save_file(settled(ARCH, classes=3).state_dict(), path, metadata=METADATA)
    return path


@pytest.fixture(scope="module")
def unnamed(checkpoint: Path) -> Path:
    """Weights of the same network that say nothing of themselves, under the name that training scripts use."""
    path = checkpoint.with_name("unnamed.pth")
    torch.save({"state_dict": settled(ARCH, classes=3).state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.slow
def test_exports_verifies_and_runs(atrous: Command, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.atrous"
    options = ("--dynamic", "32x32:48x64:96x96", "--atrous", "deinterlaced", "--license", "research only")
    exported = atrous("export", checkpoint, out, *options)
    assert exported.code == 0, exported.err
    assert exported.out.endswith(f"wrote {out}\n")
    assert "against torch" in exported.out
    manifest = Bundle.open(out).manifest
    assert [entry.name for entry in manifest.classes] == ["road", "car", "sky"]
    assert manifest.input.mean == (127.0, 127.0, 127.0)
    assert (manifest.output.stride, manifest.input.size.multiple, manifest.license) == (4, 1, "research only")
    assert atrous("verify", out).code == 0
    assert atrous("run", out, photos, "--out", tmp_path / "out", "--crf").code == 0


@pytest.mark.slow
def test_options_say_what_a_checkpoint_does_not(atrous: Command, unnamed: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.atrous"
    options = ("--arch", ARCH, "--size", "33x47", "--head", "labels", "--resize", "stretch")
    exported = atrous("export", unnamed, out, *options)
    assert exported.code == 0, exported.err
    assert "dropped" in exported.err
    assert "recognised as weights of atrous by classifier.weight" in " ".join(exported.err.split())
    manifest = Bundle.open(out).manifest
    assert [entry.name for entry in manifest.classes] == ["class 0", "class 1", "class 2"]
    assert [artifact.kind for artifact in manifest.artifacts] == ["onnx", "standalone"]
    assert (manifest.input.resize, manifest.input.size.opt) == ("stretch", (33, 47))


@pytest.mark.slow
def test_scales_are_fused_by_the_rule_of_the_architecture(atrous: Command, tmp_path: Path) -> None:
    network = settled("deeplab_largefov_vgg16", classes=3)  # aligns corners
    save_file(network.state_dict(), tmp_path / "vgg.safetensors", metadata={"architecture": "deeplab_largefov_vgg16"})
    out = tmp_path / "street.atrous"
    assert atrous("export", tmp_path / "vgg.safetensors", out, "--size", "65x49", "--multi-scale").code == 0
    images = torch.randn(1, 3, 65, 49, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(out / "model.fp32.onnx")
    (logits,) = session.run(None, {"image": images.numpy()})
    with torch.inference_mode():
        expected = MultiScale(network, align_corners=True).eval()(images).numpy()
    assert np.abs(logits - expected).max() <= REFERENCE_EXPORT_RELATIVE * np.abs(expected).max()


@pytest.mark.slow
def test_a_program_is_exported_as_it_is(atrous: Command, tmp_path: Path) -> None:
    network = nn.Conv2d(3, 2, 3, stride=4, padding=1).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 32, 48),)), tmp_path / "model.pt2")
    classes, out = tmp_path / "classes.txt", tmp_path / "street.atrous"
    classes.write_text("road\ncar\n")
    options = ("--size", "32x48", "--normalization", "tensorflow", "--align-corners")
    unnamed = atrous("export", tmp_path / "model.pt2", out, *options)
    assert (unnamed.code, "pass --classes FILE" in unnamed.err) == (1, True)
    exported = atrous("export", tmp_path / "model.pt2", out, "--classes", classes, *options)
    assert exported.code == 0, exported.err
    manifest = Bundle.open(out).manifest
    assert (manifest.output.align_corners, manifest.input.mean) == (True, (127.5, 127.5, 127.5))
    with_arch = atrous("export", tmp_path / "model.pt2", tmp_path / "b.atrous", *options, "--arch", ARCH)
    assert (with_arch.code, "Export it without an architecture" in with_arch.err) == (1, True)


@pytest.mark.slow
def test_published_weights_by_name(atrous: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, cache = "deeplabv3_mobilenet_v3_large", tmp_path / "hub" / "checkpoints"
    model = settled(name, classes=21)
    names = foreign_names(model, "torchvision", ())
    assert names is not None
    parts = {key: key.rpartition(".") for key in model.state_dict()}
    weights = {f"{names[module]}.{last}": model.state_dict()[key] for key, (module, _, last) in parts.items()}
    cache.mkdir(parents=True)
    torch.save(weights, cache / "weights")
    digest = hashlib.sha256((cache / "weights").read_bytes()).hexdigest()
    (cache / "weights").rename(cache / f"{name}-{digest[:8]}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "TORCHVISION_FILES", {name: f"{name}-{digest[:8]}.pth"})
    out = tmp_path / "voc.atrous"
    exported = atrous("export", "--pretrained", f"torchvision:{name}", out, "--size", "33x49")
    assert exported.code == 0, exported.err
    assert "license of the weights: BSD-3-Clause" in exported.err
    manifest = Bundle.open(out).manifest
    assert manifest.license is not None
    assert (manifest.classes[15].name, manifest.classes[15].color) == ("person", (192, 128, 128))
    assert (manifest.input.color_order, round(manifest.input.mean[0], 3)) == ("RGB", 0.485)
    assert manifest.artifacts[0].provenance["pretrained"] == f"torchvision:{name}"
    assert manifest.artifacts[0].provenance["sha256"] == digest
    both = atrous("export", cache / "weights", out, "--pretrained", f"torchvision:{name}", "--size", "33x49")
    assert (both.code, "exclude each other" in both.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "pass --size HxW (fastest) or --dynamic MIN:OPT:MAX"),
        (("--size", "32"), 2, "is not a size"),
        (("--size", "8x8", "--dynamic", "8x8:8x8:9x9"), 2, "exclude each other"),
        (("--size", "32x32", "--source", "caffe"), 2, "caffe"),
        (("--size", "0x32"), 1, "must be positive"),
        (("--dynamic", "64x64:32x32:96x96"), 1, "min ≤ opt ≤ max"),
        (("--size", "32x32", "--arch", "deeplabv3plus_efficientnet"), 1, f"Did you mean '{ARCH}'?"),
        (("--size", "32x32", "--arch", "deeplabv3_mobilenet_v2"), 1, "does not fit"),
        (("--size", "32x32", "--output-stride", "7"), 1, "output stride 16 or 8; got 7"),
        (("--size", "32x32", "--classes", "{two}"), 1, "the checkpoint has 3 classes, the model has 2"),
        (("--size", "32x32", "--source", "smp"), 1, "smp weights do not fit"),
    ],
)
def test_mistakes(
    atrous: Command, checkpoint: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    two = tmp_path / "two.txt"
    two.write_text("road\ncar\n")
    out = tmp_path / "out" / "street.atrous"
    outcome = atrous("export", checkpoint, out, *(text.format(two=two) for text in options))
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert not out.parent.exists()


def test_an_architecture_must_be_known(atrous: Command, unnamed: Path, tmp_path: Path) -> None:
    outcome = atrous("export", unnamed, tmp_path / "street.atrous", "--size", "32x32")
    assert outcome.code == 1
    assert "--arch NAME" in outcome.err


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
def test_what_is_no_checkpoint(atrous: Command, tmp_path: Path, content: bytes | None) -> None:
    weights = tmp_path / "[/x].pth"
    weights.parent.mkdir()  # its path has a closing tag of rich's markup in it
    if content is not None:
        weights.write_bytes(content)
    outcome = atrous("export", weights, tmp_path / "street.atrous", "--size", "32x32")
    assert outcome.code == 1
    assert outcome.err.startswith("CheckpointError: ")
    assert "[/x].pth" in outcome.err


@pytest.mark.parametrize("out", ["deeplab.safetensors/street.atrous", "street.zip"])
def test_where_nothing_can_be_written(atrous: Command, checkpoint: Path, out: str) -> None:
    outcome = atrous("export", checkpoint, checkpoint.parent / out, "--size", "32x32")
    assert outcome.code == 1
    assert "\nBundleError: " in outcome.err
