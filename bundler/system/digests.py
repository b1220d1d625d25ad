"""SHA-1 and SHA-256 without OpenSSL, for little data at every commit.

``hashlib`` loads OpenSSL, which takes longer than an empty interpreter needs to start. Python's own
implementation is about half as fast at hashing, so OpenSSL pays off from about a megabyte on.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib

WORTH_OPENSSL_BYTES = 1 << 20
# A module that is not there is searched for at every import.
_MODULES = {"sha1": "_sha1", "sha256": "_sha2" if sys.version_info >= (3, 12) else "_sha256"}


def new(algorithm: str, size: int) -> hashlib._Hash:
    """A digest ("sha1" or "sha256") for about this many bytes."""
    if size < WORTH_OPENSSL_BYTES:
        try:
            digest: hashlib._Hash = getattr(__import__(_MODULES[algorithm]), algorithm)()
        except ImportError:
            pass
        else:
            return digest
    import hashlib

    return hashlib.new(algorithm, usedforsecurity=False)


def object_id(algorithm: str, kind: bytes, content: bytes) -> bytes:
    """The id that git gives to an object of this kind (``blob``) with this content."""
    digest = new(algorithm, len(content))
    digest.update(b"%s %d\0" % (kind, len(content)))
    digest.update(content)
    return digest.digest()
