"""Our own modules are imported inside a function only where a start is faster by it.

The starts are those that somebody waits for. What each of them imports is read from the code; an
import for types alone does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def _modules_in(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).glob("*.py"):
        yield _name(path.relative_to(ROOT))


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_FILES = {_name(path.relative_to(ROOT)): path for path in (ROOT / "bundler").rglob("*.py")}
_STARTS = (
    # the help of a command
    *_modules_in("bundler/cli"),
    # a program that uses us, such as Dagster or validate-pyproject
    *(*_modules_in("bundler"), "bundler.project.schema"),
    # a commit, a push, the check before a build
    *(f"bundler.guard.{name}" for name in ("commits", "index", "worktree")),
    # a command that mostly reads, or that changes nothing if there is nothing new
    *(f"bundler.workflows.{name}" for name in ("status", "update", "verify")),
    # new state in a PEX
    "bundler.artifacts.python.pex.writer",
    # components that are known from an earlier load
    "bundler.refresh.sources",
    # a CI matrix, which is made from files alone
    "bundler.setup.doctor.matrix",
)


def _statements(node: ast.AST, *, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        yield child, in_function
        inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from _statements(child, in_function=inside)


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in _FILES else node.module


@cache
def _imports(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Our modules that a module imports at its top, and inside functions."""
    found: tuple[set[str], set[str]] = (set(), set())
    for node, in_function in _statements(ast.parse(_FILES[name].read_text())):
        found[in_function].update(target for target in _targets(node) if target in _FILES)
    return frozenset(found[0]), frozenset(found[1])


def _loaded(names: Iterable[str]) -> set[str]:
    """What an import of these modules loads, with the packages that they are in."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name and name not in found:
            found.add(name)
            pending += [*_imports(name)[0], name.rpartition(".")[0]]
    return found


def test_only_what_a_start_loads_imports_inside_functions() -> None:
    started = _loaded(_STARTS)
    elsewhere = [name for name in _FILES if _imports(name)[1] and name not in started]
    assert not elsewhere, "import at the top: no start is faster"


def test_what_is_loaded_anyway_is_imported_at_the_top() -> None:
    found = {name: _imports(name)[1] & _loaded([name]) for name in _FILES if _imports(name)[1]}
    assert not {name: both for name, both in found.items() if both}
