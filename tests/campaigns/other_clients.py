"""Other people's programs pull, unpack and run what we pushed and wrote, and we embed into theirs.

podman, buildah, skopeo, umoci, and crane of Debian's next release. Run by ``make clients``: they
take their time, and all but two are not among what the usual tests need.
"""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.artifacts.image import ociread
from bundler.artifacts.verify import verify
from bundler.state.bundle import Bundle
from tests.support import newer_engine, registries
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.embedding import embed_layout
from tests.support.engine import install
from tests.support.layouts import LayoutMaker, code_layer, layer
from tests.support.pushing import STATES, alone, embed, push, verdict_of  # noqa: F401  # for all

HOME = f"app/src/{PLACE}"
PACKINGS = ("none", "gzip", "zstd")
Base = Callable[[str], LayoutMaker]
SHOWN = STATES["Catalog[eu]"]["state"].decode()
SHOW = ["cat", f"/{HOME}/Catalog__eu__/state"]


@dataclass(frozen=True)
class Tools:
    """The programs. store: what keeps podman's and buildah's images apart from the machine's."""

    store: tuple[str, ...]
    crane: str

    def podman(self, *arguments: str | Path) -> str:
        options = ("--runtime=runc", "--cgroup-manager=cgroupfs")
        return run(install("podman"), *self.store, *options, *arguments)

    def buildah(self, *arguments: str | Path) -> str:
        return run(install("buildah"), *self.store, *arguments)

    def runs(self, name: str) -> str:
        """What the image's own user reads there, in a container without network."""
        options = (
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        )
        return self.podman("run", *options, name, *SHOW)


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


def skopeo(*arguments: str | Path) -> str:
    return run(install("skopeo"), "--insecure-policy", *arguments)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    home = tmp_path_factory.mktemp("containers")
    install("runc")
    store = ("--root", str(home / "root"), "--runroot", str(home / "run"), "--storage-driver=vfs")
    found = Tools(store, newer_engine.program("crane"))
    yield found
    found.podman("rmi", "--all", "--force")


@pytest.fixture(autouse=True)
def _config(tmp_path: Path) -> None:
    """podman and buildah want the file that the variable names."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text("{}")


@pytest.fixture(scope="session")
def host() -> Iterator[str]:
    with registries.distribution() as found:
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "state", STATES, writable={"Dbt": ("project/target",)})


CONFIG = {"WorkingDir": "/app", "User": "1000", "Env": ["PATH=/bin"], "Cmd": ["sh"]}


@pytest.fixture(scope="session")
def layers() -> list[bytes]:
    """A shell, and the code."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        archive.add(install("busybox", "busybox-static"), "bin/busybox")
        for name in ("sh", "cat", "ls"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        users = b"app:x:1000:1001::/:/bin/sh\n"
        file = tarfile.TarInfo("etc/passwd")
        file.size = len(users)
        archive.addfile(file, io.BytesIO(users))
    return [buffer.getvalue(), code_layer()]


@pytest.fixture
def base(tmp_path: Path, layers: list[bytes]) -> Callable[[str], LayoutMaker]:
    """Makes a layout with the code's image, tagged ``latest``, packed as requested."""

    def make(packing: str) -> LayoutMaker:
        maker = LayoutMaker(tmp_path / f"base-{packing}")
        maker.tag(maker.manifest(layers, CONFIG, packing=packing))
        return maker

    return make


def judged(path: str | Path, tag: str | None = None) -> str:
    """Every byte of an image in a layout or an archive is right; returns its digest."""
    with ociread.open_layout(path, tag) as found:
        assert verify(found).all_problems == ()
        return str(found.digest)


def tree_is(root: Path, bundle: Bundle) -> None:
    """What another program unpacked is what the bundle holds, and its user may read it."""
    there = root / HOME
    found = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert found == {member.path for member in bundle.members()}
    for member in bundle.members():
        path = there / member.path
        with member.open() as stream:
            assert path.read_bytes() == stream.read()
        assert path.stat().st_mode & 0o444 == 0o444
    assert stat.S_IMODE((root / "app/src/shop/defs").stat().st_mode) == 0o2775
    assert (root / "app/src/shop/defs").stat().st_uid == 1000


# --- what we pushed -------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
def test_they_take_from_a_registry_what_we_pushed(
    packing: str, *, host: str, tools: Tools, base: Base, bundle: Bundle, tmp_path: Path
) -> None:
    name = f"{host}/pushed/{packing}"
    push(base(packing), f"{name}:1")
    embed(f"{name}:2", bundle, f"{name}:1")
    digest = verdict_of(f"{name}:2").digest

    tools.podman("pull", "--tls-verify=false", f"{name}:2")
    assert tools.runs(f"{name}:2") == SHOWN
    made = tools.buildah("from", "--tls-verify=false", f"docker://{name}:2").strip()
    tree_is(Path(tools.buildah("mount", made).strip()), bundle)
    tools.buildah("rm", made)
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}:2", f"oci:{tmp_path}/copied:2")
    copied = judged(tmp_path / "copied", "2")
    assert copied == digest or packing == "none"  # skopeo packs what is not

    assert run(tools.crane, "digest", "--insecure", f"{name}:2").strip() == digest
    if packing == "gzip":  # it calls every other packing invalid, of anyone's image
        run(tools.crane, "validate", "--insecure", "--remote", f"{name}:2")
    run(tools.crane, "copy", "--insecure", f"{name}:2", f"{host}/copied/{packing}:2")
    assert verdict_of(f"{host}/copied/{packing}:2").digest == digest


# --- what we wrote --------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_they_take_the_layouts_and_archives_that_we_wrote(
    kind: str, packing: str, *, tools: Tools, base: Base, bundle: Bundle, tmp_path: Path
) -> None:
    made = tmp_path / ("made" if kind == "layout" else "made.tar")
    embed_layout(base(packing).path, [bundle], make_record(bundle), made, tag="app")
    name = f"{'oci' if kind == 'layout' else 'oci-archive'}:{made}:app"

    pulled = tools.podman("pull", "-q", name).strip()
    assert tools.runs(pulled) == SHOWN
    if kind == "archive":
        loaded = tools.podman("load", "-q", "-i", made)
        assert loaded.startswith("Loaded image")
    container = tools.buildah("from", name).strip()
    tree_is(Path(tools.buildah("mount", container).strip()), bundle)
    tools.buildah("rm", container)
    if packing == "zstd":  # docker's archives have none, and Debian's umoci is older than it
        return
    # As docker's archive it goes to podman, and back to us.
    skopeo("copy", name, f"docker-archive:{tmp_path}/docker.tar:localhost/shop:app")
    tools.podman("load", "-q", "-i", tmp_path / "docker.tar")
    assert tools.runs("localhost/shop:app") == SHOWN
    judged(tmp_path / "docker.tar")
    if kind == "layout":
        run(install("umoci"), "unpack", "--image", f"{made}:app", tmp_path / "unpacked")
        tree_is(tmp_path / "unpacked/rootfs", bundle)


# --- what they wrote ------------------------------------------------------------------------


def by_podman(tools: Tools, made: LayoutMaker, out: Path, form: str) -> Path:
    image = tools.podman("pull", "-q", f"oci:{made.path}:latest").strip()
    tools.podman("save", "-q", f"--format={form}", "-o", out, image)
    return out


def by_buildah(tools: Tools, made: LayoutMaker, out: Path, form: str) -> Path:
    container = tools.buildah("from", f"oci:{made.path}:latest").strip()
    tools.buildah("config", "--label", "by=buildah", container)
    tools.buildah("commit", "--rm", container, f"{form}:{out}:latest")
    return out


@pytest.mark.parametrize(
    ("way", "form"),
    [
        (by_podman, "oci-archive"),
        (by_podman, "oci-dir"),
        (by_podman, "docker-archive"),
        (by_buildah, "oci"),
        (by_buildah, "oci-archive"),
        (by_buildah, "docker-archive"),
    ],
)
def test_we_embed_into_what_podman_and_buildah_wrote(
    way: Callable[[Tools, LayoutMaker, Path, str], Path],
    form: str,
    *,
    tools: Tools,
    base: Base,
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    theirs = way(tools, base("gzip"), tmp_path / ("theirs" if "dir" in form else "theirs.x"), form)
    made = tmp_path / "made"
    embed_layout(theirs, [bundle], make_record(bundle), made, tag="app")
    judged(made, "app")
    pulled = tools.podman("pull", "-q", f"oci:{made}:app").strip()
    assert tools.runs(pulled) == SHOWN
    if way is by_buildah:
        with ociread.open_layout(made, "app") as found:
            assert found.labels()["by"] == "buildah"


def test_we_embed_into_what_umoci_made(
    tools: Tools, layers: list[bytes], bundle: Bundle, tmp_path: Path
) -> None:
    umoci, image = install("umoci"), f"{tmp_path}/theirs:new"
    run(umoci, "init", "--layout", tmp_path / "theirs")
    run(umoci, "new", "--image", image)
    for number, data in enumerate(layers):
        root = tmp_path / f"root{number}"
        root.mkdir()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(root, filter="fully_trusted")
        for path in sorted(root.iterdir()):
            run(umoci, "insert", "--image", image, path, f"/{path.name}")
    run(umoci, "config", "--image", image, "--config.user=1000", "--config.workingdir=/app")
    embed_layout(tmp_path / "theirs", [bundle], make_record(bundle), tmp_path / "made", tag="app")
    judged(tmp_path / "made", "app")
    run(umoci, "stat", "--image", f"{tmp_path}/made:app")
    run(umoci, "unpack", "--image", f"{tmp_path}/made:app", tmp_path / "unpacked")
    assert (tmp_path / "unpacked/rootfs" / HOME / "Catalog[eu]/state").read_text() == SHOWN
    assert tools.runs(tools.podman("pull", "-q", f"oci:{tmp_path}/made:app").strip()) == SHOWN


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_we_embed_into_what_they_pushed(
    form: str, host: str, tools: Tools, base: Base, bundle: Bundle
) -> None:
    name = f"{host}/theirs/{form}"
    image = tools.podman("pull", "-q", f"oci:{base('gzip').path}:latest").strip()
    tools.podman("push", "-q", "--tls-verify=false", f"--format={form}", image, f"{name}:1")
    embed(f"{name}:2", bundle, f"{name}:1")
    assert verdict_of(f"{name}:2").all_problems == ()
    tools.podman("pull", "-q", "--tls-verify=false", f"{name}:2")
    assert tools.runs(f"{name}:2") == SHOWN


def test_before_and_after_crane(
    host: str, tools: Tools, base: Base, bundle: Bundle, tmp_path: Path
) -> None:
    name = f"{host}/theirs/crane"
    push(base("gzip"), f"{name}:1")
    (tmp_path / "more.tar").write_bytes(layer({"app/more": b"more"}))
    append = ("append", "--insecure", "-f", str(tmp_path / "more.tar"))
    run(tools.crane, *append, "-b", f"{name}:1", "-t", f"{name}:2")
    embed(f"{name}:3", bundle, f"{name}:2")
    run(tools.crane, "validate", "--insecure", "--remote", f"{name}:3")
    # On top of the state another layer, a label, and everything made one layer.
    run(tools.crane, *append, "-b", f"{name}:3", "-t", f"{name}:4")
    run(tools.crane, "mutate", "--insecure", "--label", "by=crane", f"{name}:4", "-t", f"{name}:5")
    run(tools.crane, "flatten", "--insecure", f"{name}:5", "-t", f"{name}:6")
    for tag in "3456":
        assert verdict_of(f"{name}:{tag}").all_problems == (), tag
    run(tools.crane, "pull", "--insecure", f"{name}:5", tmp_path / "pulled.tar")
    judged(tmp_path / "pulled.tar")
    run(tools.crane, "pull", "--insecure", "--format=oci", f"{name}:5", tmp_path / "pulled")
    judged(tmp_path / "pulled")
    newer = make_bundle(tmp_path / "newer", {"Catalog[eu]": {"state": b"newer"}})
    embed(f"{name}:7", newer, f"{name}:5")
    assert verdict_of(f"{name}:7").all_problems == ()
    tools.podman("pull", "-q", "--tls-verify=false", f"{name}:7")
    assert tools.runs(f"{name}:7") == "newer"
