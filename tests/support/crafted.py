"""Images whose state someone has tampered with, byte by byte, and what an engine makes of them."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.artifacts.image import image
from bundler.artifacts.image.engine.connection import Engine
from bundler.artifacts.image.engine.loading import load
from bundler.artifacts.image.engine.opening import EngineImage
from bundler.artifacts.verify import verify
from bundler.errors import ToolFailed, VerificationFailed
from bundler.state.artifact import Artifact
from bundler.state.bundle import STATE_DIRECTORY, Bundle
from tests.support.bundles import PLACE, make_bundle
from tests.support.layouts import LayoutMaker, blob_of, code_layer, embed_here, read_image

STATE = f"app/src/{PLACE}"
STATES = {"Catalog": {"state": b'{"products": 3}'}, "Dbt": {"state": b"", "project/a.sql": b"1"}}
END = bytes(1024)


@dataclass
class Crafted:
    """layers: unpacked, from the lowest on. bundle: what was embedded in the last one."""

    layers: list[bytes]
    config: dict[str, Any]
    bundle: Bundle
    annotations: dict[str, str] = field(default_factory=dict)

    def changed(self, layers: Sequence[bytes], *, relabelled: bool = False) -> Crafted:
        """The same image with other layers. relabelled: the labels call the last one ours."""
        config = copy.deepcopy(self.config)
        config["rootfs"]["diff_ids"] = [_digest(data) for data in layers]
        config["history"] = [{"created_by": "x"} for _ in layers]
        if relabelled:
            labels = config["config"]["Labels"]
            labels[image.LABEL_LAYER] = _digest(layers[-1])
            labels[image.LABEL_BASE] = image.files_below(config)
        return Crafted(list(layers), config, self.bundle, dict(self.annotations))

    def with_top(self, data: bytes) -> Crafted:
        """Another state layer, which the labels call ours."""
        return self.changed([*self.layers[:-1], data], relabelled=True)

    def with_layer(self, data: bytes) -> Crafted:
        return self.changed([*self.layers, data])

    def with_settings(self, **settings: Any) -> Crafted:
        found = self.changed(self.layers)
        found.config["config"].update(settings)
        return found

    def layout(self, folder: Path) -> Path:
        maker = LayoutMaker(folder)
        entry = maker.manifest(self.layers, whole=self.config)
        if self.annotations:
            body = json.loads(blob_of(folder, entry["digest"]).read_text())
            body["annotations"] = self.annotations
            entry = maker.blob(json.dumps(body).encode(), entry["mediaType"])
        maker.tag(entry)
        return folder

    def docker_archive(self, name: str) -> bytes:
        """As ``docker save`` writes it."""
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        listing = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
        files = {
            **dict(zip(names, self.layers, strict=True)),
            "config.json": json.dumps(self.config).encode(),
            "manifest.json": json.dumps(listing).encode(),
        }
        return b"".join(header(name, data) for name, data in files.items()) + END

    @property
    def expected(self) -> dict[str, bytes]:
        """The files of the state directory as the manifest has them."""
        found = {}
        for member in self.bundle.members():
            with member.open() as stream:
                found[member.path] = stream.read()
        return found


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make(root: Path, states: Mapping[str, Mapping[str, bytes]] = STATES) -> Crafted:
    """An image with code in one layer and these states in the next."""
    base = LayoutMaker(root / "base")
    base.tag(base.manifest([code_layer()], {"WorkingDir": "/app", "Env": ["PATH=/bin"]}))
    bundle = make_bundle(root / "state", states)
    embed_here(base.path, bundle, root / "good")
    manifest, config = read_image(root / "good", "latest")
    layers = [
        gzip.decompress(blob_of(root / "good", entry["digest"]).read_bytes())
        for entry in manifest["layers"]
    ]
    return Crafted(layers, config, bundle, manifest["annotations"])


# --- tar, by hand ---------------------------------------------------------------------------


def header(
    name: str | bytes,
    data: bytes = b"",
    flag: bytes = b"0",
    *,
    mode: int = 0o644,
    target: bytes = b"",
    size: int | None = None,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """A member: its header as given, its bytes, the padding."""
    raw = name.encode() if isinstance(name, str) else name
    length = len(data) if size is None else size
    block = bytearray(
        raw.ljust(100, b"\0")
        + b"%07o\0%07o\0%07o\0" % (mode, 0, 0)
        + b"%011o\0%011o\0" % (length, 0)
        + b" " * 8
        + flag
        + target.ljust(100, b"\0")
        + magic
        + bytes(80)
        + prefix.ljust(155, b"\0")
        + bytes(12)
    )
    assert len(block) == 512, len(block)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str], flag: bytes = b"x") -> bytes:
    """A header of attributes for the next member; for all of them with the flag ``g``."""
    body = b""
    for key, value in records:
        line = f" {key}={value}\n".encode()
        length = len(line)
        while len(str(length)) + len(line) != length:
            length = len(str(length)) + len(line)
        body += str(length).encode() + line
    return header("././@PaxHeader", body, flag)


def long_name(name: str, flag: bytes = b"L") -> bytes:
    return header("././@LongLink", name.encode() + b"\0", flag, magic=b"ustar  \0")


def chunks(data: bytes) -> dict[str, bytes]:
    """The members of a layer by name, each with all that belongs to it."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        starts = [(member.name, member.offset) for member in archive.getmembers()]
    ends = [offset for _, offset in starts[1:]] + [len(data) - len(END)]
    for (name, start), end in zip(starts, ends, strict=True):
        found[name] = data[start:end]
    return found


def joined(parts: Mapping[str, bytes] | Sequence[bytes]) -> bytes:
    return b"".join(parts.values() if isinstance(parts, Mapping) else parts) + END


# --- what becomes of it ---------------------------------------------------------------------


def problems(artifact: Artifact) -> list[str]:
    """What `verify` says of an artifact. Any other class of failure is a fault."""
    try:
        return list(verify(artifact).all_problems)
    except VerificationFailed as error:
        return [error.what]


def refusal(open_it: Any) -> list[str]:
    """Like `problems`, of what may be refused when it is opened."""
    try:
        with open_it() as artifact:
            return problems(artifact)
    except VerificationFailed as error:
        return [error.what]


def loaded(engine: Engine, crafted: Crafted, name: str) -> bool:
    """Whether an engine takes an image."""
    try:
        load(engine, iter([crafted.docker_archive(name)]))
    except ToolFailed:
        return False
    return True


def unpacked(artifact: EngineImage) -> dict[str, bytes]:
    """The files of the state directory in a container of an image."""
    if not artifact.container.has(f"/{STATE}"):
        return {}
    with artifact.container.archive(f"/{STATE}") as stream:
        return dict(_files(stream.read()))


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.removeprefix(f"{STATE_DIRECTORY}/").removeprefix("./")
            if member.isreg():
                stream = archive.extractfile(member)
                assert stream is not None
                yield name, stream.read()
            elif not member.isdir():
                yield name, b"<other>"
