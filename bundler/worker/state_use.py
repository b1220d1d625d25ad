"""Whether a component reads the state that it is given: a guess, by its source code alone.

Uses only the standard library. Installed code, such as a vendor's integration, and code without
source is not examined; the answer is then empty.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_BUILD = "build_defs_from_state"
_INSTALLED = ("site-packages", "dist-packages")
_STATE_PARAMETER = 2  # after self and the context
_TESTS = frozenset({"exists", "is_file", "is_dir", "lexists", "isfile", "isdir"})
_LOGS = frozenset({"print", "debug", "info", "warning", "error", "exception", "log", "repr", "str"})


def unread(component: Any) -> str:
    """What in the component's code ignores its state; empty if nothing does."""
    kind = type(component)
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        built = _function(kind, "build_defs")
        if built is not None and not _mentions(built, ("build_defs", _BUILD)):
            return f"build_defs of {name} does not call {_BUILD}"
        used = _function(kind, _BUILD)
        parameter = used and _parameter(used)
        if used is not None and parameter and not _reads(used, parameter):
            return f"{_BUILD} of {name} does not read {parameter}"
    except Exception:  # noqa: BLE001  # a class may be made in any way: then nothing is said
        return ""
    return ""


def _function(kind: type, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The project's own code of a method; None if it is installed, or has no source."""
    found = inspect.unwrap(getattr(kind, name, None) or unread)
    file = found.__code__.co_filename
    if found is unread or any(part in file for part in _INSTALLED):
        return None
    tree = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    return tree if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def _parameter(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The name of the parameter that gets the state; empty if it may be in ``*args``."""
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    if len(names) > _STATE_PARAMETER:
        return names[_STATE_PARAMETER]
    keywords = [one.arg for one in given.kwonlyargs]
    return "state_path" if "state_path" in keywords else ""


def _mentions(function: ast.AST, names: tuple[str, ...]) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in names for node in ast.walk(function)
    )


def _reads(function: ast.AST, name: str) -> bool:
    """Whether the name is used for more than to find out whether there is a state."""
    looked_at = {id(node) for node in _only_looked_at(function)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            if id(node) not in looked_at:
                return True
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("locals", "vars"):
            return True
    return False


def _only_looked_at(function: ast.AST) -> Iterator[ast.AST]:
    """Expressions that are only compared, tested or logged."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare):
            yield from (node.left, *node.comparators)
        elif isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            # The last value of `and` and `or` is their result, unless that is only tested.
            yield from node.test.values if isinstance(node.test, ast.BoolOp) else [node.test]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.operand
        elif isinstance(node, ast.BoolOp):
            yield from node.values[:-1]
        elif isinstance(node, ast.Call):
            yield from _looked_at_by(node)
        elif isinstance(node, ast.Assign) and _is_thrown_away(node):
            yield node.value


def _looked_at_by(call: ast.Call) -> Iterator[ast.AST]:
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called in _TESTS:
        yield from (getattr(call.func, "value", call), *call.args)
    elif called in _LOGS:
        yield from (inner for one in call.args for inner in ast.walk(one))


def _is_thrown_away(node: ast.Assign) -> bool:
    return all(isinstance(one, ast.Name) and one.id.strip("_") == "" for one in node.targets)
