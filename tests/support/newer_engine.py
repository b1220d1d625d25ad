"""A newer Docker than the machine's own: Debian's next release, unpacked into its own root.

    python -m tests.support.newer_engine [--store classic|containerd] [--] PYTEST'S ARGUMENTS

Starts the engine of that root in a mount namespace, where it sees nothing of the machine but what
it needs, and runs the tests against it, with its own command line and buildx. ``make
docker-newer`` does so for both image stores at a time. Needs root, and a mirror of Debian's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from tests.support import engine
from tests.support.environments import ROOT
from tests.support.left_out import leave_out

SUITE = "forky"
HOME = ROOT / "build" / "newer-engine"
# For each store its own bridge: two engines would give out the same addresses on one.
_BRIDGES = {
    "classic": ("state-bundler0", "172.31.89.1/24"),
    "containerd": ("state-bundler2", "172.31.91.1/24"),
}
# git fetches contexts, and wants a shell for it.
_PACKAGES = (
    "docker.io,docker-cli,docker-buildx,containerd,runc,ca-certificates,git,dash,coreutils,sed"
)
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# One line of shell a step: into the root, with the engine's own folder at its path on the machine.
_ENTER = """\
set -e
mkdir -p {root}/proc {root}/sys {root}/dev {root}/etc {root}/tmp {root}/run {root}/.old {root}{home}
mount --bind {root} {root}
for folder in proc sys dev; do mount --rbind /$folder {root}/$folder; done
mount --bind {home} {root}{home}
mount -t tmpfs tmpfs {root}/run
cat /etc/resolv.conf > {root}/etc/resolv.conf
cd {root}
pivot_root . .old
exec "$@"
"""


def make_root() -> Path:
    """The unpacked release; made once."""
    root = HOME / "root"
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(HOME / "lock"):
        if not (HOME / "complete").exists():
            _unpack(root)
            (HOME / "complete").touch()
    return root


def _unpack(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    source = f"deb [signed-by={_KEYS}] {_mirror()} {SUITE} main"
    argv = [engine.install("mmdebstrap"), "--quiet", "--mode=root", "--variant=extract",
            '--aptopt=Acquire::Check-Valid-Until "false"', f"--include={_PACKAGES}",
            SUITE, str(root), source]  # fmt: skip
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    for folder in ("bin", "sbin", "lib", "lib64"):  # unpacked only, it lacks what a set-up makes
        if not (root / folder).exists():
            (root / folder).symlink_to(f"usr/{folder}")


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    found = _main_archive()
    if found is None:
        engine._apt("update")
        found = _main_archive()
    if found is None:
        raise SystemExit("apt has no package list of Debian.")
    return found


def _main_archive() -> str | None:
    fields = "$(COMPONENT) $(REPO_URI) $(CREATED_BY) $(ORIGIN) $(LABEL)"
    argv = ["apt-get", "indextargets", "--format", fields]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    targets = [line.split() for line in said.splitlines()]
    return next(
        (where for component, where, *rest in targets
         if component == "main" and rest == ["Packages", "Debian", "Debian"]),
        None,
    )  # fmt: skip


def program(name: str) -> str:
    """The path of one of that release's programs that need nothing but the C library."""
    folder = HOME / "programs"
    found = folder / "usr" / "bin" / name
    if not found.exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            leave_out(f"{name} comes from Debian's next release", "run the tests as root on Debian")
        lists = folder / "apt"
        for made in (lists / "lists/partial", lists / "cache/archives/partial"):
            made.mkdir(parents=True, exist_ok=True)
        (lists / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_mirror()} {SUITE} main\n")
        options = {"Dir::State::Lists": lists / "lists", "Dir::Cache": lists / "cache",
                   "Dir::State::status": "/dev/null", "Dir::Etc::sourceparts": "/dev/null",
                   "Dir::Etc::sourcelist": lists / "sources.list",
                   "Acquire::Check-Valid-Until": "false", "APT::Sandbox::User": "root"}  # fmt: skip
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "download", name], check=True, capture_output=True, cwd=folder)
        (package,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    return str(found)


def make_client(root: Path, home: Path) -> tuple[Path, Path]:
    """A folder for PATH with the newer docker, and a configuration that has its buildx.

    home: where both go; buildx keeps its builders in the configuration.
    """
    folder, config = home / "bin", home / "client"
    plugins = config / "cli-plugins"
    for made in (folder, plugins):
        made.mkdir(parents=True, exist_ok=True)
    _wrap(root, root / "usr/bin/docker", folder / "docker")
    (built,) = (root / "usr").glob("lib*/docker/cli-plugins/docker-buildx")
    _wrap(root, built, plugins / "docker-buildx")
    (config / "config.json").write_text("{}")
    return folder, config


def _wrap(root: Path, program: Path, target: Path) -> None:
    """The machine's C library may be too old for it: it is started with its own."""
    loader = root / "lib64/ld-linux-x86-64.so.2"
    libraries = ":".join(str(root / name) for name in ("usr/lib/x86_64-linux-gnu", "usr/lib"))
    words = [str(loader), "--library-path", libraries, str(program)]
    target.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    target.chmod(0o755)


@contextmanager
def running(store: str) -> Iterator[str]:
    """The engine's address, for as long as this lasts."""
    root = make_root()
    home = HOME / store
    home.mkdir(parents=True, exist_ok=True)
    bridge = engine.make_bridge(*_BRIDGES[store])
    settings = {
        "features": {"containerd-snapshotter": store == "containerd"},
        "insecure-registries": ["127.0.0.0/8"],
    }
    (home / "daemon.json").write_text(json.dumps(settings))
    script = _ENTER.format(root=shlex.quote(str(root)), home=shlex.quote(str(home)))
    starter = home / "dockerd"
    starter.write_text(
        f"#!/bin/sh\nexec unshare --mount --propagation private sh -c {shlex.quote(script)} sh "
        '/usr/sbin/dockerd "$@"\n'
    )
    starter.chmod(0o755)
    # No test there needs the world outside: nothing is changed in the machine's packet filter.
    options = (*engine.options_of(bridge), f"--config-file={home / 'daemon.json'}")
    pid = engine.start(str(starter), home, options)
    try:
        yield f"unix://{home / 'docker.sock'}"
    finally:
        engine.stop(pid)


@contextmanager
def environment(store: str) -> Iterator[dict[str, str]]:
    """The environment in which ``docker`` is that release's, with its engine and its buildx."""
    with running(store) as host:
        folder, config = make_client(HOME / "root", HOME / store)
        yield {
            **os.environ,
            "DOCKER_HOST": host,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            engine.CLIENT_VARIABLE: str(config),
        }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=["classic", "containerd"], default="containerd")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    with environment(options.store) as found:
        variables = {**found, "BUNDLER_TEST_STORE": options.store}
        rest = [word for word in options.rest if word != "--"]
        if options.store == "classic":
            rest += ["-m", "not containerd"]
        return subprocess.run([sys.executable, "-m", "pytest", *rest], env=variables, check=False
                              ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
