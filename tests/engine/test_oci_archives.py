"""Images in archives, and what skopeo and umoci make of ours."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import LABEL_STATES
from bundler.state.bundle import Bundle
from tests.support.bundles import PLACE
from tests.support.engine import install
from tests.support.layouts import assert_verifies, embed_here, pack

pytestmark = pytest.mark.engine(offline=True)


@pytest.fixture(scope="module")
def tools() -> tuple[str, str]:
    """skopeo and umoci."""
    return install("skopeo"), install("umoci")


def test_an_archive_is_read_and_written(base: Path, bundle: Bundle, tmp_path: Path) -> None:
    embed_here(base, bundle, tmp_path / "out.tar", tag="a")
    embed_here(tmp_path / "out.tar", bundle, tmp_path / "out.tar", tag="b")

    assert_verifies(tmp_path / "out.tar", "a")
    assert_verifies(tmp_path / "out.tar", "b")


@pytest.mark.parametrize("with_base", [True, False])
def test_skopeo_and_umoci_accept_it(
    with_base: bool, base: Path, bundle: Bundle, tmp_path: Path, tools: tuple[str, str]
) -> None:
    skopeo, umoci = tools
    out = tmp_path / "out"
    embed_here(base if with_base else None, bundle, out, tag="app")

    inspected = subprocess.run(
        [skopeo, "inspect", f"oci:{out}:app"], check=True, capture_output=True
    )
    labels = json.loads(inspected.stdout)["Labels"]
    assert json.loads(labels[LABEL_STATES])[0]["manifest"] == bundle.manifest.sha256
    unpack = [umoci, "unpack", "--rootless", "--image", f"{out}:app", str(tmp_path / "rootfs")]
    subprocess.run(unpack, check=True, capture_output=True)
    place = Path("app/src") / PLACE if with_base else Path(PLACE)
    unpacked_to = tmp_path / "rootfs" / "rootfs" / place
    for member in bundle.members():
        content = (unpacked_to / member.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == member.sha256
    assert {path.name for path in unpacked_to.iterdir()} == {
        "@manifest.json",
        ".gitignore",
        "Catalog__eu__",
        "Dbt",
    }


def _copied(tools: tuple[str, str], source: Path, destination: str) -> None:
    argv = [tools[0], "--insecure-policy", "copy", f"oci:{source}:latest", destination]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_are_read_packed_or_not(
    tools: tuple[str, str], base: Path, bundle: Bundle, kind: str, packing: str
) -> None:
    tmp_path = base.parent
    embed_here(base, bundle, tmp_path / "with")
    plain, path = tmp_path / "plain.tar", tmp_path / "image.tar"
    _copied(tools, tmp_path / "with", f"{kind}:{plain}:acme/shop:latest")
    path.write_bytes(pack(plain.read_bytes(), packing))

    with open_artifact(str(path)) as artifact:
        assert verify(artifact).all_problems == ()
        assert [found.path for found in artifact.state_directories()] == [f"/app/src/{PLACE}"]
    embed_here(path, bundle, tmp_path / "again", tag="x")
    assert_verifies(tmp_path / "again", "x")
    if kind == "docker-archive":
        with closing(open_store(path)) as store:
            assert choose(store, "latest") == choose(store, "acme/shop:latest")
        with pytest.raises(UsageError, match="is a docker archive"):
            embed_here(path, bundle, path)


def test_a_docker_archive_as_older_engines_save_it(
    tools: tuple[str, str], base: Path, bundle: Bundle
) -> None:
    """Layers in their own folders, the same one a second time as a link, packed ones too."""
    tmp_path = base.parent
    embed_here(base, bundle, tmp_path / "with")
    _copied(tools, tmp_path / "with", f"docker-archive:{tmp_path / 'new.tar'}:shop:1")
    with tarfile.open(tmp_path / "new.tar") as new, tarfile.open(tmp_path / "old.tar", "w") as old:
        (entry,) = json.loads(new.extractfile("manifest.json").read())  # type: ignore[union-attr]
        names = []
        for number, name in enumerate(entry["Layers"]):
            data = new.extractfile(name).read()  # type: ignore[union-attr]
            data = pack(data, "gzip") if number == 1 else data
            _add(old, f"{number}/layer.tar", data)
            link = tarfile.TarInfo(f"link{number}/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, f"../{number}/layer.tar"
            old.addfile(link)
            names.append(link.name)
        _add(old, entry["Config"], new.extractfile(entry["Config"]).read())  # type: ignore[union-attr]
        listing = [{"Config": entry["Config"], "RepoTags": ["shop:1"], "Layers": names}]
        _add(old, "manifest.json", json.dumps(listing).encode())

    with open_artifact(str(tmp_path / "old.tar")) as artifact:
        assert verify(artifact).all_problems == ()


@pytest.mark.parametrize(
    "listing",
    [b"{}", b"[{}]", b"[3]", b'[{"Config": "none", "Layers": []}]', b"[", b'[{"Config": 1}]'],
)
def test_what_is_not_a_docker_archive(tmp_path: Path, listing: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        _add(archive, "manifest.json", listing)
    with pytest.raises((VerificationFailed, UsageError)):
        open_artifact(str(tmp_path / "bad.tar"))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
