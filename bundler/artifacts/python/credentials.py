"""Detects files in a PEX or a wheel that should not ship: credentials, and what git ignores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import msgspec

from bundler import git
from bundler.artifacts.python.trees import Leaf, Tree, prefixes
from bundler.errors import ConfigurationError, ToolFailed
from bundler.listener import Listener
from bundler.project.layout import import_path
from bundler.project.projects import Project
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.system import credential_files
from bundler.system.wording import listed

SETTING = "allow-credential-files"
_listed = partial(listed, most=5)
_ARTIFACT = re.compile(r"\.pex$|(?:^|/)(?:dist|build)/.*\.whl$")
# What tools leave in any folder of sources.
_LEFTOVER = re.compile(
    rf"(?:^|/)(?:__pycache__|[^/]+\.egg-info|{re.escape(STATE_DIRECTORY)}|[^/]+\.py[co])(?:/|$)"
)


class AllowedFiles(msgspec.Struct, frozen=True):
    """patterns: of the setting, for paths as Python imports them. root: of the project; None to
    skip git's ignored files."""

    patterns: Sequence[str] = ()
    root: Path | None = None

    @classmethod
    def of(cls, projects: Sequence[Project]) -> AllowedFiles:
        """What the projects' settings allow in a PEX or a wheel."""
        patterns = [pattern for project in projects for pattern in project.config.credential_files]
        return cls(patterns, projects[0].root)

    def names(self, path: str) -> bool:
        above = [path, *map(str, Path(path).parents)]
        return any(fnmatchcase(each, pattern) for each in above for pattern in self.patterns)


NOTHING = AllowedFiles()


def refuse(name: str, trees: Iterable[Tree], allowed: AllowedFiles, listener: Listener) -> None:
    """Raises `ConfigurationError` for files with credentials, unless the setting names them.

    name: of the artifact. trees: those with the user's own code; a dependency's contents are its
    author's. A file that only may contain a private key is a warning; older artifacts and what git
    ignores are a note.
    """
    own = list(trees)
    found = [(tree.at(path), path) for tree in own for path in _credentials(tree)]
    _refuse(f"{name} would contain credentials", found, allowed)
    for shown in dict(found):
        listener.warning(
            f"{name} contains {shown}, which {SETTING} allows. Anyone with the file can read it."
        )
    likely = [tree.at(path) for tree in own for path in _likely(tree) if not allowed.names(path)]
    if likely := [shown for shown in likely if shown not in dict(found)]:
        listener.warning(
            f"{name} contains files that may be private keys: {_listed(likely)}. If they may be "
            f"public, add them to {SETTING}."
        )
    ignored = _ignored(allowed.root)
    odd = dict.fromkeys(
        tree.at(top) for tree in own for path in _code(tree) for top in _odd(path, ignored)
    )
    if odd:
        listener.note(
            f"{name} contains older artifacts or files that git ignores: {_listed(list(odd))}."
        )


def refuse_below(folders: Iterable[Path], allowed: AllowedFiles) -> None:
    """The same as `refuse`, before a build, for folders that are packed completely."""
    found = [(str(folder / path), path) for folder in folders for path in below(folder)]
    _refuse("The PEX would contain credentials", found, allowed)


def below(folder: Path) -> Iterator[str]:
    """The files with credentials among sources; a refresh scans states itself."""
    for path in credential_files.below(folder):
        above = Path(path).parents
        states = (folder / each / MANIFEST_NAME for each in above)
        if STATE_DIRECTORY not in Path(path).parts and not any(it.is_file() for it in states):
            yield path


def _refuse(what: str, found: Iterable[tuple[str, str]], allowed: AllowedFiles) -> None:
    refused = {shown: path for shown, path in found if not allowed.names(path)}
    if refused:
        raise ConfigurationError(
            f"{what}: {_listed(list(refused))}.",
            hint="Move them out of the package, exclude them in the build backend, or give pex a "
            "folder that has only code: `-D src`. For a file that may be public, such as a key for "
            f'tests, add to [tool.state-bundler]: {SETTING} = ["{next(iter(refused.values()))}"]',
        )


def _credentials(tree: Tree) -> Iterator[str]:
    """The files, or the folders that they are in."""
    found: dict[str, None] = {}
    for path in _code(tree):
        *above, _ = prefixes(path)
        top = next((each for each in above if _is_secret_folder(each)), None)
        if top is None and _is_secret(path, tree.leaves[path]):
            top = path
        if top is not None:
            found[top] = None
    return iter(found)


def _is_secret(path: str, leaf: Leaf) -> bool:
    is_git = path.rpartition("/")[2] == ".git"
    return is_git or credential_files.decide(path, leaf.open, certain=True)


def _is_secret_folder(path: str) -> bool:
    if path.lower().endswith(credential_files.BY_CONTENT):
        return False  # a document, such as Keynote's
    is_git = path.rpartition("/")[2] == ".git"
    return is_git or credential_files.has_credentials_name(path)


def _likely(tree: Tree) -> Iterator[str]:
    """Named or worded like a private key's file, but possibly without a key."""
    return (
        path
        for path in _code(tree)
        if path.endswith((*credential_files.BY_CONTENT, ".json"))
        and credential_files.decide(path, tree.leaves[path].open)
    )


def _code(tree: Tree) -> list[str]:
    """The files outside of states, which a refresh scans."""
    states = tuple(f"{found.relative}/" for found in tree.state_directories())
    return [path for path in tree.leaves if not path.startswith(states)]


def _ignored(root: Path | None) -> set[str]:
    """What git ignores, by the paths that it may have in an artifact."""
    if root is None:
        return set()
    try:
        found = [path for path in git.ignored_below(root) if not _LEFTOVER.search(path)]
    except (ToolFailed, OSError, ValueError):
        return set()  # the guard asks the same, and fails
    return {each for path in found for each in (path, import_path(path.split("/")))}


def _odd(path: str, ignored: set[str]) -> Iterator[str]:
    if _LEFTOVER.search(path):
        return
    top = next((each for each in prefixes(path) if each in ignored), None)
    if top or _ARTIFACT.search(path):
        yield top or path
