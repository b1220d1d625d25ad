"""Images in a registry, for reading: a repository's manifests and blobs as a `BlobStore`.

Manifests and small blobs are kept in memory once they are read; layers are streamed. A stream that
breaks is resumed.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO

from bundler.artifacts.image.blobs import Descriptor, descriptor
from bundler.artifacts.image.image import INDEX_TYPES, MANIFEST_TYPES, load
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

if TYPE_CHECKING:
    import urllib3
    from _typeshed import WriteableBuffer

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
        """The manifest or index behind a tag or a digest of this repository.

        Raises `UsageError` if there is none.
        """
        try:
            raw, media_type = self._read_manifest(reference.what)
        except NotInRegistry as error:
            raise UsageError(
                f"The registry has no image {reference}.",
                hint="List its tags: skopeo list-tags docker://" + reference.name,
            ) from error
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if reference.digest is not None and digest != reference.digest:
            raise VerificationFailed(f"{reference} does not match its digest.")
        entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
        self.manifests[digest] = (raw, media_type)
        return descriptor(entry, str(reference))

    def find(self, reference: Reference) -> Descriptor | None:
        """Like `resolve`, but returns None if there is none."""
        try:
            return self.resolve(reference)
        except UsageError as error:
            if isinstance(error.__cause__, NotInRegistry):
                return None
            raise

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
        return io.BufferedReader(_Blob(self, digest, size), buffer_size=256 * 1024)

    def has_blob(self, digest: str, size: int) -> bool:
        """Raises `VerificationFailed` if the registry has one of another size."""
        request = RegistryRequest(
            "HEAD", self.path("blobs", digest), self.scope, expected=(200, 404)
        )
        with self.connection.send(request) as response:
            if response.status != 200:  # noqa: PLR2004  # HTTP's "OK"
                return False
            told = response.headers.get("Content-Length")
        if told is not None and told != str(size):
            raise VerificationFailed(
                f"{self.name} reports {told} bytes for {digest}, but it has {size}."
            )
        return True

    def _read_manifest(self, what: str) -> tuple[bytes, str]:
        request = RegistryRequest(
            "GET", self.path("manifests", what), self.scope, {"Accept": ACCEPT}
        )

        def once() -> tuple[bytes, str, str | None]:
            with self.connection.attempt(request) as response:
                raw = read_at_most(response, MAX_MANIFEST_BYTES, f"{self.name}: manifest {what}")
                kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip()
                return raw, kind, response.headers.get(_DIGEST_HEADER)

        raw, kind, told = self.connection.patient(once)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if told is not None and told.startswith("sha256:") and told != digest:
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
    import urllib3

    pieces, size = [], 0
    told = response.headers.get("Content-Length") or ""
    if told.isdecimal() and int(told) > limit:
        raise VerificationFailed(f"{what} is larger than any manifest may be.")
    try:
        while piece := response.read(64 * 1024):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise VerificationFailed(f"{what} is larger than any manifest may be.")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Transient(f"The registry closed the connection in the middle of {what}.") from error
    if told.isdecimal() and int(told) != size:
        raise Transient(f"The registry closed the connection in the middle of {what}.")
    return b"".join(pieces)


class _Blob(io.RawIOBase):
    """A blob's bytes. A stream that breaks is resumed, as often as the retries allow."""

    def __init__(self, store: RegistryStore, digest: str, size: int) -> None:
        super().__init__()
        self._store = store
        self._digest = digest
        self._size = size
        self._position = 0
        self._response: urllib3.BaseHTTPResponse | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._position)
        if not wanted:
            self._end()
            return 0
        data: bytes = self._store.connection.patient(lambda: self._read(wanted))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, wanted: int) -> bytes:
        import urllib3

        if self._response is None:
            self._response = self._asked()
        try:
            data = self._response.read(wanted)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._drop()
            raise Transient(
                f"The registry closed the connection in the middle of {self._digest}."
            ) from error
        if not data:
            self._drop()
            raise Transient(
                f"The registry sent {self._position} of the {self._size} bytes of {self._digest}."
            )
        return data

    def _asked(self) -> urllib3.BaseHTTPResponse:
        start = self._position
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = self._store.path("blobs", self._digest)
        request = RegistryRequest("GET", path, self._store.scope, headers, expected=(200, _PARTIAL))
        try:
            response = self._store.connection.once(request)
        except NotInRegistry as error:
            what = f"{self._store.name} is missing the blob {self._digest}."
            raise VerificationFailed(what) from error
        self._refuse_length(response, start if response.status == _PARTIAL else 0)
        if start and response.status != _PARTIAL:  # it sends everything again
            self._skip(response, start)
        return response

    def _refuse_length(self, response: urllib3.BaseHTTPResponse, start: int) -> None:
        """The registry announces more bytes than the blob has; waiting for the rest would be in
        vain."""
        told = response.headers.get("Content-Length") or ""
        if told.isdecimal() and int(told) != self._size - start:
            response.close()
            raise VerificationFailed(
                f"{self._store.name} reports {int(told) + start} bytes for {self._digest} "
                f"instead of {self._size}."
            )

    def _skip(self, response: urllib3.BaseHTTPResponse, count: int) -> None:
        import urllib3

        try:
            while count and (piece := response.read(min(count, 256 * 1024))):
                count -= len(piece)
        except (urllib3.exceptions.HTTPError, OSError):
            count = -1
        if count:
            response.close()
            raise Transient(f"The registry closed the connection in the middle of {self._digest}.")

    def _end(self) -> None:
        """A blob with more bytes than expected is a different one."""
        if self._response is not None and self._response.read(1):
            self._drop()
            raise VerificationFailed(
                f"{self._digest} in {self._store.name} is longer than its manifest says."
            )

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        self._drop()
        super().close()
