"""Symbolic links at any level of a path: a link is a file for git, and nothing is behind it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.workdir import STATE, WorkDir

DG = '[tool.dg.project]\nroot_module = "shop"\n'
SOURCE = '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "{path}"\n'
TEXT = "some state, of more than sixteen characters\n"
MOMENTS = ([], ["--staged"], ["--history"], ["--push"])


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    """A project with a rule that every clone has."""
    wd.write(".gitignore", f"{STATE}\n")
    wd.write("pyproject.toml", DG)
    wd.write("src/shop/defs/__init__.py", "")
    wd.commit("code")
    return wd


def findings(wd: WorkDir, *arguments: str) -> list[tuple[str, str]]:
    said = wd.guard(*arguments, "--format", "json")
    assert said.code in (0, 1), said
    return [(each["rule"], each["where"]) for each in json.loads(said.out)["findings"]]


def is_clean(wd: WorkDir) -> None:
    for moment in MOMENTS:
        assert findings(wd, *moment) == [], moment


def link(wd: WorkDir, path: str, target: str | Path) -> None:
    (wd.path / path).parent.mkdir(parents=True, exist_ok=True)
    (wd.path / path).symlink_to(target)


@pytest.mark.parametrize("ignored", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize(
    "name", ["dg.toml", pytest.param("pyproject.toml", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "target",
    [
        *("inside", "outside", "ignored", "another repository"),
        *(
            pytest.param(target, marks=pytest.mark.slow)
            for target in ("dangling", "circle", "file", "the top")
        ),
    ],
)
def test_a_package_behind_a_link(
    repository: WorkDir, tmp_path: Path, name: str, target: str, *, ignored: bool
) -> None:
    """A cache with a link to a package, and a project file next to it, as a PEX_ROOT has."""
    wd = repository
    if ignored:
        wd.write(".git/info/exclude", "pex_root/\n")
    text = DG if name == "pyproject.toml" else '[project]\nroot_module = "shop"\n'
    wd.write(f"pex_root/venvs/1/{name}", text)
    wd.write("elsewhere/shop/defs/__init__.py", "")
    (tmp_path / "outside/shop/defs").mkdir(parents=True)
    wd.write("cache/.gitignore", "*\n")
    wd.write("cache/shop/defs/__init__.py", "")
    wd("git init -q other")
    wd.write("other/shop/defs/__init__.py", "")
    targets = {
        "inside": wd.path / "elsewhere/shop",
        "outside": tmp_path / "outside/shop",
        "ignored": wd.path / "cache/shop",
        "dangling": wd.path / "nowhere",
        "circle": wd.path / "pex_root/venvs/1/shop",
        "file": wd.path / "pyproject.toml",
        "another repository": wd.path / "other/shop",
        "the top": wd.path,
    }
    link(wd, "pex_root/venvs/1/shop", targets[target])
    is_clean(wd)
    wd("git add -A -- pex_root" if not ignored else "git add -f pex_root")
    is_clean(wd)
    wd.commit("links", add=False)
    is_clean(wd)


@pytest.mark.parametrize("at", ["src", "src/shop", "src/shop/defs"])
def test_the_project_s_own_package_behind_a_link(repository: WorkDir, at: str) -> None:
    """The state is where the link leads: by its name it is found, and judged there."""
    wd = repository
    (wd.path / "real").mkdir()
    (wd.path / at).rename(wd.path / "real/it")
    link(wd, at, os.path.relpath(wd.path / "real/it", (wd.path / at).parent))
    wd.commit("link")
    is_clean(wd)
    below = "src/shop/defs".removeprefix(at).strip("/")
    real = os.path.normpath(f"real/it/{below}/{STATE}")
    wd.write(f"{real}/K/state")
    is_clean(wd)
    (wd.path / ".gitignore").unlink()
    assert ("state-unprotected", real) in findings(wd)


@pytest.mark.parametrize("level", ["the directory", "above it", "two levels"])
def test_a_configured_directory_behind_a_link(wd: WorkDir, level: str) -> None:
    """What is written there is in another place of the repository, which is judged."""
    wd.write("pyproject.toml", SOURCE.format(path="data/now/state"))
    wd.write("code.py")
    (wd.path / "real/now/state").mkdir(parents=True)
    if level == "the directory":
        link(wd, "data/now/state", wd.path / "real/now/state")
    elif level == "above it":
        link(wd, "data/now", wd.path / "real/now")
    else:
        link(wd, "data", "first")
        link(wd, "first", "real")
    wd.commit("links")
    wd.write("real/now/state/K/state", TEXT)
    assert findings(wd) == [("state-unprotected", "real/now/state")]
    wd("git add -A")
    for moment in ([], ["--staged"]):
        assert findings(wd, *moment)[0] == ("state-in-index", "real/now/state/K/state")
    wd.commit("leak", add=False)
    assert ("state-in-commit", "real/now/state/K/state") in findings(wd, "--history")


@pytest.mark.parametrize("named", [True, False])
def test_a_state_directory_that_is_an_ignored_link_out_of_the_repository(
    repository: WorkDir, tmp_path: Path, *, named: bool
) -> None:
    wd = repository
    outside = tmp_path / "outside"
    (outside / "K").mkdir(parents=True)
    (outside / "K/state").write_text(TEXT)
    path = f"src/shop/defs/{STATE}"
    if not named:
        path = "var/state"
        wd.write("pyproject.toml", DG + SOURCE.format(path=path))
        wd.write(".gitignore", f"{STATE}\n/var/state\n")
        wd.commit("feed")
    link(wd, path, outside)
    is_clean(wd)


@pytest.mark.parametrize("target", ["outside", "dangling", "circle"])
def test_a_link_that_git_would_take(repository: WorkDir, tmp_path: Path, target: str) -> None:
    """A rule that ends in a slash does not match a link; the fix that is printed does."""
    wd = repository
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit("a rule for directories")
    (tmp_path / "outside").mkdir()
    path = f"src/shop/defs/{STATE}"
    link(
        wd,
        path,
        {"outside": tmp_path / "outside", "dangling": "/nowhere/x", "circle": STATE}[target],
    )
    assert path in wd("git add -A --dry-run")
    assert findings(wd) == [("protection-missing", path)]
    assert f"git add -A would add {path}" in wd.guard().err
    assert wd.guard("--strict").code == 1
    (finding,) = json.loads(wd.guard("--format", "json").out)["findings"]
    wd(["sh", "-c", finding["fix"]])
    assert path not in wd("git add -A --dry-run")
    is_clean(wd)


def test_a_configured_directory_in_a_submodule(wd: WorkDir, tmp_path: Path) -> None:
    library = WorkDir.make(tmp_path / "library")
    library.write("code.py")
    library.commit("code")
    wd.submodule(library, "lib")
    sources = [SOURCE.format(path=path) for path in ("lib/state", "there/state")]
    wd.write("pyproject.toml", "".join(sources))
    link(wd, "there", "lib/other")
    wd.commit("code")
    wd.write("lib/state/K/state", TEXT)
    wd.write("lib/other/state/K/state", TEXT)
    found = findings(wd)
    assert ("state-unprotected", "lib/state") in found
    assert ("state-unprotected", "lib/other/state") in found


def test_a_directory_of_the_index_that_is_a_link_now(repository: WorkDir, tmp_path: Path) -> None:
    wd = repository
    wd.write("app/pyproject.toml", DG)
    wd.write("app/src/shop/defs/__init__.py", "")
    wd.commit("app")
    (wd.path / "app").rename(tmp_path / "app")
    link(wd, "app", tmp_path / "app")
    is_clean(wd)


def test_a_link_that_is_named_as_an_argument(repository: WorkDir, tmp_path: Path) -> None:
    wd = repository
    wd.write("real/state/K/state", TEXT)
    link(wd, "there", "real/state")
    assert ("state-unprotected", "real/state") in findings(wd, "there")
    wd("git add real")
    assert findings(wd, "--staged", "there") == [("state-in-index", "real/state/K/state")]


def test_links_inside_a_state_directory(repository: WorkDir, tmp_path: Path) -> None:
    wd = repository
    directory = f"src/shop/defs/{STATE}"
    wd.write(f"{directory}/K/state")
    for name, target in (("out", tmp_path), ("loop", "loop"), ("gone", "gone-too"), ("up", "..")):
        link(wd, f"{directory}/{name}", target)
    is_clean(wd)
    (wd.path / ".gitignore").unlink()
    assert "would add 5 files" in wd.guard().err
