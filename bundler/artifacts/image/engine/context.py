"""The build context without the state: ignore rules, or an archive."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.dockerfile import instructions
from bundler.artifacts.image.engine.ignore import (
    IGNORE_FILE,
    DockerIgnoreRule,
    effective,
    excluded,
    parse,
    quoted,
    walk,
)
from bundler.artifacts.image.engine.left_out import LeftOut, Names, find
from bundler.errors import InputOutputError, unreadable
from bundler.project.projects import dagster_modules
from bundler.state.bundle import Bundle

_DBT_PROJECT = "dbt_project.yml"
# What dbt writes next to its project at each refresh, which would invalidate the layer cache.
_DBT_LEFTOVERS = ("target", "logs")
# Folders in which no dbt project is looked for.
_NOT_SEARCHED = {".git", ".venv", "venv", "node_modules", "site-packages", "__pycache__"}
_PACKAGED = re.compile(r"\.(whl|pex|tar\.gz|tgz|zip)\b")
_CONFIGURATION = ("pyproject.toml", "dg.toml")
_DOCKERFILE = "Dockerfile.state-bundler"


def withheld_rules(
    root: Path, bundles: Sequence[Bundle], left_out: LeftOut | None = None
) -> list[str]:
    """Ignore rules for the state directories below a context, what dbt leaves next to their
    projects, and what else is left out."""
    top = root.resolve()
    paths = [bundle.root.resolve() for bundle in bundles]
    for project in _dbt_projects(root, bundles):
        paths += [project / name for name in _DBT_LEFTOVERS]
    inside = [path.relative_to(top).as_posix() for path in paths if path.is_relative_to(top)]
    rules = [quoted(path) for path in inside if path != "."]
    return [*rules, *(left_out.rules if left_out else ())]


def shown(arguments: Arguments, bundles: Sequence[Bundle]) -> Iterator[str]:
    """A message for each named context in which the build would see a state.

    Such a context only has its own rules: none can be given next to the Dockerfile.
    """
    for named in arguments.given("--build-context"):
        name, _, where = named.partition("=")
        root = Path(where)
        if not root.is_dir():
            continue
        ignored = effective(root, None)
        rules = parse(ignored)
        if credentials := find(root, ignored, Names.of("", "", ignored, {})).credentials:
            yield (
                f"--build-context {name} gives the build access to {', '.join(credentials)}. To "
                f"keep that out of the image, add it to {root / IGNORE_FILE}."
            )
        for rule in withheld_rules(root, bundles):
            if not excluded(rule.replace("\\", ""), rules):
                yield (
                    f"--build-context {name} contains {rule}: new state will invalidate the "
                    f"cache. Add that path to {root / IGNORE_FILE}."
                )


def missing_configuration(
    root: Path, project: Path, dockerfile: str, rules: Sequence[DockerIgnoreRule]
) -> list[str]:
    """The files by which Dagster finds the project, if the context has none of them.

    A Dockerfile that creates such a file, or copies it from elsewhere, is left to the load check,
    as is one that copies a package, which may contain it.
    """
    top = root.resolve()
    names = [name for name in _CONFIGURATION if (project / name).is_file()]
    paths = [os.path.relpath((project / name).resolve(), top) for name in names]
    elsewhere = any(
        any(name in f"{found.text}\n{found.body}" for name in _CONFIGURATION)
        if found.name not in ("COPY", "ADD") or found.body or "--from" in found.text
        else _PACKAGED.search(found.text)
        for found in instructions(dockerfile)
    )
    if elsewhere or dagster_modules(project) is None:
        return []
    return paths if all(excluded(path, rules) for path in paths) else []


def _dbt_projects(root: Path, bundles: Sequence[Bundle]) -> Iterator[Path]:
    """The dbt projects in the context from which the states were made."""
    known = {
        file.sha256
        for bundle in bundles
        for state in bundle.manifest.states
        for file in state.files
        if file.path.rpartition("/")[2] == _DBT_PROJECT
    }
    if not known:
        return
    states = {bundle.root.resolve() for bundle in bundles}
    for folder, names, files in os.walk(root):
        names[:] = [
            name
            for name in names
            if name not in _NOT_SEARCHED and (Path(folder) / name).resolve() not in states
        ]
        if _DBT_PROJECT in files and _digest(Path(folder) / _DBT_PROJECT) in known:
            yield Path(folder).resolve()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # no state was made from it


class ClassicContext:
    """A context as an archive, as the classic builder's own client sends it."""

    def __init__(
        self,
        root: Path,
        ignored: str,
        withheld: Sequence[str],
        dockerfile: Path | None,
        text: bytes,
    ) -> None:
        self._root = root
        self._ignored = ignored
        self._rules = parse("\n".join([ignored, *withheld]))
        self._text = text
        self._inside = _inside(root, dockerfile)
        self.dockerfile = self._inside or _DOCKERFILE

    def write(self, stream: BinaryIO) -> None:
        """Writes the archive. Raises `InputOutputError` for a file that cannot be read."""
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for path, source in walk(self._root, self._rules):
                if path not in (self.dockerfile, IGNORE_FILE):
                    _add(archive, path, source)
            # The builder needs both, and removes from the context what the rules exclude.
            ignore_file = self._root / IGNORE_FILE
            if self._inside is not None:
                _add(archive, self._inside, self._root / self._inside)
                if ignore_file.exists():
                    _add(archive, IGNORE_FILE, ignore_file)
            else:
                _add_made(archive, self.dockerfile, self._text)
                also = "" if ignore_file.exists() else f"{IGNORE_FILE}\n"
                rules = f"{self._ignored}\n{_DOCKERFILE}\n{also}"
                _add_made(archive, IGNORE_FILE, os.fsencode(rules))


def _inside(root: Path, dockerfile: Path | None) -> str | None:
    """A Dockerfile's path in the context; None if it is elsewhere."""
    if dockerfile is None:
        return None
    real, top = dockerfile.resolve(), root.resolve()
    return real.relative_to(top).as_posix() if real.is_relative_to(top) else None


def _add(archive: tarfile.TarFile, path: str, source: Path) -> None:
    """Adds a file, folder or link with its mode; owned by root, as docker's client sends it."""
    try:
        archive.add(source, path, recursive=False, filter=_of_root)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:  # it became shorter
            raise InputOutputError(f"{source} changed while it was being read.") from error
        raise unreadable(source, error) from error


def _of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = int(info.mtime)
    return info


def _add_made(archive: tarfile.TarFile, path: str, data: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
