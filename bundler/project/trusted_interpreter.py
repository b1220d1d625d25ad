"""Refuses to run an interpreter that is committed to the repository: any commit could replace it.

Checks everything that determines what runs: each symbolic link on the way to the interpreter, the
file itself, and of a virtual environment ``pyvenv.cfg`` and what is in ``bin`` and ``lib``
(``sitecustomize.py``, ``*.pth``, the packages). The project's own modules are not checked: loading
them is the purpose of discovery.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import ConfigurationError, ToolFailed
from bundler.git.tracked import is_tracked
from bundler.git.words import quoted

_MAX_LINKS = 40
_HINT = "If you trust it, pass it: --python {}"


def refuse_tracked(python: Path, found_by: str) -> None:
    """Raises `ConfigurationError` if git tracks the interpreter, a link to it or its environment.

    Raises `ToolFailed` if that is unknown.
    """
    shown = quoted(str(python))
    try:
        tracked = _tracked(python)
    except (ToolFailed, OSError, ValueError) as error:
        raise ToolFailed(
            f"It is unknown whether {python} is committed to the repository: {error}",
            hint=_HINT.format(shown),
        ) from error
    if tracked is not None:
        raise ConfigurationError(
            f"The interpreter {python} (found by {found_by}) was not run: {tracked} is committed "
            "to the repository.",
            hint=_HINT.format(shown),
        )


def _tracked(python: Path) -> str | None:
    """The first tracked path that determines what runs."""
    *links, file = _resolved(os.fsencode(python.absolute()))
    environments = {os.path.realpath(os.fsencode(python.parent.parent))}
    environments |= {os.path.dirname(os.path.dirname(path)) for path in (*links, file)}
    exact = [*links, file]
    below = []
    for place in environments:
        if os.path.lexists(place + b"/pyvenv.cfg"):
            exact.append(place + b"/pyvenv.cfg")
            below += [place + b"/bin", place + b"/lib", place + b"/lib64"]
    for path in exact:
        if is_tracked(path, exactly=True):
            return os.fsdecode(path)
    for path in below:
        if is_tracked(path, exactly=False):
            return os.fsdecode(path)
    return None


def _resolved(path: bytes) -> Iterator[bytes]:
    """The links on the way to a file, in order, and the file."""
    at, links = b"", 0
    pending = path.split(b"/")[::-1]
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        here = os.path.dirname(at).rstrip(b"/") if part == b".." else at + b"/" + part
        if part != b".." and os.path.islink(here) and links < _MAX_LINKS:
            yield here
            links += 1
            target = os.readlink(here)
            at = b"" if target.startswith(b"/") else at
            pending += target.split(b"/")[::-1]
        else:
            at = here
    yield at
