"""A source whose program is elsewhere in the repository; its state stays in the project."""

from __future__ import annotations

import pytest

from tests.support.workdir import WorkDir

_PROGRAM = "import sys\nopen(sys.argv[1], 'w').write('[1, 2]')\n"
_PYPROJECT = """\
[project]
name = "service"
version = "1"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[[tool.state-bundler.source]]
key = "Rates"
command = ["python", "../tools/rates.py", "{state_path}"]
path = "service/state"
"""


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write("tools/rates.py", _PROGRAM)
    wd.write("service/pyproject.toml", _PYPROJECT)
    wd.write("service/service/__init__.py", "")
    wd.commit("a service and its tools")
    return wd


def _said(wd: WorkDir, command: str, code: int = 0) -> str:
    done = wd.run(command)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == code, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--project service", ""])
def test_every_command_takes_it(options: str, repository: WorkDir) -> None:
    here = repository.at("." if options else "service")

    def run(command: str) -> str:
        return _said(here, f"state-bundler {command} {options}")

    assert "Rates" in run("init --yes")
    repository.commit("init")
    run("refresh")
    assert (repository.path / "service/service/state/Rates/state").read_text() == "[1, 2]"
    assert "Rates" in run("status")
    assert "0 failures" in run("doctor")
    here("state-guard")
    image = repository.path.parent / "image"
    run(f"build oci -o {image}")
    assert "1 state" in _said(here, f"state-bundler verify oci:{image}")
    assert repository("git status --porcelain") == ""


@pytest.mark.slow
def test_a_program_that_is_missing_is_named_before_a_build_and_by_it(repository: WorkDir) -> None:
    file = repository.path / "service/pyproject.toml"
    file.write_text(_PYPROJECT.replace('"python", "../tools', '"no-such-program", "'))
    said = _said(repository, "state-bundler doctor --project service", 1)
    assert "Rates runs no-such-program, which was not found." in said
    said = _said(repository, "state-bundler refresh --project service", 71)
    assert "Rates: the program cannot be started: no-such-program: No such file" in said
    assert "Traceback" not in said
