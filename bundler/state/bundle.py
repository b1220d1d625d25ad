"""A bundle: one state directory on disk, with its manifest, ready to be embedded.

What is embedded of a state directory is exactly `Bundle.members`: the manifest, our support files
and every file of every state, each under the digest that the manifest gives. Nothing else that
is in the directory (the staging area, the run record) ever goes along.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from bundler import verify_at_start
from bundler.errors import VerificationFailed
from bundler.state.manifest import Manifest
from bundler.system.readable import Readable
from bundler.system.reading import reading

STATE_DIRECTORY = ".local_defs_state"
MANIFEST_NAME = "@manifest.json"
RUN_RECORD_NAME = "@run.json"
VERIFIER_NAME = "@verify.py"
STAGING_NAME = "@staging"


def verifier() -> bytes:
    """The program ``@verify.py``: two modules of this package in one file."""
    first = Path(verify_at_start.__file__)
    return b"\n\n".join(path.read_bytes() for path in (first, first.with_name("load_at_start.py")))


def is_at(path: str, place: str) -> bool:
    """Whether a path in an artifact is the state directory that `Bundle.place` means.

    An artifact names it relative to its own root, or to where its modules are imported from.
    """
    return f"/{path.strip('/')}".endswith(f"/{place.strip('/')}")


def paths_at(paths: Collection[str], place: str, places: Iterable[str]) -> list[str]:
    """Those of an artifact's state directories that belong to the project with this place.

    places: of all projects that the command is about. Where several match, the longest one does.
    For a single project, the artifact's only state directory may have any name but that of another
    module.
    """
    others = [other for other in places if other != place]
    longer = [other for other in others if len(other) > len(place)]
    found = [
        path
        for path in paths
        if is_at(path, place) and not any(is_at(path, other) for other in longer)
    ]
    if found or others or len(paths) != 1:
        return found
    (path,) = paths
    is_of_module = is_at(path, STATE_DIRECTORY) and path.strip("/") != STATE_DIRECTORY
    return [] if is_of_module else [path]


class BundleMember(msgspec.Struct, frozen=True):
    """A file to embed: path relative to the state directory, size in bytes."""

    path: str
    size: int
    sha256: str
    source: Path | bytes

    def open(self) -> BinaryIO:
        """The bytes; reading them to the end raises `VerificationFailed` if they changed."""
        if isinstance(self.source, bytes):
            return _checked(io.BytesIO(self.source), self)
        with reading(self.source):
            return _checked(io.FileIO(self.source), self)


class Bundle(msgspec.Struct, frozen=True):
    """A state directory that was published or staged.

    root: where its files are now. place: where the program looks for it, relative to the root from
    which its modules are imported, such as ``shop/defs/.local_defs_state``. held: where its files
    stay as they are, see `bundler.state.hold`.
    """

    root: Path
    manifest: Manifest
    place: str
    held: Path | None = None

    def members(self) -> list[BundleMember]:
        """Everything to embed, sorted by path as bytes."""
        root, raw = self.held or self.root, self.manifest.raw
        members = [BundleMember(MANIFEST_NAME, len(raw), self.manifest.sha256, raw)]
        for path, file in self.manifest.files.items():
            members.append(BundleMember(path, file.size, file.sha256, root / path))
        return sorted(members, key=lambda member: member.path.encode())


def _checked(source: io.FileIO | io.BytesIO, member: BundleMember) -> BinaryIO:
    """Passes bytes through and compares them with the manifest's digest at the end."""
    digest, left = hashlib.sha256(), member.size

    def fill(buffer: memoryview) -> int:
        nonlocal left
        count = source.readinto(buffer) or 0
        digest.update(buffer[:count])
        left -= count
        has_ended = not count
        if left < 0 or (has_ended and (left or digest.hexdigest() != member.sha256)):
            raise VerificationFailed(
                f"{member.path} changed between hashing and embedding.",
                hint="Something still writes to the state: stop it, then build again.",
            )
        return count

    return Readable(fill, cast("BinaryIO", source)).buffered()
