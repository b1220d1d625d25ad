"""A git that hangs or fails while a component copies: no state is published, and the key fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.workdir import WorkDir

# It copies another repository, and goes on whatever happens.
COMPONENT = """\
import shutil, sys
from bundler.component import DefsStateConfig, StateBackedComponent

sys.modules["_state_bundler_copying"]._GIT_SECONDS = 0.5

class Copies(StateBackedComponent):
    defs_state_config = DefsStateConfig("copies")

    def write_state_to_path(self, state_path):
        state_path.write_text("all")
        try:
            shutil.copytree({source!r}, state_path.with_name("project"))
        except Exception:
            pass

    def build_defs_from_state(self, context, state_path):
        pass
"""


def block(other: WorkDir, where: str) -> None:
    path = other.path / where
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def block_by_setting(other: WorkDir) -> None:
    os.mkfifo(other.path / "fifo")
    other(["git", "config", "core.excludesFile", str(other.path / "fifo")])


BLOCKED = {
    "an ignore file": lambda other: block(other, "models/.gitignore"),
    "the topmost ignore file": lambda other: block(other, ".gitignore"),
    "info/exclude": lambda other: block(other, ".git/info/exclude"),
    "core.excludesFile": block_by_setting,
    "the index": lambda other: block(other, ".git/index"),
    "HEAD": lambda other: block(other, ".git/HEAD"),
    "an invalid index": lambda other: other.write(".git/index", "x"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[] if what in ("an ignore file", "HEAD") else pytest.mark.slow)
        for what in BLOCKED
    ],
)
def test_no_state_is_published_without_git_s_word(wd: WorkDir, tmp_path: Path, what: str) -> None:
    other = WorkDir.make(tmp_path / "other")
    other.write("models/a.sql", "select 1")
    other.commit("models")
    BLOCKED[what](other)
    wd.write("src/shop.py", COMPONENT.format(source=str(other.path)))
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\n'
        '[[tool.state-bundler.source]]\ncomponent = "shop:Copies"\npath = "state"\n',
    )
    wd.write(".gitignore", "/state\n")
    program = Path(sys.executable).with_name("state-bundler")
    wd.env["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = wd.run([program, "refresh", "--python", sys.executable])
    assert done.returncode == 71, done
    reported = " ".join(done.stderr.decode().split())
    assert "git did not list" in reported or "git cannot list" in reported
    assert "what it ignores in" in reported
    assert not (wd.path / "state/@manifest.json").exists()
