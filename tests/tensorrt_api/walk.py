"""Which attributes of TensorRT a source file uses, and on which class: types followed through the syntax tree.

Where a type comes from: annotations with the names of `runtime/backends/tensorrt_types.py`; calls of TensorRT's
classes; what its methods return, as the bindings say themselves; annotations of this package's classes and functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .bindings import Api

TYPES_MODULE = "tensorrt_types"
LIBRARY_MODULES = {TYPES_MODULE, "tensorrt_library"}
MODULE = "the module"


@dataclass(frozen=True)
class Type:
    """What a value is.

    Attributes:
        name: a class of TensorRT, `MODULE`, or a class of this package.
        rtx: known to be of TensorRT-RTX.
        itself: the class and not an object of it.
    """

    name: str
    foreign: bool
    rtx: bool = False
    itself: bool = False


@dataclass(frozen=True)
class Use:
    """One attribute of TensorRT that code uses."""

    owner: str
    attribute: str
    rtx: bool
    where: str

    def is_in(self, api: Api) -> bool:
        return self.attribute in (api.names if self.owner == MODULE else api.classes.get(self.owner, {}))


@dataclass
class OwnClass:
    """A class of this package: what its attributes, methods and properties give."""

    members: dict[str, Type] = field(default_factory=dict)


@dataclass
class Sources:
    """All files that may hold objects of TensorRT, read together, since types cross from one to the other."""

    paths: list[Path]
    root: Path
    apis: list[Api]
    classes: dict[str, OwnClass] = field(default_factory=dict)
    functions: dict[str, Type] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.foreign = {name for api in self.apis for name in api.classes}
        self.members = {name for api in self.apis for members in api.classes.values() for name in members}
        trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in self.paths}
        own = [node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
        self.classes = {node.name: OwnClass() for node in own}
        for node in own:
            self.classes[node.name].members.update(self._members(node))
        for tree in trees.values():
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and (found := self.annotated(node.returns)):
                    self.functions[node.name] = found
        for path, tree in trees.items():
            Walk(self, str(path.relative_to(self.root)), {}).body(tree.body)

    def annotated(self, node: ast.expr | None) -> Type | None:
        """The type that an annotation names; of `X | None` and `type[X]` it is X."""
        if isinstance(node, ast.BinOp):
            return self.annotated(node.left) or self.annotated(node.right)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.annotated(ast.parse(node.value, mode="eval").body)
        if not isinstance(node, ast.Name):
            return None
        name, rtx = node.id.removeprefix("Rtx"), node.id.startswith("Rtx")
        if name in ("TensorRTModule", "Module"):
            return Type(MODULE, foreign=True, rtx=rtx)
        if node.id in self.classes:
            return Type(node.id, foreign=False)
        for known in (name, f"I{name}"):
            if known in self.foreign:
                return Type(known, foreign=True, rtx=rtx)
        return None

    def _members(self, cls: ast.ClassDef) -> Iterator[tuple[str, Type]]:
        for node in ast.walk(cls):
            if isinstance(node, ast.FunctionDef) and (found := self.annotated(node.returns)):
                yield node.name, found
            elif isinstance(node, ast.AnnAssign) and (found := self.annotated(node.annotation)):
                if isinstance(node.target, ast.Name):
                    yield node.target.id, found
                elif isinstance(node.target, ast.Attribute):
                    yield node.target.attr, found
        for method in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
            parameters = {
                each.arg: self.annotated(each.annotation) for each in (*method.args.args, *method.args.kwonlyargs)
            }
            for node in ast.walk(method):  # self.x = x
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                    found = parameters.get(node.value.id)
                    for target in node.targets:
                        if found and isinstance(target, ast.Attribute):
                            yield target.attr, found


@dataclass
class Walk:
    """Through one scope, in the order of the source."""

    sources: Sources
    file: str
    names: dict[str, Type]

    def body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, ast.AnnAssign):
            found = self.sources.annotated(node.annotation)
            self._visit_all(node.value, node.target)
            if found and isinstance(node.target, ast.Name):
                self.names[node.target.id] = found
        elif isinstance(node, ast.Assign):
            self._visit_all(node.value, *node.targets)
            found = self.resolve(node.value)
            for target in node.targets:
                if isinstance(target, ast.Name):
                    if found:
                        self.names[target.id] = found
                    else:
                        self.names.pop(target.id, None)
        else:
            if isinstance(node, ast.Attribute):
                self._record(node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                self._refuse_getattr(node)
            self._visit_all(*ast.iter_child_nodes(node))

    def _visit_all(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        names = dict(self.names)
        for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            names.pop(each.arg, None)
            if found := self.sources.annotated(each.annotation):
                names[each.arg] = found
        inner = Walk(self.sources, self.file, names)
        inner.body(node.body) if isinstance(node.body, list) else inner.visit(node.body)

    def _class(self, node: ast.ClassDef) -> None:
        inner = Walk(self.sources, self.file, self.names | {"self": Type(node.name, foreign=False)})
        for base in node.bases:
            inner.visit(base)
            found = self.resolve(base)
            if found is not None and found.foreign:  # what it overrides must be there to be called
                for method in (each for each in node.body if isinstance(each, ast.FunctionDef)):
                    if not method.name.startswith("_"):
                        self._add(found, method.name, method.lineno)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                method = Walk(self.sources, self.file, dict(inner.names))
                method._function(_without_self(statement))
            else:
                inner.visit(statement)

    def _record(self, node: ast.Attribute) -> None:
        owner = self.resolve(node.value)
        if owner is None:
            if node.attr in self.sources.members and "_" in node.attr.strip("_"):
                self.sources.unknown.append(f"{self.file}:{node.lineno} {ast.unparse(node)}")
        elif owner.foreign and not node.attr.startswith("__"):
            self._add(owner, node.attr, node.lineno)

    def _refuse_getattr(self, node: ast.Call) -> None:
        owner = self.resolve(node.args[0])
        if owner is not None and owner.foreign:
            self.sources.unknown.append(f"{self.file}:{node.lineno} {ast.unparse(node)}")

    def _add(self, owner: Type, attribute: str, line: int) -> None:
        self.sources.uses.append(Use(owner.name, attribute, owner.rtx, f"{self.file}:{line}"))

    def resolve(self, node: ast.expr) -> Type | None:
        """The type of an expression, as far as it can be told."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.NamedExpr | ast.Await):
            return self.resolve(node.value)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return None if owner is None else self._member(owner, node.attr)
        if isinstance(node, ast.Call):
            return self._called(node.func)
        return None

    def _member(self, owner: Type, name: str) -> Type | None:
        if not owner.foreign:
            return self.sources.classes[owner.name].members.get(name)
        if owner.name == MODULE:
            return Type(name, foreign=True, rtx=owner.rtx, itself=True) if name in self.sources.foreign else None
        for api in self.sources.apis:
            given = api.classes.get(owner.name, {}).get(name)
            if given in self.sources.foreign:
                return Type(given, foreign=True, rtx=owner.rtx)
        return None

    def _called(self, function: ast.expr) -> Type | None:
        if isinstance(function, ast.Name) and function.id not in self.names:
            if function.id in self.sources.classes:
                return Type(function.id, foreign=False)
            return self.sources.functions.get(function.id)
        found = self.resolve(function)
        return replace(found, itself=False) if found is not None else None


def _without_self(method: ast.FunctionDef) -> ast.FunctionDef:
    """The method without its first parameter, which is the object that its class has given a type."""
    arguments = ast.arguments(
        posonlyargs=method.args.posonlyargs,
        args=method.args.args[1:],
        vararg=method.args.vararg,
        kwonlyargs=method.args.kwonlyargs,
        kw_defaults=method.args.kw_defaults,
        kwarg=method.args.kwarg,
        defaults=[],
    )
    copy = ast.FunctionDef(method.name, arguments, method.body, method.decorator_list, method.returns)
    return ast.copy_location(copy, method)


def touches_tensorrt(path: Path) -> bool:
    """Whether a file imports from the modules that hand TensorRT out."""
    imports = (
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
    )
    return any((node.module or "").rpartition(".")[2] in LIBRARY_MODULES for node in imports)
