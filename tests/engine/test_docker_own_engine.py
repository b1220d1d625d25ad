"""An engine far away by TLS and by ssh, one whose disk is full, one that dies."""

from __future__ import annotations

import gc
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image.engine import embedding, loading
from bundler.artifacts.image.engine.connection import Docker
from bundler.errors import ToolFailed
from tests.support import engine as engines
from tests.support import owndockerd
from tests.support.bundles import PLACE, make_bundle
from tests.support.dockerprojects import Project
from tests.support.owndockerd import OwnEngine

pytestmark = pytest.mark.engine

FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, engine: engines.Engine) -> Iterator[OwnEngine]:
    del engine  # it is started first: two at a time is enough for this machine
    with owndockerd.running(tmp_path_factory.mktemp("own")) as found:
        yield found


@pytest.fixture
def shop(own: OwnEngine, tmp_path: Path) -> Iterator[Project]:
    """A project whose image no program has to be run for."""
    project = Project(tmp_path / "shop", own.near, "sbt/shop")
    for path, text in (("Dockerfile", FROM_SCRATCH), ("src/shop/defs/__init__.py", "")):
        project.write(path, text)
    yield project
    own.near.docker("image", "rm", "--force", project.name, check=False)
    own.near.docker("image", "prune", "--force", check=False)


def far(own: OwnEngine, cli: str, *options: str, **environment: str) -> Docker:
    kept = {k: v for k, v in own.near.environment.items() if k != "DOCKER_HOST"}
    return Docker(cli, options, {**kept, "DOCKER_BUILDKIT": "0", **environment})


def test_an_engine_by_tls(own: OwnEngine, shop: Project, tmp_path: Path) -> None:
    address, folder = f"tcp://127.0.0.1:{own.port}", own.certificates
    files = {"cacert": "ca", "cert": "cert", "key": "key"}
    tls = [f"--tls{option}={folder}/{name}.pem" for option, name in files.items()]
    by_options = far(own, own.clis[0], "--tlsverify", *tls, "-H", address)
    by_variables = far(
        own, own.clis[-1], DOCKER_HOST=address, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(folder)
    )
    by_context = far(own, own.clis[0], "--context", "far", DOCKER_CONFIG=str(tmp_path / "config"))
    pems = ",".join(f"{name}={folder}/{name}.pem" for name in ("ca", "cert", "key"))
    make = [own.clis[0], "context", "create", "far", "--docker", f"host={address},{pems}"]
    subprocess.run(make, env=dict(by_context.environment), check=True, capture_output=True)
    for docker in (by_options, by_variables, by_context):
        built = shop.build(docker=docker)
        assert shop.inspect()["Id"] == built.image_id


def test_an_engine_by_tls_without_a_certificate_is_an_error(own: OwnEngine) -> None:
    docker = far(own, own.clis[0], "--tls", "-H", f"tcp://127.0.0.1:{own.port}")
    with pytest.raises(ToolFailed, match=r"resolve docker endpoint|No Docker engine responds"):
        docker.connect()


@contextmanager
def ssh_server(folder: Path, host: str) -> Iterator[tuple[str, Path]]:
    """A server on loopback, and a folder for PATH whose ``ssh`` trusts and is trusted by it."""
    sshd, keygen = engines.install("sshd", "openssh-server"), engines.install("ssh-keygen")
    ssh = engines.install("ssh", "openssh-client")
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "client"):
        argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(argv, check=True)
    port = owndockerd.free_port()
    (folder / "sshd").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"SetEnv DOCKER_HOST={host}\n"
    )
    (folder / "bin").mkdir()
    options = [f"-oIdentityFile={folder}/client", "-oStrictHostKeyChecking=no",
               f"-oUserKnownHostsFile={folder}/known", "-oIdentitiesOnly=yes"]  # fmt: skip
    program = folder / "bin" / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([ssh, "-Fnone", *options])} "$@"\n')
    program.chmod(0o755)
    serve = [sshd, "-D", "-f", str(folder / "sshd")]
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
        try:
            owndockerd.wait_for_port(port)
            yield f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{port}", program.parent
        finally:
            server.terminate()


def test_an_engine_by_ssh(own: OwnEngine, shop: Project, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh", own.host) as (address, folder):
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        docker = far(own, own.clis[0], DOCKER_HOST=address, PATH=path)
        built = shop.build(docker=docker)
    assert shop.inspect()["Id"] == built.image_id


def test_a_full_disk_leaves_neither_a_name_nor_bytes(own: OwnEngine, shop: Project) -> None:
    before = shop.build()
    left, used = shop.left_behind(), own.used()
    states = {"Large": {"state": os.urandom(80_000_000)}}
    large = make_bundle(shop.root.parent / "large", states, place=PLACE)
    with pytest.raises(ToolFailed, match="no space left"):
        shop.build(bundle=large)
    assert shop.inspect()["Id"] == before.image_id
    assert shop.left_behind() == left
    assert own.used() < used + 1_000_000
    assert shop.build().image_id != before.image_id  # and it goes on


# Where nobody listens any more, docker-py leaves the closing of its socket to Python.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_dying_engine_leaves_nothing_behind(
    own: OwnEngine, shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.build()
    left = shop.left_behind()
    archive_of = loading.archive_of

    def dying(*arguments: Any) -> Iterator[bytes]:
        pieces = archive_of(*arguments)
        yield next(pieces)
        yield b"".join(pieces)[:-512]
        own.die()

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "archive_of", dying)
        with pytest.raises(ToolFailed, match="Docker engine"):
            shop.build()
    own.start()
    assert shop.inspect()["Id"] == before.image_id
    containers, volumes, images = shop.left_behind()
    assert (containers, volumes) == left[:2]
    # Nobody could remove the code's image, which has no name. The next build finds it again.
    assert len(images - left[2]) <= 1
    after = shop.build()
    _, _, images = shop.left_behind()
    assert images == {id_.removeprefix("sha256:")[:12] for id_ in (before.image_id, after.image_id)}
    gc.collect()  # the SDK does not close a socket that cannot connect: no other test's warning
