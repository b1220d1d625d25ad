"""The tests' own engine, to be maltreated: on its own small disk, reached by TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.support import engine

_BRIDGE = "state-bundler1"
_DISK = "96m"


@dataclass
class OwnEngine:
    """home: its folder. port: for TLS, which wants a certificate of ours."""

    home: Path
    port: int
    options: tuple[str, ...] = ()
    pid: int = 0
    clis: tuple[str, ...] = field(default_factory=lambda: engine._clis(Path(_dockerd())))

    @property
    def host(self) -> str:
        return f"unix://{self.home / 'docker.sock'}"

    @property
    def near(self) -> engine.Engine:
        return engine.Engine(self.host, self.clis)

    @property
    def certificates(self) -> Path:
        return self.home / "certificates"

    def start(self) -> None:
        self.pid = engine.start(_dockerd(), self.home, self.options)

    def stop(self) -> None:
        engine.stop(self.pid)

    def die(self) -> None:
        """Ends it as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        engine._STARTED.pop(self.pid).wait(timeout=30)
        # Its containerd dies with it, but where nobody reaps orphans its number stays taken.
        (self.home / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def used(self) -> int:
        """Bytes on its disk."""
        found = os.statvfs(self.home / "data")
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def _dockerd() -> str:
    return engine.install("dockerd", "docker.io")


@contextmanager
def running(home: Path) -> Iterator[OwnEngine]:
    """Started, and gone at the end with all that it had."""
    own = OwnEngine(home, free_port())
    data = home / "data"
    data.mkdir(parents=True)
    certificates = _certificates(own.certificates)
    (home / "daemon.json").write_text(json.dumps({"storage-driver": "overlay2"}))
    own.options = (
        f"--config-file={home / 'daemon.json'}",
        *engine.options_of(engine.make_bridge(_BRIDGE, "172.31.90.1/24")),
        f"--host=tcp://127.0.0.1:{own.port}",
        "--tlsverify",
        *(f"--tls{name}={path}" for name, path in certificates.items()),
    )
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", data], check=True)
    try:
        own.start()
        try:
            yield own
        finally:
            own.stop()
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)


def _certificates(folder: Path) -> dict[str, Path]:
    """The server's, by option; next to them a client's, by the names that docker looks for."""
    folder.mkdir()
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key", "server", "server-key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    for issued, cert, key in ((client, "cert", "key"), (server, "server", "server-key")):
        issued.cert_chain_pems[0].write_to_path(str(files[cert]))
        issued.private_key_pem.write_to_path(str(files[key]))
    return {"cacert": files["ca"], "cert": files["server"], "key": files["server-key"]}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {port}"
            time.sleep(0.05)
        else:
            return
