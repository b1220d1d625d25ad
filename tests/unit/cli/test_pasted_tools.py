"""Commands of other tools that messages tell the user to run, pasted from real output."""

from __future__ import annotations

import ensurepip
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.shapes import SHAPES
from tests.support.workdir import WorkDir
from tests.unit.cli.test_printed_commands import BIN, index, paste, said

__all__ = ["index"]  # a fixture

_BACKEND = """\
import zipfile

def build_editable(directory, settings=None, metadata=None):
    name, info = "shop-1-py3-none-any.whl", "shop-1.dist-info"
    about = "Name: shop\\nVersion: 1\\nRequires-Dist: dagster\\n"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\n{about}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def doctor(wd: WorkDir) -> str:
    done = wd.run([BIN / "state-bundler", "doctor"])
    return (done.stdout + done.stderr).decode()


def activate(wd: WorkDir, index: str) -> Path:
    """Creates and activates an environment with pip; returns its site-packages."""
    wd([sys.executable, "-m", "venv", "--without-pip", ".venv"])
    (site,) = (wd.path / ".venv/lib").glob("python*/site-packages")
    # To install pip takes long; it also runs from its wheel, as when `ensurepip` installs it.
    (wheel,) = Path(ensurepip.__file__).with_name("_bundled").glob("pip-*.whl")
    (site / "pip.pth").write_text(str(wheel))
    program = wd.path / ".venv/bin/pip"
    program.write_text('#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n')
    program.chmod(0o755)
    wd.env["PIP_INDEX_URL"] = index
    wd.env["PATH"] = f"{wd.path / '.venv/bin'}:{wd.env['PATH']}"
    return site


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "fix"),
    [
        ({"requirements.txt": "dagster\n"}, "pip install -r requirements.txt"),
        ({"backend.py": _BACKEND}, "pip install -e ."),
    ],
)
def test_an_environment_that_pip_fills(
    wd: WorkDir, index: str, files: dict[str, str], fix: str
) -> None:
    wd.write(
        "pyproject.toml",
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "shop"\nversion = "1"\n[tool.dg.project]\nroot_module = "shop"\n',
    )
    for name, text in files.items():
        wd.write(name, text)
    activate(wd, index)
    (command,) = set(re.findall(r"nstall the project \((pip [^)]*)\)", doctor(wd)))
    assert command == fix
    paste(wd, command)
    assert "with dagster 1.12.0" in doctor(wd)


@pytest.mark.slow
def test_a_package_that_pip_adds(wd: WorkDir, index: str) -> None:
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\n[tool.dg.project]\nroot_module = "shop"\n',
    )
    site = activate(wd, index)
    wd.write(
        f"{site.relative_to(wd.path)}/dagster-1.11.9.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: dagster\nVersion: 1.11.9\n",
    )
    wd.write(f"{site.relative_to(wd.path)}/dagster-1.11.9.dist-info/RECORD", "")
    (command,) = re.findall(r"Fix: (pip install '[^']+')", doctor(wd))
    paste(wd, command)
    assert "with dagster 1.12.0" in doctor(wd)


@pytest.mark.slow
def test_a_manifest_of_dbt_that_a_program_loads(wd: WorkDir) -> None:
    shutil.copytree(SHAPES / "classic_dbt", wd.path, dirs_exist_ok=True)
    wd = wd.at("dagster_project")
    text = " ".join(said(wd, "refresh", code=78).split())
    (command,) = re.findall(r"`(state-bundler init)` writes the source", text)
    paste(wd, f"{command} --yes")
    assert "[[tool.state-bundler.source]]" in (wd.path / "pyproject.toml").read_text()


def test_a_repository_that_git_cannot_read_is_reported_once(wd: WorkDir) -> None:
    wd.write(
        "pyproject.toml",
        '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "state"\n',
    )
    wd.commit("shop")
    wd.write(".git/index", "damaged")
    assert doctor(wd).count("index file smaller than expected") == 1


@pytest.mark.slow
def test_the_scie_of_a_finished_pex(wd: WorkDir) -> None:
    """Making one downloads an interpreter, so this only shows that pex has the command."""
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\n'
        '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "state"\n',
    )
    for option in ("--scie=eager", "--par"):
        text = said(wd, "build", "pex", "--no-guard", "-o", "app.pex", "--", option, code=2)
        (command,) = re.findall(r"`(pex3 scie create)`", text)
        assert "--dest" in paste(wd, f"{command} --help")
    wd.write("app.pex", "\x7fELF")
    (command,) = re.findall(
        r"`(pex3 scie create)`", said(wd, "update", "app.pex", "--no-guard", code=2)
    )
    paste(wd, f"{command} --help")


@pytest.mark.slow
def test_a_folder_for_the_demonstration(wd: WorkDir) -> None:
    wd.write("mine/file")
    (command,) = re.findall(r"state-bundler demo FOLDER", said(wd, "demo", "mine", code=2))
    # Without an index, the demonstration ends once it has written the project.
    wd.env |= {"UV_DEFAULT_INDEX": "http://127.0.0.1:9", "PIP_INDEX_URL": "http://127.0.0.1:9"}
    wd.run(["sh", "-c", command.replace("FOLDER", "new")])
    assert (Path(wd.path) / "new/pyproject.toml").exists()
