"""OCI layouts: base images made by hand from lists of files, without any tool; read by hand."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image.compression import unpack
from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.verify import verify
from bundler.state.bundle import Bundle
from tests.support.bundles import make_record
from tests.support.embedding import Made, embed_layout

OCI = "application/vnd.oci.image"


def layer(entries: Mapping[str, bytes | str | tarfile.TarInfo | None]) -> bytes:
    """A tar archive. A value is bytes, ``-> target`` for a link, None for a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in entries.items():
            info = value if isinstance(value, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if value is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value.removeprefix("-> ")
            elif isinstance(value, bytes):
                info.size, info.mode = len(value), 0o644
            content = io.BytesIO(value) if isinstance(value, bytes) else None
            archive.addfile(info, content)
    return buffer.getvalue()


def directory(mode: int, uid: int, gid: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, uid, gid
    return info


@functools.lru_cache(maxsize=2)  # an image may have one layer many times
def pack(data: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if packing == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


@functools.lru_cache(maxsize=2)
def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class LayoutMaker:
    """Writes an OCI layout with images of given layers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._index: list[Any] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(data)
        blob_of(self.path, digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def manifest(
        self,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        *,
        packing: str = "gzip",
        architecture: str = "amd64",
        whole: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        suffix = "" if packing == "none" else f"+{packing}"
        blobs = [self.blob(pack(data, packing), f"{OCI}.layer.v1.tar{suffix}") for data in layers]
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {
                "type": "layers",
                "diff_ids": [_digest(data) for data in layers],
            },
            "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
            **(whole or {}),
        }
        body = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.blob(json.dumps(document).encode(), f"{OCI}.config.v1+json"),
            "layers": blobs,
        }
        return self.blob(json.dumps(body).encode(), f"{OCI}.manifest.v1+json")

    def attestation(self) -> dict[str, Any]:
        """An entry as buildx adds it to an index."""
        made = self.manifest([b"{}"], packing="none")
        body = json.loads(blob_of(self.path, made["digest"]).read_text())
        body["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
        return {
            **self.blob(json.dumps(body).encode(), f"{OCI}.manifest.v1+json"),
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            "platform": {"architecture": "unknown", "os": "unknown"},
        }

    def index(self, manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        body = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
        return self.blob(json.dumps(body).encode(), f"{OCI}.index.v1+json")

    def tag(self, entry: Mapping[str, Any], tag: str | None = "latest") -> None:
        name = {"org.opencontainers.image.ref.name": tag} if tag is not None else {}
        self._index.append({**entry, "annotations": name})
        index = {"schemaVersion": 2, "manifests": self._index}
        (self.path / "index.json").write_text(json.dumps(index))


def add_layer(maker: LayoutMaker, tag: str, content: bytes, new_tag: str) -> None:
    """Derives an image from one with a tag, as ``FROM`` does."""
    manifest, config = read_image(maker.path, tag)
    config["rootfs"]["diff_ids"].append(_digest(content))
    config["history"].append({"created_by": "derived"})
    manifest["layers"].append(maker.blob(pack(content, "gzip"), f"{OCI}.layer.v1.tar+gzip"))
    manifest["config"] = maker.blob(json.dumps(config).encode(), f"{OCI}.config.v1+json")
    del manifest["annotations"]
    entry = maker.blob(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
    maker.tag(entry, new_tag)


def code_layer(root: str = "app/src") -> bytes:
    """A package ``shop`` with a defs module below a root, owned by an application's user."""
    parts = root.split("/")
    folders = {"/".join(parts[: end + 1]): directory(0o755, 0, 0) for end in range(len(parts))}
    return layer(
        {
            **folders,
            f"{root}/shop": directory(0o750, 1000, 1001),
            f"{root}/shop/__init__.py": b"",
            f"{root}/shop/defs": directory(0o2775, 1000, 1001),
            f"{root}/shop/defs/__init__.py": b"",
        }
    )


def blob_of(path: Path, digest: str) -> Path:
    return path / "blobs/sha256" / digest.removeprefix("sha256:")


def read_image(path: Path, tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the configuration of a tag, read by hand."""
    index = json.loads((path / "index.json").read_text())
    entry = next(
        item
        for item in index["manifests"]
        if item["annotations"]["org.opencontainers.image.ref.name"] == tag
    )
    manifest = json.loads(blob_of(path, entry["digest"]).read_text())
    return manifest, json.loads(blob_of(path, manifest["config"]["digest"]).read_text())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    maker = LayoutMaker(tmp_path / "base")
    config = {"WorkingDir": "/app", "User": "1000", "Labels": {"team": "shop"}}
    maker.tag(maker.manifest([layer({"etc": None}), code_layer()], config))
    return maker.path


def embed_here(base: Path | None, bundle: Bundle, destination: Path, **options: object) -> Made:
    record = make_record(bundle)
    return embed_layout(base, [bundle], record, destination, **options)  # type: ignore[arg-type]


def assert_verifies(path: Path, tag: str = "latest") -> None:
    with open_layout(path, tag) as artifact:
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    assert verdict.directories


def last_layer(path: Path, tag: str = "latest") -> list[tarfile.TarInfo]:
    manifest, _ = read_image(path, tag)
    with unpack(blob_of(path, manifest["layers"][-1]["digest"]).open("rb"))[0] as stream:
        return tarfile.open(fileobj=io.BytesIO(stream.read())).getmembers()
