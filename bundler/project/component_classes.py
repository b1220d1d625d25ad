"""Determines from a repository's source text which component classes keep no state."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

from bundler.project.classic_dbt import files

_DAGSTERS = re.compile(r"dagster(_\w+)?")
# Of Dagster's own libraries; any other class in them may have state.
_STATELESS = {
    "dagster": {
        *("Component", "DefinitionsComponent", "DefsFolderComponent", "ExecutableComponent"),
        *("FunctionComponent", "MetadataChecksComponent", "PythonScriptComponent"),
        *("SqlComponent", "TemplatedSqlComponent", "UvRunComponent"),
        *("Model", "Resolvable", "Resolver", "ConfigurableResource"),
    },
    "dagster_databricks": {"DatabricksAssetBundleComponent"},
    "dagster_dlt": {"DltLoadCollectionComponent"},
    "dagster_hightouch": {"HightouchSyncComponent"},
    "dagster_k8s": {"PipesK8sComponent"},
    "dagster_sling": {"SlingReplicationCollectionComponent"},
}
_RESOURCES = re.compile(r"dagster_(aws|azure|gcp)\.([\w.]*\.)?\w+(Resource|Credentials)Component")
_PLAIN_BASES = {
    *("abc.ABC", "typing.Generic", "typing.Protocol", "typing_extensions.Protocol"),
    *("pydantic.BaseModel", "enum.Enum"),
}
_PLAIN_DECORATORS = {"dagster", "dataclasses", "pydantic", "typing"}


# What a name refers to: a class here, a dotted name elsewhere, or something else.
_Value = ast.ClassDef | str | None
_Names = dict[str, list[_Value]]


class ComponentClasses:
    """The classes that files define. own: a project's files. outer: where its libraries may be."""

    def __init__(self, own: Sequence[Path], outer: Path, text: Callable[[Path], str]) -> None:
        self._own = own
        self._outer = outer
        self._text = text
        self._names: dict[Path, _Names] = {}

    @cached_property
    def _others(self) -> Sequence[Path]:
        return list(files(self._outer, must_be_all=True))

    def is_stateless(self, dotted: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a class and its bases are known, and none of them has state.

        Raises `OSError`, `ValueError`, `SyntaxError` or `RecursionError` if that cannot be read.
        """
        package, _, name = dotted.rpartition(".")
        first = dotted.partition(".")[0]
        if _DAGSTERS.fullmatch(first):
            return name in _STATELESS.get(first, ()) or _RESOURCES.fullmatch(dotted) is not None
        if dotted in _PLAIN_BASES:
            return True
        if not package or dotted in seen:
            return False
        found = [path for path in self._own if _is_module(path, package)]
        found = found or [path for path in self._others if _is_module(path, package)]
        return bool(found) and all(
            self._is_plain(path, package, name, seen | {dotted}) for path in found
        )

    def _is_plain(self, path: Path, module: str, name: str, seen: frozenset[str]) -> bool:
        names = self._names_of(path, module)
        found = [] if "*" in names else names.get(name, [])
        return bool(found) and all(
            self._is_stateless_value(each, names, module, seen) for each in found
        )

    def _is_stateless_value(
        self, value: _Value, names: _Names, module: str, seen: frozenset[str]
    ) -> bool:
        if not isinstance(value, ast.ClassDef):
            return value is not None and self.is_stateless(value, seen)

        def are_known(parts: Sequence[ast.expr], is_plain: Callable[[str], bool]) -> bool:
            found = [_dotted(part, names, module) for part in parts]
            return all(found) and all(map(is_plain, chain(*found)))

        return are_known(
            value.decorator_list, lambda each: each.partition(".")[0] in _PLAIN_DECORATORS
        ) and are_known(value.bases, lambda each: each == "object" or self.is_stateless(each, seen))

    def _names_of(self, path: Path, module: str) -> _Names:
        if path not in self._names:
            names: _Names = {}
            package = module.split(".")[: None if path.stem == "__init__" else -1]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self._text(path))
            for node in ast.walk(tree):
                for name, value in _bound(node, package):
                    names.setdefault(name, []).append(value)
            self._names[path] = names
        return self._names[path]


def _is_module(path: Path, module: str) -> bool:
    if path.suffix != ".py":
        return False
    parts = path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts
    return parts[-len(module.split(".")) :] == tuple(module.split("."))


def _bound(node: ast.AST, package: list[str]) -> Iterator[tuple[str, _Value]]:
    """The names that a statement binds, and to what: a class, a dotted name, or something else."""
    if isinstance(node, ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (first, first)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        source = [*above, *([node.module] if node.module else [])]
        for alias in node.names:
            yield alias.asname or alias.name, ".".join([*source, alias.name])
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, None
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id, None


def _dotted(node: ast.expr, names: _Names, module: str) -> list[str]:
    """What an expression may refer to; empty if that is unknown."""
    if isinstance(node, ast.Subscript):
        return _dotted(node.value, names, module)
    if isinstance(node, ast.Call):
        return _dotted(node.func, names, module)
    if isinstance(node, ast.Attribute):
        return [f"{each}.{node.attr}" for each in _dotted(node.value, names, module)]
    if not isinstance(node, ast.Name):
        return []
    bound = names.get(node.id, ["object"] if node.id == "object" else [])
    if None in bound:
        return []
    return [each if isinstance(each, str) else f"{module}.{node.id}" for each in bound]
