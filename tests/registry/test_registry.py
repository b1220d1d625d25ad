"""Images in registries, against Debian's own registry and ours: push, embed, read back, refer."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import image, registry
from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.artifacts.image.registry import proxies, referrers
from bundler.artifacts.reference import parse
from bundler.errors import (
    ToolFailed,
    UsageError,
)
from bundler.state.bundle import Bundle
from bundler.workflows import signature
from tests.support import registries
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.engine import install
from tests.support.layouts import LayoutMaker, code_layer, layer
from tests.support.pushing import (  # noqa: F401  # a fixture for all
    alone,
    basic,
    config,
    embed,
    login,
    make_key,
    push,
    push_base,
    skopeo,
    state_bundler,
    verdict_of,
)
from tests.support.recording import RecordingListener
from tests.support.registries import Registry

pytestmark = pytest.mark.engine

HOME = f"/app/src/{PLACE}"


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop", "docker.io/library/shop:latest"),
        ("acme/shop:1", "docker.io/acme/shop:1"),
        ("index.docker.io/shop", "docker.io/library/shop:latest"),
        ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
        ("localhost/a", "localhost/a:latest"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        (f"ghcr.io/a/b@sha256:{'0' * 64}", f"ghcr.io/a/b@sha256:{'0' * 64}"),
        (f"ghcr.io/a/b:1@sha256:{'0' * 64}", f"ghcr.io/a/b:1@sha256:{'0' * 64}"),
    ],
)
def test_names_mean_what_docker_means_by_them(name: str, expected: str) -> None:
    assert str(parse(name)) == expected
    assert str(parse(expected)) == expected


@pytest.mark.parametrize(
    "name",
    ["", "Shop", "a b", "ghcr.io/", "ghcr.io/a:", "ghcr.io/a@sha256:1", "a//b", "x:" + "y" * 129],
)
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a valid image name"):
        parse(name)


# --- the whole way --------------------------------------------------------------------------


@pytest.fixture(params=["debian", "ours"])
def host(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else found.host


def test_an_image_gets_its_state_and_verifies(
    host: str, maker: LayoutMaker, bundle: Bundle
) -> None:
    base = push_base(maker, f"{host}/acme/whole:1")
    made = embed(f"{host}/acme/whole:2", bundle, f"{host}/acme/whole@{base}")

    verdict = verdict_of(f"{host}/acme/whole:2")
    assert verdict.all_problems == ()
    assert verdict.digest == made.digest != base
    assert verdict.kind == "registry"
    assert [item.path for item in verdict.directories] == [HOME]


def test_one_line_removes_everything(ours: Registry, maker: LayoutMaker, bundle: Bundle) -> None:
    base = push_base(maker, f"{ours.host}/shop:1")
    before = ours.lines
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop@{base}")
    assert len(ours.requests("POST|PUT|HEAD")) > 1
    assert ours.lines == before + 1


def test_skopeo_reads_what_was_pushed(
    host: str, maker: LayoutMaker, bundle: Bundle, tmp_path: Path
) -> None:
    push_base(maker, f"{host}/acme/skopeo:1")
    embed(f"{host}/acme/skopeo:2", bundle, f"{host}/acme/skopeo:1")
    copied = tmp_path / "copied"
    skopeo("copy", "--src-tls-verify=false", f"docker://{host}/acme/skopeo:2", f"oci:{copied}:x")

    store = open_store(copied)
    assert choose(store, "x").digest == verdict_of(f"{host}/acme/skopeo:2").digest


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
def test_the_layer_is_packed_as_the_base_is(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, packing: str
) -> None:
    push_base(maker, f"{ours.host}/shop:1", packing=packing)
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")

    kinds = {item["mediaType"] for item in ours.manifest("shop", "2")["layers"]}
    assert len(kinds) == 1
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()


def test_a_classic_image_stays_one(ours: Registry, maker: LayoutMaker, bundle: Bundle) -> None:
    push_base(maker, f"{ours.host}/shop:1")
    oci = ours.manifest("shop", "1")
    docker = "application/vnd.docker"
    classic = {
        "schemaVersion": 2,
        "mediaType": image.DOCKER_MANIFEST,
        "config": {**oci["config"], "mediaType": f"{docker}.container.image.v1+json"},
        "layers": [
            {**item, "mediaType": f"{docker}.image.rootfs.diff.tar.gzip"} for item in oci["layers"]
        ],
    }
    raw = json.dumps(classic).encode()
    with registry.opened(f"{ours.host}/shop:1") as (target, _):
        target.put_manifest(raw, image.DOCKER_MANIFEST, "classic")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:classic")

    made = ours.manifest("shop", "2")
    assert made["mediaType"] == image.DOCKER_MANIFEST
    assert made["layers"][-1]["mediaType"] == f"{docker}.image.rootfs.diff.tar.gzip"
    assert "annotations" not in made
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()


def make_index(maker: LayoutMaker, **more: object) -> dict[str, object]:
    children = []
    for name in ("amd64", "arm64"):
        entry = maker.manifest([code_layer()], config(), architecture=name)
        children.append({**entry, "platform": {"architecture": name, "os": "linux"}})
    attestation = maker.manifest([layer({"provenance": b"{}"})])
    unknown = {"architecture": "unknown", "os": "unknown"}
    kind = {"vnd.docker.reference.type": "attestation-manifest"}
    children.append({**attestation, "platform": unknown, "annotations": kind})
    return maker.index(children)


def test_every_platform_gets_the_layer_once_sent_and_attestations_are_dropped(
    ours: Registry, maker: LayoutMaker, bundle: Bundle
) -> None:
    maker.tag(make_index(maker))
    push(maker, f"{ours.host}/shop:1")
    listener = RecordingListener()
    before = len(ours.blobs)
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1", listener=listener)

    index = ours.manifest("shop", "2")
    assert [item["platform"]["architecture"] for item in index["manifests"]] == ["amd64", "arm64"]
    assert len(ours.blobs) == before + 3  # one layer, two configurations
    assert any("ttestations" in text for text in listener.notes)
    layers = {
        ours.manifest("shop", m["digest"])["layers"][-1]["digest"] for m in index["manifests"]
    }
    assert len(layers) == 1


def test_images_by_digest_become_one_index(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, tmp_path: Path
) -> None:
    names = []
    for arch in ("amd64", "arm64"):
        one = LayoutMaker(tmp_path / arch)
        names.append(
            f"{ours.host}/shop@" + push_base(one, f"{ours.host}/shop:{arch}", architecture=arch)
        )
    embed(f"{ours.host}/shop:both", bundle, *names)

    index = ours.manifest("shop", "both")
    assert [item["platform"] for item in index["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]
    with pytest.raises(UsageError, match="Two of the images are for linux/amd64"):
        embed(f"{ours.host}/shop:both", bundle, names[0], names[0])


@pytest.mark.parametrize("mounts", [True, False])
def test_another_repository_gets_the_base_by_mounting(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, mounts: bool
) -> None:
    ours.mounts = mounts
    push_base(maker, f"{ours.host}/team/shop:1")
    embed(f"{ours.host}/other/shop:1", bundle, f"{ours.host}/team/shop:1")

    assert verdict_of(f"{ours.host}/other/shop:1").all_problems == ()
    base_layer = ours.manifest("team/shop", "1")["layers"][0]["digest"]
    reads = ours.requests(f"GET /v2/team/shop/blobs/{base_layer}")
    assert len(ours.requests("POST .*mount=")) == 2
    assert len(reads) == 1  # to find the place; a small layer is kept for the copy
    assert ours.uploads == {}  # what was opened in place of a mount is given up again


def test_a_later_state_takes_the_place_of_the_earlier_without_reading_the_base(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, tmp_path: Path
) -> None:
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    base_layers = [item["digest"] for item in ours.manifest("shop", "1")["layers"]]
    newer = make_bundle(tmp_path / "newer", {"Other": {"state": b"new"}})
    ours.log.clear()
    embed(f"{ours.host}/shop:3", newer, f"{ours.host}/shop:2")
    embed(f"{ours.host}/shop:3", newer, f"{ours.host}/shop:1")

    assert len(ours.manifest("shop", "3")["layers"]) == len(base_layers) + 1
    assert not any(ours.requests(f"GET .*blobs/{digest}") for digest in base_layers)
    assert verdict_of(f"{ours.host}/shop:3").all_problems == ()


def test_verifying_reads_the_state_layer_and_no_other(
    ours: Registry, maker: LayoutMaker, bundle: Bundle
) -> None:
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    manifest = ours.manifest("shop", "2")
    ours.log.clear()
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()

    read = {line.rpartition("/")[2] for line in ours.requests("GET .*/blobs/")}
    assert read == {manifest["config"]["digest"], manifest["layers"][-1]["digest"]}


def test_a_state_below_other_layers_is_found_all_the_same(
    ours: Registry, maker: LayoutMaker, bundle: Bundle
) -> None:
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    above = LayoutMaker(maker.path.parent / "above")
    skopeo("copy", "--src-tls-verify=false", f"docker://{ours.host}/shop:2", f"oci:{above.path}:x")
    subprocess.run([install("umoci"), "config", "--image", f"{above.path}:x"], check=True)
    subprocess.run(
        [install("umoci"), "insert", "--image", f"{above.path}:x", __file__, "/app/more"],
        check=True,
        capture_output=True,
    )
    store = open_store(above.path)
    registry.publish(store, choose(store, "x"), [parse(f"{ours.host}/shop:3")])

    assert verdict_of(f"{ours.host}/shop:3").all_problems == ()


def test_a_large_layer_goes_as_one_stream(host: str, maker: LayoutMaker, tmp_path: Path) -> None:
    push_base(maker, f"{host}/acme/large:1", packing="none")
    large = make_bundle(tmp_path / "large", {"K": {"state": os.urandom(9 * 1024 * 1024)}})
    embed(f"{host}/acme/large:2", large, f"{host}/acme/large:1")

    assert verdict_of(f"{host}/acme/large:2").all_problems == ()


def test_a_stream_that_breaks_is_taken_up_where_it_broke(
    ours: Registry, maker: LayoutMaker, tmp_path: Path
) -> None:
    push_base(maker, f"{ours.host}/shop:1", packing="none")
    large = make_bundle(tmp_path / "large", {"K": {"state": os.urandom(9 * 1024 * 1024)}})
    broken = []

    def once(number: int, method: str, path: str) -> str | None:
        if method == "PATCH" and len(broken) < 2:
            broken.append(number)
            return "half"
        return None

    ours.fault = once
    embed(f"{ours.host}/shop:2", large, f"{ours.host}/shop:1")

    assert len(broken) == 2
    assert len(ours.requests("POST .*/uploads/$")) == len(ours.requests("PUT .*/uploads/"))
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()


def test_a_blob_that_breaks_off_is_asked_for_from_there(
    ours: Registry, maker: LayoutMaker, bundle: Bundle
) -> None:
    push_base(maker, f"{ours.host}/shop:1", packing="none")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    top = ours.manifest("shop", "2")["layers"][-1]["digest"]
    halves = []

    def half(number: int, method: str, path: str) -> str | None:
        if top in path and method == "GET" and len(halves) < 3:
            halves.append(path)
            return "half"
        return None

    ours.fault = half
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()
    assert any(headers.get("Range") for headers in ours.headers)


def test_the_state_alone_is_an_image_too(ours: Registry, bundle: Bundle) -> None:
    with (
        registry.opened(f"{ours.host}/states:1") as (target, tag),
        registry.RegistryDestination(target, (tag,)).embed(
            EmbedRequest((bundle,), make_record(bundle))
        ),
    ):
        pass

    verdict = verdict_of(f"{ours.host}/states:1")
    assert verdict.all_problems == ()
    assert [item.path for item in verdict.directories] == [f"/{PLACE}"]


# --- the way there --------------------------------------------------------------------------


def test_a_redirect_leads_on_without_the_token(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, tmp_path: Path
) -> None:
    ours.user = ("me", "word")
    login(tmp_path / "docker" / "config.json", ours.host, auth=basic("me", "word"))
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    seen: list[str | None] = []

    class Bucket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server
            seen.append(self.headers.get("Authorization"))
            data = ours.blobs["shop", self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    bucket = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=bucket.serve_forever, kwargs={"poll_interval": 0.02}).start()
    try:
        ours.redirect = f"http://127.0.0.1:{bucket.server_address[1]}"
        assert verdict_of(f"{ours.host}/shop:2").all_problems == ()
    finally:
        bucket.shutdown()
        bucket.server_close()
    assert seen
    assert set(seen) == {None}


def test_a_proxy_is_used_and_no_proxy_respected(
    ours: Registry, maker: LayoutMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_base(maker, f"{ours.host}/shop:1")
    # Ours answers what it is asked, as a proxy for any host would.
    monkeypatch.setenv("http_proxy", f"http://user:pass@{ours.host}")
    monkeypatch.setenv("STATE_BUNDLER_INSECURE_REGISTRIES", "registry.test")
    ours.log.clear()
    with registry.open_image("registry.test/shop:1") as found:
        assert found.digest == ours.tag("shop", "1")
    assert ours.requests("GET http://registry.test/v2/shop/manifests/1")
    shown = f"Basic {basic('user', 'pass')}"
    assert any(shown in headers.values() for headers in ours.headers)

    monkeypatch.setenv("no_proxy", "registry.test")
    assert proxies.proxy_of("http://registry.test/v2/") is None
    assert proxies.proxy_of(f"http://{ours.host}/v2/") is None


def test_a_host_elsewhere_is_never_spoken_to_without_tls() -> None:
    from bundler.artifacts.image.registry.connection import may_be_plain

    assert [
        may_be_plain(host) for host in ("localhost:1", "127.0.0.1", "127.9.9.9:1", "[::1]:2")
    ] == [True] * 4
    assert not any(map(may_be_plain, ("ghcr.io", "localhost.example.org", "10.0.0.1:5000")))


def test_where_nobody_listens_it_says_so() -> None:
    host = f"127.0.0.1:{registries.free_port()}"
    with pytest.raises(ToolFailed, match="refused the connection"):
        registry.open_image(f"{host}/shop:1")


def test_what_is_not_there_is_a_usage_error(ours: Registry) -> None:
    with pytest.raises(UsageError, match="has no image"):
        registry.open_image(f"{ours.host}/shop:none")


def test_immutable_tags_are_never_moved(ours: Registry, maker: LayoutMaker, bundle: Bundle) -> None:
    base = push_base(maker, f"{ours.host}/shop:1")
    ours.immutable = True
    with pytest.raises(ToolFailed, match=r"TAG_IMMUTABLE.*stays as it is"):
        embed(f"{ours.host}/shop:1", bundle)
    assert ours.tag("shop", "1") == base
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()


# --- signatures -----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["debian", "ours", "knowing nothing of referrers"])
def test_a_signature_is_next_to_the_image_in_the_registry(
    which: str, maker: LayoutMaker, bundle: Bundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ours = None if which == "debian" else request.getfixturevalue("ours")
    host = ours.host if ours else request.getfixturevalue("debian")
    if ours:
        ours.knows_referrers = which == "ours"
    (mine, allowed), (_, others) = make_key(tmp_path / "mine"), make_key(tmp_path / "other")
    push_base(maker, f"{host}/signed/shop:1")
    embed(f"{host}/signed/shop:2", bundle, f"{host}/signed/shop:1")
    name = f"docker://{host}/signed/shop:2"

    assert "no signature" in state_bundler("verify", name, "--signed-by", allowed, code=1)
    state_bundler("sign", name, "--ssh-key", mine)
    assert "mine@example.org" in state_bundler("verify", name, "--signed-by", allowed)
    assert "does not allow" in state_bundler("verify", name, "--signed-by", others, code=1)
    # Next to an image with another state, the same signature is worth nothing.
    newer = make_bundle(tmp_path / "newer", {"K": {"state": b"newer"}})
    embed(f"{host}/signed/shop:3", newer, f"{host}/signed/shop:1")
    with registry.open_image(f"{host}/signed/shop:2") as old:
        (kept,) = referrers.contents(old.store, old.entry, signature.ARTIFACT_TYPE, 9999)
    with registry.opened(f"{host}/signed/shop:3") as (target, reference):
        entry = target.resolve(reference)
        referrers.attach(target, entry, signature.ARTIFACT_TYPE, kept, "x/y")
    other = f"docker://{host}/signed/shop:3"
    assert "does not match this artifact" in state_bundler(
        "verify", other, "--signed-by", allowed, code=1
    )


def test_a_tag_that_moves_while_it_is_updated_in_place_stays_where_it_is(
    ours: Registry, maker: LayoutMaker, bundle: Bundle
) -> None:
    """The new code of somebody else's build is not replaced by the old code with new state."""
    name = f"{ours.host}/shop:1"
    push_base(maker, name)
    request = EmbedRequest((bundle,), make_record(bundle))
    with registry.opened(name) as (target, tag):
        old = target.resolve(tag)
        sources = (registry.source(tag, target.connection),)
        destination = registry.RegistryDestination(target, (tag,), sources, old.digest)
        with pytest.raises(ToolFailed, match="replaced by another"), destination.embed(request):
            newer = push_base(LayoutMaker(maker.path.with_name("newer")), name, whole={"a": 1})
    assert old.digest != newer == ours.tag("shop", "1")


def test_a_layout_s_signature_is_good_for_its_copy_in_a_registry(
    ours: Registry, maker: LayoutMaker, bundle: Bundle, tmp_path: Path
) -> None:
    key, allowed = make_key(tmp_path / "mine")
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    copied = tmp_path / "copied"
    skopeo("copy", "--src-tls-verify=false", f"docker://{ours.host}/shop:2", f"oci:{copied}:2")
    state_bundler("sign", f"oci:{copied}:2", "--ssh-key", key, "--signature", tmp_path / "sig")

    name = f"docker://{ours.host}/shop:2"
    options = ("--signed-by", allowed, "--signature", tmp_path / "sig")
    assert "mine@example.org" in state_bundler("verify", name, *options)
