"""Finds state by name, configuration and the command line, without running any code.

A *state directory* is any directory named ``.local_defs_state``, the ``path`` of a
``[[tool.state-bundler.source]]`` table, or one that was named to the guard. A *state file* is
anything below it but the ``.gitignore`` that is directly in it: that one is a rule, no state. A
submodule in the place of a state directory is one, too: a clone gets what is in it.
"""

from __future__ import annotations

import os
import stat

from bundler.errors import ConfigurationError, ToolFailed
from bundler.state.source_path import ADVICE, path_problem
from bundler.system.fast_tuple import NamedTuple
from bundler.system.git_directory import is_below, is_git_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any


NAME = b".local_defs_state"
RULE_FILE = b".gitignore"
_PROJECT_FILES = (b"pyproject.toml", b"dg.toml")
_BORDERS = (NAME, b".git")
_SUBMODULE = b"160000"
_TELLING = frozenset((*_BORDERS, *_PROJECT_FILES))
# Without these words a file has no Dagster table that we read, so it need not be parsed.
_OF_INTEREST = (b"root_module", b"defs_module")


class GuardedProject(NamedTuple):
    """What one pyproject.toml (or dg.toml) says. Paths are relative to the top of the repository.

    sources: the state directories it configures. expected: where Dagster will make one. allow:
    fixtures that are committed on purpose. is_unread: a partial clone lacks the file.
    """

    directory: bytes
    sources: tuple[bytes, ...] = ()
    expected: tuple[bytes, ...] = ()
    allow: tuple[bytes, ...] = ()
    is_unread: bool = False


class FoundStatePaths(NamedTuple):
    """What is in the work tree. Paths are relative to its top.

    states: state directories by name. links: symbolic links of that name. repositories: other
    repositories inside. projects: the directories with a project file. unreadable: directories.
    """

    states: tuple[bytes, ...]
    links: tuple[bytes, ...]
    repositories: tuple[bytes, ...]
    projects: tuple[bytes, ...]
    unreadable: dict[bytes, ToolFailed]


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


class Places(NamedTuple):
    """Which paths are state: those below the name anywhere, or below these directories.

    directories: relative to the top. ignore_case: as the file system of the work tree does.
    unread: the directories of projects whose own ones are unknown.
    """

    directories: tuple[bytes, ...] = ()
    ignore_case: bool = False
    unread: tuple[bytes, ...] = ()

    def with_projects(self, projects: Iterable[GuardedProject]) -> Places:
        """Also the sources of these projects."""
        known = list(projects)
        sources = (path for project in known for path in project.sources)
        unread = (project.directory for project in known if project.is_unread)
        return self._replace(
            directories=tuple(dict.fromkeys([*self.directories, *sources])),
            unread=tuple(dict.fromkeys([*self.unread, *unread])),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(os.fsdecode, self.directories))

    def pathspecs(self) -> list[bytes]:
        """The pathspecs that limit git to state files (and the rule files among them)."""
        from bundler import git

        fold = self.ignore_case
        others = (path for path in self.directories if NAME not in path.split(b"/"))
        named = (git.exactly(directory, ignore_case=fold) for directory in others)
        return [*git.everywhere(NAME, ignore_case=fold), *named]

    def hold(self, path: bytes, mode: bytes = b"") -> bool:
        """Whether a path is a state file, or a submodule in the place of a state directory."""
        return self.directory_of(path + b"/" if mode == _SUBMODULE else path) is not None

    def directory_of(self, path: bytes) -> bytes | None:
        """The state directory that a path is a state file of."""
        folded = self._fold(path)
        at = (b"/" + folded).rfind(b"/" + NAME + b"/")
        if at >= 0:
            length = at + len(NAME)
            return None if folded[length:] == b"/" + RULE_FILE else path[:length]
        for directory in self.directories:
            inside = self._fold(directory) + b"/"
            if folded.startswith(inside) and folded != inside + RULE_FILE:
                return path[: len(directory)]
        return None

    def on_disk(self, top: bytes) -> list[bytes]:
        """The directories that exist."""
        return [path for path in self.directories if os.path.isdir(join(top, path))]

    def _fold(self, path: bytes) -> bytes:
        return path.lower() if self.ignore_case else path


# --- the work tree --------------------------------------------------------------------------


def walk(top: bytes) -> FoundStatePaths:
    """Looks through the whole work tree, down to other repositories' borders.

    A link is a file, as it is for git: what is behind it is not looked at.
    """
    telling = []
    unreadable = {}
    pending = [top]
    while pending:  # a round for each directory of the repository: what can be, is left out
        directory = pending.pop()
        try:
            entries = _listing(directory)
        except ToolFailed as error:
            unreadable[directory[len(top.rstrip(b"/")) + 1 :]] = error
            continue
        for entry in entries:
            if entry.name in _TELLING:
                telling.append((directory[len(top.rstrip(b"/")) + 1 :], entry))
                if entry.name in _BORDERS:
                    continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return _found(telling, unreadable)


def _found(
    telling: Iterable[tuple[bytes, os.DirEntry[bytes]]], unreadable: Mapping[bytes, ToolFailed]
) -> FoundStatePaths:
    """What entries with significant names, and the directories that they are in, come to."""
    states, links, repositories, projects = [], [], [], []
    for directory, entry in telling:
        is_directory = entry.is_dir(follow_symlinks=False)
        if entry.name == NAME and is_directory:
            states.append(join(directory, NAME))
        elif entry.name == NAME and entry.is_symlink():
            links.append(join(directory, NAME))
        elif entry.name == b".git" and directory and is_repository(entry.path):
            repositories.append(directory)
        elif entry.name in _PROJECT_FILES and not is_directory:
            projects.append(directory)
    borders = set(repositories)
    return FoundStatePaths(
        tuple(sorted(path for path in states if not _behind(path, borders))),
        tuple(sorted(path for path in links if not _behind(path, borders))),
        tuple(sorted(path for path in borders if not _behind(os.path.dirname(path), borders))),
        tuple(sorted({path for path in projects if not _behind(path, borders)})),
        {path: error for path, error in unreadable.items() if not _behind(path, borders)},
    )


def _listing(directory: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(directory) as listing:
            return list(listing)
    except FileNotFoundError:  # removed since its parent was read
        return []
    except OSError as error:
        place = os.fsdecode(directory)
        raise ToolFailed(f"{place} cannot be read: {error.strerror}.") from error


def is_repository(dot_git: bytes) -> bool:
    """Whether a ``.git`` makes its directory a repository for git: an empty one does not."""
    if os.path.isdir(dot_git):
        return is_git_dir(dot_git)
    return os.path.isfile(dot_git) and read(dot_git).startswith(b"gitdir: ")


def _behind(path: bytes, borders: set[bytes]) -> bool:
    while path:
        if path in borders:
            return True
        path = os.path.dirname(path)
    return False


def takeable(top: bytes, directory: bytes) -> Iterator[bytes]:
    """What ``git add -A`` could take below a directory: files, links, other repositories."""
    pending = [directory]
    while pending:
        below = pending.pop()
        for entry in _listing(join(top, below)):
            path = join(below, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if is_repository(join(top, join(path, b".git"))):
                    yield path
                else:
                    pending.append(path)
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                yield path


# --- links ----------------------------------------------------------------------------------


class GuardedPlace(NamedTuple):
    """A path, and the directory that it belongs to: if git ignores that one, it is not ours."""

    path: bytes
    owner: bytes = b""


class Located(NamedTuple):
    """Where paths lead, with links followed: into the repository, or out of it (absolute).

    links: those paths that are links themselves.
    """

    inside: list[GuardedPlace]
    outside: list[GuardedPlace]
    links: list[GuardedPlace]

    @classmethod
    def of(cls, top: bytes, paths: Iterable[GuardedPlace | bytes]) -> Located:
        located = cls([], [], [])
        for each in dict.fromkeys(paths):  # many keys share a directory
            path, owner = each if isinstance(each, GuardedPlace) else GuardedPlace(each)
            folder, name = os.path.split(join(top, path))
            link = join(os.path.realpath(folder), name)
            place = os.path.realpath(link)
            if os.path.islink(link) and _is_own(top, link):
                located.links.append(GuardedPlace(link[len(top) + 1 :], owner))
            if os.path.islink(place):  # a link in a circle
                continue
            if _is_own(top, place):
                located.inside.append(GuardedPlace(place[len(top) + 1 :], owner))
            elif os.path.isdir(place):
                located.outside.append(GuardedPlace(place, owner))
        return located


def _is_own(top: bytes, place: bytes) -> bool:
    """Whether a place is in the repository, and in no other one inside it.

    It may be another one itself: what it is in can add it as a submodule.
    """
    if place == top or not is_below(place, top):
        return False
    above = os.path.dirname(place)
    while above != top:
        if is_repository(above + b"/.git"):
            return False
        above = os.path.dirname(above)
    return True


# --- configuration --------------------------------------------------------------------------


def mentions_us(text: bytes) -> bool:
    """Whether a project file may have a table of ours."""
    return b"state-bundler" in text


def project_of(top: bytes, directory: bytes, name: bytes, text: bytes | None) -> GuardedProject:
    """What a project file says about state.

    Raises `ConfigurationError` for one with our table or Dagster's that is not TOML.
    """
    if text is None:
        return GuardedProject(directory, is_unread=True)
    if not (mentions_us(text) or any(word in text for word in _OF_INTEREST)):
        return GuardedProject(directory)
    table = None if mentions_us(text) else _dagster_alone(name, text)
    if table is None:
        table = _parse(text, os.fsdecode(join(directory, name)))
    if name == b"dg.toml":
        modules = _mapping(table, "project")
        return GuardedProject(directory, expected=_expected(top, directory, modules))
    tool = _mapping(table, "tool")
    ours = _mapping(tool, "state-bundler")
    modules = _mapping(_mapping(tool, "dg"), "project")
    return GuardedProject(
        directory,
        sources=tuple(_sources(join(directory, name), _tables(ours, "source"))),
        expected=_expected(top, directory, modules),
        allow=tuple(_paths(directory, [_mapping(ours, "guard")], "allow")),
    )


def read_project(top: bytes, directory: bytes) -> GuardedProject:
    """What the project files in a directory say. Raises as `project_of` does."""
    files = (
        project_of(top, directory, name, read(join(top, join(directory, name))))
        for name in _PROJECT_FILES
    )
    python, dagster = files
    return python._replace(expected=python.expected + dagster.expected)


def _paths(directory: bytes, tables: Iterable[dict[str, Any]], name: str) -> Iterator[bytes]:
    """The paths under a name in tables, one or a list, relative to the top."""
    for table in tables:
        value = table.get(name)
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and path:
                yield os.path.normpath(join(directory, os.fsencode(path)))


def _sources(file: bytes, tables: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """The state directories of sources. Raises `ConfigurationError` for an invalid one."""
    for table in tables:
        path = table.get("path")
        if isinstance(path, str) and (problem := path_problem(path)):
            where = os.fsdecode(file)
            raise ConfigurationError(
                f"{where}: [[tool.state-bundler.source]]: path {path!r} {problem}.", hint=ADVICE
            )
    return _paths(os.path.dirname(file), tables, "path")


def _tables(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = table.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _expected(top: bytes, directory: bytes, dagster: dict[str, Any]) -> tuple[bytes, ...]:
    root = dagster.get("root_module")
    module = dagster.get("defs_module") or (f"{root}.defs" if isinstance(root, str) else None)
    if not (isinstance(module, str) and all(map(str.isidentifier, module.split(".")))):
        return ()
    relative = os.fsencode(module.replace(".", "/"))
    for parent in (join(directory, b"src"), directory):
        if os.path.isdir(join(top, join(parent, relative.split(b"/")[0]))):
            place = join(join(parent, relative), NAME)
            return () if is_behind_link(top, place) else (place,)
    return ()


def is_behind_link(top: bytes, path: bytes) -> bool:
    """Whether a directory above a path is a symbolic link: for git nothing is in it."""
    above = os.path.dirname(path)
    while above:
        if os.path.islink(join(top, above)):
            return True
        above = os.path.dirname(above)
    return False


def _dagster_alone(name: bytes, text: bytes) -> dict[str, Any] | None:
    """The table of Dagster's in a file with none of ours, where it is written the plain way.

    That is how ``create-dagster`` writes it, and importing a TOML parser takes longer than asking
    git. None if it is written otherwise.
    """
    header = b"[project]" if name == b"dg.toml" else b"[tool.dg.project]"
    _, found, section = (b"\n" + text).partition(b"\n" + header + b"\n")
    modules = {}
    for line in section.partition(b"\n[")[0].splitlines():
        key, _, value = line.partition(b"=")
        word = value.strip()
        if key.strip() not in _OF_INTEREST:
            continue
        if (
            word[:1] + word[-1:] != b'""'
            or not word[1:-1].replace(b".", b"").replace(b"_", b"").isalnum()
        ):
            return None
        modules[key.strip().decode()] = word[1:-1].decode()
    if not found or not modules:
        return None
    return {"project": modules} if name == b"dg.toml" else {"tool": {"dg": {"project": modules}}}


def _mapping(table: dict[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def read(path: bytes) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a FIFO would hang us
            return b""
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ToolFailed(f"{os.fsdecode(path)} cannot be read: {error.strerror}.") from error


def _parse(text: bytes, name: str) -> dict[str, Any]:
    from bundler.system import toml

    try:
        return toml.loads(text.decode())
    except ValueError as error:
        raise ConfigurationError(f"{name} is not valid TOML: {error}.") from error


def within(top: bytes, directories: Sequence[str | os.PathLike[str]]) -> list[bytes]:
    """Directories that were named to the guard, relative to the top, with links followed.

    Raises `ValueError`, naming it, for one outside of the repository.
    """
    found = []
    for directory in directories:
        real = os.path.realpath(os.fsencode(directory))
        if not real.startswith(top.rstrip(b"/") + b"/"):
            raise ValueError(os.fspath(directory))
        found.append(real[len(top.rstrip(b"/")) + 1 :])
    return found
