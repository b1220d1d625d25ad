"""Uploads and downloads the files of states, in parallel and in constant memory.

A file of a mebibyte or more is its own object. Smaller ones are packed together, so that a thousand
small states are a few requests. Every file is compared with its sha256 when it is uploaded and
downloaded, so that a state that changes while it is read, or that was damaged in the store, is
never accepted.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bundler.errors import VerificationFailed
from bundler.state.tree import File
from bundler.store.objects import Buffer, Objects
from bundler.store.records import Version
from bundler.system.atomic import io_errors

_SMALL_BYTES = 1024 * 1024
_PACK_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 8 * 1024 * 1024
# How much of a large upload is hashed at a time: the library keeps the pieces until it has a part.
_PIECE_BYTES = 1024 * 1024
# The size of a read from a large file: the library has it in memory twice for a moment.
_READ_BYTES = 4 * 1024 * 1024
# Concurrent parts, over all files together: with the chunk's size, this bounds the memory.
PARTS_AT_ONCE = 8
_FILES_AT_ONCE = 4
_HEADS_AT_ONCE = 16
# A push keeps a version that has the same meaning if its objects exist, without reading them.
_LOST = (
    "Restore the object, roll the key back to an intact version, or remove the key and push it "
    "again: state-bundler store remove KEY"
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredPlace:
    """Where a file's bytes are in the store: an object, and an offset."""

    name: str
    offset: int


@dataclass(frozen=True)
class Incoming:
    """A file to upload: its expected digest, and its bytes.

    chunks: raises `VerificationFailed` before its end if the bytes differ.
    """

    sha256: str
    size: int
    chunks: Callable[[], Iterator[Buffer]]


def local_file(path: Path, sha256: str, size: int) -> Incoming:
    """A file of this machine to upload."""
    return Incoming(sha256, size, partial(_chunks, path, sha256, size))


def _chunks(path: Path, sha256: str, expected: int) -> Iterator[Buffer]:
    """Yields the last chunk only if all of them are as expected."""
    digest, size = hashlib.sha256(), 0
    with io_errors(path), open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_PIECE_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if size > expected or (size == expected and digest.hexdigest() != sha256):
                break
            yield chunk
    if size != expected or digest.hexdigest() != sha256:
        raise VerificationFailed(
            f"{path} changed between hashing and upload.",
            hint="Something still writes to the state: stop it, then try again.",
        )


def object_name(sha256: str) -> str:
    """A new name for content, which no concurrent prune can be removing."""
    return f"content/{sha256}.{uuid.uuid4().hex[:8]}"


def upload(objects: Objects, files: Iterable[Incoming]) -> dict[str, StoredPlace]:
    """Uploads files, identical ones once. Returns their places by sha256.

    Raises `VerificationFailed` if a file does not have its expected digest.
    """
    wanted = {file.sha256: file for file in files}
    large = [file for file in wanted.values() if file.size >= _SMALL_BYTES]
    small = [file for file in wanted.values() if file.size < _SMALL_BYTES]
    jobs: list[Callable[[], dict[str, StoredPlace]]] = [
        *(partial(_upload_large, objects, file) for file in large),
        *(partial(_upload_pack, objects, pack) for pack in _packs(small)),
    ]
    found = in_parallel(jobs, _FILES_AT_ONCE)
    return {sha256: place for places in found for sha256, place in places.items()}


def in_parallel(jobs: Sequence[Callable[[], _T]], at_once: int) -> list[_T]:
    """The jobs' results; after a failure no further job is started, and the first failure is
    raised."""
    if len(jobs) == 1:
        return [jobs[0]()]
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _packs(files: Sequence[Incoming]) -> Iterator[list[Incoming]]:
    pack: list[Incoming] = []
    size = 0
    for file in files:
        if pack and size + file.size > _PACK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append(file)
        size += file.size
    if pack:
        yield pack


def _upload_large(objects: Objects, file: Incoming) -> dict[str, StoredPlace]:
    name = object_name(file.sha256)
    objects.write(name, file.chunks(), file.size)
    return {file.sha256: StoredPlace(name, 0)}


def _upload_pack(objects: Objects, files: Sequence[Incoming]) -> dict[str, StoredPlace]:
    data = bytearray()
    offsets = {}
    for file in files:
        offsets[file.sha256] = len(data)
        for chunk in file.chunks():
            data += chunk
    name = object_name(hashlib.sha256(data).hexdigest())
    objects.write(name, [data], len(data))
    return {sha256: StoredPlace(name, offset) for sha256, offset in offsets.items()}


# --- out of the store -------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A file in the store: its place, its expected digest, and its name for messages."""

    place: StoredPlace
    sha256: str
    size: int
    what: str

    @property
    def end(self) -> int:
        return self.place.offset + self.size


# A file in the store, and its destination; None to only check it.
_Wanted = tuple[Piece, Path | None]


def pieces(version: Version) -> Iterator[tuple[File, Piece]]:
    """The files of a version, each with its place."""
    for file, (index, offset) in zip(version.state.files, version.at, strict=True):
        place = StoredPlace(version.objects[index], offset)
        what = f"{file.path} of {version.key}, version {version.version}"
        yield file, Piece(place, file.sha256, file.size, what)


def places(versions: Iterable[Version]) -> dict[str, Piece]:
    """The files of versions by their sha256."""
    return {piece.sha256: piece for version in versions for _, piece in pieces(version)}


def missing(objects: Objects, versions: Iterable[Version]) -> frozenset[str]:
    """The objects with the content of these versions that do not exist any more."""
    names = sorted({name for version in versions for name in version.objects})
    there = in_parallel([partial(objects.exists, name) for name in names], _HEADS_AT_ONCE)
    return frozenset(name for name, exists in zip(names, there, strict=True) if not exists)


def download(objects: Objects, files: Iterable[tuple[Piece, Path]]) -> None:
    """Downloads files to paths that do not exist yet; creates their folders.

    Raises `VerificationFailed` for content that is missing or differs from its digest.
    """
    wanted = list(files)
    for _, path in wanted:
        with io_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    large = [item for item in wanted if item[0].size >= _SMALL_BYTES]
    spans = list(_spans([item for item in wanted if item[0].size < _SMALL_BYTES]))
    window = max(2, PARTS_AT_ONCE // max(1, min(len(large), _FILES_AT_ONCE)))
    with ThreadPoolExecutor(PARTS_AT_ONCE) as parts:

        def one_large(piece: Piece, path: Path) -> None:
            with io_errors(path), open(path, "xb", buffering=0) as stream:
                into = partial(_write_at, stream.fileno())
                for _ in read_parts(objects, piece, parts, window, into):
                    pass

        jobs: list[Callable[[], None]] = [
            *(partial(one_large, *item) for item in large),
            *(partial(_download_span, objects, span) for span in spans),
        ]
        in_parallel(jobs, _FILES_AT_ONCE)


def read_parts(
    objects: Objects,
    piece: Piece,
    parts: ThreadPoolExecutor,
    window: int,
    into: Callable[[Buffer, int], None] | None = None,
) -> Iterator[Buffer]:
    """The bytes of a file in order, prefetched in parts, compared with their digest.

    into: called with each part and its offset, by the thread that read it; in any order.
    """
    digest, size = hashlib.sha256(), 0
    starts = iter(range(piece.place.offset, piece.end, _READ_BYTES))
    ahead: deque[Future[Buffer]] = deque()

    def one(start: int) -> Buffer:
        data = _read(objects, piece, start, min(_READ_BYTES, piece.end - start))
        if into is not None:
            into(data, start - piece.place.offset)
        return data

    def more() -> None:
        start = next(starts, None)
        if start is not None:
            ahead.append(parts.submit(one, start))

    try:
        for _ in range(window):
            more()
        while ahead:
            chunk = ahead.popleft().result()
            more()
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    finally:
        # Every writer must have finished before the file is closed.
        wait([future for future in ahead if not future.cancel()])
    _check(piece, digest.hexdigest(), size)


def read_file(objects: Objects, piece: Piece, window: int = 3) -> Generator[Buffer, None, None]:
    """The bytes of a file in order; see `read_parts`."""
    with ThreadPoolExecutor(window) as parts:
        yield from read_parts(objects, piece, parts, window)


def check(objects: Objects, wanted: Iterable[Piece]) -> list[str]:
    """The problems of files in the store, as messages; reads every byte of them."""
    files = list(wanted)
    small = [(piece, None) for piece in files if piece.size < _SMALL_BYTES]
    jobs: list[Callable[[], list[str]]] = [
        *(partial(_problems, objects, [piece]) for piece in files if piece.size >= _SMALL_BYTES),
        *(partial(_span_problems, objects, span) for span in _spans(small)),
    ]
    return [problem for found in in_parallel(jobs, _FILES_AT_ONCE) for problem in found]


def _span_problems(objects: Objects, span: Sequence[_Wanted]) -> list[str]:
    try:
        _download_span(objects, span)
    except VerificationFailed:
        return _problems(objects, [piece for piece, _ in span])
    return []


def _problems(objects: Objects, files: Iterable[Piece]) -> list[str]:
    problems = []
    for piece in files:
        try:
            for _ in read_file(objects, piece, 2):
                pass
        except VerificationFailed as error:
            problems.append(error.what)
    return problems


def read_piece(objects: Objects, piece: Piece) -> Buffer:
    """A small file, checked against its digest."""
    data = _read(objects, piece, piece.place.offset, piece.size)
    _check(piece, hashlib.sha256(data).hexdigest(), len(data))
    return data


def _read(objects: Objects, piece: Piece, start: int, length: int) -> Buffer:
    if not length:
        return b""
    try:
        return objects.read(piece.place.name, start, length)
    except FileNotFoundError:
        raise VerificationFailed(
            f"{objects.url}: {piece.place.name}, which contains {piece.what}, is missing.",
            hint=_LOST,
        ) from None


def _check(piece: Piece, sha256: str, size: int) -> None:
    if (sha256, size) != (piece.sha256, piece.size):
        raise VerificationFailed(
            f"{piece.place.name} no longer contains {piece.what}: its bytes were altered.",
            hint=_LOST,
        )


def _spans(files: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Groups of files in one object that are read together, with what is between them."""
    ordered = sorted(files, key=lambda item: (item[0].place.name, item[0].place.offset))
    for _, group in itertools.groupby(ordered, lambda item: item[0].place.name):
        span: list[_Wanted] = []
        for item in group:
            if span and item[0].end - span[0][0].place.offset > _PACK_BYTES:
                yield span
                span = []
            span.append(item)
        yield span


def _download_span(objects: Objects, span: Sequence[_Wanted]) -> None:
    begin = span[0][0].place.offset
    end = max(piece.end for piece, _ in span)
    view = memoryview(_read(objects, span[0][0], begin, end - begin))
    for piece, path in span:
        data = view[piece.place.offset - begin : piece.end - begin]
        _check(piece, hashlib.sha256(data).hexdigest(), len(data))
        if path is not None:
            with io_errors(path), open(path, "xb", buffering=0) as stream:
                _write_at(stream.fileno(), data, 0)


def _write_at(descriptor: int, chunk: Buffer, offset: int) -> None:
    left = memoryview(chunk).cast("B")
    while left:
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count
