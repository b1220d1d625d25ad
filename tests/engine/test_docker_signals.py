"""Ctrl-C and SIGTERM: a build that is ended leaves nothing behind, and nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.dockerprojects import EDITABLE, PLUGIN, Project

pytestmark = pytest.mark.engine(offline=True)

_SECONDS = 60.0


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def running(*words: str) -> list[int]:
    """The processes on this machine, in containers too, whose command line has these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if all(word.encode() in line for word in words):
            found.append(int(entry.name))
    return found


@contextmanager
def started(
    argv: list[str | Path], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program as a terminal starts it: in its own group, and heeding Ctrl-C.

    The process that started the tests in the background may have had Ctrl-C ignored.
    """
    with subprocess.Popen(
        ["env", "--default-signal=INT", *argv],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _told(process: subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    return process.returncode is not None


@pytest.mark.parametrize(("number", "buildkit"), [(signal.SIGINT, "1"), (signal.SIGTERM, "0")])
def test_a_signal_ends_the_build_and_leaves_nothing_behind(
    number: signal.Signals, buildkit: str, project: Project, tmp_path: Path
) -> None:
    project.configure()
    pause = f"61{number.value}{buildkit}"
    project.write("Dockerfile", f"{EDITABLE}RUN sleep {pause}\n")
    folder = tmp_path / "temporary"
    folder.mkdir()
    left = project.left_behind()
    environment = project.environment(DOCKER_BUILDKIT=buildkit, TMPDIR=str(folder))
    build = [PLUGIN.with_name("state-bundler"), "build", "docker", "-t", project.name, project.root]
    with started(build, environment) as process:
        wait_for(lambda: running("sleep", pause) or process.poll() is not None)
        # A terminal sends Ctrl-C to all of the group, a supervisor SIGTERM to one process.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=_SECONDS)
    assert process.returncode == 128 + number, said.decode()
    wait_for(lambda: not running("sleep", pause))
    assert b"Stopped by signal" in said
    assert b"nothing was published" not in said
    assert not project.engine.has_image(project.name)
    assert list(folder.iterdir()) == []
    containers, volumes, _ = project.left_behind()
    assert volumes == left[1]
    assert containers == left[0] or buildkit == "0"  # the classic builder keeps the ended step


def test_a_signal_to_docker_ends_its_plugin(project: Project, plugged: dict[str, str]) -> None:
    project.configure()
    for cli in project.engine.clis:
        pause = f"62{len(cli)}"
        project.write("Dockerfile", f"{EDITABLE}RUN sleep {pause}\n")
        environment = {**project.environment(DOCKER_BUILDKIT="0"), **plugged}
        environment.pop("STATE_BUNDLER_DOCKER")
        environment["PATH"] = f"{Path(cli).parent}{os.pathsep}{environment['PATH']}"
        with started([cli, "bundle", "build", "-t", project.name, project.root], environment) as it:
            wait_for(lambda pause=pause: running("sleep", pause))  # type: ignore[misc]  # bound now
            # Docker 20.10 keeps two to itself, hoping that its plugin got them, too.
            wait_for(lambda it=it: _told(it))  # type: ignore[misc]  # bound now
        wait_for(lambda pause=pause: not running("sleep", pause))  # type: ignore[misc]  # as above
        wait_for(lambda: not running("build", "docker", project.name))
        wait_for(lambda: not running("bundle", "build", project.name))
        assert not project.engine.has_image(project.name)
