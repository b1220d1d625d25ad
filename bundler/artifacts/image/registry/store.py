"""Images in a registry, for reading: a repository's manifests and blobs as a `BlobStore`.

Manifests and small blobs are kept in memory once they are read; layers are streamed. A stream that
breaks is resumed.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from bundler.artifacts.image.blobs import Descriptor, MissingBlob, descriptor
from bundler.artifacts.image.image import INDEX_TYPES, MANIFEST_TYPES, digest_of, entry_of, load
from bundler.artifacts.image.registry.connection import (
    Connection,
    NotInRegistry,
    RegistryRequest,
    Transient,
)
from bundler.artifacts.image.registry.tokens import Scope
from bundler.artifacts.reference import Reference
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import SILENT, Listener
from bundler.system.readable import BUFFER_BYTES, Readable

if TYPE_CHECKING:
    import urllib3

ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
# A configuration and a state layer are read more than once: this many bytes of them are kept.
_SMALL_BYTES = 1024 * 1024
# The usual limit of registries; some accept twice as much.
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
_DIGEST_HEADER = "Docker-Content-Digest"
_PARTIAL = 206


class RegistryStore:
    """One repository, for reading.

    connection: to its registry, shared with others and left open. Default: a new one.
    """

    def __init__(
        self,
        reference: Reference,
        listener: Listener = SILENT,
        *,
        connection: Connection | None = None,
        actions: str = "pull",
    ) -> None:
        self.reference = reference
        self._is_shared = connection is not None
        self.connection = connection or Connection(reference.host, listener)
        self.scope: Scope = (f"repository:{reference.repository}:{actions}",)
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self._small: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        return self.reference.name

    def path(self, kind: str, what: str) -> str:
        return f"/v2/{self.reference.repository}/{kind}/{what}"

    def close(self) -> None:
        if not self._is_shared:
            self.connection.close()

    def resolve(self, reference: Reference) -> Descriptor:
        """Like `find`, but raises `UsageError` if there is none."""
        found = self.find(reference)
        if found is None:
            raise UsageError(
                f"The registry has no image {reference}.",
                hint="List its tags: skopeo list-tags docker://" + reference.name,
            )
        return found

    def find(self, reference: Reference) -> Descriptor | None:
        """The manifest or index behind a tag or a digest of this repository."""
        try:
            raw, media_type = self._read_manifest(reference.what)
        except NotInRegistry:
            return None
        found = descriptor(entry_of(raw, media_type), str(reference))
        if reference.digest is not None and found.digest != reference.digest:
            raise VerificationFailed(f"{reference} does not match its digest.")
        self.manifests[found.digest] = (raw, media_type)
        return found

    def open(self, entry: Descriptor) -> BinaryIO:
        if entry.is_index or entry.is_manifest:
            if entry.digest not in self.manifests:
                self.manifests[entry.digest] = self._read_manifest(entry.digest)
            return io.BytesIO(self.manifests[entry.digest][0])
        if entry.size > _SMALL_BYTES:
            return self.open_blob(entry.digest, entry.size)
        if entry.digest not in self._small:
            with self.open_blob(entry.digest, entry.size) as stream:
                found = stream.read()
            if entry.size + sum(map(len, self._small.values())) > _SMALL_BYTES:
                self._small.clear()
            self._small[entry.digest] = found
        return io.BytesIO(self._small[entry.digest])

    def open_blob(self, digest: str, size: int) -> BinaryIO:
        """size: in bytes, from the manifest; more is never read."""
        return _Blob(self, digest, size).buffered()

    def has_blob(self, digest: str, size: int) -> bool:
        """Raises `VerificationFailed` if the registry has one of another size."""
        request = RegistryRequest("HEAD", self.path("blobs", digest), self.scope, (200, 404))
        with self.connection.send(request) as response:
            if response.status != 200:  # noqa: PLR2004  # HTTP's "OK"
                return False
            self.refuse_length(response, digest, size)
            return True

    def refuse_length(
        self, response: urllib3.BaseHTTPResponse, digest: str, size: int, start: int = 0
    ) -> None:
        """Raises `VerificationFailed` if the registry announces other bytes than from `start` on:
        waiting for the rest of a blob would be in vain."""
        told = response.headers.get("Content-Length") or ""
        if told.isdecimal() and int(told) + start != size:
            response.close()
            raise VerificationFailed(
                f"{self.name} reports {int(told) + start} bytes for {digest} instead of {size}."
            )

    def _read_manifest(self, what: str) -> tuple[bytes, str]:
        path = self.path("manifests", what)
        request = RegistryRequest("GET", path, self.scope, headers={"Accept": ACCEPT})

        def once() -> tuple[bytes, str, str | None]:
            with self.connection.attempt(request) as response:
                raw = read_at_most(response, MAX_MANIFEST_BYTES, f"{self.name}: manifest {what}")
                kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip()
                return raw, kind, response.headers.get(_DIGEST_HEADER)

        raw, kind, told = self.connection.patient(once)
        if told is not None and told.startswith("sha256:") and told != digest_of(raw):
            raise VerificationFailed(
                f"The manifest {what} in {self.name} does not match its digest."
            )
        value = load(raw, f"The manifest {what} in {self.name}")
        return raw, _media_type(value, kind, what)


def _media_type(value: dict[str, object], told: str, what: str) -> str:
    """The manifest's own media type: a header is not covered by its digest."""
    own = value.get("mediaType")
    found = own if isinstance(own, str) else told
    has_list, has_layers = "manifests" in value, "layers" in value
    if has_list == has_layers or found not in (INDEX_TYPES if has_list else MANIFEST_TYPES):
        raise VerificationFailed(
            f"{what} is not a readable image: its manifest type is {found or 'missing'}.",
            hint="Very old images have another format: pull and push the image again to convert "
            "it.",
        )
    return found


def read_at_most(response: urllib3.BaseHTTPResponse, limit: int, what: str) -> bytes:
    """Reads a small answer completely. Raises `Transient` if it breaks off."""

    raw = b""
    while piece := _piece(response, limit + 1 - len(raw), what):
        raw += piece
    if len(raw) > limit:
        raise VerificationFailed(f"{what} is larger than any manifest may be.")
    return raw


def _piece(response: urllib3.BaseHTTPResponse, size: int, what: str) -> bytes:
    import urllib3

    try:
        return response.read(size)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _broken(what) from error


def _broken(what: str) -> Transient:
    return Transient(f"The registry closed the connection in the middle of {what}.")


class _Blob(Readable):
    """A blob's bytes. A stream that breaks is resumed, as often as the retries allow."""

    def __init__(self, store: RegistryStore, digest: str, size: int) -> None:
        super().__init__(self._next)
        self._store = store
        self._digest = digest
        self._size = size
        self._position = 0
        self._response: urllib3.BaseHTTPResponse | None = None

    def _next(self, buffer: memoryview) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if not wanted:
            self._end()
            return 0
        data = self._store.connection.patient(lambda: self._read(wanted))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, wanted: int) -> bytes:
        response = self._response or self._asked()
        self._response = None  # unless it goes on
        data = _piece(response, wanted, self._digest)
        if not data:
            raise Transient(
                f"The registry sent {self._position} of the {self._size} bytes of {self._digest}."
            )
        self._response = response
        return data

    def _asked(self) -> urllib3.BaseHTTPResponse:
        start = self._position
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = self._store.path("blobs", self._digest)
        request = RegistryRequest("GET", path, self._store.scope, (200, _PARTIAL), headers)
        try:
            response = self._store.connection.once(request)
        except NotInRegistry as error:
            what = f"{self._store.name} is missing the blob {self._digest}."
            raise MissingBlob(what) from error
        left = 0 if response.status == _PARTIAL else start  # it sends everything again
        self._store.refuse_length(response, self._digest, self._size, start - left)
        while left:
            piece = _piece(response, min(left, BUFFER_BYTES), self._digest)
            if not piece:
                raise _broken(self._digest)
            left -= len(piece)
        return response

    def _end(self) -> None:
        """A blob with more bytes than expected is a different one."""
        if self._response is not None and self._response.read(1):
            raise VerificationFailed(
                f"{self._digest} in {self._store.name} is longer than its manifest says."
            )

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        super().close()
