"""A FIFO among the files that a build packs or reads is named, and never waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.ignore import effective
from bundler.artifacts.python.blocking import refuse_fifos
from bundler.artifacts.python.pex.arguments import parse
from bundler.errors import InputOutputError
from tests.campaigns.fault_campaign import STATES, configure, write_inputs
from tests.support.workdir import WorkDir

PROGRAM = Path(sys.executable).with_name("state-bundler")
# Far above what it takes: nothing is built.
SECONDS = 120
SOURCES = ("-D src", "-Dsrc", "--sources-directory=src", "--so src", "-R src", "-Rsrc")
PACKAGES = ("-P shop@src", "-Pshop@src", "--package=shop@src", "-P src/shop")
PROJECTS = (".", "--project .", "--project=.", "requests . -c shop")


def a_link(path: Path) -> None:
    os.mkfifo(path.parents[3] / "fifo")
    path.symlink_to(path.parents[3] / "fifo")


@pytest.fixture
def shop(wd: WorkDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkDir:
    write_inputs(tmp_path / "inputs", {"a": {"state": "some"}})
    configure(wd.path, tmp_path / "inputs", ["a"])
    wd.write("src/shop/__init__.py", "")
    wd.write(".gitignore", f"/{STATES}\n/dist\n")
    wd.commit("code")
    monkeypatch.chdir(wd.path)
    return wd


def look(arguments: str) -> None:
    for folder in parse(arguments.split()).folders:
        refuse_fifos(folder, "pex")


def refusal(arguments: str) -> str:
    with pytest.raises(InputOutputError) as caught:
        look(arguments)
    assert "pex would read it and block forever" in str(caught.value)
    return f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("kind", [os.mkfifo, a_link])
@pytest.mark.parametrize("name", ["fifo", "data.json", ".hidden", "pyproject.toml", "__main__.py"])
def test_it_is_named(shop: WorkDir, name: str, kind: Callable[[Path], None]) -> None:
    kind(shop.path / "src/shop" / name)
    for arguments in (*SOURCES, *PACKAGES, *PROJECTS):
        assert f"shop/{name} is a FIFO" in refusal(arguments)


@pytest.mark.parametrize("name", ["MANIFEST.in", "README.md", "setup.py", "setup.cfg", "docs/a"])
def test_next_to_the_sources(shop: WorkDir, name: str) -> None:
    (shop.path / "docs").mkdir()
    os.mkfifo(shop.path / name)
    for arguments in PROJECTS:
        assert f"{name} is a FIFO" in refusal(arguments)
    for arguments in (*SOURCES, *PACKAGES):
        look(arguments)


def test_what_is_not_packed_does_not_matter(shop: WorkDir) -> None:
    (shop.path / ".venv").mkdir()
    (shop.path / ".venv/pyvenv.cfg").touch()
    for name in (".venv/fifo", ".git/fifo"):
        os.mkfifo(shop.path / name)
    (shop.path / "src/nowhere").symlink_to("nothing")
    refuse_fifos(shop.path, "the build backend")


@pytest.mark.parametrize("command", ["build pex -o app.pex -- -D src", "build wheel"])
def test_a_build_names_it_and_the_fix_moves_it(shop: WorkDir, command: str) -> None:
    os.mkfifo(shop.path / "src/shop/it's a fifo")
    done = subprocess.run(
        [PROGRAM, *command.split()],
        cwd=shop.path,
        env=shop.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 74, done
    assert "src/shop/it's a fifo is a FIFO" in done.stderr
    shop(["sh", "-c", done.stderr.partition("Fix: Move it away: ")[2].strip()])
    refuse_fifos(shop.path / "src", "pex")


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_the_ignore_rules_of_a_context(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputOutputError, match=f"{name} cannot be read: it is not a regular file"):
        effective(tmp_path, tmp_path / "Dockerfile")
