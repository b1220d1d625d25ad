"""The examples of JSON output have the members that the program prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.environments import ROOT
from tests.support.workdir import WorkDir

_PAGE = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
_EXAMPLES = dict(
    re.findall(r'```json title="state-bundler (\w+) --format json"\n(.*?)```', _PAGE, re.DOTALL)
)
_PROJECT = """\
[[tool.state-bundler.source]]
key = "Catalogue"
command = ["cp", "catalogue.json", "{state_path}"]
path = "src/shop/state"
"""
_ARGUMENTS = {
    "diff": ("oci:build/image", "oci:build/image"),
    "doctor": (),
    "embed": ("oci:build/image", "--tag", "oci:build/out:latest"),
    "guard": (),
    "status": ("oci:build/image",),
    "verify": ("oci:build/image",),
}
# What has members by name, not by meaning.
_MAPS = ("contentDigests",)


def run(folder: Path, *arguments: str) -> str:
    argv = [Path(sys.executable).with_name("state-bundler"), *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wd = WorkDir.make(tmp_path_factory.mktemp("json") / "project")
    wd.write("pyproject.toml", _PROJECT)
    wd.write("catalogue.json", "[1, 2, 3]")
    wd.write("src/shop/__init__.py", "")
    wd.write(".gitignore", "/build/\n/src/shop/state/\n")
    wd("git add .")
    wd.commit("project")
    run(wd.path, "build", "oci", "-o", "build/image")
    return wd.path


def members(value: Any) -> Any:
    """Its form: the names of members, of the first item of a list."""
    if isinstance(value, dict):
        return {name: None if name in _MAPS else members(one) for name, one in value.items()}
    if isinstance(value, list):
        return [members(item) for item in value[:1]]
    return None


@pytest.mark.parametrize("command", sorted(_ARGUMENTS))
def test_an_example_has_the_members_that_are_printed(command: str, project: Path) -> None:
    printed = json.loads(run(project, command, *_ARGUMENTS[command], "--format", "json"))
    assert members(printed) == members(json.loads(_EXAMPLES[command]))


def test_every_example_is_run() -> None:
    assert set(_EXAMPLES) == set(_ARGUMENTS)
