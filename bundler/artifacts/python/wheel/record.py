"""RECORD, the list of a wheel's files: one line per file, with its sha256 and its size.

Its format is described at
https://packaging.python.org/specifications/recording-installed-packages/; unchanged lines are kept
byte for byte.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

from bundler.artifacts.python.trees import NewFile, TreeChange
from bundler.errors import VerificationFailed

_STRONGER = ("sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s")
_CHUNK_BYTES = 1024 * 1024


def read(raw: bytes, where: str) -> dict[str, tuple[str, str]]:
    """Hashes and size of every file, as written there.

    Raises `VerificationFailed` if RECORD cannot be read, or names a file twice.
    """
    rows: dict[str, tuple[str, str]] = {}
    for path, line in _lines(raw, where):
        row = [*next(csv.reader([line], strict=True)), "", ""]
        if path in rows:
            raise VerificationFailed(f"{where} lists {path} twice.")
        rows[path] = (row[1], row[2])
    return rows


def encoded(sha256: str) -> str:
    """A hexadecimal sha256 in RECORD's format."""
    return f"sha256={_base64(bytes.fromhex(sha256))}"


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def matches(written: str, sha256: str, read: Callable[[], BinaryIO]) -> bool:
    """Whether a row's hash is that of a file: sha256, or as the specification allows, another one
    that is at least as strong."""
    name, _, value = written.partition("=")
    if name not in _STRONGER:
        return written == encoded(sha256)
    digest = hashlib.new(name)
    with read() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return value == _base64(digest.digest())


def edited(raw: bytes, change: TreeChange, where: str) -> bytes:
    """RECORD after the change.

    A changed file keeps its line's position; new ones come before those of the wheel's metadata,
    new metadata before RECORD itself, sorted by path. Raises `VerificationFailed` if RECORD cannot
    be read.
    """
    lines = list(_lines(raw, where))
    end = "\r\n" if lines and lines[0][1].endswith("\r\n") else "\n"
    known = {path for path, _ in lines}
    fresh = {
        path: _line(path, file, end)
        for path, file in sorted(change.added.items())
        if path not in known or change.removes(path)
    }
    code = [line for path, line in fresh.items() if not is_metadata(path)]
    about = [line for path, line in fresh.items() if is_metadata(path)]
    result: list[str] = []
    for path, line in lines:
        if is_metadata(path):
            result += _taken(code)
        if is_metadata(path) and path.endswith("/RECORD"):
            result += _taken(about)
        if change.keeps(path):
            result.append(line)
        elif path in change.added and path not in fresh:
            result.append(_line(path, change.added[path], end))
    return "".join(result + code + about).encode()


def _taken(lines: list[str]) -> list[str]:
    taken = list(lines)
    lines.clear()
    return taken


def is_metadata(path: str) -> bool:
    return path.partition("/")[0].endswith(".dist-info")


def _lines(raw: bytes, where: str) -> Iterator[tuple[str, str]]:
    try:
        text = raw.decode()
        for line in io.StringIO(text, newline=""):
            row = next(csv.reader([line], strict=True), [])
            if row:
                yield row[0], line if line.endswith("\n") else f"{line}\n"
    except (UnicodeDecodeError, csv.Error) as error:
        raise VerificationFailed(f"{where} cannot be read.") from error


def _line(path: str, file: NewFile, end: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerow([path, encoded(file.sha256), file.size])
    return text.getvalue()
