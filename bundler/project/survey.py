"""Describes a project from its files alone: nothing is imported or asked.

The basis for `init`'s changes and `doctor`'s checks. It is lenient: both are for projects that are
only half set up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.project.classic_dbt import ClassicDbt, classic_dbt
from bundler.project.config import of_pyproject, pyproject_of, read_toml, table
from bundler.project.layout import dockerfiles_in, import_path, repository_of
from bundler.project.projects import DagsterModules, dagster_modules
from bundler.state.bundle import STATE_DIRECTORY
from bundler.state.source_path import path_problem

# The first part of build-backend -> the backend's usual name
_BACKENDS = {
    "flit_core": "flit",
    "hatchling": "hatchling",
    "pdm": "pdm",
    "poetry": "poetry",
    "setuptools": "setuptools",
    "uv_build": "uv_build",
}
# Folders that a build leaves in the project.
_BUILT = ("build", "dist")


@dataclass(frozen=True)
class Together:
    """Projects that are configured together.

    root: where their common configuration is written. registry: where their images go; empty if
    unknown.
    """

    root: Path
    projects: tuple[Path, ...]
    registry: str = ""


@dataclass(frozen=True)
class Survey:
    """root: the project. repository: its work tree. pyproject: its tables. backend: the build
    backend's name; None if nothing builds a distribution. places: of the state directories, where
    the project's states are or will be, relative to the root of its imports. dockerfiles: relative
    to the root. together: what is configured with it. classic_dbt: of a project whose only state is
    a dbt manifest, for which `init` writes a source."""

    root: Path
    repository: Path | None
    pyproject: Mapping[str, Any]
    dagster: DagsterModules | None
    backend: str | None
    places: Mapping[PurePosixPath, str]
    dockerfiles: tuple[PurePosixPath, ...]
    together: Together
    classic_dbt: ClassicDbt | None = None

    @property
    def state_directories(self) -> tuple[PurePosixPath, ...]:
        """Relative to the root."""
        return tuple(self.places)

    @property
    def outer(self) -> Path:
        """The folder for what belongs to the whole repository, or to all projects."""
        return self.repository or self.together.root


def survey(root: Path, together: Together | None = None) -> Survey:
    """Describes the project in `root`. Raises `ConfigurationError` for invalid TOML."""
    root = root.resolve()
    pyproject = read_toml(pyproject_of(root))
    dagster = dagster_modules(root)
    classic = classic_dbt(root) if dagster is None and _may_be_classic(root, pyproject) else None
    places = dict(_places(root, pyproject, dagster))
    if classic is not None and classic.home == root:
        path = PurePosixPath(classic.state_path)
        places.setdefault(path, import_path(path.parts))
    return Survey(
        root=root,
        repository=repository_of(root),
        pyproject=pyproject,
        dagster=dagster,
        backend=_backend(root, pyproject),
        places=places,
        dockerfiles=tuple(PurePosixPath(path.name) for path in dockerfiles_in(root)),
        together=together or Together(root, (root,)),
        classic_dbt=classic,
    )


def _may_be_classic(root: Path, pyproject: Mapping[str, Any]) -> bool:
    """Whether nothing is configured except, possibly, the source of a dbt project."""
    sources = table(pyproject, "tool", "state-bundler").get("source", [])
    commands = [
        each.get("command", []) if isinstance(each, Mapping) else None
        for each in (sources if isinstance(sources, list) else [None])
    ]
    if not all(isinstance(command, list) for command in commands):
        of_pyproject(pyproject, pyproject_of(root), {})  # raises with the reason
    return all(
        isinstance(command, list) and command[:2] == ["dbt", "parse"] for command in commands
    )


def _backend(root: Path, pyproject: Mapping[str, Any]) -> str | None:
    named = table(pyproject, "build-system").get("build-backend")
    if named is None:
        # Without the table, pip assumes setuptools; uv treats the project as one that is not built.
        is_built = "build-system" in pyproject or (root / "setup.py").is_file()
        return "setuptools" if is_built else None
    first = str(named).split(".")[0].split(":")[0]
    return _BACKENDS.get(first, first)


def _places(
    root: Path, pyproject: Mapping[str, Any], dagster: DagsterModules | None
) -> Iterator[tuple[PurePosixPath, str]]:
    if dagster is not None:
        module = PurePosixPath(*dagster.defs.split("."))
        folder = _folder_of(root, pyproject, module)
        yield folder / STATE_DIRECTORY, f"{module}/{STATE_DIRECTORY}"
    sources = table(pyproject, "tool", "state-bundler").get("source", [])
    for source in sources if isinstance(sources, list) else []:
        path = source.get("path") if isinstance(source, Mapping) else None
        if isinstance(path, str) and path_problem(path) is None:
            relative = PurePosixPath(path)
            yield relative, str(source.get("place", import_path(relative.parts)))


def _folder_of(root: Path, pyproject: Mapping[str, Any], module: PurePosixPath) -> PurePosixPath:
    """Where a module is: below the root or `src`, or where a setting of the build backend says."""
    package, *below = module.parts
    homes = list(_homes(root, pyproject, package))
    # A folder of charts or tests may have the package's name, too.
    for content in filter(None, ("/".join(below), "__init__.py", ".")):
        for home in homes:
            if (root / home).is_dir() and (root / home / content).exists():
                return PurePosixPath(home, *below)
    renamed = table(pyproject, "tool", "setuptools", "package-dir").get(package)
    return PurePosixPath(renamed, *below) if isinstance(renamed, str) else module


def _homes(root: Path, pyproject: Mapping[str, Any], package: str) -> Iterator[str]:
    """Where a package may be, the usual places first."""
    yield from (f"src/{package}", package)
    module_root = table(pyproject, "tool", "uv", "build-backend").get("module-root", "")
    yield f"{module_root or '.'}/{package}"
    renamed = table(pyproject, "tool", "setuptools", "package-dir").get(package)
    if isinstance(renamed, str):
        yield renamed
    found = sorted(root.glob(f"[!.]*/{package}"))
    yield from (f"{each.parent.name}/{package}" for each in found if each.parent.name not in _BUILT)
