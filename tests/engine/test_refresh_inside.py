"""`refresh --in IMAGE`: the components run in a container of the image, by a real engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import PYTHON_BASE, Engine, make_uv_image
from tests.support.environments import ROOT
from tests.support.faultserver import FaultServer

pytestmark = pytest.mark.engine

TOKEN = "canary-token-0123456789"
IMAGE = "sbt/inside:1"
_DOCKERFILE = f"""\
FROM {PYTHON_BASE}
COPY pyproject.toml /app/
COPY src /app/src
RUN echo inside > /etc/only-here
ENV OWN=the-image HOME=/tmp
USER 1234
WORKDIR /app
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("inside") / "context"
    shutil.copytree(ROOT / "tests/projects/refresh_inside", folder)
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    engine.docker("build", "--quiet", "--tag", IMAGE, str(folder))
    return IMAGE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project here: what describes it, and not the code."""
    root = tmp_path / "inner"
    (root / "src").mkdir(parents=True)
    shutil.copy(ROOT / "tests/projects/refresh_inside/pyproject.toml", root)
    (root / ".env").write_text("FROM_FILE=the-file\n")
    return root


def _environment(engine: Engine, tmp_path: Path, **variables: str) -> dict[str, str]:
    return {
        **engine.environment,
        "TMPDIR": str(tmp_path),
        "VENDOR_TOKEN": TOKEN,
        "VENDOR_REGION": "eu",
        "HOME": str(tmp_path.parent / "home"),
        **variables,
    }


@pytest.fixture
def run(engine: Engine, image: str, root: Path, tmp_path: Path) -> Iterator[Run]:
    """Runs a refresh of the parts that are named; afterwards no container may be left."""
    (tmp_path / "tmp").mkdir()

    def refresh(*parts: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        arguments = ("--attempts", "1", "--timeout", "6s", "--in-network", "host")
        done = subprocess.run(
            [sys.executable, "-m", "bundler", "refresh", "--in", image, *arguments],
            cwd=root,
            env=_environment(engine, tmp_path / "tmp", PARTS=" ".join(parts), **variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done

    yield refresh
    assert _containers(engine) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def _containers(engine: Engine) -> list[str]:
    named = ("ps", "--all", "--quiet", "--filter", "name=^state-bundler-")
    return engine.docker(*named).stdout.decode().split()


@pytest.mark.parametrize("variables", [{}, {"THREAD": "1"}])
def test_states_come_from_the_image_and_are_published_here(
    run: Run, root: Path, variables: dict[str, str]
) -> None:
    run("good", "tree", **variables)
    states = root / "src/inner/state"
    assert json.loads((states / "Part__good__/state").read_text()) == {
        "file": "inside\n",
        "user": 1234,
        "VENDOR_REGION": "eu",
        "FROM_FILE": "the-file",
        "HOME": "/tmp",
        "OWN": "the-image",
    }
    assert (states / "Part__tree__/state/deep/b").stat().st_size == 100_000
    assert (states / "Command/state").read_text() == "eu"
    done = subprocess.run([sys.executable, "-I", states / "@verify.py"], check=False)
    assert done.returncode == 0
    run("good")  # a command starts from its last state, in the container, too
    assert (states / "Command/state").read_text() == "eueu"


def test_what_goes_wrong_inside_is_what_goes_wrong_outside(run: Run, root: Path) -> None:
    with FaultServer() as server:
        names = ("good", "link", "fifo", "its_path", "secret", "asks", "raises", "hangs")
        done = run(*names, code=77, VENDOR_URL=server.of("503"))
        port = server.port
    for sentence in (
        "Part[link]: The state contains a symbolic link",
        "Part[fifo]: The state contains a FIFO",
        "Part[its_path]: state contains the path of the staging directory",
        "Part[secret]: state contains the value of VENDOR_TOKEN",
        f"Part[asks]: 127.0.0.1:{port} answered 503",
        "Part[raises]: the component failed: RuntimeError: no [VENDOR_TOKEN]",
        "Part[hangs]: it did not finish within 6 s",
    ):
        assert sentence in done.stderr
    assert "| so far so good" in done.stderr
    assert not (root / "src/inner/state/Part__good__").exists()


def test_what_cannot_run_the_project_is_an_error(engine: Engine, run: Run, root: Path) -> None:
    (root / "pyproject.toml").write_text(
        '[[tool.state-bundler.source]]\ncomponent = "nowhere:x"\npath = "state"\n'
    )
    assert "nowhere:x of inner cannot be loaded: ModuleNotFoundError" in run("x", code=78).stderr
    engine.docker("image", "tag", make_uv_image(engine), IMAGE + "-empty")
    arguments = ("refresh", "--in", IMAGE + "-empty")
    done = subprocess.run(
        [sys.executable, "-m", "bundler", *arguments],
        cwd=root,
        env=_environment(engine, root.parent / "tmp"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 71
    assert "cannot run the refresh" in done.stderr
    assert "--in-python" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_container_and_no_command_line_contains_a_value(
    engine: Engine, image: str, root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "bundler", "refresh", "--in", image],
        cwd=root,
        env=_environment(engine, tmp_path / "tmp", PARTS="good hangs"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Part[good]  done" in line:
            break
    assert _containers(engine) != []
    assert TOKEN not in "".join(_command_lines())
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert process.returncode == 130, error
        assert "Traceback" not in error
    end = time.monotonic() + 20
    while _containers(engine):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert TOKEN not in engine.docker("history", "--no-trunc", image).stdout.decode()
    assert not [line for line in _command_lines() if "sleep\x0077" in line]


def _command_lines() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found
