"""dbt's files in a state: what it may write to, what it will not find any more, and its paths.

A project that dagster-dbt clones is parsed in the staging area, a local one before it is copied.
dbt writes that directory into the entry of each seed (``root_path``), in ``manifest.json`` and in
``partial_parse.msgpack``. dbt runs in the project's own directory, so ``.`` means the same,
wherever the state is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from bundler.errors import ConfigurationError
from bundler.refresh.outcome.exchanges import CopiedDirectory
from bundler.refresh.scanning import windows
from bundler.state.tree import File
from bundler.system.atomic import io_errors
from bundler.system.reading import scanned
from bundler.system.walking import walk
from bundler.system.wording import listed
from bundler.worker.copying import any_match

PARSED = "manifest.json"
# In the resources of a state from dbt Cloud; no type of dbt's.
JOBS = "jobs"
# dbt records it in the manifest. https://docs.getdbt.com/docs/build/environment-variables
_CLOUD_PROJECT = "DBT_CLOUD_PROJECT_ID"
_BESIDE_IT = ("partial_parse.msgpack", "semantic_manifest.json")
DECLARATION = "dbt_project.yml"
_PROFILES = "profiles.yml"
# A setting that names a file, and whose value is not absolute, a template, a URL or a variable.
_RELATIVE = re.compile(
    r"(?m)^[ \t-]*(?P<name>(?!search_path)(?:\w+_)?(?:path|keyfile|file|dir|directory)|sslcert"
    r"|sslkey|sslrootcert):[ \t]+[\"']?(?P<value>(?![/~$:{]|\w+:)[^\s\"'#][^\"'#\n]*?)[\"']?[ \t]*"
    r"(?:#.*)?$"
)
_MOST_SHOWN = 3
_MOST_BYTES = 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class _DbtManifest(msgspec.Struct):
    """What the assets are made of, not decoded: some manifests have hundreds of megabytes."""

    nodes: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    sources: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    def add_to(self, found: dict[str, list[str]]) -> None:
        """Adds its resources by type."""
        for name in (*self.nodes, *self.sources):
            found.setdefault(name.partition(".")[0], []).append(name)


class _Parsed(msgspec.Struct):
    """What dbt has read from a file of a project, and from another one with its properties."""

    package_name: str | None = None
    original_file_path: str | None = None
    patch_path: str | None = None


class _ParsedFiles(msgspec.Struct):
    """Where everything in a manifest is from."""

    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    nodes: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    sources: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    macros: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    docs: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    exposures: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    metrics: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    groups: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    semantic_models: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    saved_queries: dict[str, _Parsed] = msgspec.field(default_factory=dict)
    unit_tests: dict[str, _Parsed] = msgspec.field(default_factory=dict)

    def paths(self) -> set[str]:
        """Of the project itself, without analyses, which nothing runs: many are local notes."""
        found: set[str] = set()
        project = self.metadata.get("project_name")  # null if dbt does not know it
        kinds = (getattr(self, name) for name in self.__struct_fields__ if name != "metadata")
        for name, one in (item for kind in kinds for item in kind.items()):
            is_ours = not project or one.package_name in (None, "", project)
            if is_ours and not name.startswith("analysis."):
                found |= {one.original_file_path or "", (one.patch_path or "").rpartition("://")[2]}
        return found - {""}


class _CloudState(msgspec.Struct):
    """The state of a project in dbt Cloud, and the jobs of its environment."""

    project_id: int
    manifest: _DbtManifest
    jobs: list[msgspec.Raw]


def resources(directory: Path, files: Iterable[File]) -> dict[str, list[str]] | None:
    """The enabled models, seeds, sources and so on of the projects in a state, by type.

    None if it has no manifest. directory, files: the key directory, and what is in it.
    """
    found: dict[str, list[str]] = {}
    targets = target_directories(files)
    for target in targets:
        try:
            manifest = msgspec.json.decode(
                (directory / target / PARSED).read_bytes(), type=_DbtManifest
            )
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        manifest.add_to(found)
    return found if targets else None


def cloud_resources(state: Path) -> dict[str, list[str]] | None:
    """The same for the file of a state from dbt Cloud, with the jobs of its environment.

    None if the file is not as dagster-dbt writes it.
    """
    content = _cloud_state(state)
    if content is None:
        return None
    found = {JOBS: ["" for _ in content.jobs]} if content.jobs else {}
    content.manifest.add_to(found)
    return found


def other_cloud_project(state: Path) -> str:
    """The project whose manifest dbt Cloud sent instead of the component's; empty if none."""
    content = _cloud_state(state)
    variables = content.manifest.metadata.get("env") if content else None
    if content is None or not isinstance(variables, dict):
        return ""
    project = str(variables.get(_CLOUD_PROJECT, content.project_id))
    return "" if project == str(content.project_id) else project


def _cloud_state(state: Path) -> _CloudState | None:
    if not state.is_file():
        return None
    try:
        return msgspec.json.decode(state.read_bytes(), type=_CloudState)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def target_directories(files: Iterable[File]) -> tuple[str, ...]:
    """The directories to which dbt has parsed a project, whatever ``target-path`` calls them."""
    paths = {file.path for file in files}
    parents = {PurePosixPath(path).parent for path in paths if path.endswith(f"/{PARSED}")}
    return tuple(
        parent.as_posix()
        for parent in sorted(parents)
        if any(f"{parent}/{name}" in paths for name in _BESIDE_IT)
    )


def unshipped(
    directory: Path,
    files: Iterable[File],
    copies: Sequence[CopiedDirectory],
    left_out: Sequence[str],
) -> Iterator[str]:
    """Files that dbt has parsed, but that are not in the state: dbt would not find them any more.

    left_out: what was removed from the state.
    """
    paths = {file.path for file in files}
    origins = {copy.target: Path(copy.source) for copy in copies}
    for target in target_directories(files):
        parents = (parent.as_posix() for parent in PurePosixPath(target).parents)
        project = next((one for one in parents if f"{one}/{DECLARATION}" in paths), None)
        if project is None:
            continue
        raw = (directory / target / PARSED).read_bytes()
        try:
            found = msgspec.json.decode(raw, type=_ParsedFiles).paths()
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        for name in sorted(found):
            path = os.path.normpath(f"{project}/{name}")  # of hooks: ./dbt_project.yml
            was_there = project in origins and (origins[project] / name).is_file()
            was_there |= any(path == one or path.startswith(f"{one}/") for one in left_out)
            if path not in paths and was_there:
                yield path


def refuse_unshipped(key: str, paths: Iterable[str], exclude: Sequence[str]) -> None:
    """Raises `ConfigurationError` unless the project itself excludes them."""
    wrong = [path for path in paths if not _is_excluded(path, exclude)]
    if not wrong:
        return
    shown = (
        wrong if len(wrong) <= _MOST_SHOWN else {f"{PurePosixPath(it).parent}/*" for it in wrong}
    )
    patterns = ", ".join(f'"{path}"' for path in sorted(shown))
    raise ConfigurationError.of_key(
        key,
        f"dbt has parsed {listed(wrong, _MOST_SHOWN)}, but git ignores it, its name is left out of "
        "every state, or it is outside of the project: it would be missing where dbt runs.",
        hint=f"Ship it: include = [{patterns}]. If it is not needed there: exclude = [{patterns}].",
    )


def _is_excluded(path: str, exclude: Sequence[str]) -> bool:
    parts = (path, *(parent.as_posix() for parent in PurePosixPath(path).parents))
    return any(any_match(part, exclude) for part in parts)


def warnings(copies: Sequence[CopiedDirectory]) -> Iterator[str]:
    """What dbt will not find when it runs in a copy of its project."""
    for copy in copies:
        source = Path(copy.source)
        profiles = f"{copy.target}/{_PROFILES}"
        if not (source / DECLARATION).is_file() or not (source / _PROFILES).is_file():
            continue
        if profiles in (*copy.ignored, *copy.left_out):
            yield (
                f"{profiles} does not ship because git ignores it: where dbt runs, "
                "DBT_PROFILES_DIR must name a directory with a profiles.yml"
            )
            continue
        for found in _RELATIVE.finditer(scanned(source / _PROFILES, _MOST_BYTES)):
            yield (
                f"{found['name']}: {found['value']} in {profiles} is relative to the project's "
                "directory. dbt runs in a copy of the project, where the path differs: use an "
                "absolute path or env_var()"
            )


def relocate(directory: Path, sources: Sequence[str] = ()) -> None:
    """Makes what dbt parsed in this directory, or below it, independent of its path.

    sources: the directories of projects that were parsed there and then copied. Raises
    `InputOutputError`.
    """
    with io_errors(directory):
        for parent, _, files in walk(directory):
            if PARSED in files:
                for path in sorted(Path(parent).iterdir()):
                    if path.suffix in (".json", ".msgpack") and path.is_file():
                        _replace_all(path, [_project_of(path, directory), *map(Path, sources)])


def _project_of(path: Path, directory: Path) -> Path:
    """The project of a file in dbt's target directory."""
    for parent in path.parents:
        if parent == directory:
            break
        if (parent / DECLARATION).is_file():
            return parent
    return path.parent.parent


def _replace_all(path: Path, projects: Sequence[Path]) -> None:
    for project in projects:
        for old, new in _replacements(project, escaped=path.suffix == ".json"):
            with open(path, "rb") as stream:
                found = any(old in window for _, window in windows(stream, len(old)))
            if found:
                temporary = path.with_name(f"{path.name}.relocated")
                with open(temporary, "wb") as output:
                    output.writelines(_replaced(path, old, new))
                os.replace(temporary, path)


def _replacements(project: Path, *, escaped: bool) -> Iterator[tuple[bytes, bytes]]:
    for name in sorted({str(project), os.path.realpath(project)}):
        if not escaped:
            old = os.fsencode(name)
            # msgpack prefixes strings with their length, so "." is as long: "./././."
            yield old, (b"./" * len(old))[: len(old)]
            continue
        for ascii_only in (True, False):
            old = json.dumps(name, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogateescape")
            yield from ((old + end, b"." + end) for end in (b'"', b"/"))


def _replaced(path: Path, old: bytes, new: bytes) -> Iterator[bytes]:
    keep = len(old) - 1
    tail = b""
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            data = (tail + chunk).replace(old, new)
            cut = max(0, len(data) - keep)
            yield data[:cut]
            tail = data[cut:]
    yield tail
