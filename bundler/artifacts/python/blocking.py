"""Detects what pex or a build backend would wait for: a FIFO among the files that it packs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from bundler.errors import InputOutputError
from bundler.git.words import printable, quoted
from bundler.listener import Listener
from bundler.project.layout import import_roots
from bundler.system.atomic import io_errors

_CONFIGURATION = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in")
# What backends read in a project's root without any configuration.
_ALWAYS_READ = re.compile(
    r".*\.py|pyproject\.toml|setup\.cfg|manifest\.in|(?:readme|licen[cs]e|copying|notice|authors).*"
)
_EVERYTHING = re.compile(
    r"^\s*(?:graft\s+\.(?:\s|$)|(?:recursive-include\s+\.|global-include)\s.*\*)", re.MULTILINE
)


def refuse_fifos(folder: Path, reader: str) -> None:
    """Raises `InputOutputError` for a FIFO below a folder, outside of virtual environments.

    reader: the program that would open it and wait until somebody writes to it.
    """
    for path in _fifos(folder, io_errors):
        raise _refusal(folder, path, reader)


def refuse_fifos_of_project(root: Path, reader: str, listener: Listener) -> None:
    """The same for a project, from which a backend reads packages, metadata, and what the
    configuration names; other FIFOs are a warning. Skips unreadable folders, as backends do."""
    found = list(_fifos(root, lambda _: suppress(OSError)))
    named = _named_by_configuration(root) if found else None
    for path in found:
        parts = os.path.relpath(path, root).split(os.sep)
        if _is_packed(root, parts) or (named and named(parts)):
            raise _refusal(root, path, reader)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        listener.warning(
            f"{_shown(found[0])} is a FIFO{more}: a build that reads it would block forever."
        )


def _fifos(folder: Path, guard: Callable[[Path], AbstractContextManager[object]]) -> Iterator[str]:
    pending = [os.fspath(folder)]
    while pending:
        here = pending.pop()
        if os.path.exists(os.path.join(here, "pyvenv.cfg")):
            continue
        with guard(Path(here)), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != ".git":
                        pending.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and _is_fifo(entry.path):
                    yield entry.path


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:  # a broken or circular link
        return False


def _is_packed(root: Path, parts: list[str]) -> bool:
    """Whether a file is below the import root, in a package, or always read."""
    if len(parts) == 1:
        return _ALWAYS_READ.fullmatch(parts[0].lower()) is not None
    if parts[0] == import_roots(root)[0].name:
        return True
    above = (root.joinpath(*parts[:end]) for end in range(1, len(parts)))
    return any(os.path.lexists(folder / "__init__.py") for folder in above)


def _named_by_configuration(root: Path) -> Callable[[list[str]], bool]:
    """Whether a word of the build's configuration is, or matches, a path or a part of it."""
    texts = {
        name: (root / name).read_text("utf-8", "replace")
        for name in _CONFIGURATION
        if os.path.isfile(root / name) and os.access(root / name, os.R_OK)
    }
    everything = _EVERYTHING.search(texts.get("MANIFEST.in", "")) is not None
    found = re.split(r"[^\w.*?/@+-]+", "\n".join(texts.values()))
    # A `*` alone stands next to the folder that it applies to.
    words = {word.removeprefix("./").strip("/") for word in found if word.strip("*?/")}

    def named(parts: list[str]) -> bool:
        above = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
        globs = [word for word in words if "*" in word or "?" in word]
        return (
            everything
            or not words.isdisjoint(above)
            or any(fnmatchcase(it, glob) for it in (*above, parts[-1]) for glob in globs)
        )

    return named


def _refusal(folder: Path, path: str, reader: str) -> InputOutputError:
    return InputOutputError(
        f"{_shown(path)} is a FIFO: {reader} would read it and block forever.",
        hint=f"Move it away: mv {quoted(path)} {quoted(f'{os.path.abspath(folder)}.fifo')}",
    )


def _shown(path: str) -> str:
    return printable(os.fsencode(path))
