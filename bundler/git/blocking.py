"""What git would wait for: a FIFO or a device where it expects a file.

git opens its configuration, its ignore files and its own files without a look at what they are,
and a FIFO holds it until somebody writes. So these are looked at first; the ignore files of a whole
work tree, only while git is slow. What is not looked at (a loose object, a configuration that is
written in an unusual way) ends with the question's timeout.
"""

from __future__ import annotations

import os
import stat

from bundler.errors import ToolFailed
from bundler.git.words import printable, quoted
from bundler.system.git_directory import read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_OF_A_WORK_TREE = (b"HEAD", b"index", b"config.worktree", b"info/sparse-checkout")
_SHARED = (
    b"config",
    b"packed-refs",
    b"shallow",
    b"info/exclude",
    b"info/attributes",
    b"objects/info/alternates",
)
# Settings that name a file which git reads.
_NAMING = (b"path", b"excludesfile", b"attributesfile")
_RULE_FILES = (b".gitignore", b".gitattributes")
_MAX_INCLUDES = 100
_LARGE_BYTES = 1 << 20


def refuse_what_blocks(git_dir: bytes, top: bytes | None, env: Mapping[str, str]) -> None:
    """Raises `ToolFailed` if git would wait for one of its own files or one of the user's."""
    refuse_if_it_blocks(git_dir + b"/commondir")
    shared = os.path.join(git_dir, _text(git_dir + b"/commondir").rstrip(b"\n") or b".")
    for path in _own_files(git_dir, shared):
        refuse_if_it_blocks(path)
    home = os.fsencode(env.get("HOME", ""))
    user = os.fsencode(env.get("XDG_CONFIG_HOME") or "") or home + b"/.config"
    for name in (b"ignore", b"attributes"):
        refuse_if_it_blocks(user + b"/git/" + name)
    refuse_if_it_blocks(b"/etc/gitattributes")
    base = top or git_dir
    pending = [
        shared + b"/config",
        git_dir + b"/config.worktree",
        *_configurations(env, home, user),
    ]
    seen: set[bytes] = set()
    while pending and len(seen) < _MAX_INCLUDES:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        refuse_if_it_blocks(path)
        for key, value in _settings(_text(path)):
            place = os.path.dirname(os.path.realpath(path)) if key == b"path" else base
            named = os.path.join(place, _expanded(value, home))
            refuse_if_it_blocks(named)
            if key == b"path":
                pending.append(named)
    for variable, setting in env.items():
        if variable.startswith("GIT_CONFIG_KEY_") and setting.lower().endswith("file"):
            given = env.get(variable.replace("_KEY_", "_VALUE_"), "")
            refuse_if_it_blocks(os.path.join(base, _expanded(os.fsencode(given), home)))


def refuse_rules_that_block(top: bytes, is_ignored: Callable[[bytes], bool]) -> Iterator[None]:
    """The same for the ignore and attribute files of a work tree, one directory per step.

    is_ignored: whether git ignores a directory below the top, and therefore reads nothing in it.
    """
    for directory, folders, files in os.walk(top):
        yield
        if directory != top and b".git" in (*folders, *files):  # a nested repository
            folders.clear()
            continue
        if b".git" in folders:
            folders.remove(b".git")
        for path in (os.path.join(directory, name) for name in _RULE_FILES if name in files):
            try:
                refuse_if_it_blocks(path)
            except ToolFailed:
                if directory == top or not is_ignored(directory):
                    raise
                folders.clear()


def refuse_if_it_blocks(path: bytes) -> None:
    """Raises `ToolFailed` for a FIFO, a socket or a device, except ``/dev/null``."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # does not exist, or no file can have this name
        return
    mode = status.st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    if stat.S_ISCHR(mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return
    kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    text = os.fsdecode(path)
    raise ToolFailed(
        f"{printable(path)} is {kind}: git would read it and block forever.",
        hint="Remove it from git's configuration."
        if text.startswith("/dev/")
        else f"Move it away: mv {quoted(text)} {quoted(text + '.moved')}",
    )


def _own_files(git_dir: bytes, shared: bytes) -> Iterator[bytes]:
    yield from (git_dir + b"/" + name for name in _OF_A_WORK_TREE)
    yield from (shared + b"/" + name for name in _SHARED)
    head = _text(git_dir + b"/HEAD")
    if head.startswith(b"ref: "):
        yield shared + b"/" + head[len(b"ref: ") :].rstrip(b"\n")


def _configurations(env: Mapping[str, str], home: bytes, user: bytes) -> Iterator[bytes]:
    """The user's and the machine's configuration files."""
    named = env.get("GIT_CONFIG_GLOBAL")
    yield from [os.fsencode(named)] if named else [home + b"/.gitconfig", user + b"/git/config"]
    if env.get("GIT_CONFIG_NOSYSTEM", "0").lower() in ("", "0", "false", "no", "off"):
        yield os.fsencode(env.get("GIT_CONFIG_SYSTEM") or "/etc/gitconfig")


def _text(path: bytes) -> bytes:
    """The beginning of a file; empty if it cannot be read: git reports that itself."""
    try:
        return read_regular(path, _LARGE_BYTES)
    except OSError:
        return b""


def _settings(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The settings in a configuration that name a file."""
    if not any(name in text.lower() for name in _NAMING):
        return
    for line in text.splitlines():
        name, equals, value = line.partition(b"=")
        key = name.rpartition(b"]")[2].strip().lower()
        if equals and key in _NAMING:
            yield key, value.strip().partition(b" #")[0].strip().strip(b'"')


def _expanded(path: bytes, home: bytes) -> bytes:
    return home + path[1:] if path.startswith(b"~/") else os.path.expanduser(path)
