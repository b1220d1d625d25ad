"""Checks that the state directories of a project's sources are used for nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import ConfigurationError
from bundler.project.config import Config
from bundler.project.projects import DagsterModules
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.source_path import ADVICE, holds, parts_of
from bundler.state.statedir import StateDir


def refuse_shared(config: Config, dagster: DagsterModules | None) -> None:
    """Raises `ConfigurationError` for a path that others use, as far as files tell.

    The guard judges what git tracks below a directory that we published. Raises `ToolFailed` if git
    cannot say what it tracks.
    """
    for path in dict.fromkeys(source.path for source in config.sources):
        refuse_used(config, dagster, path.as_posix())
        directory = config.file.parent / path
        if not os.path.lexists(directory / MANIFEST_NAME):
            StateDir(directory, path.as_posix(), config.allowed_paths).check()


def refuse_used(config: Config, dagster: DagsterModules | None, path: str) -> None:
    """Raises `ConfigurationError` for a path that leads through a link, or that contains code or
    the home directory."""
    root = config.file.parent
    at = root
    for part in parts_of(path):
        at = at / part
        if at.is_symlink() or (at.exists() and not at.is_dir()):
            kind = "a symbolic link" if at.is_symlink() else "not a directory"
            raise ConfigurationError(f"{config.file}: path {path!r}: {at} is {kind}.", hint=ADVICE)
    used = next((each for each in _used(root, config, dagster) if holds(path, each)), None)
    if used is not None:
        raise ConfigurationError(
            f"{config.file}: path {path!r} contains {used}, which is not state.", hint=ADVICE
        )


def _used(root: Path, config: Config, dagster: DagsterModules | None) -> Iterator[str]:
    """What a project has besides state, relative to its root."""
    components = (source.component or "" for source in config.sources)
    modules = {name.partition(":")[0].rpartition(".")[0] for name in components}
    if dagster is not None:
        modules |= {dagster.root, dagster.defs}
    packages = [module.replace(".", "/") for module in sorted(modules) if module]
    yield from ("src", *packages, *(f"src/{package}" for package in packages))
    home = Path(os.path.realpath(os.path.expanduser("~")))
    if home.is_relative_to(root):
        yield home.relative_to(root).as_posix()
