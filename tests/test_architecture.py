"""The house rules that a reader relies on: which way imports point, what loads when, how long things get."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import needs
import pytest
from cpp_functions import Function, functions

from atrous.cli.app import app
from atrous.runtime.backends import BACKENDS

ROOT = Path(__file__).parents[1]

#: A member imports itself and what stands below it; members of one line do not import each other.
LAYERS = (
    ("cli",),
    ("serve",),
    ("calibration",),  # quantizing rewrites and verifies graphs, which is the exporter's trade
    ("exporter",),
    ("runtime",),
    ("crf",),
    ("gpu",),
    ("bundle",),
    ("bundle_folders", "bundle_lock"),
    ("manifest", "_native"),
    ("bands", "manifest_schema"),
    ("arguments", "arrays", "evidence"),
    ("errors", "files", "_version"),
)
LEVEL = {member: level for level, members in enumerate(LAYERS) for member in members}
#: Files that hand out the public names and so may see every layer.
FACADE = {"atrous", "atrous.__main__"}
#: Only these work on models; a deployed bundle runs without what they need.
MODEL_UNITS = {"exporter", "calibration"}
MODEL_PACKAGES = {"torch", "onnx", "onnxscript", "onnx_ir", "safetensors"}
#: These load on first use, so that one that is missing is reported with the extra that installs it.
LAZY = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda"}
#: Importing these must load none of the above.
LIGHT = ("atrous", "atrous.bundle", "atrous.runtime", "atrous.crf", "atrous.gpu")

#: Folders of the package that hold no Python, only files that the package reads.
DATA_PACKAGES = {"atrous.crf.kernels", "atrous.native.kernels", "atrous.runtime.kernels"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
#: Beyond these, a frozen dataclass: `BuilderOptions`, `ExportOptions`. Three kinds of function are free to have more:
#: verbs of the command line, where a parameter declares an option and nobody but typer calls; `atrous.export` and
#: `atrous.pack`, whose keywords say what a network is; and device code, since a launch passes a kernel a flat list of
#: pointers and sizes.
MAX_ARGUMENTS = 8

CXX_SUFFIXES = {".c", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inc", ".inl"}
DEVICE_SUFFIXES = {".cu", ".cuh"}
#: Folders at the root whose C++ is not the package's.
NO_SOURCES = {"build", "dist", "out", "tests"}


@dataclass(frozen=True)
class Import:
    """One imported module or name, absolute: `from ..errors import ShapeError` is `atrous.errors.ShapeError`.

    Attributes:
        relative: written with leading dots.
        at_load: runs when the module is imported; not in a function, not for type checkers alone.
    """

    target: str
    relative: bool
    at_load: bool
    line: int

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """A source file of the package, by its absolute dotted name."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def unit(self) -> str:
        """The member of `LAYERS` that it belongs to."""
        return self.name.split(".")[1]

    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def imports(self) -> Iterator[Import]:
        yield from _imports(self.tree(), self.package, at_load=True)


def _imports(node: ast.AST, package: str, *, at_load: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, relative=False, at_load=at_load, line=node.lineno)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
        for alias in node.names:
            yield Import(f"{base}.{alias.name}", relative=node.level > 0, at_load=at_load, line=node.lineno)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.body:
            yield from _imports(child, package, at_load=False)
        for child in node.orelse:
            yield from _imports(child, package, at_load=at_load)
    else:
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, package, at_load=at_load and not deferred)


@cache
def modules() -> dict[str, Module]:
    """Every source file of the package: the root's own, and those of directories that are packages."""
    paths = [path for path in ROOT.glob("*.py") if path.name != "setup.py"]
    for package in ROOT.glob("*/__init__.py"):
        paths += package.parent.rglob("*.py")
    found = {}
    for path in sorted(paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("atrous", *(parts[:-1] if parts[-1] == "__init__" else parts)))
        found[name] = Module(name, path)
    return found


def _where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


def test_every_module_has_a_layer() -> None:
    units = {module.unit for name, module in modules().items() if name not in FACADE}
    assert units <= LEVEL.keys()


def test_imports_point_down() -> None:
    wrong = []
    for name, module in modules().items():
        if name in FACADE:
            continue
        for each in module.imports():
            if each.top != "atrous":
                continue
            unit = each.target.split(".")[1]
            if unit != module.unit and LEVEL.get(unit, -1) <= LEVEL[module.unit]:
                wrong.append(f"{_where(module, each.line)} imports {each.target}")
    assert wrong == []


def test_imports_inside_the_package_are_relative() -> None:
    wrong = [
        f"{_where(module, each.line)} imports {each.target}"
        for module in modules().values()
        for each in module.imports()
        if each.top == "atrous" and not each.relative
    ]
    assert wrong == []


def test_nothing_imports_through_the_facade() -> None:
    """`from .. import name` asks the package for a name that a module below it defines: an arrow that points up."""
    wrong = [
        f"{_where(module, each.line)} imports {each.target}"
        for name, module in modules().items()
        if name not in FACADE
        for each in module.imports()
        if each.top == "atrous" and each.target.count(".") == 1
    ]
    assert wrong == []


def test_backends_are_named_in_their_own_files_only() -> None:
    """What lists or chooses backends reads `BACKENDS`, so that a new one is a file and a line in the registry."""
    names = BACKENDS.keys() - {"tensorrt", "onnxruntime"}  # which are names of packages as well
    assert len(names) >= 4
    named = [
        f"{_where(module, node.lineno)} names {node.value}"
        for module in modules().values()
        if not module.name.startswith("atrous.runtime.backends.")
        for node in ast.walk(module.tree())
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert named == []


def test_only_exporter_and_calibration_work_on_models() -> None:
    wrong = [
        f"{_where(module, each.line)} imports {each.target}"
        for name, module in modules().items()
        if name in FACADE or module.unit not in MODEL_UNITS
        for each in module.imports()
        if each.top in MODEL_PACKAGES
    ]
    assert wrong == []


def _loaded_by(name: str) -> set[str]:
    """Modules of the package that importing `name` imports, itself included."""
    loaded: set[str] = set()
    waiting = [name]
    while waiting:
        parts = waiting.pop().split(".")
        # Importing a.b.c runs a and a.b too; where c is a name and not a module, that is all it does.
        for prefix in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            if prefix in modules() and prefix not in loaded:
                loaded.add(prefix)
                waiting += [each.target for each in modules()[prefix].imports() if each.at_load]
    return loaded


@pytest.mark.parametrize("name", LIGHT)
def test_optional_packages_load_on_first_use(name: str) -> None:
    wrong = [
        f"{_where(modules()[loaded], each.line)} imports {each.target}"
        for loaded in sorted(_loaded_by(name))
        for each in modules()[loaded].imports()
        if each.at_load and each.top in MODEL_PACKAGES | LAZY
    ]
    assert wrong == []


def test_import_atrous_is_light(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import atrous"]
    report = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in report.splitlines()}
    assert "atrous" in loaded
    assert loaded.isdisjoint(MODEL_PACKAGES | LAZY)


def test_every_package_is_in_the_wheel() -> None:
    tomllib = needs.TOMLLIB.load("tomllib")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = {module.package for module in modules().values()}
    assert packages | DATA_PACKAGES == set(listed)


#: Folders of native code, and what each includes besides itself; the tests of C++ look inside of all.
NATIVE = {
    "native": set(),
    "crf/kernels": {"native/kernels"},
    "crf/csrc": {"native", "native/kernels", "crf/kernels"},
    "calibration/csrc": {"native"},
    "runtime/kernels": {"native/kernels"},
    "runtime/csrc": {"native", "native/kernels", "runtime/kernels"},
}


def test_native_code_stands_on_what_is_below() -> None:
    wrong = []
    for folder, below in NATIVE.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in {".cpp", ".hpp", ".inl", ".inc", ".cu", ".cuh"}:
                continue
            for name in re.findall(r'#(?:include|define ATROUS_KERNELS) "(.+?)"', path.read_text(encoding="utf-8")):
                above, _, _ = name.rpartition("/")
                if above and above not in {folder, f"{folder}/kernels", *below}:
                    wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {_where(module, 1): len(module.path.read_text("utf-8").splitlines()) for module in modules().values()}
    assert {where: length for where, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{_where(module, node.lineno)} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules().values()
        for node in ast.walk(module.tree())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {where: length for where, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


#: A docstring begins with a verb or a noun: these words would make it continue the identifier instead.
NO_BEGINNING = ("What", "How", "Whether", "Where", "Which", "Of", "From")


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = [
        f"{module.path}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}"
        for module in modules().values()
        for node in ast.walk(module.tree())
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (docstring := ast.get_docstring(node)) and docstring.split()[0].strip("`,.:") in NO_BEGINNING
    ]
    assert found == []


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    own = node.args
    names = [each.arg for each in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + (own.vararg is not None) + (own.kwarg is not None)


def test_functions_have_few_arguments() -> None:
    verbs = {(each.callback.__module__, each.callback.__name__) for each in app.registered_commands if each.callback}
    assert len(verbs) >= 11
    verbs |= {("atrous.exporter.export", "export"), ("atrous.exporter.pack", "pack")}
    numbers = {
        f"{_where(module, node.lineno)} {node.name}": _arguments(node)
        for module in modules().values()
        for node in ast.walk(module.tree())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (module.name, node.name) not in verbs
    }
    assert {where: number for where, number in numbers.items() if number > MAX_ARGUMENTS} == {}


def _cxx_functions() -> Iterator[tuple[Path, Function]]:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in NO_SOURCES]
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in CXX_SUFFIXES):
        for each in functions(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT), each


def test_functions_in_cxx_are_short() -> None:
    found = list(_cxx_functions())
    assert len(found) > 400
    assert [f"{path}:{each.line} {each.name}" for path, each in found if each.lines > MAX_FUNCTION_LINES] == []


def test_functions_in_cxx_have_few_arguments() -> None:
    assert [
        f"{path}:{each.line} {each.name}"
        for path, each in _cxx_functions()
        if each.arguments > MAX_ARGUMENTS and path.suffix not in DEVICE_SUFFIXES
    ] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn", ("torch.nn", False, True)),
        ("from ..errors import ShapeError", ("atrous.errors.ShapeError", True, True)),
        ("from .. import _native", ("atrous._native", True, True)),
        ("from . import params", ("atrous.crf.params", True, True)),
        ("def f():\n    import pycuda", ("pycuda", False, False)),
        ("class C:\n    import pycuda", ("pycuda", False, True)),
        ("if TYPE_CHECKING:\n    import onnx", ("onnx", False, False)),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    import onnx", ("onnx", False, True)),
        ("try:\n    import tensorrt\nexcept ImportError:\n    pass", ("tensorrt", False, True)),
    ],
)
def test_the_reader_of_imports(source: str, expected: tuple[str, bool, bool]) -> None:
    (found,) = _imports(ast.parse(source), "atrous.crf", at_load=True)
    assert (found.target, found.relative, found.at_load) == expected
