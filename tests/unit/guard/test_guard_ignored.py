"""What git ignores as a whole, and what a sparse checkout leaves out: no alarm without a cure."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.guard.moments import check
from tests.support.workdir import STATE, WorkDir

DG = '[tool.dg.project]\nroot_module = "shop"\n'
SOURCE = '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "{path}"\n'


def findings(wd: WorkDir, *arguments: str) -> list[tuple[str, str]]:
    said = wd.guard(*arguments, "--format", "json")
    assert said.code in (0, 1), said
    return [(each["rule"], each["where"]) for each in json.loads(said.out)["findings"]]


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write(".gitignore", f"{STATE}\n/build/\n")
    wd.write("pyproject.toml", DG)
    wd.write("src/shop/defs/__init__.py", "")
    wd.commit("code")
    return wd


OUR_TEMPLATE = ".venv/lib/python3/site-packages/bundler/templates/shop/src/shop/defs"
PLACES = {
    OUR_TEMPLATE: (".venv/.gitignore", "*\n"),
    "node_modules/x/defs": (".git/info/exclude", "node_modules/\n"),
    ".cache/pex/installed_wheels/1/shop/defs": (".git/info/exclude", "/.cache\n"),
    ".tox/py/defs": (".tox/.gitignore", "# Created by tox\n*\n"),
    "build/lib/shop/defs": (".gitignore", "/build/\n"),
    "dist/x/defs": ("dist/.gitignore", "x/\n"),
    "deep/in/it/.nox/defs": (".git/info/exclude", ".nox/\n"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_state_in_an_ignored_directory(wd: WorkDir, place: str) -> None:
    """It is none of the project's, and `--strict` has nothing to say about it."""
    path, rules = PLACES[place]
    wd.write("code.py")
    wd.commit("code")
    wd.write(path, rules)
    wd.write(f"{place}/{STATE}/K/state")
    wd.write(f"{place}/pyproject.toml", DG + SOURCE.format(path="state"))
    wd.write(f"{place}/shop/defs/__init__.py", "")
    wd.write(f"{place}/../dg.toml", "this is no TOML: root_module state-bundler")
    (wd.path / place / "link").mkdir()
    (wd.path / place / "link" / STATE).symlink_to("/nowhere")
    for moment in ([], ["--strict"], ["--staged"]):
        assert findings(wd, *moment) == [], moment


def test_a_project_file_that_cannot_be_read_is_refused_where_it_is_ours(wd: WorkDir) -> None:
    wd.write("dg.toml", "this is no TOML: root_module state-bundler")
    wd.commit("code")
    assert wd.guard().code == 78


@pytest.mark.parametrize("forced", ["a/defs/code.py", "a/defs/x/code.py"])
def test_an_ignored_directory_of_which_git_tracks_something(wd: WorkDir, forced: str) -> None:
    """``git add -f`` made it the repository's own, and a clone has no rule for it."""
    wd.write(".git/info/exclude", "a/\n")
    wd.write(forced)
    wd("git add -f a")
    wd.commit("code", add=False)
    wd.write(f"a/defs/{STATE}/K/state")
    assert findings(wd) == [("protection-local", f"a/defs/{STATE}")]


def test_a_tracked_project_in_an_ignored_directory(wd: WorkDir) -> None:
    wd.write(".git/info/exclude", "a/\n")
    wd.write("a/pyproject.toml", DG)
    wd.write("a/src/shop/code.py")
    wd("git add -f a")
    wd.commit("code", add=False)
    assert findings(wd) == [("protection-local", f"a/src/shop/defs/{STATE}")]


def test_state_in_an_ignored_directory_that_is_committed(repository: WorkDir) -> None:
    wd = repository
    wd.write(f"build/lib/{STATE}/K/state")
    wd("git add -f build")
    assert findings(wd, "--staged") == [("state-in-index", f"build/lib/{STATE}/K/state")]
    assert findings(wd)[0] == ("state-in-index", f"build/lib/{STATE}/K/state")


def test_a_directory_that_cannot_be_read(
    repository: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a database in a container leaves its own: it matters unless git ignores it."""
    scandir = os.scandir

    def refusing(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if path.endswith(b"/database"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    for name, value in repository.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "scandir", refusing)
    (repository.path / "build/data/database").mkdir(parents=True)
    assert not check(repository.path).failed
    (repository.path / "data/database").mkdir(parents=True)
    with pytest.raises(ToolFailed, match="data/database cannot be read: Permission denied"):
        check(repository.path)


def test_a_configured_directory_in_an_ignored_one(wd: WorkDir) -> None:
    """The project's own, wherever it is: a rule of this machine is not enough."""
    wd.write("pyproject.toml", SOURCE.format(path="cache/state"))
    wd.commit("code")
    wd.write(".git/info/exclude", "cache/\n")
    wd.write("cache/state/K/state", "some state of more than sixteen characters\n")
    assert findings(wd) == [("protection-local", "cache/state")]


def test_a_false_git_directory_hides_nothing(wd: WorkDir) -> None:
    """git takes what is next to an empty ``.git``."""
    wd.write("code.py")
    wd.commit("code")
    wd.write(f"src/{STATE}/K/state")
    (wd.path / "src/.git").mkdir()
    assert STATE in wd("git add -A --dry-run")
    assert findings(wd) == [("state-unprotected", f"src/{STATE}")]


# --- sparse checkouts -----------------------------------------------------------------------

SPARSE = {
    "cone": ["sparse-checkout", "set", "--cone", "src"],
    "no cone": ["sparse-checkout", "set", "--no-cone", "/src/"],
    "sparse index": ["sparse-checkout", "set", "--cone", "--sparse-index", "src"],
    "no cone, a pattern": ["sparse-checkout", "set", "--no-cone", "/*", "!/.gitignore"],
    "by hand": ["update-index", "--skip-worktree", ".gitignore"],
}


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("protected", [True, False])
def test_a_sparse_checkout(wd: WorkDir, kind: str, *, protected: bool) -> None:
    """git reads the ignore files that are not checked out from the index, and so do we."""
    wd.write(".gitignore", f"{STATE}\n.venv/\n" if protected else "*.log\n")
    wd.write("pyproject.toml", DG)
    wd.write("src/shop/defs/__init__.py", "")
    wd.write("docs/text.md")
    wd.commit("code")
    wd(["git", *SPARSE[kind]])
    if kind == "by hand":
        (wd.path / ".gitignore").unlink()
    state = f"src/shop/defs/{STATE}"
    wd.write(f"{state}/K/state")
    wd.write(f".venv/lib/{STATE}/K/state")
    wd.write(f".venv/lib/{STATE}/.gitignore", "*\n")
    taken = STATE in wd("git status --porcelain --untracked-files=all")
    assert taken is not protected
    found = findings(wd)
    if protected:
        assert found == []
    if protected and not (wd.path / ".gitignore").exists():
        wd("git rm -q --cached --sparse .gitignore")  # now git has no rule any more
        assert ("state-unprotected", state) in findings(wd)
    if not protected:
        assert ("state-unprotected", state) in found


def test_an_ignore_file_that_was_deleted_protects_nothing(repository: WorkDir) -> None:
    wd = repository
    (wd.path / ".gitignore").unlink()
    wd.write(f"src/shop/defs/{STATE}/K/state")
    assert STATE in wd("git add -A --dry-run")
    assert findings(wd) == [("state-unprotected", f"src/shop/defs/{STATE}")]


# --- a workspace ----------------------------------------------------------------------------


def test_one_line_a_workspace(wd: WorkDir) -> None:
    for number in range(7):
        wd.write(f"locations/{number}/pyproject.toml", DG)
        wd.write(f"locations/{number}/src/shop/defs/__init__.py", "")
    wd.commit("code")
    said = wd.guard()
    assert len(said.warnings) == 1
    (warning,) = said.warnings
    assert f"locations/0/src/shop/defs/{STATE}" in warning
    assert "and 3 more" in warning
    assert said.err.count("Why:") == said.err.count("Fix:") == 1
    assert len(json.loads(wd.guard("--format", "json").out)["findings"]) == 7


def test_a_sparse_checkout_and_a_submodule_without_git(wd: WorkDir, tmp_path: Path) -> None:
    """git says nothing about what is in it; the fix that is printed connects it again."""
    library = WorkDir.make(tmp_path / "library")
    library.write("code.py")
    library.commit("code")
    wd.write(".gitignore", f"{STATE}\n")
    wd.write("src/code.py")
    wd.submodule(library, "src/a lib")
    wd.commit("code")
    wd("git sparse-checkout set --no-cone /src/")
    (wd.path / "src/a lib/.git").unlink()
    wd.write(f"src/a lib/{STATE}/K/state")
    said = wd.guard()
    assert said.code == 71
    assert "src/a lib is a submodule without its own repository" in said.err
    wd(["sh", "-c", said.err.partition("Connect it again: ")[2]])
    assert wd.guard().code == 1
    assert "In src/a lib: git add -A would add 1 file" in wd.guard().err


@pytest.mark.parametrize("moment", [(), ("--push",)])
def test_a_partial_clone_of_a_part(wd: WorkDir, tmp_path: Path, moment: tuple[str, ...]) -> None:
    """It lacks the files of other projects: no reason to refuse a commit in this one."""
    for project in ("here", "other"):
        wd.write(f"{project}/pyproject.toml", f'[project]\nname = "{project}"\n')
        wd.write(f"{project}/__init__.py", "")
        wd.write(f"{project}/LICENSE", "the same")
    wd.write("other/.gitignore", "*.log\n")
    wd.commit()
    wd.write("here/pyproject.toml", '[project]\nname = "here"\nversion = "2"\n')
    wd.commit("version 2")
    wd("git config uploadpack.allowFilter true")
    wd("git config uploadpack.allowAnySHA1InWant true")
    clone = WorkDir(tmp_path / "clone", wd.env)
    wd(["git", "clone", "-q", "--filter=blob:none", "--sparse", f"file://{wd.path}", clone.path])
    clone("git sparse-checkout set here")
    clone.write("here/code.py")
    clone("git add here/code.py")
    assert findings(clone, "--staged") == []
    clone.commit(add=False)
    assert findings(clone, "--push") == findings(clone, "--push", "--remote", "fork") == []
    for question in ([], ["--history"]):
        assert findings(clone, *question) == [("project-unread", "other/pyproject.toml")]
    assert clone.guard().code == 0, "what is not checked out is in no build"
    assert clone.guard("--history").code == 1
    wd.write("other/theirs.py", "theirs")
    wd.write("other/more/__init__.py", "")
    wd.commit("theirs")
    clone("git fetch -q")
    clone("git merge -q --no-ff --no-commit origin/main")
    assert findings(clone, "--staged") == [], "a merge brings what others pushed"
    clone.commit(add=False)
    clone.write("other/code.py")
    clone("git add --sparse other/code.py")
    assert findings(clone, "--staged") == [("project-unread", "other/pyproject.toml")]
    assert clone.guard("--staged").code == 1
    clone.commit(add=False)
    assert findings(clone, "--push") == [("project-unread", "other/pyproject.toml")]
    (fix,) = re.findall(r"Fix: (.*)$", clone.guard(*moment).err, re.MULTILINE)
    clone(["sh", "-c", fix])
    for question in ([], ["--push"], ["--history"]):
        assert findings(clone, *question) == []
    source = '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "var"\n'
    clone.write("here/pyproject.toml", source)
    clone.write("here/var/K/state")
    clone.commit("leak")
    clone("git rm -rq here/var here/pyproject.toml")
    clone.commit("cure")
    assert ("state-in-commit", "here/var/K/state") in findings(clone, "--push")
