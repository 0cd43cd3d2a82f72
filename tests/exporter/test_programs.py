"""Programs in files: TorchScript and torch.export's, exported as they are, and refused where they do more."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import EXPORT_RELATIVE
from torch import Tensor, nn
from torch.nn import functional

from atrous.bundle import Bundle
from atrous.errors import CheckpointError, ExportError
from atrous.exporter.classes import describe_classes
from atrous.exporter.export import export
from atrous.exporter.exported_program import FILE_OPERATORS, load_exported_program
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.torchscript import load_torchscript
from atrous.exporter.trained_model import load_program
from atrous.exporter.weight_files import read_weights
from atrous.runtime.backends import open_reference

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")

CLASSES = ("sky", "road", "car", "tree", "person")
ANY = torch.export.Dim.DYNAMIC
SHAPES = ({0: ANY, 2: ANY, 3: ANY},)
RANGE = DynamicSize((24, 24), (32, 48), (64, 64))


class Stretched(nn.Module):
    """Slices a list of lengths, which torch's converter of TorchScript cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=4, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, image: Tensor) -> Tensor:
        cells = self.conv(image)
        return cells + functional.interpolate(self.pool(cells), size=cells.shape[2:], mode="bilinear")


def scripted(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(path)
    return path


def traced(network: nn.Module, path: Path) -> Path:
    torch.jit.trace(network, torch.zeros(1, 3, 32, 48), strict=False).save(path)
    return path


def program(network: nn.Module, path: Path, *, fixed: bool = False) -> Path:
    example = torch.zeros(1 if fixed else 2, 3, 32, 48)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=None if fixed else SHAPES), path)
    return path


def logits_error(bundle: Bundle, network: nn.Module, size: tuple[int, int]) -> float:
    """Largest difference from the network in PyTorch, relative to the largest logit."""
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image).numpy()
    return float(np.abs(open_reference(bundle).infer(image.numpy()) - expected).max() / np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("write", [traced, scripted, program])
def test_a_program_is_exported_over_a_range(
    write: Callable[[nn.Module, Path], Path], tmp_path: Path, network: nn.Module
) -> None:
    path = write(network, tmp_path / "model.pt")
    loaded = load_program(path, describe_classes(CLASSES))
    assert loaded is not None
    bundle = export(loaded.model, tmp_path / "street.atrous", classes=loaded.classes, size=RANGE)
    assert (bundle.manifest.input.size.min, bundle.manifest.input.size.max) == ((24, 24), (64, 64))
    assert logits_error(bundle, network, (33, 57)) <= EXPORT_RELATIVE


@pytest.mark.parametrize("half", [torch.float16, torch.float32])
def test_torchscript_that_torch_can_follow_at_one_size_only(tmp_path: Path, half: torch.dtype) -> None:
    network = Stretched().eval()
    path = scripted(Stretched().eval().to(half), tmp_path / "model.pt")
    script = load_torchscript(path)
    script.float().load_state_dict(network.state_dict())
    bundle = export(script, tmp_path / "street.atrous", classes=CLASSES, size=(32, 48))
    assert logits_error(bundle, network, (32, 48)) <= EXPORT_RELATIVE
    with pytest.raises(ExportError, match=r"at one size only.*--size 32x48"):
        export(script, tmp_path / "range.atrous", classes=CLASSES, size=RANGE)
    assert not (tmp_path / "range.atrous").exists()


def test_a_program_of_one_size_takes_that_alone(tmp_path: Path, network: nn.Module) -> None:
    module = load_exported_program(program(network, tmp_path / "model.pt2", fixed=True))
    bundle = export(module, tmp_path / "street.atrous", classes=CLASSES, size=(32, 48))
    assert logits_error(bundle, network, (32, 48)) <= EXPORT_RELATIVE
    with pytest.raises(ExportError, match=r"Guard failed: image.size\(\)\[2\] == 32"):
        export(module, tmp_path / "other.atrous", classes=CLASSES, size=(48, 48))
    with pytest.raises(ExportError, match=r"(?s)Guard failed.*Export one size instead"):
        export(module, tmp_path / "range.atrous", classes=CLASSES, size=RANGE)


@pytest.mark.slow
def test_outputs_in_a_dict(tmp_path: Path, network: nn.Module) -> None:
    class Dict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return {"out": self.network(image), "aux": image}

    for path in (traced(Dict().eval(), tmp_path / "a.pt"), program(Dict().eval(), tmp_path / "b.pt2")):
        loaded = load_program(path, describe_classes(CLASSES))
        assert loaded is not None
        bundle = export(loaded.model, tmp_path / f"{path.stem}.atrous", classes=CLASSES, size=(32, 48))
        assert logits_error(bundle, network, (32, 48)) <= EXPORT_RELATIVE


def test_a_program_does_not_name_its_classes(tmp_path: Path, network: nn.Module) -> None:
    with pytest.raises(ExportError, match="pass --classes FILE"):
        load_program(traced(network, tmp_path / "model.pt"), None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert load_program(tmp_path / "weights.pt", None) is None


class Writing(nn.Module):
    """Writes a file when it is loaded, and another when it runs: TorchScript can."""

    def __init__(self, on_load: str, on_run: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 3, 1, 1))
        self.on_load = on_load
        self.on_run = on_run

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, str, bool]:
        return (self.weight, self.on_load, self.on_run, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, str, bool]) -> None:
        self.weight = state[0]
        self.on_load = state[1]
        self.on_run = state[2]
        self.training = state[3]
        torch.save(self.weight, self.on_load)

    def forward(self, image: Tensor) -> Tensor:
        torch.save(image, self.on_run)
        return torch.conv2d(image, self.weight)


class Saving(nn.Module):
    """Writes a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        self.path = path

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] > 8:
            torch.save(image, self.path)
        return self.conv(image)


def test_torchscript_does_not_run_while_it_is_read(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    path = scripted(Writing(str(proof), str(proof)), tmp_path / "model.pt")
    torch.jit.load(path)  # what is to be avoided
    proof.unlink()
    with pytest.raises(CheckpointError, match=r"holds a __torch__.*; expected a state dict"):
        read_weights(path)
    with pytest.raises(CheckpointError, match=r"runs code of its own while it is loaded \(__setstate__\)"):
        load_torchscript(path)
    assert not proof.exists()


def test_torchscript_that_opens_files_is_refused(tmp_path: Path) -> None:
    path = scripted(Saving(str(tmp_path / "ran")), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"calls aten::save, .* export it in Python"):
        load_torchscript(path)


def test_the_operators_that_open_files_are_known() -> None:
    found = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::") and any("file" in argument.name for argument in schema.arguments)
    }
    assert found == FILE_OPERATORS


def changed(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """The program with one of its files changed."""
    other = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as out:
        for entry in archive.infolist():
            content = archive.read(entry)
            out.writestr(entry.filename, change(content) if entry.filename.endswith(part) else content)
    return other


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def _saved(stored: object) -> bytes:
    content = io.BytesIO()
    torch.save(stored, content)
    return content.getvalue()


def _replace(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("weights/model_weights_config.json", _replace('"use_pickle": false', '"use_pickle": true'), "pickled object"),
        ("model.json", _replace("torch.ops.aten.relu.default", "torch.hub.load"), "calls torch.hub.load"),
        ("model.json", _replace("torch.ops.aten.relu.default", "torch.ops.aten.save.default"), "calls torch.ops.aten"),
        ("model.json", _replace("Integer(-1)", "__import__('os').system('touch {proof}')"), "no arithmetic"),
        ("model.json", _replace("Integer(-1)", "open('{proof}')"), "no arithmetic"),
        ("model.json", _replace('"guards_code": [', '"guards_code": ["print(1)", '), "no arithmetic"),
        ("model.json", _replace('"guards_code": [', '"guards_code": ["().__class__", '), "no arithmetic"),
        ("model.json", _replace('"name": "relu"', '"name": "relu = print(1)"'), "has the name"),
        ("model.json", _replace("builtins.tuple", "collections.defaultdict"), "takes or returns"),
    ],
)
def test_a_program_that_would_run_code_is_refused(
    tmp_path: Path, network: nn.Module, part: str, change: Callable[[bytes], bytes], said: str
) -> None:
    path = changed(program(network, tmp_path / "model.pt2"), part, change)
    with pytest.raises(CheckpointError, match=said):
        load_exported_program(path)


def test_pickles_in_a_program_are_not_run(tmp_path: Path, network: nn.Module) -> None:
    path, proof = program(network, tmp_path / "model.pt2"), tmp_path / "ran"
    bomb = _saved(((_Touch(proof),), {}))
    config = json.dumps({"config": {"c": {"path_name": "opaque_obj_0", "use_pickle": True}}}).encode()
    for part, content in (("sample_inputs/model.pt", bomb), ("constants/model_constants_config.json", config)):
        with pytest.raises(CheckpointError, match=r"\.pt2 holds .* export it in Python"):
            load_exported_program(changed(path, part, lambda _, content=content: content))
    added = tmp_path / "added.pt2"
    added.write_bytes(path.read_bytes())
    with zipfile.ZipFile(added, "a") as archive:
        archive.writestr("model/data/aotinductor/model/x.so", b"")
    with pytest.raises(CheckpointError, match="compiled code, or the format of an older torch"):
        load_exported_program(added)
    assert not proof.exists()


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_truncated_programs(tmp_path: Path, network: nn.Module, share: float) -> None:
    for path, load in (
        (traced(network, tmp_path / "a.pt"), load_torchscript),
        (program(network, tmp_path / "b.pt2"), load_exported_program),
    ):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load(path)
