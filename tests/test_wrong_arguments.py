"""No foreign exception leaves a public function, whatever it is called with."""

from __future__ import annotations

import re
from pathlib import Path

import needs
import numpy as np
import pytest
import typer
from tiny_networks import TinyDeepLab
from wrong_arguments import OUTCOMES, Call, all_calls, attempts, wrong_values

import atrous
from atrous import crf
from atrous.bundle import Bundle
from atrous.cli.app import app
from atrous.cli.inspect import inspect
from atrous.crf import CRFParams, DenseCRF, cuda
from atrous.errors import ArgumentError, MissingDependencyError

ROOT = Path(__file__).parents[1]
KINDS = list(wrong_values())


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    return all_calls(tmp_path_factory.mktemp("calls"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what the arguments themselves cause, in NumPy and Pillow
@pytest.mark.parametrize("kind", KINDS)
def test_no_foreign_exception(calls: list[Call], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = {where: outcome for call in calls for where, outcome in attempts(call, kind) if outcome not in OUTCOMES}
    assert foreign == {}


def test_every_public_function_is_called(calls: list[Call]) -> None:
    """A new public name or verb needs a line in `wrong_arguments`."""
    called = {call.name.removesuffix("()") for call in calls}
    names = {f"atrous {verb.name or verb.callback.__name__.replace('_', '-')}" for verb in app.registered_commands}
    for module in (atrous, crf, cuda):
        for name in getattr(module, "__all__", ["CudaDenseCRF"]):
            value = getattr(module, name)
            if not callable(value):
                continue
            names.add(name)
            if isinstance(value, type):
                names |= {f"{name}.{method}" for method in vars(value) if _takes_arguments(value, method)}
    assert names - called == set()


@needs.PYAV.importable("av")
def test_every_documented_function_is_called(calls: list[Call]) -> None:
    """What README and docs import from submodules."""
    names = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for module, imported in re.findall(r"^from (atrous[.\w]*) import (.+)$", page.read_text("utf-8"), re.MULTILINE):
            if ".pydensecrf" not in module:  # whose arguments are those of pydensecrf, compared with it
                names |= {name.strip() for name in imported.split(",")}
    without_arguments = {"DeinterlaceAtrousConv"}
    assert len(names) > 8
    assert names - {call.name.removesuffix("()") for call in calls} == without_arguments


def _takes_arguments(owner: type, name: str) -> bool:
    method = getattr(owner, name)
    if name.startswith("_") or not callable(method):
        return False
    code = getattr(getattr(method, "__wrapped__", method), "__code__", None)
    return code is not None and code.co_argcount + code.co_kwonlyargcount > 1


class TestWords:
    """An error names the argument, what is expected and what was given."""

    def test_of_a_type(self, tmp_path: Path) -> None:
        with pytest.raises(
            ArgumentError, match=r"classes must be Sequence\[str \| ClassInfo\]; got str 'abc'"
        ) as raised:
            atrous.export(TinyDeepLab(3), tmp_path / "a.atrous", classes="abc", size=(32, 32))
        assert raised.value.argument == "classes"
        assert isinstance(raised.value, TypeError)

    def test_of_an_option(self) -> None:
        with pytest.raises(
            ArgumentError, match=r"atrous must be 'auto' or 'dilated' or 'deinterlaced' or 'taps'; got str 'dense'"
        ):
            atrous.ExportOptions(atrous="dense")

    def test_of_a_path(self) -> None:
        with pytest.raises(ArgumentError, match="no file can have this name"):
            inspect("a\0b")

    def test_of_a_value_that_cannot_be_shown(self) -> None:
        class Silent:
            def __repr__(self) -> str:
                raise RuntimeError

        with pytest.raises(ArgumentError, match="got Silent"):
            atrous.Bundle.open(Silent())

    def test_python_says_what_is_missing(self) -> None:
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'bundle'"):
            atrous.load()


class TestNumPyScalars:
    def test_parameters_of_a_crf(self) -> None:
        expected = CRFParams.deeplab_v2_resnet()
        values = {name: np.float64(value) for name, value in expected.to_dict().items()}
        values["bilateral_sigma_xy_px"] = np.int64(67)
        values["gaussian_weight"] = np.float32(3)
        params = CRFParams(**values)
        assert params == expected
        assert all(type(value) is float for value in params.to_dict().values())

    def test_options_of_a_crf(self) -> None:
        made = DenseCRF(iterations=np.int64(2), threads=np.uint8(1))
        assert (made.iterations, made.threads) == (2, 1)

    def test_a_segmenter(self, color_bundle: Bundle) -> None:
        segmenter = atrous.load(color_bundle, backend="onnxruntime", threads=np.int64(1), workers=np.int32(1))
        assert segmenter(np.zeros((16, 16, 3), np.uint8)).labels.shape == (16, 16)

    def test_sizes(self, tmp_path: Path) -> None:
        size = (np.int64(32), np.int32(48))
        bundle = atrous.export(TinyDeepLab(3), tmp_path / "a.atrous", classes=["a", "b", "c"], size=size)
        assert bundle.manifest.input.size.opt == (32, 48)
        sizes = atrous.DynamicSize(*([np.array([32, 32])[i % 2] for i in range(2)] for _ in range(3)))
        assert sizes == atrous.DynamicSize((32, 32), (32, 32), (32, 32))


def test_an_error_of_a_worker_arrives() -> None:
    """Errors pickle, also those that are made of more than a message."""
    import pickle

    error = MissingDependencyError("torch", extra="export", purpose="atrous.export")
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.package, other.extra) == (str(error), "torch", "export")


def test_usage_of_a_verb_is_no_error_of_the_library() -> None:
    from atrous.cli.pack import pack

    with pytest.raises(typer.BadParameter, match="pass --classes FILE"):
        pack("model.onnx", "out.atrous")
