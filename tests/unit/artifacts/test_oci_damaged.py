"""Images in an OCI layout that are damaged or oddly made: found, named, never taken for good."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.verify import verify
from bundler.errors import VerificationFailed
from bundler.state.bundle import Bundle
from tests.support.bundles import PLACE, make_bundle
from tests.support.layouts import LayoutMaker, blob_of, code_layer, embed_here, layer, read_image


def test_a_state_that_changed_does_not_alter_the_destination(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embed_here(base, bundle, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (bundle.root / "Catalog__eu__" / "state").write_bytes(b'{"products": 4}')
    with pytest.raises(VerificationFailed, match="state changed between"):
        embed_here(base, bundle, out)

    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_every_flipped_byte_of_the_layer_is_found(bundle: Bundle, tmp_path: Path) -> None:
    small = make_bundle(tmp_path / "small", {"K": {"state": b"value"}})
    maker = LayoutMaker(tmp_path / "base")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}, packing="none"))
    out = tmp_path / "out"
    embed_here(maker.path, small, out)
    blob = blob_of(out, read_image(out, "latest")[0]["layers"][-1]["digest"])
    good = blob.read_bytes()
    for position in range(0, len(good), 37):
        blob.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        assert _is_refused(out), position
    blob.write_bytes(good)
    assert not _is_refused(out)


def _is_refused(path: Path) -> bool:
    try:
        with open_layout(path) as artifact:
            return bool(verify(artifact).all_problems)
    except VerificationFailed:
        return True


def test_a_flipped_byte_in_a_state_names_the_file(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}, packing="none"))
    out = tmp_path / "out"
    embed_here(maker.path, bundle, out)
    blob = blob_of(out, read_image(out, "latest")[0]["layers"][-1]["digest"])
    data = bytearray(blob.read_bytes())
    data[data.index(b'{"products": 3}') + 3] ^= 1
    blob.write_bytes(data)
    with open_layout(out) as artifact:
        problems = verify(artifact).all_problems
    assert problems[0] == f"/app/src/{PLACE}/Catalog__eu__/state was altered."
    assert "does not match its digest" in problems[1]


def test_a_file_that_a_layer_holds_twice_is_refused(base: Path, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base2")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for content in (b"good", b"evil"):
            info = tarfile.TarInfo(f"app/{PLACE}/K/state")
            info.size = 4
            archive.addfile(info, io.BytesIO(content))
    maker.tag(maker.manifest([buffer.getvalue()]))
    with open_layout(maker.path) as artifact:
        (found,) = artifact.state_directories()
        with pytest.raises(VerificationFailed, match="twice"):
            list(found.members())


def test_hard_links_are_read_under_each_name(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.LNKTYPE, "cache/state"
    maker.tag(maker.manifest([layer({"cache/state": b"shared", f"app/{PLACE}/K/state": link})]))
    with open_layout(maker.path) as artifact:
        (found,) = artifact.state_directories()
        read = {member.path: member.open().read() for member in found.members()}
    assert read == {"K/state": b"shared"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("index", "is not JSON"),
        ("large index", "too large to be an index"),
        ("manifest", "does not match its digest"),
        ("missing", "is missing the blob"),
        ("layer", "does not match its digest"),
    ],
)
def test_a_malformed_layout_is_refused(
    damage: str, message: str, base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    entry = json.loads((base / "index.json").read_text())["manifests"][0]
    manifest, _ = read_image(base, "latest")
    if damage == "index":
        (base / "index.json").write_text("{")
    elif damage == "large index":
        (base / "index.json").write_bytes(b" " * (17 << 20) + b"{}")
    elif damage == "manifest":
        blob_of(base, entry["digest"]).write_text("{}")
    elif damage == "missing":
        blob_of(base, manifest["config"]["digest"]).unlink()
    else:
        blob_of(base, manifest["layers"][0]["digest"]).write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(VerificationFailed, match=message), open_layout(base) as artifact:
        artifact.state_directories()
    with pytest.raises(VerificationFailed, match=message):
        embed_here(base, bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
