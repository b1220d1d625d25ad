"""``guard --fix``: the safe part, and nothing else. And what a wheel would lose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.workdir import CONTENT, STATE, WorkDir

FILE = f"src/defs/{STATE}/Orders/state"


@pytest.fixture
def leaky(wd: WorkDir) -> WorkDir:
    wd.write("code.py")
    wd.write(".gitignore", "*.log")
    wd.commit()
    wd.write(FILE)
    wd("git add -f -A")
    wd.commit("leak", add=False)
    return wd


def test_fix(leaky: WorkDir) -> None:
    said = leaky.guard("--fix")
    assert f"fixed: {FILE} was removed from the index; the file stays." in said.err
    assert said.code == 1  # HEAD still has it: the commit is the user's to make
    assert "is in HEAD, although it is no longer in the index" in said.errors[0]
    assert f"fixed: The rule {STATE} was added to .gitignore; commit that file." in said.err
    assert "fixed:" not in leaky.guard("--fix").err
    assert (leaky.path / FILE).read_text() == CONTENT
    assert (leaky.path / ".gitignore").read_text() == f"*.log\n{STATE}\n"
    leaky.commit("cure")
    assert leaky.guard("--fix").err.startswith("guard: 1 state directory is ignored by git")
    assert leaky("git status --porcelain") == ""


def test_fix_before_the_commit(leaky: WorkDir) -> None:
    assert leaky.guard("--staged", "--fix").code == 0
    assert leaky.guard("--staged").code == 0


def test_fix_of_names(leaky: WorkDir) -> None:
    for name in ("new\nline", ":x", "-n", "st*r", "\udcff"):
        leaky.write(f"src/defs/{STATE}/K/{name}")
    leaky("git add -f -A")
    assert leaky.guard("--staged", "--fix").code == 0
    assert leaky(["git", "ls-files", "src"]) == ""


def test_fix_changes_nothing_else(leaky: WorkDir) -> None:
    leaky.write("code.py", "changed\n")
    leaky.write("staged.py")
    leaky("git add staged.py")
    head = leaky("git rev-parse HEAD")
    leaky.guard("--fix")
    assert leaky("git rev-parse HEAD") == head
    assert leaky("git diff --name-only") == ".gitignore\ncode.py"
    assert "staged.py" in leaky("git diff --cached --name-only")


def test_fix_does_not_write_through_a_link(leaky: WorkDir, tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.write_text("x\n")
    (leaky.path / ".gitignore").unlink()
    (leaky.path / ".gitignore").symlink_to(target)
    said = leaky.guard("--fix")
    assert said.code == 1
    assert ".gitignore is a symbolic link, and git reads no rules from links." in said.err
    assert target.read_text() == "x\n"


def test_the_user_fixes_a_copy(leaky: WorkDir) -> None:
    """Whether a copy of state is a fixture, only its author knows."""
    leaky.guard("--fix")
    leaky.write("fixture.json", CONTENT)
    leaky("git add fixture.json")
    leaky.guard("--fix")
    assert leaky("git ls-files fixture.json") == "fixture.json"


@pytest.mark.parametrize(
    ("backend", "warned"),
    [
        ("hatchling.build", True),
        ("poetry.core.masonry.api", True),
        ("setuptools.build_meta", True),
        ("uv_build", False),
        ("flit_core.buildapi", False),
    ],
)
def test_what_a_wheel_would_lose(wd: WorkDir, backend: str, *, warned: bool) -> None:
    project = (
        f'[tool.dg.project]\nroot_module = "shop"\n[build-system]\nbuild-backend = "{backend}"\n'
    )
    wd.write("pyproject.toml", project)
    wd.write("src/shop/defs/__init__.py", "")
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit()
    said = wd.guard()
    assert said.code == 0
    assert ["from wheels" in line for line in said.warnings] == [True] * warned
    wd.write("pyproject.toml", f'{project}\n[tool.hatch.build]\nartifacts = ["**/{STATE}/**"]\n')
    assert wd.guard().warnings == []


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("hatchling.build", '[tool.hatch.build]\nartifacts = ["/src/shop/state/**"]\n'),
        ("setuptools.build_meta", '[tool.setuptools.package-data]\nshop = ["state/**"]\n'),
    ],
)
def test_what_a_wheel_of_a_program_without_dagster_would_lose(
    wd: WorkDir, backend: str, line: str
) -> None:
    source = (
        '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["true"]\npath = "src/shop/state"\n'
    )
    project = f'{source}[build-system]\nbuild-backend = "{backend}"\n'
    wd.write("pyproject.toml", project)
    wd.write(".gitignore", "/src/shop/state\n")
    wd.commit()
    (finding,) = json.loads(wd.guard("--format", "json").out)["findings"]
    assert (finding["rule"], finding["fix"]) == (
        "wheel-drops-state",
        "state-bundler doctor --fix --project .",
    )
    wd.write("pyproject.toml", project + line)
    assert wd.guard().warnings == []
