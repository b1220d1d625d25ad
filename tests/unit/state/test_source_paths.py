"""A source's path: what is in it is replaced and removed, so it must be for state alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.listener import SILENT
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.untouched import everything
from tests.support.workdir import WorkDir

PROGRAM = Path(sys.executable).with_name("state-bundler")
SOURCE = """\
[project]
name = "shop"
version = "1"

[[tool.state-bundler.source]]
key = "{key}"
command = ["sh", "-c", "echo state >$0", "{{state_path}}"]
path = "{path}"
"""
READING = (["status"], ["doctor"], ["guard"], ["verify", "."], ["diff", ".", "."])


def _project(wd: WorkDir, path: str, key: str = "products") -> None:
    """A project with files of many kinds, most of them tracked by git."""
    wd.write("pyproject.toml", SOURCE.format(path=path, key=key))
    for name in (
        "src/shop/__init__.py", "src/shop/fetch.py", "data/raw/a.csv", "data/processed/b.csv",
        "nested/pyproject.toml", "nested/src/nested.py", "file", "only-tracked/x", "home/.profile",
    ):  # fmt: skip
        wd.write(name)
    wd("git add -A")
    wd.write("untracked/raw/notes", "years of work")
    wd.write("untracked/products/notes", "more of it")
    (wd.path / "link").symlink_to("data")
    (wd.path / "link-to-outside").symlink_to(wd.path.parent / "outside")
    (wd.path / "leads").symlink_to(wd.path.parent / "outside")
    (wd.path / "dangling").symlink_to("nothing")
    os.mkfifo(wd.path / "fifo")
    outside = wd.path.parent / "outside"
    outside.mkdir()
    (outside / "products").write_text("not yours")


REFUSED = [
    ".", "./", "./.", "", "src", "src/", "./src", "src//", "SRC", "Src", "src/..", "src/../data",
    "data", "data/", "data/raw", "src/shop", "nested", "nested/src", "only-tracked", "untracked",
    ".git", ".GIT", ".git/", ".git/hooks", "src/.git/x", ".hg", "..", "../outside", "../repository",
    "/tmp/x", "/", "~", "~/x", "home", "link", "link/", "link/new", "link-to-outside", "leads/new",
    "leads/new/deeper", "dangling", "dangling/new", "file", "file/below", "fifo", "fifo/below",
    "a\\nb", "a\\u0000b", "a\\u202eb", "a\\\\b",
]  # fmt: skip


@pytest.mark.parametrize("path", REFUSED)
def test_a_path_that_others_use_is_refused_and_nothing_changes(
    wd: WorkDir, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(wd, path)
    monkeypatch.setenv("HOME", str(wd.path / "home"))
    before = everything(wd.path.parent)
    with pytest.raises(ConfigurationError) as caught:
        refresh([open_project(wd.path)], RefreshOptions(), SILENT)
    assert "src/package/state" in caught.value.hint
    assert everything(wd.path.parent) == before


@pytest.mark.parametrize(
    "command",
    [["refresh"], ["build", "oci", "-o", "image"], ["doctor"], ["init", "--yes"]],
)
@pytest.mark.parametrize("path", ["data", "src", "untracked", "link/new", "home"])
def test_every_command_says_so(wd: WorkDir, path: str, command: list[str]) -> None:
    _project(wd, path)
    cache = wd.path.parent / "repository-home/.cache"
    before = everything(wd.path.parent, but=[cache])
    done = wd.run([PROGRAM, *command])
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == (1 if command == ["doctor"] else 78), said
    assert "src/package/state" in said
    assert "removes" not in said
    assert everything(wd.path.parent, but=[cache]) == before


@pytest.mark.parametrize(
    "path", ["src/shop/state", "./state/", "var//state", "new", ".local_defs_state"]
)
def test_a_directory_of_its_own_is_taken(wd: WorkDir, path: str) -> None:
    _project(wd, path)
    before = _files(everything(wd.path))
    for _ in range(2):
        _refresh(wd)
    assert (wd.path / path / "products/state").read_text() == "state\n"
    new = wd.path / os.path.normpath(path)
    assert _files(everything(wd.path, but=[new])) == before


def _refresh(wd: WorkDir) -> None:
    refresh([open_project(wd.path)], RefreshOptions(), SILENT)


def _files(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without directories: one that gets a new entry has a new time."""
    return {path: about for path, about in found.items() if not str(about[0]).startswith("d")}


@pytest.mark.parametrize("rule", [".gitignore", ".gitkeep"])
def test_a_directory_with_nothing_but_a_rule_is_taken(wd: WorkDir, rule: str) -> None:
    _project(wd, "src/shop/state")
    kept = wd.write(f"src/shop/state/{rule}", "products\n")
    wd("git add -A -f src")
    _refresh(wd)
    assert kept.read_text() == "products\n"


def test_fixtures_that_are_in_git_on_purpose_are_taken(wd: WorkDir) -> None:
    _project(wd, "fixtures/state")
    wd.write("fixtures/state/products/state", "old")
    wd("git add -A")
    with pytest.raises(ConfigurationError, match="git tracks"):
        _refresh(wd)
    text = (wd.path / "pyproject.toml").read_text()
    (wd.path / "pyproject.toml").write_text(
        f'{text}[tool.state-bundler.guard]\nallow = ["fixtures/state"]\n'
    )
    with pytest.raises(ConfigurationError, match="not a state that state-bundler published"):
        _refresh(wd)


@pytest.mark.parametrize("path", [".", "../outside", "/tmp", ".git"])
def test_no_rule_is_written_for_an_invalid_path(wd: WorkDir, path: str) -> None:
    _project(wd, path)
    for command in (["init", "--yes", "--without", "ci"], ["doctor", "--fix"], ["guard", "--fix"]):
        done = wd.run([PROGRAM, *command])
        assert b"Traceback" not in done.stderr
    for name in (".gitignore", ".dockerignore"):
        text = (wd.path / name).read_text() if (wd.path / name).exists() else ""
        assert path not in text.splitlines()
        assert f"/{path}" not in text.splitlines()
    assert wd("git ls-files src") == "src/shop/__init__.py\nsrc/shop/fetch.py"


def test_guard_fix_keeps_the_files_of_others_in_the_index(wd: WorkDir) -> None:
    _project(wd, "data")
    wd.run([PROGRAM, "guard", "--fix"])
    assert wd("git ls-files data") == "data/processed/b.csv\ndata/raw/a.csv"
    assert not (wd.path / ".gitignore").exists()


@pytest.mark.parametrize("module", ["..", "a..b", "/etc", "a/b", ".a", "a."])
def test_a_module_is_not_a_path(wd: WorkDir, module: str) -> None:
    wd.write(
        "pyproject.toml", f'[tool.dg.project]\nroot_module = "shop"\ndefs_module = "{module}"\n'
    )
    with pytest.raises(ConfigurationError, match="is not a valid module name"):
        open_project(wd.path)
