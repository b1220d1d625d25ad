"""Builds many projects, each in its own process, some of them concurrently, with one report.

A build needs its own environment, directory and terminal. In a process for each, one that fails, or
uses all the memory, does not affect the others. The output of each goes to its own file. Where that
is safe, these processes are forks of this one, which has imported the program, and so are their
workers (`bundler.refresh.forking`).
"""

from __future__ import annotations

import os
import re
import select
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundler.artifacts.image.engine.arguments import fields_of, read
from bundler.errors import BundlerError, ChildFailed, ConfigurationError, UsageError, exit_code_of
from bundler.project.config import pyproject_of
from bundler.project.projects import project_name, projects_in
from bundler.refresh.forking import ForkServers, ask_parent
from bundler.refresh.surroundings import ONE_OF_ALL
from bundler.system.atomic import io_errors
from bundler.system.process import Logged, can_fork

_POLL_SECONDS = 0.05
_LEVELS = 2  # of folders for logs, below the current directory

# A build mostly waits for the network and for other programs.
_DEFAULT_WORKERS = 4
_NAME, _PATH, _HERE = "{name}", "{path}", "{here}"


@dataclass(frozen=True)
class ProjectBuild:
    """One project's build. argv: what runs, in the project's directory. log: for its output.

    arguments: the part of argv after the program.
    """

    name: str
    root: Path
    argv: tuple[str, ...]
    log: Path
    arguments: tuple[str, ...] = ()

    @property
    def result(self) -> Path:
        """The file to which the build writes its `BuildResult`."""
        return self.log.with_suffix(".json")


class BuildResult(msgspec.Struct, frozen=True):
    """What a build reports to the process that started it: its result, or why it failed."""

    artifact: str = ""
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a build ended.

    said: its stdout, stripped. result: empty if the process ended before it could report one.
    seconds: its wall-clock time.
    """

    job: ProjectBuild
    exit_code: int
    seconds: float
    said: str
    result: BuildResult


def is_one_of_all() -> bool:
    """Whether the process that builds all projects started this one."""
    return bool(os.environ.get(ONE_OF_ALL))


def report_result(result: BuildResult) -> None:
    """Writes the result for the process that builds all projects, if that started this one."""
    path = os.environ.get(ONE_OF_ALL)
    if path:
        with io_errors(Path(path)):
            Path(path).write_bytes(msgspec.json.encode(result))


def failed(failures: Sequence[BundlerError]) -> BuildResult:
    said = [
        f"{error.title} ({error.exit_code}): {error.what}"
        + (f"\n  Fix: {error.hint}" if error.hint else "")
        for error in failures
    ]
    return BuildResult(why="\n".join(said))


def build_all(
    here: Path,
    arguments: Sequence[str],
    workers: int | None,
    *,
    program: Sequence[str],
    logs: Path,
    begins: Callable[[int, int], None],
    ended: Callable[[Outcome], None],
    build: Callable[[Sequence[str]], int],
) -> tuple[list[Outcome], int]:
    """Builds every project here. Returns how each ended, and the exit code for all of them.

    program, arguments: of each build, see `jobs_of`. begins: called with the number of projects,
    and of those that are built concurrently. ended, build: see `run_all`.
    """
    jobs = jobs_of(projects_in(here), program, arguments, here, logs)
    workers = min(workers or _DEFAULT_WORKERS, len(jobs))
    begins(len(jobs), workers)
    outcomes = run_all(jobs, workers, ended, build=build)
    failures = [ChildFailed(it.job.name, it.exit_code) for it in outcomes if it.exit_code]
    return outcomes, exit_code_of(failures)


def jobs_of(
    roots: Sequence[Path], program: Sequence[str], arguments: Sequence[str], here: Path, logs: Path
) -> list[ProjectBuild]:
    """A job for each project.

    In the arguments ``{name}`` is the project's name, ``{path}`` its path below `here`, ``{here}``
    `here` itself. Raises `UsageError` if two of them would write the same artifact.
    """
    jobs: list[ProjectBuild] = []
    writers: dict[str, str] = {}
    stems: set[str] = set()
    for root in roots:
        path = os.path.relpath(root, here)
        name = _safe(project_name(root), root)
        values = {_NAME: name, _PATH: path, _HERE: str(here)}
        filled = tuple(_filled(argument, values) for argument in arguments)
        for target in set(_targets(filled, root, name)) or {shlex.join(filled)}:
            if (other := writers.setdefault(target, path)) != path:
                raise UsageError(
                    f"{other} and {path} (named {name}) would write the same artifact.",
                    hint="Use {name} in its name, as in -t 'shop/{name}:1.4'; or {path}, if two "
                    "projects have the same name.",
                )
        stem = path.replace(os.sep, "__") if path != "." else name
        while stem in stems:
            stem += "_"
        stems.add(stem)
        jobs.append(ProjectBuild(name, root, (*program, *filled), logs / f"{stem}.log", filled))
    return jobs


def _targets(arguments: Sequence[str], root: Path, name: str) -> Iterator[str]:
    kind, found = arguments[0], read(arguments[1:])
    outputs = found.all("--output") or (("dist",) if kind == "wheel" else ())
    settings = [word.partition("=")[::2] for word in found.all("--set")]  # of bake's targets
    set_outputs = [value for name, value in settings if name.endswith((".output", ".output+"))]
    fields = [fields_of(output) for output in (*outputs, *set_outputs)]
    yield from found.all("--tag")
    yield from (value for name, value in settings if name.endswith((".tags", ".tags+")))
    named = (it.get("name", "") for it in fields if "dest" not in it)
    yield from filter(None, ",".join(named).split(","))
    paths = [it["dest"] for it in fields if "dest" in it]
    if kind == "bake":  # its names are in its files, which may be each project's own
        far = [word for word in found.positional if "://" in word]
        files = far or found.all("--file") or ("docker-bake.hcl",)
        own = (file if "://" in file else os.path.abspath(root / file) for file in files)
        yield shlex.join([*own, *arguments])
    for path in (*paths, *found.all("--iidfile"), *found.all("--metadata-file")):
        # A folder may be for the wheels of all projects, whose files have their normalized names.
        wheel = re.sub(r"[-_.]+", "-", name).lower() if kind == "wheel" else ""
        yield os.path.abspath(root / path / wheel)


def _safe(name: str, root: Path) -> str:
    """A project's name as a part of file names."""
    if "/" in name or not name.isprintable() or not name.strip("."):
        raise ConfigurationError(
            f"{pyproject_of(root)}: {name!r} is not a valid project name.",
            hint="Correct `name` in [project]: letters, digits, dots, dashes and underscores.",
        )
    return name


def _filled(argument: str, values: Mapping[str, str]) -> str:
    for mark, value in values.items():
        argument = argument.replace(mark, value)
    return argument


def run_all(
    jobs: Sequence[ProjectBuild],
    workers: int,
    told: Callable[[Outcome], None],
    *,
    build: Callable[[Sequence[str]], int] | None = None,
) -> list[Outcome]:
    """Runs all jobs, regardless of failures; told: called as each one ends.

    build: does in a forked process what the rest of a job's argv says, after the program, where
    that is safe. The outcomes are in the jobs' order. If we are interrupted, so are the running
    jobs.
    """
    for job in jobs:
        _clear(job)
    # A table of keys is invalid in a file.
    quiet = {"CI": "1", **os.environ, "NO_COLOR": "1"}
    servers = ForkServers()
    runs: list[_Run] = []
    try:
        while len(runs) < len(jobs) or any(run.outcome is None for run in runs):
            running = [run for run in runs if run.outcome is None]
            if len(running) < workers and len(runs) < len(jobs):
                runs.append(_Run(jobs[len(runs)], quiet, build, servers, running))
                continue
            for run in running:
                if (outcome := run.settle()) is not None:
                    told(outcome)
            _serve(running, servers)
    except BaseException:
        for run in runs:  # one that waits for an answer would not notice the signal
            run.child.close()
        Logged.ask_to_end(run.process for run in runs if run.outcome is None)
        raise
    finally:
        for run in runs:
            run.close()
        servers.close()
    return [run.outcome for run in runs if run.outcome is not None]


def _clear(job: ProjectBuild) -> None:
    """Makes room for what a job writes."""
    written = [job.log, job.result, *list(job.log.parents)[:_LEVELS]]
    links = [path for path in written if path.is_symlink()]
    if links:
        raise ConfigurationError(
            f"{links[0]} is a symbolic link, so the log of {job.name} would be written elsewhere.",
            hint="Remove the link.",
        )
    with io_errors(job.log):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.result.unlink(missing_ok=True)


class _Run:
    """A job under way, and at its end its outcome."""

    def __init__(
        self,
        job: ProjectBuild,
        environ: Mapping[str, str],
        build: Callable[[Sequence[str]], int] | None,
        servers: ForkServers,
        others: Sequence[_Run],
    ) -> None:
        """others: whose connections are not this one's."""
        self.job = job
        self.outcome: Outcome | None = None
        self._began = time.monotonic()
        self.child, parent = socket.socketpair()

        def forked() -> int:
            for connection in (self.child, *(other.child for other in others)):
                connection.close()
            servers.forget()
            ask_parent(parent)
            return build(job.arguments) if build is not None else 0

        with parent:
            self.process = Logged(
                job.argv,
                job.log,
                cwd=job.root,
                env={**environ, ONE_OF_ALL: str(job.result)},
                forked=forked if build is not None and can_fork() else None,
            )

    def settle(self) -> Outcome | None:
        """Its outcome, if it has just ended."""
        code = self.process.poll()
        if code is None:
            return None
        seconds = time.monotonic() - self._began
        said = self.process.end().decode(errors="replace").strip()
        self.outcome = Outcome(self.job, code, seconds, said, _result_of(self.job))
        return self.outcome

    def close(self) -> None:
        self.child.close()
        if self.outcome is None:
            self.process.end()


def _serve(running: Sequence[_Run], servers: ForkServers) -> None:
    """Answers the builds for a moment."""
    open_ones = [run.child for run in running if run.child.fileno() >= 0]
    readable, _, _ = select.select(open_ones, [], [], _POLL_SECONDS)
    for child in readable:
        if not servers.serve(child):
            child.close()


def _result_of(job: ProjectBuild) -> BuildResult:
    with io_errors(job.result):
        if not job.result.exists():  # it was killed, or another program's error ended it
            return BuildResult()
        return msgspec.json.decode(job.result.read_bytes(), type=BuildResult)
