"""The build context without the state: ignore rules, or an archive."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Withheld:
    """What is withheld from the build. rules: in the format of an ignore file."""

    rules: tuple[str, ...]


def withheld_rules(
    root: Path, bundles: Sequence[Bundle], left_out: LeftOut | None = None
) -> Withheld:
    """The state directories below a context, what dbt leaves next to their projects, and more."""
    top = root.resolve()
    paths = [bundle.root.resolve() for bundle in bundles]
    for project in _dbt_projects(root, bundles):
        paths += [project / name for name in _DBT_LEFTOVERS]
    inside = [path.relative_to(top).as_posix() for path in paths if path.is_relative_to(top)]
    rules = tuple(quoted(path) for path in inside if path != ".")
    return Withheld(rules + (left_out.rules if left_out else ()))


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
        if credentials := find(root, ignored, Names.of(b"", "", ignored, {})).credentials:
            yield (
                f"--build-context {name} gives the build access to {', '.join(credentials)}. To "
                f"keep that out of the image, add it to {root / IGNORE_FILE}."
            )
        for rule in withheld_rules(root, bundles).rules:
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
        self, root: Path, ignored: str, withheld: Withheld, dockerfile: Path | None, text: bytes
    ) -> None:
        self._root = root
        self._ignored = ignored
        self._rules = parse("\n".join([ignored, *withheld.rules]))
        self._text = text
        self._inside = _inside(root, dockerfile)
        self.dockerfile = self._inside or _DOCKERFILE

    def pieces(self) -> Iterator[bytes]:
        """The archive. Raises `InputOutputError` for a file that cannot be read."""
        for path, source in walk(self._root, self._rules):
            if path not in (self.dockerfile, IGNORE_FILE):
                yield from _member(path, source)
        # The builder needs both, and removes from the context what the rules exclude.
        if self._inside is not None:
            yield from _member(self._inside, self._root / self._inside)
        else:
            yield from _made(self.dockerfile, self._text)
        ignore_file = self._root / IGNORE_FILE
        if self._inside is None:
            also = "" if ignore_file.exists() else f"{IGNORE_FILE}\n"
            yield from _made(IGNORE_FILE, f"{self._ignored}\n{_DOCKERFILE}\n{also}".encode())
        elif ignore_file.exists():
            yield from _member(IGNORE_FILE, ignore_file)
        yield b"\0" * 1024


def _inside(root: Path, dockerfile: Path | None) -> str | None:
    """A Dockerfile's path in the context; None if it is elsewhere."""
    if dockerfile is None:
        return None
    real, top = dockerfile.resolve(), root.resolve()
    return real.relative_to(top).as_posix() if real.is_relative_to(top) else None


def _member(path: str, source: Path) -> Iterator[bytes]:
    """A file, folder or link with its mode; owned by root, as docker's client sends it."""
    try:
        with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
            info = archive.gettarinfo(source, path)
        if info is None:  # a socket
            return
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.islnk():
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", source.stat().st_size
        info.mtime = int(info.mtime)
        yield info.tobuf(tarfile.PAX_FORMAT)
        if info.isreg():
            yield from _content(source, info.size)
    except OSError as error:
        raise unreadable(source, error) from error


def _content(source: Path, size: int) -> Iterator[bytes]:
    left = size
    with source.open("rb") as stream:
        while left and (chunk := stream.read(min(_CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise InputOutputError(f"{source} changed while it was being read.")
    yield b"\0" * (-size % 512)


def _made(path: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(path)
    info.size = len(data)
    yield info.tobuf(tarfile.PAX_FORMAT)
    yield data + b"\0" * (-len(data) % 512)
