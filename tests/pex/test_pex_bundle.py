"""The installed ``pex-bundle``, as a user types it. About 20 s."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pex_projects import PEX, PLACE, output_of, package, wheel

BUNDLE = Path(sys.executable).parent / "pex-bundle"
PYPROJECT = f"""
[project]
name = "shop"
version = "1"
[[tool.state-bundler.source]]
key = "Shop"
command = ["cp", "../state", "{{state_path}}"]
path = "src/{PLACE}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def make_project(folder: Path) -> Path:
    """A project in git whose state is refreshed by copying a file."""
    root = folder / "project"
    package(root / "src", Leftover="on disk")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / ".gitignore").write_text(".local_defs_state/\n*.pex\n")
    (folder / "state").write_text("fetched")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def run(
    project: Path, *arguments: str, command: Path = BUNDLE, **variables: str
) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PEX_")}
    environ |= {"XDG_CACHE_HOME": str(project.parent / "cache"), **variables}
    return subprocess.run(
        [command, *arguments], cwd=project, env=environ, capture_output=True, text=True, check=False
    )


def test_it_builds_with_pex_s_own_arguments_and_ours(project: Path, tmp_path: Path) -> None:
    done = run(
        project, "-D", "src", "-m", "shop", "--bundle-refresh=always", "--venv", "-oapp.pex",
        "--bundle-environment", "staging",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert output_of(project / "app.pex", tmp_path / "root") == "Shop=fetched"
    assert f"{PLACE}: 1 state" in done.stdout


def test_pex_s_variables_reach_it_and_disturb_nothing(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "own root"
    done = run(
        project, "-D", "src", "-m", "shop", "-o", "app.pex",
        PEX_ROOT=str(root), PEX_VERBOSE="1", PEX_MODULE="no.such", PEX_PATH="no-such.pex",
        PEX_INTERPRETER="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pex: Building pex" in done.stderr
    assert f"warning: {root} is used as pex's cache" in done.stderr
    assert any(root.iterdir())
    assert not (tmp_path / "cache").exists()
    assert output_of(project / "app.pex", tmp_path / "root") == "Shop=fetched"


def test_a_pylock_brings_the_package_that_gets_the_state(project: Path, tmp_path: Path) -> None:
    made = wheel(tmp_path / "w")
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    (project / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "hand"\n[[packages]]\nname = "shop"\n'
        'version = "1.0"\n[[packages.wheels]]\n'
        f'name = "{made.name}"\npath = "../w/{made.name}"\nhashes = {{ sha256 = "{digest}" }}\n'
    )
    done = run(project, "--pylock", "pylock.toml", "-m", "shop", "-o", "app.pex")
    assert done.returncode == 0, done.stderr
    assert output_of(project / "app.pex", tmp_path / "root") == "Shop=fetched"


def test_without_states_the_file_is_pex_s_own_byte_for_byte(project: Path) -> None:
    shutil.rmtree(project / "src" / PLACE)
    (project / "src/shop/components.py").write_text("def no_component():\n    return []\n")
    command = 'key = "Shop"\ncommand = ["cp", "../state", "{state_path}"]'
    text = PYPROJECT.replace(command, 'component = "shop.components:no_component"')
    (project / "pyproject.toml").write_text(text)
    build = ("-D", "src", "-m", "shop", "--venv", "--sh-boot", "-o")
    done = run(project, *build, "ours.pex")
    assert done.returncode == 0, done.stderr
    assert run(project, *build, "theirs.pex", command=PEX).returncode == 0
    ours, theirs = project / "ours.pex", project / "theirs.pex"
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_mode == theirs.stat().st_mode


def test_pex_s_own_failure_comes_through(project: Path) -> None:
    done = run(project, "-D", "src", "--no-such-option", "-o", "app.pex")
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stderr
    assert not (project / "app.pex").exists()


def test_without_o_it_says_what_pex_does_and_does_it(project: Path) -> None:
    default = ("--bundle-pex=", "--bundle-key", "Leftover")  # as with a variable that is not set
    done = run(project, *default, "-D", "src", "-m", "shop", "--", "given")
    assert done.returncode == 0
    assert "Without -o, pex creates no file" in done.stderr
    assert "Leftover=on disk" in done.stdout


def test_help_is_pex_s_and_ours(project: Path) -> None:
    done = run(project, "--help")
    assert done.returncode == 0
    assert "`pex --help`" in " ".join(done.stdout.split())
    assert "--bundle-no-guard" in done.stdout


def test_a_scie_is_refused_before_anything_is_refreshed(project: Path) -> None:
    scie = project / "app"
    scie.write_bytes(b"\x7fELF" + bytes(100))
    (project.parent / "state").unlink()
    done = run(project, "update", str(scie), command=BUNDLE.with_name("state-bundler"))
    assert done.returncode == 2
    assert "app is a scie" in done.stderr
    assert "pex3 scie create" in done.stderr
    assert "Refreshing" not in done.stderr


def test_a_pex_that_is_too_old_is_refused_before_anything_is_refreshed(project: Path) -> None:
    """The project's own counts, not the one next to us; a newer one can be named."""
    (project.parent / "state").unlink()
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=project, check=True
    )
    pex = project / ".venv" / "bin" / "pex"
    pex.write_text("#!/bin/sh\necho 2.1.77\n")
    pex.chmod(0o755)
    done = run(project, "-D", "src", "-o", "app.pex", VIRTUAL_ENV="")
    assert done.returncode == 71
    assert f"{pex} is version 2.1.77; the lowest supported version is 2.24.0." in " ".join(
        done.stderr.split()
    )
    assert "Refreshing" not in done.stderr


def test_a_scie_is_refused_with_the_way_to_make_one(project: Path) -> None:
    done = run(project, "-D", "src", "--scie", "eager", "-o", "app.pex")
    assert done.returncode == 2
    assert "pex3 scie create" in done.stderr
