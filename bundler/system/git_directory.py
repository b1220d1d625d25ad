"""Finds and reads a repository's files safely, without asking git.

For the guard's fast path, which starts no git process, and for what has to be known before git is
asked.
"""

from __future__ import annotations

import errno
import os
import stat

from bundler.system.fast_tuple import NamedTuple


def may_ignore_case(common_dir: bytes) -> bool:
    """Whether names that differ only in case may be the same: git records that when it creates a
    repository, and only git reads every way to write it."""
    try:
        text = read_regular(common_dir + b"/config").lower()
    except FileNotFoundError:
        return False
    return any(word in text for word in (b"ignorecase", b"[include", b"worktreeconfig"))


def open_regular(path: bytes) -> int:
    """Opens a regular file for reading.

    Raises `OSError` for anything else, without waiting: opening a FIFO would wait for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor


def read_regular(path: bytes, limit: int = -1) -> bytes:
    """The contents of a regular file, up to a limit. Raises as `open_regular` does."""
    with open(open_regular(path), "rb") as stream:
        return stream.read(limit)


class Location(NamedTuple):
    """The location of a repository. top: the work tree; None inside a git directory."""

    top: bytes | None
    git_dir: bytes


def locate(place: bytes) -> Location | None:
    """The repository that contains a directory, found as git finds it; None if there is none.

    Raises `OSError` or `ValueError` for a ``.git`` that cannot be read.
    """
    here = place
    while True:
        found = os.path.join(here, b".git")
        if is_git_dir(found):
            return Location(here, found)
        if os.path.isfile(found):
            key, _, target = read_regular(found).rstrip(b"\r\n").partition(b"gitdir: ")
            if key:
                raise ValueError("a .git that names no directory")
            return Location(here, os.path.join(here, target))
        if is_git_dir(here):
            return Location(None, here)
        if here == os.path.dirname(here):
            return None
        here = os.path.dirname(here)


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether a path is the directory or is inside it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def is_git_dir(directory: bytes) -> bool:
    """Whether it looks like a git directory, including a work tree's own."""
    return os.path.lexists(directory + b"/HEAD") and (
        os.path.isdir(directory + b"/objects") or os.path.isfile(directory + b"/commondir")
    )
