"""The interpreter that ``--in IMAGE`` runs the components with: the environment of the project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.refresh import inside

_START = "import os, sys; os.write(int(sys.argv[3]), sys.executable.encode())"


@pytest.mark.parametrize(
    ("home", "variables"),
    [
        (".venv", {}),
        (".pixi/envs/default", {}),
        (".cache/pypoetry/virtualenvs/shop-x-py3.12", {}),
        ("cache/virtualenvs/shop-x-py3.12", {"POETRY_CACHE_DIR": "cache"}),
        ("environments/shop", {"POETRY_VIRTUALENVS_PATH": "environments"}),
        ("", {}),
    ],
)
def test_the_environment_of_the_project_is_found(
    home: str, variables: dict[str, str], tmp_path: Path
) -> None:
    expected = Path(sys.executable)
    if home:
        expected = tmp_path / home / "bin" / "python"
        expected.parent.mkdir(parents=True)
        expected.symlink_to(sys.executable)
    files = json.dumps({"start.py": _START}).encode()
    done = subprocess.run(
        [sys.executable, "-c", inside._BOOTSTRAP, "command"],
        input=f"{len(files):010}".encode() + files,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), **variables},
        stdout=subprocess.PIPE,
        check=True,
    )
    ready, _, python = done.stdout.partition(b"\n")
    assert json.loads(ready)["event"] == "ready"
    assert python.decode() == str(expected)
