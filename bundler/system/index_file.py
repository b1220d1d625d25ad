"""git's index as bytes: whether it is complete, and whether it contains a name.

git reads a truncated index as garbage with exit code 0, so the index must be checked before git's
answer can be trusted. And if a name is not in the bytes of an index of version 2 or 3 that is
neither split nor sparse, no entry has it: checking that takes a tenth of the time of a git process.
Not in the package `bundler.git`, so that the fast path loads only this.

The format: https://git-scm.com/docs/index-format. A header of 12 bytes, the entries sorted by path
(62 bytes with SHA-1 or 74 with SHA-256, then the path, then NULs), extensions (four letters, a size
of four bytes, content), and a checksum of everything, or zeros under ``index.skipHash``.
"""

from __future__ import annotations

import os

from bundler.system import digests
from bundler.system.git_directory import open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from typing_extensions import Self

_HEADER_BYTES = 12
# Length of the object ids -> bytes of an entry before its path
_FIXED_BYTES = {20: 62, 32: 74}
_MODE_OFFSET = 24
_ID_AND_FLAGS = 34
_NAME_LENGTH_MASK = 0xFFF
_WITH_EXTENDED_FLAGS, _COMPRESSED = 3, 4  # versions
# The checksum of a larger index is not computed: it would take longer than everything else.
_CHECKED_BYTES = 1 << 20
_WINDOW_BYTES = 1 << 18  # fits in the processor's cache
_OVERLAP_BYTES = 1 << 13  # a path of PATH_MAX and what precedes it
_BY_LIBC_BYTES = 1 << 24
_TAILS = (1 << 22, 1 << 25)  # the cached tree of a million files takes about a megabyte


class RawIndex:
    """An open index file, to be used in a ``with`` statement."""

    __slots__ = ("_descriptor", "_found", "entries", "size", "version")

    def __init__(self, path: bytes) -> None:
        """Raises `OSError` if it cannot be read."""
        self._descriptor = open_regular(path)
        self._found: dict[bytes, list[int]] = {}
        self.size = os.fstat(self._descriptor).st_size
        header = self._read(0, _HEADER_BYTES)
        self.version = int.from_bytes(header[4:8], "big") if header[:4] == b"DIRC" else 0
        self.entries = int.from_bytes(header[8:12], "big")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def is_whole(self) -> bool:
        """Whether it is complete; up to a megabyte, also whether it is unaltered."""
        if not self.version:
            return False
        if self.size > _CHECKED_BYTES and self._cached_tree() is not None:
            return True
        return self._matches_checksum()

    def is_plain(self) -> bool:
        """Whether this file contains every path in full: version 2 or 3, and not sparse.

        A split index is recognised by the ``sharedindex.*`` in the git directory, not here.
        """
        # A sparse index is marked by an extension without content, the last or second last.
        tail = self._read(max(0, self.size - 256), 256)
        return self.version in (2, 3) and b"sdir\0\0\0\0" not in tail

    def prepare(self, directory: bytes, texts: Iterable[bytes]) -> None:
        """Searches for several texts in one pass, so that the questions below need none of their
        own passes.

        directory: for `holds_below`.
        """
        below = [] if self._tree_names(directory) is not None else [directory + b"/"]
        self._look_for([*below, *texts])

    def holds(self, text: bytes, *, ignore_case: bool = False) -> bool:
        """Whether it contains a text."""
        if ignore_case:
            return any(text.lower() in window.lower() for _, window in self._windows())
        return bool(self._look_for([text])[text])

    def holds_below(self, name: bytes, *, ignore_case: bool = False) -> bool:
        """Whether an entry may be below a directory with this name.

        In a large index, git's cached tree, if it is complete, has the name of every directory in a
        hundredth of the bytes.
        """
        told = None if ignore_case else self._tree_names(name)
        return self.holds(name + b"/", ignore_case=ignore_case) if told is None else told

    def _tree_names(self, directory: bytes) -> bool | None:
        """Whether the cached tree has a directory with this name; None if that is unknown."""
        if self.size <= _CHECKED_BYTES:
            return None
        tree = self._cached_tree() or b""
        root = tree[1:].partition(b" ")[0]
        # An outdated part has a count of -1, and then so has the root.
        if root == b"%d" % self.entries and b"\0-1 " not in tree:
            return directory + b"\0" in tree
        return None

    def entries_ending_in(self, name: bytes) -> dict[bytes, bytes]:
        """The paths whose last part is this name, each with the end of what precedes it: the id and
        flags. Raises `ValueError` if one is unreadable."""
        found = {}
        for at in self._look_for([name + b"\0"])[name + b"\0"]:
            start = max(0, at - _OVERLAP_BYTES)
            window = self._read(start, at - start + len(name))
            path = _path_before(window, len(window))
            if path is None:
                raise ValueError("an entry that cannot be read")
            if (b"/" + path).endswith(b"/" + name):
                found[path] = window[: -len(path)][-_ID_AND_FLAGS:]
        return found

    def _look_for(self, texts: Sequence[bytes]) -> dict[bytes, list[int]]:
        """The offsets of each of the texts, ascending."""
        new = [text for text in texts if text not in self._found]
        if new:
            search = _libc_search() if self.size > _BY_LIBC_BYTES else None
            found: dict[bytes, set[int]] = {text: set() for text in new}
            for start, window in self._windows():
                for text, offsets in found.items():
                    # libc's search is four times as fast, but has to be loaded. It halves what
                    # a commit in a million files waits for (benchmarks/guard.py).
                    if search is None or search(window, len(window), text, len(text)):
                        offsets.update(start + at for at in _occurrences(window, text))
            self._found.update({text: sorted(offsets) for text, offsets in found.items()})
        return self._found

    def _read(self, start: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, start)

    def _windows(self) -> Iterator[tuple[int, bytes]]:
        """Everything in overlapping pieces, with their offsets."""
        for start in range(0, self.size, _WINDOW_BYTES):
            yield start, self._read(start, _WINDOW_BYTES + _OVERLAP_BYTES)

    def _matches_checksum(self) -> bool:
        algorithms = ("sha1", "sha256")
        return any(self._has_checksum(digests.new(name, self.size)) for name in algorithms)

    def _has_checksum(self, digest: hashlib._Hash) -> bool:
        end = self.size - digest.digest_size
        for start in range(0, end, _WINDOW_BYTES):
            digest.update(self._read(start, min(_WINDOW_BYTES, end - start)))
        said = self._read(max(end, 0), digest.digest_size)
        if said == bytes(digest.digest_size):  # index.skipHash: only the structure can be checked
            return _structure_end(self._read(0, self.size), digest.digest_size) == end
        return said == digest.digest()

    def _cached_tree(self) -> bytes | None:
        """The cached tree, if a chain of extensions from it on reaches the checksum."""
        for length in _TAILS:
            start = max(_HEADER_BYTES, self.size - length)
            tail = self._read(start, self.size - start)
            ends = [len(tail) - each for each in _FIXED_BYTES]
            at = tail.rfind(b"TREE")
            while at >= 0:
                if _is_tree(tail, at + 8) and any(_chain_end(tail, at, end) == end for end in ends):
                    return tail[at + 8 : _chain_end(tail, at, at + 8)]
                at = tail.rfind(b"TREE", 0, at)
        return None


def _occurrences(window: bytes, text: bytes) -> Iterator[int]:
    at = window.find(text)
    while at >= 0:
        yield at
        at = window.find(text, at + 1)


def _libc_search() -> Callable[[bytes, int, bytes, int], int | None] | None:
    """``memmem``, which returns the address of a text's first occurrence; None if it is
    unavailable."""
    try:
        import ctypes

        search = ctypes.CDLL(None).memmem
    except (ImportError, OSError, AttributeError):
        return None
    search.restype = ctypes.c_void_p
    search.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    return search


def _is_tree(index: bytes, at: int) -> bool:
    """Whether a cached tree begins there: no name, a count of entries, one of subtrees."""
    name, _, rest = index[at : at + 64].partition(b"\0")
    counts = rest.partition(b"\n")[0].split(b" ")
    return not name and [each.lstrip(b"-").isdigit() for each in counts] == [True, True]


def _chain_end(index: bytes, at: int, end: int) -> int:
    """Where the extensions end that begin at an offset."""
    while at + 8 <= end and index[at : at + 4].isalpha():
        at += 8 + int.from_bytes(index[at + 4 : at + 8], "big")
    return at


def _structure_end(index: bytes, id_bytes: int) -> int:
    """Where the entries and extensions end, according to their lengths."""
    version, entries = (int.from_bytes(index[start : start + 4], "big") for start in (4, 8))
    at = _HEADER_BYTES
    end = len(index) - id_bytes
    for _ in range(entries):
        name = at + _FIXED_BYTES[id_bytes]
        if version >= _WITH_EXTENDED_FLAGS and index[name - 2 : name - 1] >= b"\x40":
            name += 2 * (index[name - 2] >> 6 & 1)
        if version == _COMPRESSED:  # a number, seven bits a byte, says what the path shares
            while index[name : name + 1] >= b"\x80":
                name += 1
            name += 1
        finish = index.find(b"\0", name, end)
        if finish < 0:
            return -1
        at = finish + 1 if version == _COMPRESSED else at + (finish - at + 8) // 8 * 8
    return _chain_end(index, at, end)


def _path_before(window: bytes, end: int) -> bytes | None:
    """The path that ends there; it begins where the entry's length and mode precede it.

    None if there is no such place, or several: a path may contain what looks like an entry.
    """
    found = []
    after_nul = window.rfind(b"\0", 0, end) + 1
    for start in range(end - 1, max(_FIXED_BYTES[20], after_nul) - 1, -1):
        length = min(end - start, _NAME_LENGTH_MASK)
        for extended in (0, 2):  # version 3 may have two more bytes of flags
            flags = start - 2 - extended
            if window[flags + 1] == length & 0xFF and _is_entry(window, flags, length):
                found.append(window[start:end])
                break
    return found[0] if len(found) == 1 else None


def _is_entry(window: bytes, flags: int, length: int) -> bool:
    if int.from_bytes(window[flags : flags + 2], "big") & _NAME_LENGTH_MASK != length:
        return False
    for fixed in _FIXED_BYTES.values():
        mode = flags + 2 - fixed + _MODE_OFFSET
        kind = int.from_bytes(window[mode : mode + 4], "big") >> 12 if mode >= 0 else 0
        if kind in (0o10, 0o12, 0o16):  # file, link, submodule
            return True
    return False
