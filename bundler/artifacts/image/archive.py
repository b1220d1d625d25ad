"""Archives of images, to read: of an OCI layout, or what ``docker save`` writes; packed or not.

A docker archive lists its images in ``manifest.json``, each with a configuration and layers by the
name of a file. It is read as the layout that it would be: a manifest is made for each image. Newer
engines write both forms in one; then the layout counts.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from bundler.artifacts.image import image
from bundler.artifacts.image.blobs import (
    REF_NAME,
    Descriptor,
    MissingBlob,
    open_regular,
    refuse_size,
)
from bundler.artifacts.image.compression import Allowance, is_packed, unpack
from bundler.artifacts.image.image import Json
from bundler.artifacts.image.tarstream import TarMember, read_tar
from bundler.errors import VerificationFailed, unreadable
from bundler.state.tree import hash_stream
from bundler.system.readable import Readable

_INDEX_FILE = "index.json"
_DOCKER_LIST = "manifest.json"
_BLOBS = "blobs/sha256/"
_MAX_JSON_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MAX_LINKS = 8
# An image has three files per layer.
_MAX_MEMBERS = 100_000


class Archive:
    """A store in an archive. is_docker: whether docker wrote it; then it is read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs: dict[str, str] = {}
        self._manifests: dict[str, bytes] = {}
        self._stack = ExitStack()
        try:
            self._read()
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise unreadable(path, error) from error
            raise

    def _read(self) -> None:
        self._file = self._plain()
        self._members = self._listed()
        self.is_docker = _INDEX_FILE not in self._members
        if self.is_docker and _DOCKER_LIST not in self._members:
            raise VerificationFailed(
                f"{self.path} is not an OCI archive: it has neither index.json nor docker's "
                "manifest.json.",
                hint="`docker export` writes only files. Use `docker save -o FILE IMAGE`.",
            )
        if self.is_docker:
            self._index = self._of_docker()
            return
        self._index = image.load(self._small(_INDEX_FILE), f"{_INDEX_FILE} in {self.path}")
        blobs = (name for name in self._members if name.startswith(_BLOBS))
        self._blobs = {f"sha256:{name.removeprefix(_BLOBS)}": name for name in blobs}

    def _listed(self) -> dict[str, TarMember]:
        """The files and links in the archive, by name."""
        end = os.fstat(self._file.fileno()).st_size
        found: dict[str, TarMember] = {}
        members = read_tar(self._file, str(self.path), end=end)
        for count, member in enumerate(members):
            name = member.path[1:]
            if name in found or count >= _MAX_MEMBERS:
                raise VerificationFailed(f"{self.path} contains {name} twice, or too many files.")
            if member.kind in ("file", "symlink"):
                found[name] = member
        return found

    def _plain(self) -> BinaryIO:
        """The archive's bytes, decompressed to an unnamed file if needed."""
        stream = self._stack.enter_context(open_regular(self.path))
        packed = is_packed(stream.read(4))
        stream.seek(0)
        if packed is None:
            return stream
        plain = tempfile.TemporaryFile(prefix="state-bundler-")  # noqa: SIM115  # likewise
        self._stack.enter_context(plain)
        allowed = Allowance.for_packed(self.path.stat().st_size)
        shutil.copyfileobj(unpack(stream, allowed)[0], plain, _CHUNK_BYTES)
        plain.seek(0)
        return cast("BinaryIO", plain)

    @property
    def name(self) -> str:
        return str(self.path)

    def index(self) -> Json:
        return self._index

    def open(self, entry: Descriptor) -> BinaryIO:
        made = self._manifests.get(entry.digest)
        if made is not None:
            return io.BytesIO(made)
        name = self._blobs.get(entry.digest)
        if name is None:
            raise MissingBlob(f"{self.path} is missing the blob {entry.digest}.")
        refuse_size(self, entry, self._member(name).size)
        return self._open(name)

    def _member(self, name: str) -> TarMember:
        member = self._members.get(name)
        for _ in range(_MAX_LINKS):  # docker saves a repeated layer as a link
            if member is None or member.kind == "file":
                break
            folder = name.rpartition("/")[0]
            # Nothing leads out of the archive.
            name = posixpath.normpath(f"/{folder}/{member.target}").lstrip("/")
            member = self._members.get(name)
        if member is None or member.kind != "file":
            raise VerificationFailed(f"{self.path} is missing {name}.")
        return member

    def _open(self, name: str) -> BinaryIO:
        member = self._member(name)
        at, end = member.offset, member.offset + member.size

        def fill(buffer: memoryview) -> int:
            nonlocal at
            count = os.preadv(self._file.fileno(), [buffer[: end - at]], at)
            at += count
            return count

        return Readable(fill).buffered()

    def _small(self, name: str) -> bytes:
        with self._open(name) as stream:
            return stream.read(_MAX_JSON_BYTES)

    def close(self) -> None:
        self._stack.close()

    # --- docker's own

    def _of_docker(self) -> Json:
        raw = b'{"images":' + self._small(_DOCKER_LIST) + b"}"
        listed = image.load(raw, f"{_DOCKER_LIST} in {self.path}")["images"]
        entries: list[Json] = []
        try:
            for item in listed:
                made = self._manifest(str(item["Config"]), [str(name) for name in item["Layers"]])
                tags = item.get("RepoTags") or [None]
                entries += [{**made, "annotations": {REF_NAME: tag} if tag else {}} for tag in tags]
        except (KeyError, TypeError, AttributeError) as error:
            raise VerificationFailed(f"The image list in {self.path} is invalid.") from error
        return {"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": entries}

    def _manifest(self, config_name: str, layer_names: list[str]) -> Json:
        """Makes the manifest of an image and returns its entry."""
        raw = self._small(config_name)
        config = image.load(raw, f"{config_name} in {self.path}")
        diff_ids = image.diff_ids(config)
        if len(diff_ids) != len(layer_names):
            raise VerificationFailed(
                f"The layers in {self.path} differ from those in its configuration."
            )
        entry = image.entry_of(raw, image.OCI_CONFIG)
        self._blobs[entry["digest"]] = config_name
        layers = [self._layer(*pair) for pair in zip(layer_names, diff_ids, strict=True)]
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": image.OCI_MANIFEST,
            "config": entry,
            "layers": layers,
        }
        made = image.dump(manifest)
        own = image.entry_of(made, image.OCI_MANIFEST)
        self._manifests[own["digest"]] = made
        return own

    def _layer(self, name: str, diff_id: str) -> Json:
        """A layer's entry. The digest of an uncompressed layer is its diff_id."""
        digest, kind = diff_id, ""
        with self._open(name) as stream:
            if packed := is_packed(stream.read(4)):
                with self._open(name) as whole:
                    digest, kind = f"sha256:{hash_stream(whole)[0]}", f"+{packed}"
        size = self._member(name).size
        self._blobs[digest] = name
        return {"mediaType": f"{image.OCI_LAYER}{kind}", "digest": digest, "size": size}
