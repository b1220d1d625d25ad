"""Registries that break down, refuse and send false answers: the old image stays, and a message
says why.

Each request of an embedding is broken in turn, once (it is tried again) and for good (the image
behind the tag is then what it was).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bundler.artifacts.image import image, registry
from bundler.artifacts.image.registry import connection
from bundler.errors import (
    BundlerError,
    CredentialsRefused,
    ToolFailed,
    VerificationFailed,
)
from bundler.state.bundle import Bundle
from tests.support.bundles import make_bundle
from tests.support.layouts import LayoutMaker, layer
from tests.support.pushing import STATES, embed, push_base, verdict_of
from tests.support.registries import OCI_INDEX, Registry, digest_of

MEMORY_BYTES = 150 * 1024 * 1024


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "state", STATES)


def prepared(ours: Registry, tmp_path: Path) -> tuple[str, dict[str, object]]:
    """An image with an older state under a tag; returns its digest and the registry's content."""
    push_base(LayoutMaker(tmp_path / "base"), f"{ours.host}/shop:code", packing="none")
    older = make_bundle(tmp_path / "older", {"K": {"state": b"older"}})
    embed(f"{ours.host}/shop:live", older, f"{ours.host}/shop:code")
    tag = ours.tag("shop", "live")
    assert tag is not None
    return tag, {"blobs": dict(ours.blobs), "manifests": dict(ours.manifests)}


def restore(ours: Registry, kept: dict[str, object], tag: str) -> None:
    ours.fault = lambda *_: None
    ours.blobs, ours.manifests = dict(kept["blobs"]), dict(kept["manifests"])  # type: ignore[call-overload]
    ours.tags["shop", "live"] = tag
    ours.uploads.clear()
    ours.log.clear()
    ours.headers.clear()


@pytest.mark.parametrize("fault", ["drop", 500, "half"])
def test_each_request_that_fails_once_is_made_again(
    ours: Registry, bundle: Bundle, tmp_path: Path, fault: str | int
) -> None:
    tag, kept = prepared(ours, tmp_path)
    restore(ours, kept, tag)
    embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
    count = len(ours.log)
    assert count >= 14
    for position in range(1, count):  # the first one finds out whether there is TLS
        break_at(ours, kept, tag, fault, position)
        embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
        ours.fault = lambda *_: None
        assert ours.tag("shop", "live") != tag
        assert verdict_of(f"{ours.host}/shop:live").all_problems == (), position


def test_each_request_of_a_stream_that_is_dropped_once_is_made_again(
    ours: Registry, tmp_path: Path
) -> None:
    large = make_bundle(tmp_path / "large", {"K": {"state": os.urandom(5 * 1024 * 1024)}})
    tag, kept = prepared(ours, tmp_path)
    restore(ours, kept, tag)
    embed(f"{ours.host}/shop:live", large, f"{ours.host}/shop:code")
    uploads = [number for number, line in enumerate(ours.log) if "/uploads/" in line]
    assert any(ours.log[number].startswith("PATCH") for number in uploads)
    for position in uploads:
        break_at(ours, kept, tag, "drop", position)
        embed(f"{ours.host}/shop:live", large, f"{ours.host}/shop:code")
        assert ours.tag("shop", "live") != tag


def break_at(
    ours: Registry, kept: dict[str, object], tag: str, fault: str | int, position: int
) -> None:
    restore(ours, kept, tag)
    ours.fault = lambda number, *_: fault if number == position else None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("drop", ToolFailed),
        (500, ToolFailed),
        (429, ToolFailed),
        (401, CredentialsRefused),
    ],
)
def test_a_registry_that_stays_down_keeps_the_tag(
    ours: Registry, bundle: Bundle, tmp_path: Path, fault: str | int, error: type[BundlerError]
) -> None:
    tag, kept = prepared(ours, tmp_path)
    restore(ours, kept, tag)
    embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
    count = len(ours.log)
    named = max(i for i, line in enumerate(ours.log) if line == "PUT /v2/shop/manifests/live")
    for position in range(1, count):
        restore(ours, kept, tag)
        ours.fault = lambda number, *_, at=position: fault if number >= at else None  # type: ignore[misc]
        with pytest.raises(error):
            embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
        ours.fault = lambda *_: None
        moved = ours.tag("shop", "live") != tag
        assert moved == (position > named), position  # after it, only reading it again can fail
        assert verdict_of(f"{ours.host}/shop:live").all_problems == ()


def test_one_who_asks_for_an_hour_is_not_waited_for(ours: Registry) -> None:
    ours.fault = lambda *_: 429
    ours.retry_after = "3600"
    with pytest.raises(ToolFailed, match="429"):
        registry.open_image(f"{ours.host}/shop:1")
    assert len(ours.log) == 2  # of which one looks for TLS

    for tries, wait in enumerate(("1", "9" * 5000, "Wed, 21 Oct 99999 07:28:00 GMT", "soon"), 1):
        ours.retry_after = wait
        with pytest.raises(ToolFailed, match="429"):
            registry.open_image(f"{ours.host}/shop:1")
        assert len(ours.log) == 2 + 6 * tries


def test_an_expired_token_is_renewed(ours: Registry, bundle: Bundle, tmp_path: Path) -> None:
    tag, _ = prepared(ours, tmp_path)
    ours.user, ours.token = ("me", "word"), True
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"auths": {ours.host: {"username": "me", "password": "word"}}}))
    expired = []

    def expire(number: int, method: str, path: str) -> int | None:
        if method == "PUT" and not expired:
            expired.append(number)
            return 401
        return None

    ours.fault = expire
    # The fault's own challenge is Basic: what is answered is what was asked for.
    with pytest.raises(BundlerError):
        embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
    assert ours.tag("shop", "live") == tag
    embed(f"{ours.host}/shop:live", bundle, f"{ours.host}/shop:code")
    assert ours.tag("shop", "live") != tag


# --- false answers --------------------------------------------------------------------------


def put(ours: Registry, value: object, media_type: str, *tags: str) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    digest = digest_of(raw)
    ours.manifests["shop", digest] = (media_type, raw)
    for tag in tags:
        ours.tags["shop", tag] = digest
    return digest


def blob(ours: Registry, data: bytes, media_type: str = "x") -> dict[str, object]:
    ours.blobs["shop", digest_of(data)] = data
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def refused(name: str, match: str) -> None:
    """Neither opened nor verified, with a message; whichever notices."""
    try:
        said = " ".join(verdict_of(name).all_problems)
    except VerificationFailed as error:
        said = error.what
    assert re.search(match, said), said


def test_every_blob_and_manifest_is_compared_with_its_digest(
    ours: Registry, tmp_path: Path
) -> None:
    prepared(ours, tmp_path)
    manifest = ours.manifest("shop", "live")
    name = f"{ours.host}/shop:live"
    by_digest = f"{ours.host}/shop@{ours.tag('shop', 'live')}"
    for what in (manifest["config"]["digest"], manifest["layers"][-1]["digest"], "sha256"):
        ours.mend = lambda asked, body, what=what: (  # type: ignore[misc]
            body.replace(b"older", b"newer").replace(b'"shop"', b'"ship"')
            if asked.startswith(what)
            else body
        )
        refused(by_digest if what == "sha256" else name, "digest|altered|was")
    ours.mend = lambda _, body: body
    assert verdict_of(name).all_problems == ()


def test_a_wrong_length(ours: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(ours, tmp_path)
    name = f"{ours.host}/shop:live"
    for lie in (3, 10**12):
        ours.claims_length = lie
        with monkeypatch.context() as patch:
            patch.setattr(connection, "_READ_SECONDS", 2.0)  # more bytes never come
            with pytest.raises(BundlerError):
                verdict_of(name)
    ours.claims_length = None
    ours.mend = lambda asked, body: body + b"more" if asked.startswith("sha256:") else body
    refused(name, r"digest|longer|instead")


def test_invalid_addresses(ours: Registry, tmp_path: Path) -> None:
    push_base(LayoutMaker(tmp_path / "base"), f"{ours.host}/shop:1")
    name = f"{ours.host}/shop:1"
    ours.redirect = "http://[::1"
    with pytest.raises(ToolFailed, match="names an invalid address"):
        registry.open_image(name)
    ours.user, ours.token, ours.host = ("me", "x"), True, "[::1"
    with pytest.raises(ToolFailed, match="token service without TLS or without an address"):
        registry.open_image(name)


def test_an_index_that_refers_to_itself_ends(ours: Registry) -> None:
    endless = "sha256:" + "1" * 64
    entry = {"mediaType": OCI_INDEX, "digest": endless, "size": 300}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    ours.manifests["shop", endless] = (OCI_INDEX, json.dumps(index).encode())
    ours.tags["shop", "loop"] = endless
    with pytest.raises(VerificationFailed, match="digest"):
        registry.open_image(f"{ours.host}/shop:loop")


def test_indexes_in_indexes_end(ours: Registry) -> None:
    index: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    for _ in range(12):
        raw = json.dumps(index).encode()
        digest = put(ours, index, OCI_INDEX)
        entry = {"mediaType": OCI_INDEX, "digest": digest, "size": len(raw)}
        index = {**index, "manifests": [entry]}
    put(ours, index, OCI_INDEX, "deep")
    with pytest.raises(VerificationFailed, match="circular"):
        registry.open_image(f"{ours.host}/shop:deep")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (b"not json", "not JSON"),
        (b"[1]", "not a JSON object"),
        ({"schemaVersion": 1, "history": []}, "not a readable image"),
        ({"mediaType": OCI_INDEX, "manifests": "x"}, "no list"),
        ({"mediaType": OCI_INDEX, "manifests": []}, "contains no image"),
        ({"mediaType": OCI_INDEX, "manifests": [{"digest": "md5:x"}]}, "does not describe"),
        ({"mediaType": image.OCI_MANIFEST, "layers": [], "config": 7}, "does not describe"),
        (b'{"mediaType": "x", "layers": [' + b"[]," * 2_000_000 + b"[]]}", "more members|larger"),
    ],
)
def test_invalid_manifests(ours: Registry, value: object, match: str) -> None:
    put(ours, value, image.OCI_MANIFEST, "bad")
    with pytest.raises(VerificationFailed, match=match):
        registry.open_image(f"{ours.host}/shop:bad")


_CHILD = """
import sys
from bundler.errors import BundlerError
from bundler.artifacts.image.registry import open_image
from bundler.artifacts.verify import verify
try:
    with open_image(sys.argv[1]) as artifact:
        print("PROBLEMS", *verify(artifact).all_problems)
except BundlerError as error:
    print(type(error).__name__, error.what)
status = open("/proc/self/status").read()
print("PEAK", int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def verify_in_child(name: str) -> tuple[str, int]:
    """What verifying says, and the most memory that it took, in bytes."""
    argv = [sys.executable, "-c", _CHILD, name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said, _, peak = done.stdout.partition("PEAK ")
    return said, int(peak)


def bad_image(ours: Registry, config: bytes, top: bytes, diff_id: str = "") -> None:
    """An image under ``shop:bad`` with this configuration and topmost layer."""
    kind = f"{image.OCI_LAYER}+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": blob(ours, config, image.OCI_CONFIG),
        "layers": [blob(ours, top, kind)],
    }
    put(ours, manifest, image.OCI_MANIFEST, "bad")


def test_a_configuration_of_100_mb_is_refused_in_little_memory(ours: Registry) -> None:
    bad_image(ours, b'{"rootfs": "' + b"x" * 100_000_000 + b'"}', b"")
    said, peak = verify_in_child(f"{ours.host}/shop:bad")
    assert "too large" in said
    assert peak < MEMORY_BYTES

    small_parts = b'{"rootfs": [' + b"[]," * 5_000_000 + b"[]]}"
    bad_image(ours, small_parts, b"")
    said, peak = verify_in_child(f"{ours.host}/shop:bad")
    assert "more members than any image" in said
    assert peak < MEMORY_BYTES


def test_bombs_are_refused_in_little_memory(ours: Registry) -> None:
    """A layer that unpacks to gigabytes, and one whose header claims to be that large."""
    zeros = io.BytesIO()
    with gzip.GzipFile(fileobj=zeros, mode="wb", compresslevel=9) as packed:
        info = tarfile.TarInfo("app/.local_defs_state/@manifest.json")
        info.size = 1 << 40
        packed.write(info.tobuf())
        packed.write(bytes(16 * 1024 * 1024))
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    config = {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
    for top in (zeros.getvalue(), gzip.compress(header.tobuf() + bytes(1 << 24))):
        bad_image(ours, json.dumps(config).encode(), top)
        said, peak = verify_in_child(f"{ours.host}/shop:bad")
        assert "VerificationFailed" in said or "PROBLEMS" in said
        assert said.strip() != "PROBLEMS"
        assert peak < MEMORY_BYTES


def test_a_layer_that_unpacks_without_end_is_given_up(ours: Registry) -> None:
    from bundler.artifacts.image.compression import Allowance, unpack

    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    stream, _ = unpack(io.BytesIO(bomb), Allowance(1024 * 1024))
    with pytest.raises(VerificationFailed, match="more than any layer"):
        shutil.copyfileobj(stream, io.BytesIO())


def test_what_a_registry_says_is_fit_for_a_terminal(ours: Registry) -> None:
    from bundler.artifacts.image.registry.connection import _said

    said = _said(
        b'{"errors": [{"code": "X", "message": "\\u001b[31mred\\u202e ' + b"y" * 999 + b'"}]}'
    )
    assert said.isprintable()
    assert len(said) < 250
    for odd in (b"", b"[]", b"{}", b'{"errors": []}', b'{"errors": [3]}', b"<html>", b"[" * 100000):
        assert _said(odd) == ""


def test_a_layer_of_ours_that_holds_something_else_is_refused(
    ours: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    """The short cut (only the topmost layer is read) is not a way to smuggle files in."""
    prepared(ours, tmp_path)
    manifest = ours.manifest("shop", "live")
    config = json.loads(ours.blobs["shop", manifest["config"]["digest"]])
    top = ours.blobs["shop", manifest["layers"][-1]["digest"]]
    extra = layer({"app/src/shop/evil.py": b"import os"})

    def forge(data: bytes) -> None:
        diff_id = digest_of(data)
        changed = json.loads(json.dumps(config))
        changed["rootfs"]["diff_ids"][-1] = diff_id
        changed["config"]["Labels"][image.LABEL_LAYER] = diff_id
        raw = json.dumps(changed).encode()
        made = {**manifest, "config": blob(ours, raw, image.OCI_CONFIG)}
        made["layers"] = [*manifest["layers"][:-1], blob(ours, data, image.OCI_LAYER)]
        put(ours, made, image.OCI_MANIFEST, "forged")

    forge(top)
    assert verdict_of(f"{ours.host}/shop:forged").all_problems == ()
    forge(top[:-1024] + extra)
    refused(f"{ours.host}/shop:forged", r"evil\.py, which is not part of a state")
    visible = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(top)) as old,
        tarfile.open(fileobj=visible, mode="w") as new,
    ):
        for member in old:
            if not member.name.endswith(".wh..wh..opq"):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    forge(visible.getvalue())
    refused(f"{ours.host}/shop:forged", "does not hide")
