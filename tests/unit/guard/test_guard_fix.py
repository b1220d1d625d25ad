"""``guard --fix``: the safe part, and nothing else."""

from __future__ import annotations

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
