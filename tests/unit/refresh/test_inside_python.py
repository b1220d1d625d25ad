"""The interpreter that ``--in IMAGE`` runs the components with: the environment of the project."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bundler.refresh import definitions, inside

_PYTHON = Path(sys.executable).with_name("python")
_POETRY = ".cache/pypoetry/virtualenvs"
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
    expected = _environment(tmp_path / home) if home else _PYTHON
    assert _chosen(tmp_path, **variables) == str(expected)
    assert _chosen_for_definitions(tmp_path, **variables) == str(expected)


@pytest.mark.parametrize("home", [".venv", ".pixi/envs/default", f"{_POETRY}/shop-x-py3.12"])
def test_an_interpreter_that_the_user_names_precedes_each_environment(
    home: str, tmp_path: Path
) -> None:
    _environment(tmp_path / home)
    assert _chosen(tmp_path, python=str(_PYTHON)) == str(_PYTHON)
    assert _chosen_for_definitions(tmp_path, "given") == str(_PYTHON)


def test_several_environments_of_poetry_are_not_guessed_between(tmp_path: Path) -> None:
    tool, shop = (_environment(tmp_path / _POETRY / name) for name in ("a-tool", "shop"))
    with pytest.raises(subprocess.CalledProcessError) as raised:
        _chosen(tmp_path)
    message = f"it has several Poetry environments: {tool}, {shop}"
    assert raised.value.stderr.decode().strip() == message
    assert raised.value.stdout == b""
    assert _chosen(tmp_path, PATH=str(shop.parent)) == str(shop)
    own = _environment(tmp_path / ".venv")
    assert _chosen(tmp_path) == str(own)


def _environment(home: Path) -> Path:
    python = home / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def _chosen(root: Path, python: str | None = None, **variables: str) -> str:
    files = json.dumps({"start.py": _START}).encode()
    done = subprocess.run(
        inside.program_of("command", python),
        input=f"{len(files):010}".encode() + files,
        cwd=root,
        env={"PATH": str(_PYTHON.parent), "HOME": str(root), "TMPDIR": str(root), **variables},
        capture_output=True,
        check=True,
    )
    ready, _, chosen = done.stdout.partition(b"\n")
    assert json.loads(ready)["event"] == "ready"
    return chosen.decode()


def _chosen_for_definitions(root: Path, *arguments: str, **variables: str) -> str:
    program, states = b"import sys; print(sys.executable, end='')", io.BytesIO()
    tarfile.open(fileobj=states, mode="w").close()
    done = subprocess.run(
        ["python", "-c", inside.FIND_PYTHON + definitions._BOOTSTRAP, *arguments],
        input=f"{len(program):010}".encode() + program + states.getvalue(),
        cwd=root,
        env={"PATH": str(_PYTHON.parent), "HOME": str(root), "TMPDIR": str(root), **variables},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()
