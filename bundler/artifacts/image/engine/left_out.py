"""What a build leaves out of its context: credentials, ``.git``, and what git ignores.

What the Dockerfile or the ignore file names stays in: ``COPY dist/*.whl .``, ``!dist``, a bind
mount. Naming a folder above it is not enough, or ``COPY . .`` would name everything.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bundler import git
from bundler.artifacts.image.engine.dockerfile import context_paths
from bundler.artifacts.image.engine.ignore import (
    DockerIgnoreRule,
    compiled,
    excluded,
    may_hold,
    parse,
    quoted,
)
from bundler.errors import BundlerError, ToolFailed
from bundler.listener import Listener
from bundler.system import git_directory
from bundler.system.credential_files import has_credentials_name, holds_credentials
from bundler.system.wording import listed

_BYTECODE = "__pycache__"
_ARTIFACT = re.compile(r"\.pex$|(?:^|/)(?:dist|build)/.*\.whl$")
_LEFTOVER = re.compile(r"(?:^|/)(?:__pycache__|node_modules|[^/]+\.egg-info|\.[^/]+)$")
_listed = partial(listed, most=4)
IGNORE_RULE = "the ignore file"
_WILDCARDS = re.compile(r"\[[^]]*\]|[*?]")


@dataclass(frozen=True)
class _Name:
    """A path or pattern in a file. where: such as ``Dockerfile:7``. ships: whether it gets into
    a layer; a bind mount does not."""

    text: str
    pattern: re.Pattern[str]
    where: str
    ships: bool

    def is_of(self, path: str, *, credentials: bool) -> bool:
        """Whether it names this path; a general pattern does not name credentials."""
        if self.pattern.fullmatch(path) is None:
            return False
        last = posixpath.basename(self.text)
        plain = _WILDCARDS.sub("", last)
        return not credentials or plain == last or has_credentials_name(plain)

    def may_be_below(self, folder: str) -> bool:
        parts, above = self.text.split("/"), folder.split("/")
        if "**" in parts[: len(above)]:
            return True
        pairs = zip(parts, above, strict=False)
        return len(parts) > len(above) and all(
            _WILDCARDS.search(part) or part == name for part, name in pairs
        )


@dataclass(frozen=True)
class Names:
    """Everything in a context that the Dockerfile or the ignore file names."""

    names: tuple[_Name, ...] = ()

    @classmethod
    def of(cls, dockerfile: str, name: str, ignored: str, build_args: Mapping[str, str]) -> Names:
        """name: the Dockerfile's, for messages. ignored: the text of the ignore file."""
        found = [
            _Name(path, pattern, f"{name}:{line}", ships)
            for line, path, ships in context_paths(dockerfile, build_args)
            if path and (pattern := compiled(path)) is not None
        ]
        found += [
            _Name(rule.text, rule.pattern, IGNORE_RULE, ships=True)
            for rule in parse(ignored)
            if not rule.exclude
        ]
        return cls(tuple(found))

    def of_path(self, path: str, *, credentials: bool) -> _Name | None:
        """What names a path; preferably something that ships it."""
        found = [name for name in self.names if name.is_of(path, credentials=credentials)]
        return max(found, key=lambda name: name.ships, default=None)

    def copying(self, path: str) -> str:
        """Where a folder that contains this path is copied by name; empty if nowhere.

        Not for files that tools leave in any folder, which nobody wants in an image.
        """
        if _LEFTOVER.search(path):
            return ""
        above = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        found = (self.of_path(folder, credentials=False) for folder in above)
        return next((name.where for name in found if name and name.where != IGNORE_RULE), "")

    def meets(self, rule: str) -> bool:
        """Whether a rule of an ignore file would exclude something that is named."""
        pattern, last = compiled(rule), posixpath.basename(rule)
        return pattern is not None and any(
            pattern.fullmatch(name.text) or name.is_of(last, credentials=True)
            for name in self.names
        )

    def may_be_below(self, folder: str) -> bool:
        return any(name.may_be_below(folder) for name in self.names)


@dataclass(frozen=True)
class LeftOut:
    """credentials, ignored: what is left out, relative to the context; ``.git`` is among the
    credentials, since it contains remotes and everything that was ever committed. artifacts:
    older PEX files and wheels that stay in. named: credentials that stay in, and where they are
    named. copied: what is left out of a folder that a COPY names, and where. problems: why git
    could not answer. elsewhere: a context that is not on this machine. ignore_file: its rules'."""

    credentials: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    named: tuple[tuple[str, str], ...] = ()
    copied: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    elsewhere: str = ""
    ignore_file: str = IGNORE_RULE

    @property
    def rules(self) -> tuple[str, ...]:
        """In the format of an ignore file; one rule for all byte code."""
        paths = dict.fromkeys(
            f"**/{_BYTECODE}" if posixpath.basename(path) == _BYTECODE else quoted(path)
            for path in (*self.credentials, *self.ignored)
        )
        return tuple(paths)

    def __str__(self) -> str:
        """A message; empty if nothing is left out."""
        ignored = [path for path in self.ignored if posixpath.basename(path) != _BYTECODE]
        ignored += [_BYTECODE] if len(ignored) < len(self.ignored) else []
        parts = [_listed(self.credentials)] if self.credentials else []
        parts += [f"files that git ignores ({_listed(ignored)})"] if ignored else []
        if self.elsewhere:
            return (
                f"{self.elsewhere} is not on this machine, so nothing is excluded from that "
                "context: the build sees its credentials and state, too."
            )
        if not parts:
            return ""
        first = (*self.credentials, *ignored)[0]
        return (
            f"Excluded from the build context: {', and '.join(parts)}. To include one, name it in "
            f"a COPY, or add a rule to {self.ignore_file}: !{first}"
        )

    def tell(self, listener: Listener) -> None:
        for sentence in self.warnings():
            listener.warning(sentence)
        if said := str(self):
            listener.note(said)
        if self.artifacts:
            listener.note(f"The build context contains older artifacts: {_listed(self.artifacts)}.")

    def warnings(self) -> Iterator[str]:
        yield from (named_sentence(*named) for named in self.named)
        if self.copied:
            paths = _listed([f"{path} ({where})" for path, where in self.copied])
            yield (
                f"Git ignores part of what the Dockerfile copies, so it stays out of the image: "
                f"{paths}. To copy it, add a rule to {self.ignore_file}: !{self.copied[0][0]}"
            )
        yield from self.problems

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Adds what was left out to a failure, since it may be the reason."""
        try:
            yield
        except BundlerError as error:
            if said := str(self):
                error.hint = f"{error.hint}\n{said}" if error.hint else said
            raise


def named_sentence(path: str, where: str) -> str:
    return (
        f"{path} is in the build context because {where} names it. Anyone with the "
        "image can read what is copied from it."
    )


def find(
    root: Path,
    ignored: str,
    names: Names,
    states: Iterable[Path] = (),
    ignore_file: str = IGNORE_RULE,
) -> LeftOut:
    """Searches a context.

    ignored: the text of its ignore file, whose exclusions are not repeated. states: folders that
    are withheld in any case. ignore_file: its name in messages.
    """
    top = root.resolve()
    rules = parse(ignored)
    inside = {path.relative_to(top).as_posix() for path in states if path.is_relative_to(top)}
    search = _Search(top, rules, names, inside)
    search.ask_git("")
    search.visit("", "")
    found: dict[str, Any] = {name: tuple(values) for name, values in search.found.items()}
    return LeftOut(**found, ignore_file=ignore_file)


@dataclass
class _Search:
    """found: what `LeftOut` has, by the names of its fields."""

    root: Path
    rules: Sequence[DockerIgnoreRule]
    names: Names
    states: set[str]
    ignored: set[str] = field(default_factory=set)
    found: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def visit(self, folder: str, reason: str) -> None:
        """reason: why the folder itself would be left out, if nothing in it were named."""
        takes_in = [rule for rule in self.rules if not rule.exclude]
        children = _children(self.root / folder)
        if folder and any(child.name == ".git" for child in children):
            self.ask_git(folder)
        for child in children:
            path = f"{folder}/{child.name}" if folder else child.name
            is_folder = child.is_dir(follow_symlinks=False)
            why = self._reason(path, child) or reason
            if path in self.states or not (why or is_folder or _ARTIFACT.search(path)):
                continue
            if not excluded(path, self.rules):
                self._decide(path, why, is_folder=is_folder)
            elif is_folder and may_hold(path, takes_in):
                self.visit(path, why)

    def _decide(self, path: str, reason: str, *, is_folder: bool) -> None:
        name = self.names.of_path(path, credentials=reason == "credentials") if reason else None
        if name is not None and reason == "credentials":
            if name.ships:
                self.found["named"].append((path, name.where))
        elif reason and name is None and not (is_folder and self.names.may_be_below(path)):
            self.found[reason].append(path)
            if reason == "ignored" and (where := self.names.copying(path)):
                self.found["copied"].append((path, where))
        elif is_folder:
            self.visit(path, "" if name is not None else reason)
        elif not reason and not self._is_named(path):
            self.found["artifacts"].append(path)

    def _is_named(self, path: str) -> bool:
        above = (path, *map(str, Path(path).parents))
        return any(self.names.of_path(each, credentials=False) for each in above)

    def _reason(self, path: str, child: os.DirEntry[str]) -> str:
        if child.name == ".git" or holds_credentials(path, child.path):
            return "credentials"
        return "ignored" if path in self.ignored else ""

    def ask_git(self, folder: str) -> None:
        """Asks what git ignores below a folder of the context."""
        place = self.root / folder
        try:
            if git_directory.locate(os.fsencode(place)) is not None:
                self.ignored |= {
                    f"{folder}/{path}" if folder else path for path in git.ignored_below(place)
                }
        except (ToolFailed, OSError, ValueError) as error:
            self.found["problems"].append(
                f"git cannot list what it ignores in {place}, so only credentials are excluded "
                f"from the build context there: {error}"
            )


def _children(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda child: child.name)
    except OSError:
        return []  # docker cannot read it either, and reports that
