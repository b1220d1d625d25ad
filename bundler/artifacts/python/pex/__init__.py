"""PEX files: reads state without running them, and embeds it where it is imported from.

Embedding rewrites the file under a temporary name and renames it. Everything that is not ours is
copied byte for byte; the state directory is replaced completely; the hashes by which pex's runtime
recognises a file are recomputed, so that a machine that has run the older file notices the change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.replacing import named_at_end
from bundler.state.manifest import EVERY_BYTE
from bundler.system.atomic import io_errors


class PexDestination(msgspec.Struct, frozen=True):
    """The path of a PEX, which is the old or the new file at any time.

    base: the open PEX to add the state to. The new one has its mode.
    """

    base: PexArtifact
    path: Path

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[PexArtifact]:
        """See `bundler.artifacts.embedding.Destination`.

        Raises `ConfigurationError` if a package is not importable, `VerificationFailed` if
        the PEX is malformed or holds state that nobody vouches for.
        """
        from bundler.artifacts.python.pex.writer import write  # not needed to read

        with named_at_end(self.path) as path:
            with io_errors(self.path):
                write(self.base, request.read_back_as(EVERY_BYTE), path)
            request.listener.phase("Reading back")
            with PexArtifact(path) as made:
                yield made
