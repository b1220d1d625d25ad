"""Images in an OCI layout: what `embed` makes of a base, or without one."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image import image
from bundler.artifacts.image.blobs import MissingBlob, copy
from bundler.artifacts.image.compression import unpack
from bundler.artifacts.image.layout import LayoutFolder, entries_of, open_store, write_archive
from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.state.artifact import LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.bundle import Bundle
from bundler.state.manifest import Build, RunRecord
from bundler.workflows.embed import target_name
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.embedding import embed_layout
from tests.support.layouts import (
    LayoutMaker,
    assert_verifies,
    blob_of,
    code_layer,
    directory,
    embed_here,
    last_layer,
    layer,
    pack,
    read_image,
)


def test_an_image_with_a_base_verifies(base: Path, bundle: Bundle, tmp_path: Path) -> None:
    made = embed_here(base, bundle, tmp_path / "out", tag="app")

    assert made.paths == (f"/app/src/{PLACE}",)
    assert made.changed
    assert_verifies(tmp_path / "out", "app")


def test_only_a_layer_its_history_and_its_labels_are_added(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    embed_here(base, bundle, tmp_path / "out")

    before_manifest, before = read_image(base, "latest")
    manifest, config = read_image(tmp_path / "out", "latest")
    assert manifest["layers"][:-1] == before_manifest["layers"]
    assert config["rootfs"]["diff_ids"][:-1] == before["rootfs"]["diff_ids"]
    assert config["history"][:-1] == before["history"]
    labels = config["config"].pop("Labels")
    assert before["config"].pop("Labels").items() <= labels.items()
    assert {LABEL_STATES, LABEL_RUN_RECORD} < labels.keys()
    assert config["config"] == before["config"]
    assert json.loads(labels[LABEL_STATES])[0]["path"] == f"/app/src/{PLACE}"
    assert json.loads(labels[LABEL_RUN_RECORD])["refresh"][0]["path"] == f"/app/src/{PLACE}"


def test_parents_keep_owner_and_mode_and_the_state_is_readable(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    embed_here(base, bundle, tmp_path / "out")

    members = {member.name: member for member in last_layer(tmp_path / "out")}
    defs = members["app/src/shop/defs"]
    assert (defs.mode, defs.uid, defs.gid) == (0o2775, 1000, 1001)
    root = f"app/src/{PLACE}"
    state = members[f"{root}/Catalog__eu__/state"]
    assert (state.mode, state.uid, state.gid, state.mtime) == (0o644, 0, 0, 0)
    target = members[f"{root}/Dbt/project/target"]
    assert (target.mode, target.uid, target.gid, target.isdir()) == (0o775, 1000, 0, True)


def test_the_same_state_makes_the_same_layer_and_image(
    base: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_here(base, bundle, tmp_path / "one")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    second = embed_here(base, bundle, tmp_path / "two")
    third = embed_here(base, bundle, tmp_path / "three")
    again = embed_here(base, bundle, tmp_path / "three")

    assert first.layer == second.layer
    assert second.digest == third.digest == again.digest
    assert third.changed
    assert not again.changed


def test_an_earlier_state_is_replaced_and_deleted_keys_are_removed(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embed_here(base, bundle, out)
    count = len(read_image(out, "latest")[0]["layers"])
    newer = make_bundle(tmp_path / "newer", {"Other": {"state": b"new"}})
    embed_here(out, newer, out)

    manifest, config = read_image(out, "latest")
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == count
    assert len(config["history"]) == count
    assert_verifies(out)
    with open_layout(out) as artifact:
        (found,) = artifact.state_directories()
        names = {member.path for member in found.members() if member.kind == "file"}
    assert names == {"@manifest.json", ".gitignore", "Other/state"}


def test_a_state_below_other_layers_is_hidden_not_removed(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    old = layer({f"app/src/{PLACE}/Gone/state": b"old"})
    maker.tag(maker.manifest([code_layer(), old], {"WorkingDir": "/app"}))
    embed_here(maker.path, bundle, tmp_path / "out")

    assert len(read_image(tmp_path / "out", "latest")[0]["layers"]) == 3
    assert_verifies(tmp_path / "out")


def test_a_second_code_location_keeps_the_first(base: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed_here(base, bundle, out)
    maker = LayoutMaker(tmp_path / "both")
    both = layer({"app/src/bank/defs/__init__.py": b""})
    maker.tag(maker.manifest([code_layer(), both], {"WorkingDir": "/app"}))
    other = make_bundle(
        tmp_path / "bank", {"B": {"state": b"b"}}, place="bank/defs/.local_defs_state"
    )
    embed_layout(maker.path, [bundle], make_record(bundle), out)
    embed_layout(out, [other], make_record(other), out)

    with open_layout(out) as artifact:
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    assert [found.path for found in verdict.directories] == [
        "/app/src/bank/defs/.local_defs_state",
        f"/app/src/{PLACE}",
    ]


def test_a_place_that_the_user_named_is_that_of_its_image_only(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """A build without the option must not depend on what was built here before."""
    out, places = tmp_path / "out", {PLACE: "/app"}
    named = embed_here(base, bundle, out, places=places).paths
    assert named == ("/app/.local_defs_state",)
    assert embed_here(out, bundle, tmp_path / "updated").paths == named
    assert embed_here(base, bundle, out).paths == (f"/app/src/{PLACE}",)


def test_places_of_another_image_count_only_if_the_same_rule_determined_them(
    base: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_here(base, bundle, tmp_path / "out")
    _, config = read_image(tmp_path / "out", "latest")
    assert image.remembered(config, [bundle], own=False) is not None
    monkeypatch.setattr(image, "_RULE", 9)
    assert image.remembered(config, [bundle], own=False) is None
    assert image.remembered(config, [bundle]) is not None


def test_an_archive_keeps_only_what_its_images_need(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    embed_here(base, bundle, archive)
    names = []
    for number in range(3):
        newer = make_bundle(tmp_path / str(number), {"K": {"state": b"%d" % number}})
        embed_here(archive, newer, archive)
        with tarfile.open(archive, "a") as opened:
            stray = tarfile.TarInfo(f"blobs/sha256/._{number}")  # macOS writes such files
            stray.size = 3
            opened.addfile(stray, io.BytesIO(b"mac"))
            names.append([name for name in opened.getnames() if "._" not in name])
    assert len(names[0]) == len(names[1]) == len(names[2])
    assert_verifies(archive)


def test_an_archive_may_contain_a_zip_file_near_its_end(
    base: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """Such as an image whose last layer is a PEX."""
    archive = tmp_path / "image.tar"
    embed_here(base, bundle, archive)
    with tarfile.open(archive, "a") as opened:
        stray = tarfile.TarInfo("blobs/sha256/._zip")
        stray.size = 22
        opened.addfile(stray, io.BytesIO(b"PK\x05\x06" + bytes(18)))
    with open_artifact(str(archive)) as artifact:
        assert artifact.run_record() is not None
    assert target_name(str(archive), None).kind == "layout"


def test_an_archive_may_lack_its_attestations(bundle: Bundle, tmp_path: Path) -> None:
    """Engines return images without them."""
    maker = LayoutMaker(tmp_path / "base")
    platform = {"os": "linux", "architecture": "amd64"}
    image = {**maker.manifest([code_layer()], {"WorkingDir": "/app"}), "platform": platform}
    attestation = maker.attestation()
    maker.tag(maker.index([image, attestation]), "other")
    (maker.path / "blobs/sha256" / attestation["digest"].removeprefix("sha256:")).unlink()
    archive = tmp_path / "image.tar"
    write_archive(maker.path, archive)
    embed_layout(maker.path, [bundle], make_record(bundle), archive, tag="made")
    assert_verifies(archive, "made")


def test_other_tags_of_the_destination_stay(base: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(base, out)
    embed_here(base, bundle, out, tag="v2")

    assert read_image(out, "latest")[0] == read_image(base, "latest")[0]
    assert_verifies(out, "v2")
    assert not list(out.rglob(".partial-*"))
    with pytest.raises(UsageError, match="latest, v2"):
        open_layout(out)


@pytest.mark.parametrize("is_index", [False, True])
def test_the_full_name_follows_the_tag(bundle: Bundle, tmp_path: Path, *, is_index: bool) -> None:
    """Engines prefer it to the tag: the image with state would be loaded under its base's name."""
    maker = LayoutMaker(tmp_path / "base")
    entry = maker.manifest([code_layer()])
    name = "io.containerd.image.name"
    maker.tag(maker.index([entry]) if is_index else entry, "code")
    file = maker.path / "index.json"
    index = json.loads(file.read_text())
    index["manifests"][0]["annotations"][name] = "registry.example:5000/acme/shop:code"
    file.write_text(json.dumps(index))
    embed_here(maker.path, bundle, maker.path, tag="1.4", base_tag="code")
    entries = json.loads(file.read_text())["manifests"]
    assert [entry["annotations"][name] for entry in entries] == [
        "registry.example:5000/acme/shop:code",
        "registry.example:5000/acme/shop:1.4",
    ]


def test_a_layout_behind_a_link(base: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The tag was moved, and then the embedding failed."""
    link = tmp_path / "link"
    link.symlink_to(base)
    embed_here(link, bundle, link, tag="made")
    assert link.is_symlink()
    assert_verifies(base, "made")


def test_an_image_with_several_tags_is_one_image(base: Path, bundle: Bundle) -> None:
    embed_here(base, bundle, base)
    file = base / "index.json"
    index = json.loads(file.read_text())
    (entry,) = index["manifests"]
    others = [{**entry, "annotations": {"org.opencontainers.image.ref.name": "other"}}, entry]
    file.write_text(json.dumps({**index, "manifests": others}))
    with open_layout(base, None) as artifact:
        assert artifact.digest == entry["digest"]


def test_every_platform_of_an_index_gets_the_state(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    images = [
        {
            **maker.manifest([code_layer()], {"WorkingDir": "/app"}, architecture=architecture),
            "platform": {"architecture": architecture, "os": "linux"},
            "data": "e30=",  # a copy of the manifest, as OCI allows
        }
        for architecture in ("amd64", "arm64")
    ]
    attestation = maker.attestation()
    maker.tag(maker.index([*images, attestation]))
    embed_here(maker.path, bundle, tmp_path / "out")

    index, _ = _read_index(tmp_path / "out")
    assert [item["platform"]["architecture"] for item in index["manifests"]] == ["amd64", "arm64"]
    for item in index["manifests"]:
        manifest = json.loads(blob_of(tmp_path / "out", item["digest"]).read_text())
        assert len(manifest["layers"]) == 2
        assert "data" not in item
    assert_verifies(tmp_path / "out")


def test_every_platform_of_an_index_is_judged(bundle: Bundle, tmp_path: Path) -> None:
    """Whichever platform this machine has: state on one alone, other labels, another state."""
    maker = LayoutMaker(tmp_path / "base")
    for name in ("whole", "bare"):
        maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}), name)
    other = make_bundle(tmp_path / "other", {"A": {"state": b"another"}})
    for tag, states in (("one", bundle), ("two", other)):
        embed_here(maker.path, states, tmp_path / "out", tag=tag, base_tag="whole")
    index = json.loads((tmp_path / "out/index.json").read_text())
    entries = {
        item["annotations"]["org.opencontainers.image.ref.name"]: item
        for item in index["manifests"]
    }
    bare = json.loads((maker.path / "index.json").read_text())["manifests"][1]
    for blob in (maker.path / "blobs/sha256").iterdir():
        shutil.copy(blob, tmp_path / "out/blobs/sha256")
    joined = LayoutMaker(tmp_path / "out")

    def problems(*images: Mapping[str, Any]) -> tuple[str, ...]:
        platforms = [
            {**image, "platform": {"os": "linux", "architecture": name}}
            for image, name in zip(images, ("amd64", "arm64"), strict=True)
        ]
        joined.tag(joined.index(platforms), "joined")
        joined._index.clear()
        with open_layout(tmp_path / "out", "joined") as artifact:
            try:
                return verify(artifact).all_problems
            except VerificationFailed as error:  # what cannot even be unpacked
                return (error.what,)

    assert problems(entries["one"], entries["one"]) == ()
    assert problems(entries["one"], entries["two"]) == (), "each is what it says"
    for images in ((entries["one"], bare), (bare, entries["one"])):
        assert any("contains no state directory" in problem for problem in problems(*images))
    layer_digest = json.loads(blob_of(tmp_path / "out", entries["two"]["digest"]).read_text())
    blob = blob_of(tmp_path / "out", layer_digest["layers"][-1]["digest"])
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    for images in ((entries["one"], entries["two"]), (entries["two"], entries["one"])):
        assert problems(*images), "a flipped bit in the other platform's layer"


def _read_index(path: Path) -> tuple[dict[str, list[dict[str, dict[str, str]]]], str]:
    entry = json.loads((path / "index.json").read_text())["manifests"][0]
    return json.loads(blob_of(path, entry["digest"]).read_text()), entry["digest"]


def test_zstd_may_begin_with_a_frame_of_metadata() -> None:
    for first in range(0x50, 0x60):
        blob = bytes([first]) + b"\x2a\x4d\x18\x02\0\0\0--" + pack(b"content", "zstd")
        stream, is_packed = unpack(io.BytesIO(blob))
        assert is_packed
        assert stream.read() == b"content"


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
def test_the_layer_is_packed_as_the_base_is(packing: str, bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}, packing=packing))
    embed_here(maker.path, bundle, tmp_path / "out")

    types = {item["mediaType"] for item in read_image(tmp_path / "out", "latest")[0]["layers"]}
    assert len(types) == 1
    assert_verifies(tmp_path / "out")


_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize("is_index", [False, True])
def test_a_layer_with_a_restricted_licence_is_copied_if_it_is_there(
    bundle: Bundle, tmp_path: Path, *, is_index: bool
) -> None:
    maker = LayoutMaker(tmp_path / "base")
    entry = maker.manifest([code_layer()], {"WorkingDir": "/app"})
    body = json.loads(blob_of(maker.path, entry["digest"]).read_text())
    body["layers"][0] |= {"mediaType": _FOREIGN, "urls": ["https://localhost/layer"]}
    entry = maker.blob(json.dumps(body).encode(), entry["mediaType"])
    maker.tag(maker.index([entry]) if is_index else entry)
    embed_here(maker.path, bundle, tmp_path / "out")
    digest = body["layers"][0]["digest"]
    assert blob_of(tmp_path / "out", digest).exists()

    blob_of(maker.path, digest).unlink()
    entries = open_store(maker.path)
    copied = LayoutFolder.create(tmp_path / "copy")
    copy(entries, copied, entries_of(entries)[0])
    assert not blob_of(copied.path, digest).exists()  # it is at its URL
    body["layers"][0].pop("urls")
    maker.tag(maker.blob(json.dumps(body).encode(), entry["mediaType"]))
    with pytest.raises(MissingBlob, match="missing the blob"):
        copy(entries, copied, entries_of(entries)[-1])


@pytest.mark.parametrize("label", ["", "{}", "[{}]", '["shop"]'])
def test_a_states_label_that_somebody_else_wrote(
    label: str, bundle: Bundle, tmp_path: Path
) -> None:
    maker = LayoutMaker(tmp_path / "base")
    config = {"WorkingDir": "/app", "Labels": {LABEL_STATES: label}}
    maker.tag(maker.manifest([code_layer()], config))
    with pytest.raises(VerificationFailed, match=f"label of the image .{LABEL_STATES}") as caught:
        embed_here(maker.path, bundle, tmp_path / "out")
    assert "Remove it from the Dockerfile" in caught.value.hint


def test_docker_media_types_stay(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    entry = maker.manifest([code_layer()], {"WorkingDir": "/app"})
    body = json.loads(blob_of(maker.path, entry["digest"]).read_text())
    docker = "application/vnd.docker"
    body["mediaType"] = f"{docker}.distribution.manifest.v2+json"
    body["config"] |= {"mediaType": f"{docker}.container.image.v1+json", "data": "e30="}
    body["layers"][0]["mediaType"] = f"{docker}.image.rootfs.diff.tar.gzip"
    maker.tag(maker.blob(json.dumps(body).encode(), body["mediaType"]))
    embed_here(maker.path, bundle, tmp_path / "out")

    manifest, _ = read_image(tmp_path / "out", "latest")
    assert manifest["mediaType"] == body["mediaType"]
    assert "annotations" not in manifest
    assert "data" not in manifest["config"]
    assert manifest["layers"][1]["mediaType"] == body["layers"][0]["mediaType"]
    assert_verifies(tmp_path / "out")


def test_a_volume_over_the_state_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    config = {"WorkingDir": "/app", "Volumes": {"/app": {}}}
    maker.tag(maker.manifest([code_layer()], config))
    with pytest.raises(ConfigurationError, match="VOLUME /app"):
        embed_here(maker.path, bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_of_the_state_alone(bundle: Bundle, tmp_path: Path) -> None:
    made = embed_here(None, bundle, tmp_path / "out", tag="state")

    assert made.paths == (f"/{PLACE}",)
    assert_verifies(tmp_path / "out", "state")
    names = [member.name for member in last_layer(tmp_path / "out", "state")]
    assert names[:3] == ["shop", "shop/defs", PLACE]
    assert not any(".wh." in name for name in names)


def test_owners_of_parents_that_the_base_has_in_two_layers(bundle: Bundle, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    above = layer({"app/src/shop": directory(0o700, 7, 8)})
    maker.tag(maker.manifest([code_layer(), above], {"WorkingDir": "/app"}))
    embed_here(maker.path, bundle, tmp_path / "out")
    shop = next(item for item in last_layer(tmp_path / "out") if item.name == "app/src/shop")
    assert (shop.mode, shop.uid, shop.gid) == (0o700, 7, 8)


@pytest.mark.parametrize(
    ("remote", "own", "expected"),
    [
        ("https://example.org/shop.git", {}, ("a" * 40, "https://example.org/shop.git")),
        ("git@example.org:shop.git", {}, ("a" * 40, None)),
        (None, {"org.opencontainers.image.revision": "mine"}, ("mine", None)),
    ],
)
def test_the_code_has_the_names_that_oci_has_for_it(
    tmp_path: Path, bundle: Bundle, remote: str, own: dict[str, str], expected: tuple[str, str]
) -> None:
    maker = LayoutMaker(tmp_path / "own")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app", "Labels": own}))
    record = RunRecord(build=Build(commit="a" * 40, remote=remote))
    embed_layout(maker.path, [bundle], record, tmp_path / "out")
    manifest, config = read_image(tmp_path / "out", "latest")
    names = ("org.opencontainers.image.revision", "org.opencontainers.image.source")
    assert tuple(config["config"]["Labels"].get(name) for name in names) == expected
    assert manifest["annotations"]["org.opencontainers.image.revision"] == "a" * 40


@pytest.mark.parametrize(
    ("mode", "accepted"),
    [(0o644, True), (0o600, True), (0, False), (0o4755, False), (0o2755, False)],
)
def test_the_modes_of_states_that_a_plain_copy_brought(
    mode: int, bundle: Bundle, tmp_path: Path, *, accepted: bool
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in bundle.members():
            info = tarfile.TarInfo(f"app/src/{PLACE}/{member.path}")
            info.size, info.mode = member.size, mode if "state" in member.path else 0o644
            archive.addfile(info, member.open())
    maker = LayoutMaker(tmp_path / "copied")
    maker.tag(maker.manifest([code_layer(), buffer.getvalue()]))
    with open_layout(maker.path) as image:
        assert (verify(image).all_problems == ()) == accepted
