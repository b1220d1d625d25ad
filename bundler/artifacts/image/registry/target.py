"""Images in a registry, for writing: blobs first, then manifests by digest, the tag last.

Until a tag is moved nobody sees what was sent: each request before may fail and leaves the image
behind the tag unchanged. A blob is mounted from another repository of the same registry if
possible, without being sent; otherwise it is sent in one piece if it is small, else as a stream,
which is resumed if it breaks. A state layer that one image of a fleet has got is not packed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from bundler.artifacts.image.blobs import BlobStore, Descriptor, read_small
from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import Json, digest_of, dump, entry_of
from bundler.artifacts.image.layer import Layer, Written
from bundler.artifacts.image.registry.connection import (
    Connection,
    NotInRegistry,
    RegistryRequest,
    SentLayer,
    Transient,
)
from bundler.artifacts.image.registry.store import RegistryStore
from bundler.artifacts.reference import Reference
from bundler.errors import CredentialsRefused, ToolFailed, VerificationFailed
from bundler.listener import SILENT, Listener

_CREATED, _ACCEPTED, _NO_CONTENT = 201, 202, 204
# Smaller blobs are kept in memory, so that their digest is known before they are sent.
_SMALL_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_OCTETS = {"Content-Type": "application/octet-stream"}
_NO_BODY = {"Content-Length": "0"}

Pieces = Callable[[], Iterator[bytes]]


class RegistryTarget(RegistryStore):
    """One repository, for reading and writing."""

    def __init__(
        self,
        reference: Reference,
        listener: Listener = SILENT,
        *,
        connection: Connection | None = None,
    ) -> None:
        super().__init__(reference, listener, connection=connection, actions="pull,push")

    # --- what an image is put together of

    def add_layer(self, layer: Layer, packing: Compression) -> Written:
        same = [it for it in self.connection.sent if (it.layer, it.packing) == (layer, packing)]
        here = self.reference.repository
        same.sort(key=lambda sent: sent.repository == here)
        for sent in same[-1:]:  # if this one is refused, the others probably are, too
            digest = f"sha256:{sent.written.digest}"
            if sent.repository == here or self._mount(digest, sent.repository):
                return sent.written
        written = self._send_layer(layer, packing)
        self.connection.sent.append(SentLayer(layer, packing, here, written))
        return written

    def _send_layer(self, layer: Layer, packing: Compression) -> Written:
        written: list[Written] = []
        self.send_blob(lambda: layer.packed(packing, written.append))
        return written[-1]

    def add_config(self, value: Mapping[str, Any]) -> tuple[str, int]:
        return self.send_bytes(dump(value))

    def add_manifest(self, value: Mapping[str, Any], media_type: str) -> Json:
        raw = dump(value)
        entry = entry_of(raw, media_type)
        self.put_manifest(raw, media_type, entry["digest"])
        return entry

    def put_manifest(self, raw: bytes, media_type: str, what: str) -> Mapping[str, str]:
        """Stores a manifest under a tag or its digest, and returns the answer's headers."""
        path, headers = self.path("manifests", what), {"Content-Type": media_type}
        request = RegistryRequest("PUT", path, self.scope, (_CREATED, 200), headers, lambda: raw)
        digest = digest_of(raw)
        with self.connection.send(request) as response:
            told = response.headers.get("Docker-Content-Digest")
            if told is not None and told != digest:
                raise VerificationFailed(f"{self.name} stored {told} instead of {digest}.")
            self.manifests[digest] = (raw, media_type)
            return dict(response.headers)

    def take(self, source: BlobStore, entry: Descriptor) -> None:
        if entry.is_index or entry.is_manifest:
            self.put_manifest(read_small(source, entry), entry.media_type, entry.digest)
            return
        if entry.is_elsewhere:  # registries are not meant to distribute it
            return
        other = None
        if isinstance(source, RegistryStore) and source.connection.host == self.connection.host:
            other = source.reference.repository
        # A base's blobs are here already, if the image stays in its repository.
        if other == self.reference.repository or self.has_blob(entry.digest, entry.size):
            return
        if other is None or not self._mount(entry.digest, other):
            self._copy(source, entry)

    def _mount(self, digest: str, other: str) -> bool:
        """Whether the registry took the blob over from another of its repositories.

        A refusal is not an error: the login may have no access to the other one.
        """
        query = urlencode({"mount": digest, "from": other})
        path = f"{self.path('blobs', 'uploads/')}?{query}"
        scope = (*self.scope, f"repository:{other}:pull")
        request = RegistryRequest("POST", path, scope, (_CREATED, _ACCEPTED), _NO_BODY)
        try:
            with self.connection.send(request) as response:
                if response.status == _CREATED:
                    return True
                location = response.headers.get("Location")
        except Transient:
            raise
        except (ToolFailed, CredentialsRefused):
            return False
        if location:  # it opened an upload instead, which is not needed
            self.cancel(location)
        return False

    def _copy(self, source: BlobStore, entry: Descriptor) -> None:
        def pieces() -> Iterator[bytes]:
            with source.open(entry) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk

        self.send_blob(pieces, entry.digest)

    # --- blobs

    def send_blob(self, pieces: Pieces, expected: str | None = None) -> tuple[str, int]:
        """Sends a blob that is not known to be here; returns its digest and size in bytes.

        pieces: yields the same bytes for each attempt. expected: the required digest; for another
        one, raises `VerificationFailed` and stores nothing.
        """
        stream = pieces()
        head: list[bytes] = []
        size = 0
        for piece in stream:
            head.append(piece)
            size += len(piece)
            if size > _SMALL_BYTES:
                break
        else:
            data = b"".join(head)
            _refuse_other(digest_of(data), expected, self.name)
            return self.send_bytes(data)
        upload = _Upload(self, expected)
        streams = chain([chain(head, stream)], iter(pieces, None))
        return self.connection.patient(lambda: upload.attempt(next(streams)))

    def send_bytes(self, data: bytes) -> tuple[str, int]:
        """Sends a small blob in one piece; returns its digest and size."""
        digest = digest_of(data)
        self.connection.patient(lambda: self.finish_upload(self.open_upload(), digest, data))
        return digest, len(data)

    def open_upload(self) -> str:
        """The location of a new upload."""
        path = self.path("blobs", "uploads/")
        request = RegistryRequest("POST", path, self.scope, (_ACCEPTED,), _NO_BODY)
        with self.connection.attempt(request) as response:
            location = response.headers.get("Location")
        if not location:
            raise ToolFailed(f"{self.name}: the registry does not say where to upload a blob.")
        return location

    def finish_upload(self, location: str, digest: str, data: bytes = b"") -> None:
        """data: what has not been sent yet."""
        separator = "&" if "?" in location else "?"
        path = f"{location}{separator}{urlencode({'digest': digest})}"
        headers = {**_OCTETS, "Content-Length": str(len(data))}
        expected = (_CREATED, _NO_CONTENT)
        self.once_in_upload(
            RegistryRequest("PUT", path, self.scope, expected, headers, lambda: data)
        )

    def once_in_upload(self, request: RegistryRequest) -> Mapping[str, str]:
        """A request within an upload. If the registry has forgotten the upload, the failure is
        transient."""
        try:
            with self.connection.attempt(request) as response:
                return dict(response.headers)
        except NotInRegistry as error:
            raise Transient(f"The registry {self.connection.host} has lost an upload.") from error

    def cancel(self, location: str) -> None:
        """Cancels an upload; otherwise it expires."""
        expected = (_NO_CONTENT, 200, _ACCEPTED)
        request = RegistryRequest("DELETE", location, self.scope, expected)
        with suppress(ToolFailed, CredentialsRefused), self.connection.attempt(request):
            pass

    # --- names

    def move_tag(self, digest: str, tag: str) -> None:
        """Makes a tag name a manifest or index that is stored here: the last step.

        Raises `ToolFailed` if the registry does not allow it, as with immutable tags.
        """
        if digest not in self.manifests:
            self.resolve(self.reference.at(digest))
        raw, media_type = self.manifests[digest]
        self.put_manifest(raw, media_type, tag)
        named = self.resolve(self.reference.tagged(tag))
        if named.digest != digest:
            raise VerificationFailed(
                f"{self.reference.tagged(tag)} points to {named.digest} instead of {digest}: "
                "someone else moved it concurrently, or the registry failed to move it."
            )


class _Upload:
    """A large blob in transfer: one streaming request, and further ones if it breaks."""

    def __init__(self, target: RegistryTarget, expected: str | None) -> None:
        self._target = target
        self._expected = expected
        self._location: str | None = None

    def attempt(self, stream: Iterator[bytes]) -> tuple[str, int]:
        """stream: the whole blob. Returns its digest and size."""
        skipped = self._where()
        if self._location is None:
            self._location = self._target.open_upload()
        digest, size = self._patch(self._location, skipped, stream)
        try:
            _refuse_other(digest, self._expected, self._target.name)
            self._target.finish_upload(self._location, digest)
        except VerificationFailed:
            self._target.cancel(self._location)
            raise
        return digest, size

    def _patch(self, location: str, skipped: int, stream: Iterator[bytes]) -> tuple[str, int]:
        host = self._target.connection.host
        digest = hashlib.sha256()
        size = 0

        def body() -> Iterator[bytes]:
            nonlocal size
            if size:  # bytes already taken from the stream were removed
                raise Transient(f"The registry {host} requires the upload to be repeated.")
            for piece in stream:
                digest.update(piece)
                left = max(0, skipped - size)
                size += len(piece)
                if left < len(piece):
                    yield piece[left:]

        expected = (_ACCEPTED, _NO_CONTENT)
        request = RegistryRequest("PATCH", location, self._target.scope, expected, _OCTETS, body)
        headers = self._target.once_in_upload(request)
        if next(stream, None) is not None:  # it answered before the end: it does not want the rest
            raise Transient(f"The registry {host} closed the connection during an upload.")
        self._location = headers.get("Location") or location
        return f"sha256:{digest.hexdigest()}", size

    def _where(self) -> int:
        """How many bytes of an interrupted upload the registry has; 0 if it starts again."""
        if self._location is None:
            return 0
        expected = (_NO_CONTENT, 200)
        request = RegistryRequest("GET", self._location, self._target.scope, expected)
        try:
            with self._target.connection.attempt(request) as response:
                self._location = response.headers.get("Location") or self._location
                return _received(response.headers.get("Range"))
        except Transient:
            raise
        except ToolFailed:
            self._location = None
            return 0


def _received(range_header: str | None) -> int:
    """``0-99`` is a hundred bytes; ``0-0``, which registries report for none, counts as none."""
    _, _, last = (range_header or "").partition("-")
    return int(last) + 1 if last.isdecimal() and int(last) else 0


def _refuse_other(digest: str, expected: str | None, name: str) -> None:
    if expected is not None and digest != expected:
        raise VerificationFailed(f"{name} should contain {expected}, but contains {digest}.")
