"""A workspace of many projects with many keys on one machine, built with ``build --each``.

    python benchmarks/scale.py [--projects 100] [--keys 10] [--workers 4] [--milliseconds 50]
        [--separate] [--dagster PYTHON]

With ``--dagster`` they are Dagster projects, and PYTHON has Dagster. With ``--separate`` they are
built once more, by processes that share nothing, as on macOS.

Each key waits so long for its system, as one that is asked over a network does, and writes
its own state. Every project becomes an OCI image with its states inside. Then one project
with all the keys refreshes alone. Prints wall-clock and CPU seconds, the largest memory that a
process of the run had, and what is left over per project and per key; every image is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
_COMPONENT = """\
import time
from bundler.component import DefsStateConfig, StateBackedComponent


class Waits(StateBackedComponent):
    def __init__(self, number):
        self.number = number

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Waits[{self.number:04}]")

    def write_state_to_path(self, state_path):
        time.sleep(%(seconds)s)
        state_path.write_text(str([self.number] * 100))

    def build_defs_from_state(self, context, state_path):
        return None


"""
_INSTANCE = (
    "class Waits%(number)d(Waits):\n    def __init__(self):\n        super().__init__(%(number)d)\n"
)
_DAGSTER_COMPONENT = """\
import asyncio
from dagster import Definitions, Model, Resolvable, StateBackedComponent, component_instance
from dagster.components import DefsStateConfig, DefsStateConfigArgs


class Waits(StateBackedComponent, Model, Resolvable):
    number: int

    @property
    def defs_state_config(self):
        return DefsStateConfig.from_args(
            DefsStateConfigArgs.local_filesystem(), default_key=f"Waits[{self.number:04}]"
        )

    async def write_state_to_path(self, state_path):
        await asyncio.sleep(%(seconds)s)
        state_path.write_text(str([self.number] * 100))

    def build_defs_from_state(self, context, state_path):
        return Definitions()


"""
_DAGSTER_INSTANCE = (
    "@component_instance\ndef waits%(number)d(context) -> Waits:\n"
    "    return Waits(number=%(number)d)\n"
)
_DAGSTER_PROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "%s"
"""
_SEPARATE = """\
from bundler.cli import main
from bundler.refresh.forking import Start
from bundler.workflows import build_all
Start.is_shareable = False
build_all.can_fork = lambda: False
main()
"""


@dataclass(frozen=True)
class Measured:
    """Seconds of the wall clock and of the processors, of a run and of all that it started."""

    wall: float
    cpu: float

    def line(self, what: str, count: int, unit: str) -> str:
        each = f"{1000 * self.wall / count:.0f} ms a {unit}, {1000 * self.cpu / count:.0f} ms CPU"
        return f"{what}: {self.wall:.1f} s, CPU {self.cpu:.1f} s; {each}"


def make_project(
    root: Path, name: str, keys: Sequence[int], seconds: float, *, dagster: bool = False
) -> None:
    """A program with these keys, each a component."""
    package = root / "src" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    text = f'[project]\nname = "{name}"\nversion = "1"\n\n'
    if dagster:
        text += _DAGSTER_PROJECT % name
        package /= "defs"
        package.mkdir()
    else:
        for number in keys:
            text += (
                "[[tool.state-bundler.source]]\n"
                f'component = "{name}.keys:Waits{number}"\npath = "src/{name}/state"\n\n'
            )
    (root / "pyproject.toml").write_text(text)
    component, instance = (
        (_DAGSTER_COMPONENT, _DAGSTER_INSTANCE) if dagster else (_COMPONENT, _INSTANCE)
    )
    instances = "\n\n".join(instance % {"number": number} for number in keys)
    (package / "keys.py").write_text(component % {"seconds": seconds} + instances)


def make_workspace(
    root: Path, projects: int, keys: int, seconds: float, *, dagster: bool = False
) -> None:
    """A git repository with all of them."""
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["projects/*"]\n')
    (root / ".gitignore").write_text("/build\nstate\n.local_defs_state\n")
    for number in range(projects):
        first = number * keys
        name = f"shop_{number:03}"
        numbers = range(first, first + keys)
        make_project(root / "projects" / name, name, numbers, seconds, dagster=dagster)
    make_project(root / "single", "single", range(projects * keys), seconds, dagster=dagster)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)


def measured(
    arguments: Sequence[str],
    cwd: Path,
    log: Path,
    *,
    python: str = sys.executable,
    program: Sequence[str] = ("-m", "bundler"),
) -> Measured:
    """Runs our command line. Where it fails, this ends with what it said.

    python: the projects' interpreter.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, *program, *arguments], cwd=cwd, check=False,
            stdout=output, stderr=subprocess.STDOUT,
            env={
                **os.environ, "CI": "1", "DAGSTER_DISABLE_TELEMETRY": "1",
                "PYTHONPATH": str(_CHECKOUT), "DG_PROJECT_PYTHON_EXECUTABLE": python,
            },
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{arguments} ended with {done.returncode}:\n{log.read_text(errors='replace')}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(time.monotonic() - began, cpu)


def main() -> None:
    """Makes the workspace, builds it twice, refreshes the single project, verifies everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--projects", type=int, default=100)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--milliseconds", type=int, default=50)
    parser.add_argument("--separate", action="store_true")
    parser.add_argument("--dagster", metavar="PYTHON")
    given = parser.parse_args()
    total = given.projects * given.keys
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        root = Path(name)
        seconds, python = given.milliseconds / 1000, given.dagster or sys.executable
        make_workspace(root, given.projects, given.keys, seconds, dagster=bool(given.dagster))
        build = ["build", "--each", "--workers", str(given.workers), "--report", "report.json"]
        image = ["oci", "-o", "{here}/build/{name}:1"]
        print(f"{given.projects} projects of {given.keys} keys, {given.workers} concurrently")
        first = measured([*build, *image], root, root / "log", python=python)
        print(first.line("refreshed and built", given.projects, "project"))
        if given.separate:
            alone = measured(
                [*build, *image], root, root / "log", python=python, program=("-c", _SEPARATE)
            )
            print(alone.line("the same by separate processes", given.projects, "project"))
            first = measured([*build, *image], root, root / "log", python=python)
            print(first.line("once more, forked", given.projects, "project"))
            print(f"shared takes {first.cpu / alone.cpu:.2f} of the CPU of separate processes")
        again = measured(
            [*build, *image, "--refresh", "missing"], root, root / "log", python=python
        )
        print(again.line("built again, state unchanged", given.projects, "project"))
        builds = json.loads((root / "report.json").read_text())["builds"]
        assert [found["exitCode"] for found in builds] == [0] * given.projects
        images = [f"oci:{root}/build/shop_{number:03}:1" for number in range(given.projects)]
        proof = measured(["verify", *images], root, root / "log")
        print(proof.line("verified", given.projects, "proof"))
        single = measured(["refresh"], root / "single", root / "log", python=python)
        print(single.line(f"one project of {total} keys refreshed", total, "key"))
        # Of children: the processes started here inherit no larger figure, this one stays small.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"largest process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
