"""Whether a wheel has the state: found by building one of a copy of the project.

A wheel is built directly, as pip does, and by way of an sdist, as `uv build` and `python -m build`
do. This runs the project's build code (`setup.py`, build hooks, an in-tree backend), as each
build does, but in a temporary copy, for a limited time, without variables whose names say that
they are secret, and without network where this machine can take it away.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Literal

import msgspec

from bundler.artifacts.running import without_network
from bundler.errors import ToolFailed
from bundler.project.config import pyproject_of, read_toml, table
from bundler.project.environment_tools import find_uv
from bundler.project.survey import Survey
from bundler.setup.doctor.environment import ask_python
from bundler.setup.doctor.probe_copy import MadeUpFile, ProjectCopy, copy_project
from bundler.system.process import run
from bundler.system.secret_names import is_about_a_secret
from bundler.system.url_credentials import has_credentials

# The name of the folder that has the copy.
PREFIX = "state-bundler-probe-"
# For one wheel or sdist, which usually takes less than one.
_DEADLINE_SECONDS = 30.0
# A copy has no history that a version could be derived from.
_VERSIONS = {
    "SETUPTOOLS_SCM_PRETEND_VERSION": "0.1",
    "PDM_BUILD_SCM_VERSION": "0.1",
    "PBR_VERSION": "0.1",
    "POETRY_DYNAMIC_VERSIONING_BYPASS": "0.1",
    "UV_DYNAMIC_VERSIONING_BYPASS": "0.1",
}
# For programs that have a network all the same: a proxy that nobody answers at.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {
    "UV_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
    **{f"{kind}_proxy": _NOWHERE for kind in ("http", "https", "all", "HTTP", "HTTPS", "ALL")},
    **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
}
_BUILDS_WHEELS_ALONE = "setuptools>=70.1"
# How uv summarises a failure, after what the backend printed.
_UV_FAILED = "error: Failed to build"
_UV_CAUSE = "cause: "
_EXCEPTION = re.compile(r"[A-Za-z_.]+(?:Error|Exception): \S")
_DATA = (".data/purelib/", ".data/platlib/")

# Builds a "wheel" or an "sdist" of a folder into another; returns the file.
Kind = Literal["wheel", "sdist"]
Build = Callable[[Kind, Path, Path], Path]
Change = Callable[[ProjectCopy], object]
# Whether the wheel is built directly, as pip does, or from an sdist, as uv does.
Route = Literal["direct", "sdist"]


def unchanged(_: ProjectCopy) -> None:
    """Changes nothing."""


class Probe:
    """A copy of a project, and what builds wheels of it."""

    def __init__(self, copy: ProjectCopy, build: Build, folder: Path) -> None:
        self.copy = copy
        self._build = build
        self._folder = folder

    def lost(self, route: Route, change: Change = unchanged) -> tuple[MadeUpFile, ...]:
        """What a wheel lacks of the made-up state. change: is made to the copy before.

        Raises `ToolFailed` if it cannot be built, and `OSError`.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            place = Path(name)
            copy = self.copy.again(place / "project")
            change(copy)
            source = copy.root
            if route == "sdist":
                sdist = self._build("sdist", source, place / "sdist")
                source = _unpacked(sdist, place / "unpacked")
            return _lost(self._build("wheel", source, place / "wheel"), copy.files)


@contextmanager
def probing(survey: Survey, python: Path | None) -> Iterator[Probe]:
    """A probe of the project; removed at the end. python: the project's interpreter.

    Raises `ToolFailed` if its build backend is not available here, and `OSError`.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        build = _builder(survey.root, python)
        yield Probe(copy_project(survey, Path(name, "project")), build, Path(name))


def _lost(wheel: Path, files: Sequence[MadeUpFile]) -> tuple[MadeUpFile, ...]:
    wanted = {os.fsencode(file.path): file for file in files}
    sizes = set(map(len, wanted))
    with _readable(wheel), zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.file_size in sizes and (file := wanted.get(archive.read(member))):
                name = member.filename
                for data in _DATA:
                    name = name.partition(data)[2] or name
                if file.is_at(name):
                    del wanted[os.fsencode(file.path)]
    return tuple(wanted.values())


def _unpacked(sdist: Path, into: Path) -> Path:
    with _readable(sdist), tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # not before 3.10.12
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(into)  # noqa: S202  # the filter is set
    return next(into.iterdir(), into)


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise ToolFailed(f"{archive.name} cannot be read: {error}.") from error


# --- who builds -------------------------------------------------------------------------------


def _builder(root: Path, python: Path | None) -> Build:
    """The backend in the project's interpreter or in ours; else uv, with what its cache has."""
    system = _BuildSystem.read(root)
    problems = []
    for interpreter in dict.fromkeys((python or Path(sys.executable), Path(sys.executable))):
        problem = system.problem_in(interpreter)
        if problem is None:
            return partial(_by_hooks, interpreter)
        problems.append(problem)
    if uv := find_uv():
        chosen = [] if python is None else ["--python", str(python)]
        return partial(_by_uv, [uv, "build", "--no-python-downloads", *chosen], problems[0])
    raise ToolFailed(problems[0])


class _BuildSystem(msgspec.Struct, frozen=True):
    """backend: the module that must be importable; empty for one that the project brings along."""

    backend: str
    requires: tuple[str, ...]

    @classmethod
    def read(cls, root: Path) -> _BuildSystem:
        from build import BuildException, ProjectBuilder

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of misspelt tables
            try:
                requires = ProjectBuilder(root).build_system_requires
            except BuildException as error:
                raise ToolFailed(str(error)) from error
        found = table(read_toml(pyproject_of(root)), "build-system")
        backend = str(found.get("build-backend", "setuptools.build_meta")).partition(":")[0]
        return cls("" if "backend-path" in found else backend, tuple(sorted(requires)))

    def problem_in(self, python: Path) -> str | None:
        """Why this interpreter cannot run the backend; None if it can."""
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            wanted = [Requirement(text) for text in self.requires]
        except InvalidRequirement as error:
            return f"[build-system] requires is invalid: {error}"
        names = {"setuptools", "wheel", *(it.name for it in wanted)}
        try:
            there = ask_python(python, names, self.backend)
        except ToolFailed as error:
            return str(error)
        wanted = [
            it
            for it in wanted
            if it.name != "wheel" and (it.marker is None or it.marker.evaluate(there.markers))
        ]
        if self.backend.startswith("setuptools.") and there.versions["wheel"] is None:
            wanted.append(Requirement(_BUILDS_WHEELS_ALONE))
        for requirement in wanted:
            version = there.versions[requirement.name]
            if version is None:
                return f"{requirement.name} is not installed in {python}"
            if not requirement.specifier.contains(version, prereleases=True):
                return f"{python} has {requirement.name} {version}, not {requirement.specifier}"
        return None if there.has_module else f"{self.backend} is not installed in {python}"


def _by_hooks(python: Path, kind: Kind, root: Path, out: Path) -> Path:
    from build import BuildBackendException, BuildException, ProjectBuilder

    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

    def runner(
        cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        _run(cmd, Path(cwd or root), {"PATH": path, **(extra_environ or {})})

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Path(ProjectBuilder(root, str(python), runner).build(kind, out))
    except BuildBackendException as error:
        cause = error.exception
        raise ToolFailed(cause.what if isinstance(cause, ToolFailed) else str(error)) from error
    except BuildException as error:
        raise ToolFailed(str(error)) from error


def _by_uv(command: Sequence[str], problem: str, kind: Kind, root: Path, out: Path) -> Path:
    """problem: why no interpreter that there is has the backend."""
    try:
        _run([*command, f"--{kind}", "--out-dir", str(out), str(root)], root, {})
    except ToolFailed as error:
        if "not found in the cache" in error.what:
            raise ToolFailed(f"{problem}, and uv's cache does not have it") from error
        raise
    ending = ".whl" if kind == "wheel" else ".tar.gz"
    return next(path for path in out.iterdir() if path.name.endswith(ending))


def _run(argv: Sequence[str], cwd: Path, extra: Mapping[str, str]) -> None:
    start = time.monotonic()
    env = _environment(extra)
    try:
        done = run([*_isolation(), *argv], cwd=cwd, env=env, timeout=_DEADLINE_SECONDS)
    except ToolFailed as error:
        if time.monotonic() - start < _DEADLINE_SECONDS:
            raise
        raise ToolFailed(f"The build did not finish within {_DEADLINE_SECONDS:g} s.") from error
    if done.exit_code:
        said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        raise ToolFailed(_reason(said).replace(f"{cwd}/", ""))


def _reason(said: str) -> str:
    """What a backend said last, or its last exception; what uv said, if that is all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    before = takewhile(lambda line: not line.startswith(_UV_FAILED), lines)
    own = [line for line in before if not line.startswith("Building ")]
    causes = [line for line in lines if line.startswith(_UV_CAUSE)]
    errors = [line for line in own if _EXCEPTION.match(line)]
    reason = (errors or own or causes or ["The build failed without a message."])[-1]
    return reason.removeprefix(_UV_CAUSE).strip()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not is_about_a_secret(name)
        and not has_credentials(value)
        and not name.startswith("GIT_")
        and name != "PYTHONPATH"
    }
    # What a build imports may be an editable installation: the project itself.
    return {**kept, **_VERSIONS, **_OFFLINE, "PYTHONDONTWRITEBYTECODE": "1", **extra}


@cache
def _isolation() -> tuple[str, ...]:
    """Without network, and with the end of every process that the build has started."""
    without = without_network()
    command = (*without, "--pid", "--fork", "--kill-child")
    if without and run([*command, "true"]).exit_code == 0:
        return command
    return without
