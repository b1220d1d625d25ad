"""The state tree: what one key directory may hold, and its digest.

A *state tree* is a directory of regular files and non-empty directories. Names are UTF-8 without
control or bidirectional characters and stay apart under NFC and case folding, so that the tree is
the same on every file system. Symlinks, devices, FIFOs, sockets and setuid bits are refused.
Modes, owners and times are not part of it.

Its digest is the ``dirHash`` of in-toto's digest set (Go's ``h1:`` hash in hexadecimal): the
sha256 over one line a file, sorted by path as bytes: the file's sha256, two spaces, the path, a
newline. See https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from bundler.errors import BadData, BundlerError, InputOutputError
from bundler.system.parallel import in_parallel
from bundler.system.reading import reading
from bundler.verify_at_start import fold as fold  # noqa: PLC0414  # a name of this module, too
from bundler.verify_at_start import name_problem as name_problem  # noqa: PLC0414  # as above
from bundler.verify_at_start import twins_in

_BUFFER_BYTES = 256 * 1024


Hex256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
# The largest integer that every JSON reader represents exactly (RFC 8785 forbids larger ones).
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file: path (POSIX, relative to its key directory), sha256, size in bytes."""

    path: str
    sha256: Hex256
    size: Size


class StateTree(msgspec.Struct, frozen=True):
    """The files of one key directory, sorted by path as bytes."""

    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def dir_hash(self) -> str:
        return dir_hash(self.files)


def dir_hash(files: Iterable[File]) -> str:
    """in-toto's ``dirHash`` of the files, in lowercase hexadecimal."""
    summary = hashlib.sha256()
    for entry in sorted(files, key=lambda entry: os.fsencode(entry.path)):
        summary.update(b"%s  %s\n" % (entry.sha256.encode(), os.fsencode(entry.path)))
    return summary.hexdigest()


def scan(root: Path) -> StateTree:
    """Reads and hashes the tree below a key directory.

    Raises `BadData` for anything that a state tree may not hold, naming it, and
    `InputOutputError` if a file cannot be read or changes while it is.
    """
    found = list(_walk(root))
    check_names([path for path, _ in found], root)
    entries = in_parallel(lambda item: _hash_file(root, *item), found, lambda item: item[1].st_size)
    return StateTree(tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path))))


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    with reading(root):
        _refuse_special(root, root.lstat().st_mode)
    pending = [""]
    while pending:
        below = pending.pop()
        with reading(root / below), os.scandir(root / below) as listing:
            children = list(listing)
        if below and not children:
            raise BadData(
                f"The state contains the empty directory {root / below}.",
                hint="Artifacts cannot contain empty directories: add a file to it, or remove it.",
            )
        for child in children:
            path = f"{below}/{child.name}" if below else child.name
            status = child.stat(follow_symlinks=False)
            _refuse_special(root / path, status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            else:
                yield path, status


def _refuse_special(path: Path, mode: int) -> None:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(mode))
    if kind is None and stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        kind = "a setuid file"
    if kind is not None:
        raise BadData(
            f"The state contains {kind}: {path}.",
            hint="A state may only contain regular files: make the component write plain files.",
        )


def has_dir_hash(root: Path, expected: str) -> bool:
    """Whether the tree below a key directory has that ``dirHash``."""
    try:
        return scan(root).dir_hash == expected
    except BundlerError:
        return False


def check_names(paths: Sequence[str], root: Path | str) -> None:
    """Refuses paths that do not mean the same on every file system.

    Raises `BadData` naming the first offender.
    """
    for path in paths:
        problem = name_problem(path)
        if problem:
            raise BadData(
                f"The name {path!r} in {root} {problem}.",
                hint="Make the component write portable file names.",
            )
    twins = twins_in(paths)
    if twins:
        raise BadData(
            f"{twins[0]!r} and {twins[1]!r} in {root} differ only by case or Unicode form.",
            hint="macOS and Windows treat them as one name: make the component use distinct names.",
        )


def _hash_file(root: Path, path: str, before: os.stat_result) -> File:
    with reading(root / path):
        # O_NOFOLLOW: the name may have become a link since it was listed.
        descriptor = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as stream:
            digest, size = hash_stream(stream)
            after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    ):
        raise InputOutputError(
            f"{root / path} changed while it was being read.",
            hint="Something still writes to the state: stop it, then try again.",
        )
    return File(path=path, sha256=digest, size=size)


def hash_file(path: Path) -> tuple[str, int]:
    """The same as `hash_stream` for a file. Raises `OSError`."""
    with open(path, "rb", buffering=0) as stream:
        return hash_stream(stream)


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """The sha256 in hexadecimal and the size in bytes of the rest of a stream."""
    digest = hashlib.sha256()
    size = 0
    while piece := stream.read(_BUFFER_BYTES):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
