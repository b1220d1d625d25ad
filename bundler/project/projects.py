"""Projects: where they are, what they are made of, and which interpreter they run in.

A *project* is a directory with a pyproject.toml or dg.toml that either declares a Dagster project
(``[tool.dg.project]``, or ``[project]`` in dg.toml) or has its own sources
(``[[tool.state-bundler.source]]``). A *workspace* is a directory that names projects: Dagster's
(``[[tool.dg.workspace.projects]]``) or uv's (``[tool.uv.workspace]``).
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import ConfigurationError, UsageError
from bundler.project.classic_dbt import files, start_of
from bundler.project.config import Config, of_pyproject, pyproject_of, read_toml, table
from bundler.project.no_project import no_project
from bundler.project.trusted_interpreter import refuse_tracked

_OF_PROJECT = re.compile(r"(?m)^\s*\[+\s*tool\s*\.\s*(dg|state-bundler)\b")

# uv's, Poetry's and pdm's, and pixi's.
_ENVIRONMENTS = (".venv", ".pixi/envs/default")


class DagsterModules(msgspec.Struct, frozen=True):
    """The modules of a Dagster project, dotted. target: what a code server loads, if the project
    names it."""

    root: str
    defs: str
    target: str | None = None


class Interpreter(msgspec.Struct, frozen=True):
    """The Python that a project runs in, and the rule by which it was found."""

    path: Path
    found_by: str


class Project(msgspec.Struct, frozen=True):
    """One project. dagster is None for a program without Dagster. workspace: the root that it
    belongs to."""

    root: Path
    name: str
    config: Config
    dagster: DagsterModules | None
    interpreter: Interpreter
    workspace: Path | None = None


class _ProjectFiles(msgspec.Struct, frozen=True):
    """What the files of a directory declare. dg: from dg.toml, or else from pyproject.toml."""

    pyproject: Mapping[str, Any]
    dg: Mapping[str, Any]

    @classmethod
    def read(cls, root: Path) -> _ProjectFiles:
        pyproject = read_toml(pyproject_of(root))
        return cls(pyproject, read_toml(root / "dg.toml") or table(pyproject, "tool", "dg"))


def find(
    directories: Sequence[Path],
    *,
    start: Path | None = None,
    everything: bool | None = None,
    python: Path | None = None,
) -> tuple[Project, ...]:
    """The projects that a command is about.

    directories: from ``--project``. Without any: the project that `start` (the build context, or
    the current directory) is or is in, with `everything` also those that its workspace names; else,
    with `everything`, all projects of the workspace, or all below. everything is None if the
    command has no ``--all``. Raises `ConfigurationError` if a directory is not a project,
    `UsageError` if a workspace root needs a choice.
    """
    here = (start or Path.cwd()).resolve()
    has_all = everything is not None and not directories
    if directories:
        roots = [directory.resolve() for directory in directories]
    elif own := project_above(here):
        roots = projects_of(own) if everything else [own]
    elif members := required_members(here):
        if not everything:
            names = ", ".join(str(member.relative_to(here)) for member in members)
            raise UsageError(
                f"{here} is a workspace of {len(members)} projects: {names}.",
                hint="Select one with --project DIR" + (", or all with --all." if has_all else "."),
            )
        roots = members
    elif everything:
        roots = list(projects_below(here)) or [here]
    else:
        roots = [here]
    return tuple(open_project(root, python=python, has_all=has_all) for root in roots)


def start_for_context(context: Path, dockerfile: Path | None) -> Path:
    """Where to look for an image's project: in the Dockerfile's folder, if that is in the
    context; else in the context or in the current directory. In a monorepo the context is a
    folder above all projects."""
    folder = (dockerfile.parent if dockerfile else context).resolve()
    own = project_above(folder)
    if own is not None and own.is_relative_to(context.resolve()):
        return own
    inside = (path for path in (context, Path.cwd()) if project_above(path.resolve()))
    return next(inside, context)


def open_project(
    root: Path,
    *,
    python: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    has_all: bool = False,
) -> Project:
    """Opens the project in `root`. Raises `ConfigurationError` if there is none.

    has_all: whether ``--all`` would select the projects below it.
    """
    files = _ProjectFiles.read(root)
    config = of_pyproject(files.pyproject, pyproject_of(root))
    dagster = _dagster_modules(root, files)
    if dagster is None and not config.sources:
        required_members(root)
        raise no_project(root, projects_below(root), has_all=has_all)
    workspace = _workspace_above(root)
    return Project(
        root=root,
        name=_name(root, files.pyproject),
        config=config,
        dagster=dagster,
        interpreter=find_interpreter(root, workspace or root, python=python, environ=environ),
        workspace=workspace,
    )


def dagster_modules(root: Path) -> DagsterModules | None:
    """The modules that dg.toml or pyproject.toml names; None if it is not a Dagster project."""
    return _dagster_modules(root, _ProjectFiles.read(root))


def _dagster_modules(root: Path, files: _ProjectFiles) -> DagsterModules | None:
    if "project" not in files.dg:
        return None
    named = table(files.dg, "project")
    root_module = named.get("root_module") or root.name.replace("-", "_")
    defs_module = named.get("defs_module") or f"{root_module}.defs"
    for name in (root_module, defs_module):  # each becomes a path
        if not isinstance(name, str) or "/" in name or not all(name.split(".")):
            raise ConfigurationError(
                f"{root}: {name!r} is not a valid module name.",
                hint="Correct root_module or defs_module in [tool.dg.project].",
            )
    return DagsterModules(root_module, defs_module, named.get("code_location_target_module"))


def workspace_members(root: Path) -> Iterator[Path]:
    """The projects that a workspace root names; empty for anything that is not a workspace."""
    files = _ProjectFiles.read(root)
    uv = table(files.pyproject, "tool", "uv", "workspace")
    excluded = _matched(root, uv.get("exclude"))
    paths = [*_named_by_dg(root, files)]
    paths += [path for path in _matched(root, uv.get("members")) if path not in excluded]
    seen = set()
    for path in map(Path.resolve, paths):
        # uv's patterns may match files, such as a README next to the members.
        if path not in seen and path.is_dir() and is_project(path):
            seen.add(path)
            yield path


def projects_of(root: Path) -> list[Path]:
    """The project in a folder and those that its workspace names; the root of a uv workspace may be
    both. Raises as `required_members` does."""
    members = required_members(root)
    return list(dict.fromkeys([root, *members])) if is_project(root) else members


def projects_in(root: Path) -> Sequence[Path]:
    """The project in this folder and those of its workspace, or all below.

    Raises `ConfigurationError` if there is none.
    """
    root = root.resolve()
    members = projects_of(root) or projects_below(root)
    if not members:
        raise no_project(root, ())
    return members


def required_members(root: Path) -> list[Path]:
    """What `workspace_members` yields.

    Raises `ConfigurationError` if Dagster's workspace names something else, which is left out.
    """
    members = list(workspace_members(root))
    for path in _named_by_dg(root, _ProjectFiles.read(root)):
        if path.resolve() not in members:
            what = "is not a project" if path.is_dir() else "does not exist"
            raise ConfigurationError(
                f"{path}, a project of the workspace in {root}, {what}.",
                hint="Correct its `path` in [[tool.dg.workspace.projects]], or remove the entry.",
            )
    return members


def _named_by_dg(root: Path, files: _ProjectFiles) -> Iterator[Path]:
    named = table(files.dg, "workspace").get("projects", [])
    for project in named if isinstance(named, list) else [None]:
        path = project.get("path") if isinstance(project, Mapping) else None
        if not isinstance(path, str):
            raise ConfigurationError(
                f"{root}: `projects` of the workspace must be a list of tables, each with a path.",
                hint='Write [[tool.dg.workspace.projects]] and path = "…" for each project.',
            )
        yield root / path


def _matched(root: Path, patterns: Any) -> list[Path]:
    """What uv's patterns match in a folder; nothing for what is not a list of patterns."""
    names = [str(each) for each in patterns] if isinstance(patterns, list) else []
    found = (sorted(glob.glob(name, root_dir=root, recursive=True)) for name in names)
    return [root / path for paths in found for path in paths]


def projects_below(root: Path) -> tuple[Path, ...]:
    """Every project below a folder, whether a workspace names it or not.

    A template or a test's input need not be TOML. Raises `ConfigurationError` for a file that is
    neither, but names our table or Dagster's.
    """
    found = {path.parent for path in files(root) if path.name in ("pyproject.toml", "dg.toml")}
    return tuple(path for path in sorted(found) if path != root and _is_project_below(path))


def _is_project_below(root: Path) -> bool:
    try:
        return is_project(root)
    except ConfigurationError:
        texts = [start_of(root / name) for name in ("pyproject.toml", "dg.toml")]
        is_template = any(sign in text for sign in ("{{", "{%") for text in (str(root), *texts))
        if any(map(_OF_PROJECT.search, texts)) and not is_template:
            raise
        return False


def find_interpreter(
    root: Path,
    workspace: Path,
    *,
    python: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Interpreter:
    """The project's interpreter, by the rules that dg, uv and pixi follow, in this order.

    Raises `ConfigurationError` if a named one does not exist, and for one that is committed to the
    repository, unless `python` names it.
    """
    if python is not None:
        is_name = python.name == str(python) and not python.exists()
        on_path = shutil.which(python, path=environ.get("PATH")) if is_name else None
        return _named(Path(on_path or python), "--python")
    found = _found(root, workspace, environ)
    refuse_tracked(found.path, found.found_by)
    return found


def _found(root: Path, workspace: Path, environ: Mapping[str, str]) -> Interpreter:
    if named := environ.get("DG_PROJECT_PYTHON_EXECUTABLE"):
        return _named(Path(named), "DG_PROJECT_PYTHON_EXECUTABLE")
    if named := environ.get("UV_PROJECT_ENVIRONMENT"):
        return _named(workspace / named / "bin" / "python", "UV_PROJECT_ENVIRONMENT")
    for directory in (root, *root.parents):
        for name in _ENVIRONMENTS:
            candidate = directory / name / "bin" / "python"
            if candidate.exists():
                return Interpreter(candidate, f"{candidate.parent.parent}")
        if directory == workspace:
            break
    if active := environ.get("VIRTUAL_ENV"):
        return _named(Path(active) / "bin" / "python", "VIRTUAL_ENV")
    for name in ("python", "python3"):
        if found := shutil.which(name, path=environ.get("PATH")):
            return Interpreter(Path(found), f"{name} on PATH")
    raise ConfigurationError(
        f"No Python was found for {root}.", hint="Pass the project's interpreter with --python."
    )


def _named(path: Path, found_by: str) -> Interpreter:
    if not path.exists():
        raise ConfigurationError(
            f"{path}, the interpreter from {found_by}, does not exist.",
            hint="Create the environment, or pass another interpreter with --python.",
        )
    return Interpreter(path.absolute(), found_by)


def is_project(root: Path) -> bool:
    """Whether a folder declares a Dagster project, or sources."""
    files = _ProjectFiles.read(root)
    own = table(files.pyproject, "tool", "state-bundler")
    return "source" in own or "project" in files.dg


def project_above(start: Path) -> Path | None:
    """The project that a folder is, or is in."""
    return next((path for path in (start, *start.parents) if is_project(path)), None)


def _workspace_above(root: Path) -> Path | None:
    return next((path for path in root.parents if root in workspace_members(path)), None)


def project_name(root: Path) -> str:
    """The name of its distribution; its directory's name if there is none."""
    return _name(root, read_toml(pyproject_of(root)))


def _name(root: Path, pyproject: Mapping[str, Any]) -> str:
    return str(table(pyproject, "project").get("name") or root.name)
