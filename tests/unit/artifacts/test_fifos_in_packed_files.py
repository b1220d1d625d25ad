"""A FIFO among the files that a build packs or reads is named, and never waited for."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image.engine.ignore import effective
from bundler.artifacts.python.blocking import refuse_fifos, refuse_fifos_of_project
from bundler.artifacts.python.pex.arguments import parse
from bundler.errors import InputOutputError
from bundler.listener import SILENT, Listener
from tests.campaigns.fault_campaign import STATES, configure, write_inputs
from tests.support import forked
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
    parsed = parse(arguments.split())
    for folder in parsed.sources:
        refuse_fifos(folder, "pex")
    for project in parsed.projects:
        refuse_fifos_of_project(project, "pex", SILENT)


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


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        *((name, "") for name in ("README.md", "setup.py", "setup.cfg", "LICENSE", "flat.py")),
        ("MANIFEST.in", None),
        ("flat/data/q", ""),
        ("docs/a", "graft docs"),
        ("docs/a", "include ./docs/a"),
        ("docs/deep/a", "recursive-include docs *"),
        ("docs/a.json", "global-include *.json"),
        *(("docs/a", rule) for rule in ("graft .", "recursive-include . *", "global-include *")),
    ],
)
def test_what_a_backend_reads_next_to_the_sources(
    shop: WorkDir, name: str, manifest: str | None
) -> None:
    shop.write("flat/__init__.py", "")
    if manifest is not None:
        shop.write("MANIFEST.in", f"{manifest}\n")
    (shop.path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(shop.path / name)
    for arguments in PROJECTS:
        assert f"{name} is a FIFO" in refusal(arguments)
    for arguments in (*SOURCES, *PACKAGES):
        look(arguments)


@pytest.mark.parametrize("setting", ['packages = ["run"]', 'include = ["run/**"]', 'x = "run/q"'])
def test_what_the_build_configuration_names(shop: WorkDir, setting: str) -> None:
    text = (shop.path / "pyproject.toml").read_text()
    shop.write("pyproject.toml", f"{text}\n[tool.some-backend]\n{setting}\n")
    (shop.path / "run").mkdir()
    os.mkfifo(shop.path / "run/q")
    assert "run/q is a FIFO" in refusal(".")


@pytest.mark.parametrize("name", ["run/q", "q", "docs/deep/a", ".cache/q", "src.old/q"])
def test_what_a_backend_does_not_read_is_a_warning(shop: WorkDir, name: str) -> None:
    shop.write("MANIFEST.in", "include NEWS *.txt\nrecursive-include data *\n")
    (shop.path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(shop.path / name)
    warnings: list[str] = []
    listener = Listener()
    listener.warning = warnings.append  # type: ignore[method-assign]
    refuse_fifos_of_project(shop.path, "the build backend", listener)
    (warning,) = warnings
    assert warning.startswith(f"{shop.path}/{name} is a FIFO")
    with pytest.raises(InputOutputError, match="is a FIFO"):
        refuse_fifos(shop.path, "pex")


def test_unreadable_folders_and_loops_of_links(
    shop: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(path) == "pgdata":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (shop.path / "pgdata").mkdir()
    (shop.path / "src/shop/loop").symlink_to("loop")
    for arguments in (*PROJECTS, *SOURCES, *PACKAGES):
        look(arguments)
    with pytest.raises(InputOutputError, match="pgdata"):
        look("-D .")


def test_what_is_not_packed_does_not_matter(shop: WorkDir) -> None:
    (shop.path / ".venv").mkdir()
    (shop.path / ".venv/pyvenv.cfg").touch()
    for name in (".venv/fifo", ".git/fifo"):
        os.mkfifo(shop.path / name)
    (shop.path / "src/nowhere").symlink_to("nothing")
    refuse_fifos(shop.path, "the build backend")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build pex -o app.pex -- -D src", "build wheel"])
def test_a_build_names_it_and_the_fix_moves_it(shop: WorkDir, command: str) -> None:
    os.mkfifo(shop.path / "src/shop/it's a fifo")
    done = forked.said(
        "state-bundler", *command.split(), cwd=shop.path, env=shop.env, timeout=SECONDS
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
