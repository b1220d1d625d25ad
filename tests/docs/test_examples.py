"""Runs the commands of each example's README in a copy of it, and compares what they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import ROOT
from tests.support.workdir import WorkDir

EXAMPLES = ROOT / "examples"
# The last one is what the tutorial ends with: `test_tutorial` runs it.
_RUN_HERE = ("monorepo", "no-dagster", "pex")


def test_every_example_is_listed() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert found == {*_RUN_HERE, "dagster-docker"}
    listed = re.findall(r"^\| \[([\w-]+)\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == found


@pytest.mark.parametrize("name", _RUN_HERE)
def test_the_commands_of_an_example_do_what_it_says(name: str, tmp_path: Path) -> None:
    wd = WorkDir.make(tmp_path / "example")
    shutil.copytree(EXAMPLES / name, wd.path, dirs_exist_ok=True)
    wd("git add .")
    wd.commit("example")
    kept = {key: text for key, text in os.environ.items() if not key.startswith("PEX_")}
    env = {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env |= {"PEX_ROOT": str(tmp_path / "pex"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (console,) = re.findall(r"```console\n(.*?)```", (EXAMPLES / name / "README.md").read_text(),
                            re.DOTALL)  # fmt: skip
    for shown in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, output = shown.partition("\n")
        done = subprocess.run(
            ["bash", "-c", command], cwd=wd.path, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert output in ("", done.stdout), command
