"""The list of what may be removed, replaced or written names every module that does so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.support.environments import ROOT

# By these a file system changes. Text and sets have methods of some of these names, too.
_CALLS = {
    *("rmtree", "unlink", "rmdir", "rename", "renames", "removedirs", "chmod", "fchmod", "chown"),
    *("exchange", "exchange_below", "truncate", "utime", "link", "symlink", "symlink_to"),
    *("hardlink_to", "mkfifo", "mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile"),
    *("write_bytes", "write_text", "copytree", "copyfile", "copy2", "touch", "remove_tree"),
    *("write_synced",),
}
_WRITES = re.compile(r"[wax+]")


def _touches(tree: ast.AST) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = call.func.id if isinstance(call.func, ast.Name) else name
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        text = ast.unparse(call)
        if (
            (name in _CALLS and owner != "formatter")  # click has a write_text, too
            or (owner == "os" and name in ("replace", "remove"))
            or (owner == "os" and name == "open" and ("O_CREAT" in text or "O_RDWR" in text))
            or (name == "open" and owner != "os" and _is_write(call, owner))
            or (name == "replace" and owner and len(call.args) == 1 and not call.keywords)
        ):
            yield text


def _is_write(call: ast.Call, owner: str) -> bool:
    modes = call.args[0:1] if owner else call.args[1:2]
    return any(isinstance(mode, ast.Constant) and _WRITES.search(str(mode.value)) for mode in modes)


def test_every_module_that_changes_files_says_which() -> None:
    page = (ROOT / "docs/explanation/threats.md").read_text()
    table = page.partition("<!-- touches -->")[2].partition("\n## ")[0]
    reported = set(re.findall(r"`([a-z_/]+\.py)`", table))
    found = set()
    for folder in ("bundler", "hooks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.is_symlink() or (folder == "bundler" and "hooks" in path.parts):
                continue
            if any(_touches(ast.parse(path.read_text()))):
                found.add(str(path.relative_to(ROOT)).removeprefix("bundler/"))
    assert found - reported == set()
    places = (ROOT / "bundler", ROOT)
    assert {
        name for name in reported if not any((place / name).exists() for place in places)
    } == set()
