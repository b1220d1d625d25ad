"""What `init` writes, with the build backends for real: the state is in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, packaging
from bundler.setup.file_edits import apply
from bundler.setup.init import plan
from tests.support.init_project import PYPROJECT, make_project

pytestmark = pytest.mark.slow
_STATE = "shop/defs/.local_defs_state/Foo__x__/state"


_BACKENDS = [
    ("hatchling.build", "hatchling"),
    ("setuptools.build_meta", "setuptools"),
    ("poetry.core.masonry.api", "poetry-core"),
]


@pytest.mark.parametrize(("backend", "requires"), _BACKENDS)
def test_after_init_a_wheel_by_way_of_the_sdist_holds_the_state(
    tmp_path: Path, backend: str, requires: str
) -> None:
    root = _with_backend(tmp_path / "shop", PYPROJECT, backend, requires)
    (root / ".gitignore").write_text(".local_defs_state\n")
    state = root / "src" / _STATE
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    (state.parent.parent / ".gitignore").write_text("*\n*/\n.*")
    for module in ("shop", "shop/defs"):
        (root / "src" / module / "__init__.py").write_text("")

    assert _STATE not in _wheel(root, tmp_path / "before")
    apply(plan(survey(root)))
    assert _STATE in _wheel(root, tmp_path / "after")


@pytest.mark.parametrize(("backend", "requires"), _BACKENDS)
def test_after_init_a_wheel_holds_the_states_of_a_program_without_dagster(
    tmp_path: Path, backend: str, requires: str
) -> None:
    places = ("src/shop/state", "src/shop/more/state")
    sources = "".join(
        f'[[tool.state-bundler.source]]\nkey = "{key}"\ncommand = ["true"]\npath = "{place}"\n'
        for key, place in zip("AB", places, strict=True)
    )
    head = PYPROJECT.partition("[tool.dg]")[0]
    root = _with_backend(tmp_path / "shop", head + sources, backend, requires)
    (root / "src/shop/__init__.py").write_text("")
    (root / "src/shop/more").mkdir()
    (root / "src/shop/more/__init__.py").write_text("")
    before = (root / "pyproject.toml").read_text()
    apply(plan(survey(root)))
    for key, place in zip("AB", places, strict=True):
        (root / place / key).mkdir(parents=True)
        (root / place / key / "state").write_text("{}")
    ignored = (root / ".dockerignore").read_text()
    assert all(f"**/{place}" in ignored for place in places)

    assert next(packaging.backend(DoctorContext(survey(root)))).grade == "ok"
    expected = {
        f"{place.removeprefix('src/')}/{key}/state" for place, key in zip(places, "AB", strict=True)
    }
    assert expected <= set(_wheel(root, tmp_path / "after"))

    apply(plan(survey(root), remove=True))
    assert (root / "pyproject.toml").read_text() == before
    finding = next(packaging.backend(DoctorContext(survey(root))))
    assert finding.part == "backend"
    assert "shop/state" in finding.fix or '"state/**"' in finding.fix


def _with_backend(root: Path, text: str, backend: str, requires: str) -> Path:
    text = text.replace("hatchling.build", backend).replace('"hatchling"', f'"{requires}"')
    if requires != "hatchling":
        text = text.replace("[tool.hatch.build.targets.wheel]", "[tool.x]")
    make_project(root, text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


def _wheel(root: Path, folder: Path) -> list[str]:
    """The names in the wheel that is built from the project's sdist."""
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", folder, root], check=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()
