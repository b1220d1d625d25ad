"""What is built is what is installed: the wheel, the sdist, an editable install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.cli.commands import _COMMANDS
from bundler.project.config import read_toml
from bundler.setup.init.precommit import entry
from bundler.version import __version__
from tests.support.environments import ROOT

UV = [sys.executable, "-m", "uv", "--quiet"]
READ_TEMPLATES = (
    "from bundler.system.packaged_files import template_files\n"
    "print(*sorted(path for path, _ in template_files('shop')), sep='\\n')\n"
)


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder far from the checkout to run it in."""

    home: Path
    elsewhere: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))
        }
        return subprocess.run(
            [self.home / "bin" / argv[0], *argv[1:]],
            cwd=self.elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows of the repository, as it is in the work tree now, and nothing else."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in _tracked("."):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*UV, "build", "--out-dir", folder, checkout], check=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = _environment(tmp_path_factory.mktemp("installed"), str(built.wheel))
    return Installed(home, tmp_path_factory.mktemp("elsewhere"))


def _environment(home: Path, *requirements: str) -> Path:
    python = home / "bin" / "python"
    subprocess.run([*UV, "venv", "--clear", "--python", sys.executable, home], check=True)
    subprocess.run([*UV, "pip", "install", "--python", python, *requirements], check=True)
    return home


def _tracked(folder: str) -> set[str]:
    """The files below a folder of the repository that git knows, without those just deleted."""
    found = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--", folder], capture_output=True, check=True
    )
    names = os.fsdecode(found.stdout).split("\0")
    return {name for name in names if name and os.path.lexists(ROOT / name)}


def _wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


# --- contents ---------------------------------------------------------------------------------


def test_the_wheel_has_all_modules_templates_and_hooks_inside_the_package(built: Built) -> None:
    names = _wheel_names(built.wheel)
    assert {f"bundler/{path}" for path in _tracked("templates") | _tracked("hooks")} <= names
    assert {path for path in _tracked("bundler") if path.endswith((".py", ".typed"))} <= names
    assert {name.partition("/")[0] for name in names} == {
        "bundler",
        "state_bundler-" + built.wheel.name.split("-")[1] + ".dist-info",
    }
    assert [name for name in names if name.endswith(".pyc")] == []


def test_a_wheel_straight_from_the_checkout_is_the_one_from_the_sdist(
    checkout: Path, built: Built, tmp_path: Path
) -> None:
    subprocess.run([*UV, "build", "--wheel", "--out-dir", tmp_path, checkout], check=True)
    (direct,) = tmp_path.glob("*.whl")
    assert _wheel_names(direct) == _wheel_names(built.wheel)


def test_the_sdist_has_what_is_needed_to_build_and_to_test(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "tests/conftest.py"} <= names
    assert _tracked("templates") | _tracked("hooks") <= names


# --- installed --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in _COMMANDS)])
def test_every_command_of_the_wheel_has_its_help(
    installed: Installed, command: tuple[str, ...]
) -> None:
    done = installed.run("state-bundler", *command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: state-bundler")


def test_every_console_script_starts(installed: Installed) -> None:
    scripts = read_toml(ROOT / "pyproject.toml")["project"]["scripts"]
    failed = {name: installed.run(name, "--help").stderr for name in scripts}
    assert {name: said for name, said in failed.items() if "Traceback" in said} == {}


def test_the_module_is_the_command(installed: Installed) -> None:
    as_module = installed.run("python", "-m", "bundler", "--version")
    assert as_module.stdout == installed.run("state-bundler", "--version").stdout
    assert as_module.stdout.startswith("state-bundler, version ")


def test_the_installed_package_works_without_the_checkout(installed: Installed) -> None:
    (installed.elsewhere / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    done = installed.run("state-bundler", "init", "--yes")
    assert done.returncode == 0, done.stderr
    assert installed.run("state-bundler", "verify", ".").returncode == 76


def test_the_installed_package_finds_its_templates(installed: Installed) -> None:
    done = installed.run("python", "-I", "-c", READ_TEMPLATES)
    assert ".gitignore" in done.stdout.split()
    assert len(done.stdout.split()) == len(_tracked("templates/shop"))


def test_an_editable_install_finds_templates_and_hooks(checkout: Path, tmp_path: Path) -> None:
    home = _environment(tmp_path / "env", "--no-deps", "--editable", str(checkout))
    script = f"{READ_TEMPLATES}import bundler.hooks\n"
    done = subprocess.run(
        [home / "bin" / "python", "-I", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) >= {"pyproject.toml", "src/shop/definitions.py"}


# --- requirements -----------------------------------------------------------------------------


def _names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in requirements)
    return {re.sub(r"[-_.]+", "-", match.group()).lower() for match in found if match}


def test_the_lock_has_every_requirement_and_names_no_host() -> None:
    text = (ROOT / "requirements-dev.txt").read_text()
    tables = read_toml(ROOT / "pyproject.toml")
    wanted = _names(
        [
            *tables["project"]["dependencies"],
            *(
                item
                for extra in tables["project"]["optional-dependencies"].values()
                for item in extra
            ),
            *tables["dependency-groups"]["dev"],
        ]
    )
    assert wanted - _names(text.splitlines()) == set()
    assert "://" not in text
    assert "--" not in text


def test_the_sample_project_runs_on_what_the_tests_run_on() -> None:
    ours = ROOT / "tests" / "requirements" / "dagster.txt"
    assert (ROOT / "templates" / "shop" / "requirements.txt").read_bytes() == ours.read_bytes()


# --- the pre-commit entry ---------------------------------------------------------------------


def test_the_entry_that_init_writes_stops_a_commit_with_state(
    installed: Installed, built: Built, tmp_path: Path
) -> None:
    """By the real pre-commit: with the guard on PATH, and as it installs the wheel by itself.

    The wheel is a file here, which no package index has: so init writes the first.
    """
    repository = tmp_path / "shop"
    (repository / "src" / "shop" / "defs").mkdir(parents=True)
    (repository / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTHON"))},
        "PRE_COMMIT_HOME": str(tmp_path / "pre-commit"),
        "PIP_FIND_LINKS": str(built.wheel.parent),
        "PATH": f"{installed.home / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        command = ["git", "-C", repository, *identity, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    git("init", "--quiet")
    done = installed.run("state-bundler", "init", "--yes", "--project", str(repository))
    assert done.returncode == 0, done.stderr
    pre_commit = [sys.executable, "-m", "pre_commit", "install"]
    subprocess.run(pre_commit, cwd=repository, env=environment, check=True, capture_output=True)

    git("add", "--all")
    clean = git("commit", "--message=clean")
    assert clean.returncode == 0, clean.stdout + clean.stderr

    state = repository / "src" / "shop" / "defs" / ".local_defs_state" / "Foo__x__" / "state"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    git("add", "--force", str(state))
    for language in ("system", "python"):
        configuration = repository / ".pre-commit-config.yaml"
        assert f"language: {language}" in configuration.read_text()
        stopped = git("commit", "--message=with state")
        assert stopped.returncode == 1
        said = stopped.stdout + stopped.stderr
        assert "src/shop/defs/.local_defs_state/Foo__x__/state" in said
        configuration.write_text("repos:\n" + entry("  ", f"state-bundler=={__version__}"))
        git("add", str(configuration))


# --- what must not be in the repository -------------------------------------------------------


def test_no_file_names_a_package_registry_or_a_folder_of_one_machine() -> None:
    """The names are put together here, so that this file is none of those it finds."""
    hosts = [
        ("py", "pi.org"),
        ("files.python", "hosted.org"),
        ("npm", "js.org"),
        ("deb.", "debian.org"),
    ]
    folders = [("/wo", "rk/main"), ("/wo", "rk/shared"), ("/tm", "p/w/")]
    words = ["".join(parts).encode() for parts in hosts + folders]
    found = {
        name: word
        for name in _tracked(".")
        if (ROOT / name).is_file()
        for word in words
        if word in (ROOT / name).read_bytes()
    }
    assert found == {}
