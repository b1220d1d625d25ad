"""Archives of images, to read: of an OCI layout, or what ``docker save`` writes; packed or not.

A docker archive lists its images in ``manifest.json``, each with a configuration and layers by the
name of a file. It is read as the layout that it would be: a manifest is made for each image. Newer
engines write both forms in one; then the layout counts.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from bundler.artifacts.image import image
from bundler.artifacts.image.blobs import REF_NAME, Descriptor
from bundler.artifacts.image.compression import is_packed, unpacked
from bundler.artifacts.image.image import Json
from bundler.errors import InputOutputError, VerificationFailed

_INDEX_FILE = "index.json"
_DOCKER_LIST = "manifest.json"
_MAX_JSON_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
# Layers that are packed themselves shrink little more: an archive that grows more is a bomb.
_FREE_OF_SUSPICION_BYTES = 4 * 1024**3
_MAX_RATIO = 200
_MAX_LINKS = 8


class Archive:
    """A store in an archive. is_docker: it is one of docker's, which is read only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs: dict[str, str] = {}
        self._manifests: dict[str, bytes] = {}
        self._stack = ExitStack()
        try:
            self._read()
        except BaseException as error:
            self._stack.close()
            if isinstance(error, tarfile.TarError):
                what = f"{path} is neither an OCI layout nor an archive."
                raise VerificationFailed(what) from error
            if isinstance(error, OSError):
                raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
            raise

    def _read(self) -> None:
        opened = tarfile.open(fileobj=self._plain(), mode="r:")  # noqa: SIM115  # closed by close()
        self._archive = self._stack.enter_context(opened)
        self._members = {
            member.name.removeprefix("./"): member
            for member in opened
            if member.isreg() or member.issym()
        }
        self.is_docker = _INDEX_FILE not in self._members
        if self.is_docker and _DOCKER_LIST not in self._members:
            raise VerificationFailed(
                f"{self.path} is no OCI archive: it has no index.json, nor docker's manifest.json."
            )
        self._index = self._of_docker() if self.is_docker else self._json(_INDEX_FILE)

    def _plain(self) -> BinaryIO:
        """The archive's bytes, unpacked to a nameless file where they are packed."""
        stream = self._stack.enter_context(self.path.open("rb"))
        packed = is_packed(stream.read(4))
        stream.seek(0)
        if packed is None:
            return stream
        most = max(_FREE_OF_SUSPICION_BYTES, self.path.stat().st_size * _MAX_RATIO)
        plain = tempfile.TemporaryFile(prefix="state-bundler-")  # noqa: SIM115  # likewise
        self._stack.enter_context(plain)
        shutil.copyfileobj(unpacked(stream, most), plain, _CHUNK_BYTES)
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
        plain = f"blobs/sha256/{entry.digest.removeprefix('sha256:')}"
        return self._open(self._blobs.get(entry.digest, plain))

    def _open(self, name: str) -> BinaryIO:
        member = self._members.get(name)
        for _ in range(_MAX_LINKS):  # docker saves a layer that it has written already as a link
            if member is None or not member.issym():
                break
            folder = name.rpartition("/")[0]
            name = _normal(f"{folder}/{member.linkname}")
            member = self._members.get(name)
        stream = (
            self._archive.extractfile(member) if member is not None and member.isreg() else None
        )
        if stream is None:
            raise VerificationFailed(f"{self.path} lacks {name}.")
        return cast("BinaryIO", stream)

    def _json(self, name: str) -> Json:
        with self._open(name) as stream:
            return image.load(stream.read(_MAX_JSON_BYTES), f"{name} in {self.path}")

    def close(self) -> None:
        self._stack.close()

    # --- docker's own

    def _of_docker(self) -> Json:
        with self._open(_DOCKER_LIST) as stream:
            raw = b'{"images":' + stream.read(_MAX_JSON_BYTES) + b"}"
        listed = image.load(raw, f"{_DOCKER_LIST} in {self.path}")["images"]
        entries: list[Json] = []
        try:
            for item in listed:
                made = self._manifest(str(item["Config"]), [str(name) for name in item["Layers"]])
                tags = item.get("RepoTags") or [None]
                entries += [{**made, "annotations": {REF_NAME: tag} if tag else {}} for tag in tags]
        except (KeyError, TypeError, AttributeError) as error:
            raise VerificationFailed(f"{self.path} has a list of images that is none.") from error
        return {"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": entries}

    def _manifest(self, config_name: str, layer_names: list[str]) -> Json:
        """Makes the manifest of an image, and returns the entry for it."""
        with self._open(config_name) as stream:
            raw = stream.read(_MAX_JSON_BYTES)
        config = image.load(raw, f"{config_name} in {self.path}")
        diff_ids = image.diff_ids(config)
        if len(diff_ids) != len(layer_names):
            raise VerificationFailed(f"{self.path} lists other layers than its configuration.")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self._blobs[digest] = config_name
        layers = [self._layer(*pair) for pair in zip(layer_names, diff_ids, strict=True)]
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": image.OCI_MANIFEST,
            "config": {"mediaType": image.OCI_CONFIG, "digest": digest, "size": len(raw)},
            "layers": layers,
        }
        made = image.dump(manifest)
        own = f"sha256:{hashlib.sha256(made).hexdigest()}"
        self._manifests[own] = made
        return {"mediaType": image.OCI_MANIFEST, "digest": own, "size": len(made)}

    def _layer(self, name: str, diff_id: str) -> Json:
        """A layer's entry. One that is not packed has its diff_id for its digest."""
        with self._open(name) as stream:
            magic = stream.read(4)
            digest, kind = diff_id, ""
            if is_packed(magic):
                seen = hashlib.sha256(magic)
                while chunk := stream.read(_CHUNK_BYTES):
                    seen.update(chunk)
                digest, kind = f"sha256:{seen.hexdigest()}", f"+{is_packed(magic)}"
            size = stream.seek(0, io.SEEK_END)
        self._blobs[digest] = name
        return {"mediaType": f"{image.OCI_LAYER}{kind}", "digest": digest, "size": size}


def _normal(path: str) -> str:
    """``a/../b/layer.tar`` is ``b/layer.tar``; nothing leads out of the archive."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
