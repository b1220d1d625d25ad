"""A Docker engine for the tests: the one that is reachable, else Debian's own, started here.

Our own lives in ``build/engine`` of the checkout (data, socket, pid file, log), is used by one
process at a time, and ends with it. Its data stays, so that the next run finds the base images.
Modules marked ``pytest.mark.engine(offline=True)`` have another one, in ``build/engine/offline``,
whose containers reach only this machine: both kinds run at the same time.

Run as a script it starts the engine and prints the ``DOCKER_HOST``; ``stop`` ends it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from tests.support.environments import REQUIREMENTS, ROOT
from tests.support.left_out import leave_out

HOME = ROOT / "build" / "engine"
# Names a configuration of docker's to test with: another one has other plugins.
CLIENT_VARIABLE = "BUNDLER_TEST_DOCKER_CONFIG"
# Another recipe for a base image takes another number here: engines keep what they have.
PYTHON_BASE = "state-bundler-test/python:3.11-3"
UV_IMAGE = "state-bundler-test/uv:2"

_PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3-minimal"),
    *("libc6", "zlib1g", "libexpat1", "libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0"),
    *("liblzma5", "libuuid1", "libcrypt1", "libgcc-s1", "libstdc++6", "libreadline8"),
    *("libtinfo6", "libncursesw6", "media-types", "busybox-static", "ca-certificates"),
)
_SOCKET = "/var/run/docker.sock"
_START_SECONDS = 60.0
# Engines that this process started, by pid.
_STARTED: dict[int, subprocess.Popen[bytes]] = {}


def install(program: str, package: str = "") -> str:
    """The path of a Debian program, installed by apt where it is missing and we are root.

    Elsewhere the test is left out.
    """
    found = shutil.which(program)
    if found is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            remedy = f"on Debian: sudo apt-get install {package or program}"
            leave_out(f"{program} is missing", remedy)
        _apt("update")
        _apt("install", "--no-install-recommends", "--yes", package or program)
        found = shutil.which(program)
    assert found is not None, program
    return found


def _apt(*arguments: str, cwd: Path | None = None) -> None:
    argv = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(HOME / "apt.lock"):  # apt does not wait for another one's `update`
        subprocess.run(
            [*argv, *arguments], check=True, env=environment, cwd=cwd, capture_output=True
        )


@dataclass(frozen=True)
class Engine:
    """A reachable engine. clis: the docker programs to test with, Debian's own first."""

    host: str
    clis: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to talk to this engine and to no other."""
        kept = {name: value for name, value in os.environ.items() if "DOCKER" not in name}
        config = Path(os.environ.get(CLIENT_VARIABLE) or HOME / "client")
        config.mkdir(parents=True, exist_ok=True)
        if not (config / "config.json").exists():  # buildah wants one
            (config / "config.json").write_text("{}")
        return {**kept, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(config)}

    def docker(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs the first CLI."""
        done = subprocess.run(
            [self.clis[0], *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert not check or done.returncode == 0, (arguments, done.stderr.decode())
        return done

    def remove_made(self) -> None:
        """Removes what a test run made: by name, and in our own engine what has none, too."""
        names = self.docker("image", "ls", "-q", "--filter", "reference=sbt/*")
        for image in set(names.stdout.decode().split()):
            self.docker("image", "rm", "--force", image, check=False)
        if self.host in (_host_of(HOME), _host_of(HOME / "offline")):
            self.docker("image", "prune", "--force")

    def has_image(self, name: str) -> bool:
        return self.docker("image", "inspect", name, check=False).returncode == 0


def is_given() -> bool:
    """Whether the tests use an engine that is not ours."""
    return bool(os.environ.get("DOCKER_HOST")) or Path(_SOCKET).exists()


@contextmanager
def running_engine(*, offline: bool = False) -> Iterator[Engine]:
    """The reachable engine, or our own for as long as this lasts."""
    host = os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"
    found = shutil.which("docker")
    if os.geteuid() != 0 and not (found and _answers(found, host)):
        leave_out(
            f"no Docker engine answers at {host}, and only root can start one",
            "start Docker, name one with DOCKER_HOST, or run the tests as root",
        )
    debian = install("dockerd", "docker.io") if os.geteuid() == 0 else str(found)
    clis = _clis(Path(debian))
    if _answers(clis[0], host):
        yield Engine(host, clis)
        return
    home = HOME / "offline" if offline else HOME
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "lock"):
        bridge = make_bridge("state-bundler3", "172.31.92.1/24") if offline else None
        pid = start(debian, home, options_of(bridge))
        try:
            yield Engine(_host_of(home), clis)
        finally:
            stop(pid)


def make_bridge(name: str, address: str) -> str:
    """Its own bridge: an engine without one would remove the other engine's."""
    ip = install("ip", "iproute2")
    if not Path(f"/sys/class/net/{name}").exists():
        subprocess.run([ip, "link", "add", "name", name, "type", "bridge"], check=True)
        subprocess.run([ip, "addr", "add", address, "dev", name], check=True)
    subprocess.run([ip, "link", "set", name, "up"], check=True)
    return name


def options_of(bridge: str | None) -> tuple[str, ...]:
    """dockerd's, for an engine that leaves the machine's packet filter alone."""
    return (f"--bridge={bridge}", "--iptables=false", "--ip6tables=false") if bridge else ()


def _clis(dockerd: Path) -> tuple[str, ...]:
    """Debian's CLI, and another one that is first on PATH."""
    debian = str(dockerd.parent.parent / "bin" / "docker")
    first = shutil.which("docker") or debian
    found = [debian, first] if Path(debian).exists() else [first]
    return tuple(dict.fromkeys(found))


def _host_of(home: Path) -> str:
    return f"unix://{home / 'docker.sock'}"


def _answers(cli: str, host: str) -> bool:
    argv = [cli, "-H", host, "version"]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    return done.returncode == 0


def start(dockerd: str = "dockerd", home: Path = HOME, options: Sequence[str] = ()) -> int:
    """Starts our own engine, or reuses one that a killed run left; returns its pid."""
    home.mkdir(parents=True, exist_ok=True)
    pid_file = home / "docker.pid"
    left = _left_running(pid_file, home)
    if left is not None:
        return left
    pid_file.unlink(missing_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                dockerd,
                f"--data-root={home / 'data'}",
                f"--exec-root={home / 'exec'}",
                f"--pidfile={pid_file}",
                f"--host=unix://{home / 'docker.sock'}",
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _STARTED[process.pid] = process
    deadline = time.monotonic() + _START_SECONDS
    cli = _clis(Path(dockerd))[0]
    while not _answers(cli, f"unix://{home / 'docker.sock'}"):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = (home / "log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"dockerd did not start:\n{tail}")
        time.sleep(0.2)
    return process.pid


def _left_running(pid_file: Path, home: Path) -> int | None:
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if str(home / "data") in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    return None


def stop(pid: int) -> None:
    """Ends an engine by its pid and waits until it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if pid in _STARTED:
        _STARTED.pop(pid).wait(timeout=60)
        return
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"dockerd {pid} did not end"
        time.sleep(0.1)


@functools.cache
def is_offline(module: Path) -> bool:
    """Whether a test module is content with an engine without the network."""
    return "pytest.mark.engine(offline=True)" in module.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def engines() -> Iterator[Callable[[bool], Engine]]:
    """Engines by whether they are offline, started when they are first needed."""
    with ExitStack() as stack:

        @functools.cache
        def running(offline: bool) -> Engine:
            found = stack.enter_context(running_engine(offline=offline))
            make_python_base(found)
            stack.callback(found.remove_made)
            return found

        yield running


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, engines: Callable[[bool], Engine]) -> Engine:
    """A reachable engine with the Python base image. Tests name their images ``sbt/…``."""
    return engines(is_offline(request.path))


# --- base images ----------------------------------------------------------------------------


def make_python_base(engine: Engine) -> str:
    """A small image with Python, a shell and uv: Debian's packages, unpacked."""
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(HOME / "base.lock"):  # several engines can be tested at a time
        if not engine.has_image(PYTHON_BASE):
            _import_python_base(engine)
    return PYTHON_BASE


def _import_python_base(engine: Engine) -> None:
    packages = HOME / "packages"
    if not (packages / "complete").exists():
        packages.mkdir(parents=True, exist_ok=True)
        _download(packages)
        (packages / "complete").touch()
    root = HOME / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    for archive in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
    _finish_root(root)
    tar = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
    with subprocess.Popen([*tar, "-C", root, "-c", "."], stdout=subprocess.PIPE) as stream:
        changes = [
            "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            "ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            'CMD ["python3"]',
        ]
        options = [word for change in changes for word in ("--change", change)]
        subprocess.run(
            [engine.clis[0], "import", *options, "-", PYTHON_BASE],
            stdin=stream.stdout,
            env=engine.environment,
            check=True,
            capture_output=True,
        )
    shutil.rmtree(root)


def _download(folder: Path) -> None:
    try:
        _apt("download", "-o", "APT::Sandbox::User=root", *_PACKAGES, cwd=folder)
    except subprocess.CalledProcessError:  # a fresh machine has no package lists
        _apt("update")
        _apt("download", "-o", "APT::Sandbox::User=root", *_PACKAGES, cwd=folder)


def _finish_root(root: Path) -> None:
    import uv

    for applet in (
        "sh",
        "ls",
        "cat",
        "id",
        "mkdir",
        "rm",
        "cp",
        "ln",
        "env",
        "chown",
        "touch",
        "adduser",
        "addgroup",
        "find",
        "sha256sum",
        "chmod",
        "stat",
        "sleep",
        "test",
    ):
        (root / "bin" / applet).symlink_to("busybox")
    for folder in ("tmp", "root", "proc", "sys", "dev", "etc", "usr/local/bin", "home", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "usr/bin/python").symlink_to("python3")
    # As Debian's packages do when they are set up; whatever the times in the image are.
    compileall = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(["chroot", root, *compileall, "/usr/lib/python3.11"], check=True)
    # The image stands for one whose Python is the user's own, such as python:3.11.
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    shutil.copy(uv.find_uv_bin(), root / "usr/local/bin/uv")
    certificates = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    shutil.copy(certificates, root / "etc/ssl/certs/ca-certificates.crt")


def make_environment_image(engine: Engine, name: str) -> str:
    """An image with what ``tests/requirements/<name>.txt`` lists, for a program to be put into."""
    requirements = (REQUIREMENTS / f"{name}.txt").read_bytes()
    image = f"state-bundler-test/{name}:{hashlib.sha256(requirements).hexdigest()[:12]}"
    if not engine.has_image(image):
        with TemporaryDirectory() as context:
            Path(context, "requirements.txt").write_bytes(requirements)
            Path(context, "Dockerfile").write_text(
                f"FROM {make_python_base(engine)}\nCOPY requirements.txt /\n"
                "RUN uv pip install --system --no-cache --compile-bytecode -r /requirements.txt\n"
            )
            engine.docker("build", "-t", image, context)
    return image


def make_uv_image(engine: Engine) -> str:
    """An image with nothing but uv, as its makers publish it."""
    import uv

    if not engine.has_image(UV_IMAGE):
        binary = Path(uv.find_uv_bin()).read_bytes()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as opened:
            info = tarfile.TarInfo("uv")
            info.size, info.mode = len(binary), 0o755
            opened.addfile(info, io.BytesIO(binary))
        engine.docker("import", "-", UV_IMAGE, stdin=archive.getvalue())
    return UV_IMAGE


if __name__ == "__main__":
    if sys.argv[1:] == ["stop"]:
        running = _left_running(HOME / "docker.pid", HOME)
        if running is not None:
            stop(running)
    else:
        start(install("dockerd", "docker.io"))
        own = Engine(_host_of(HOME), _clis(Path(install("dockerd"))))
        make_python_base(own)
        print(f"export DOCKER_HOST={own.host}")
