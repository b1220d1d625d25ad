"""What a fleet takes: `verify`, `status` and `update` of many images in one registry.

    python benchmarks/fleet.py [--images 100] [--size 10K] [--runs 3] [--one-repository]

The images are in Debian's registry on loopback, each in its own repository (or all in one), with
the same code and a state. One process of ours handles all of them. It is compared with

- the requests that one connection needs at least, see `NEEDED`;
- `crane` in a loop, which is given less to do: it fetches manifest, configuration and layer of an
  image (`verify`) or manifest and configuration (`status`) and looks at none of them, and appends
  a prepared archive (`update`). It is ``make clients``'s, or the one on PATH;
- `skopeo inspect --config` in a loop, for `status`.

Shown are the requests in the registry's own log, the CPU time and the elapsed time, the least of
all runs, and the peak memory of the largest process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundler.artifacts.image import registry
from bundler.artifacts.image.layer import Layer, Placed
from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.state.bundle import STATE_DIRECTORY
from tests.support import newer_engine
from tests.support.bundles import make_bundle
from tests.support.engine import install
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.registries import distribution

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
# Of an image. verify: manifest, configuration, state layer. status: the manifest of the state is in
# the layer, too. update: the old manifest and configuration, whether the new tag exists, the layer
# and the configuration (each POST and PUT), the manifest by digest, the tag.
NEEDED = {"verify": 3, "status": 3, "update": 9}
PLACE = f"shop/defs/{STATE_DIRECTORY}"
PYPROJECT = f"""
[project]
name = "shop"
version = "1"
[[tool.state-bundler.source]]
key = "Shop"
command = ["cp", "../state", "{{state_path}}"]
path = "src/{PLACE}"
"""


@dataclass
class Cost:
    """The least of all runs: requests, CPU and elapsed seconds, MB of memory."""

    requests: int = sys.maxsize
    cpu: float = float("inf")
    elapsed: float = float("inf")
    memory: float = float("inf")

    def take(self, *, requests: int, cpu: float, elapsed: float, memory: float) -> None:
        self.requests = min(self.requests, requests)
        self.cpu = min(self.cpu, cpu)
        self.elapsed = min(self.elapsed, elapsed)
        self.memory = min(self.memory, memory)


@dataclass
class Fleet:
    """The images, and the project whose state they have."""

    root: Path
    host: str
    log: Path
    names: Sequence[str]
    size: int
    costs: dict[str, dict[str, Cost]] = field(default_factory=dict)

    def prepare(self) -> None:
        project = self.root / "project"
        (project / "src/shop/defs").mkdir(parents=True)
        (project / "src/shop/__init__.py").touch()
        (project / "src/shop/defs/__init__.py").touch()
        (project / "pyproject.toml").write_text(PYPROJECT)
        (project / ".gitignore").write_text(".local_defs_state/\n")
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
            subprocess.run(["git", *command], cwd=project, check=True)
        maker = LayoutMaker(self.root / "base")
        maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}))
        store = open_store(maker.path)
        for name in self.names:
            registry.publish(store, choose(store, None), [registry.parse(name)])
        self.new_state()
        self.run(*self.ours("update", "--in-place"))

    def new_state(self) -> None:
        """Another state, and the same as a layer for crane."""
        (self.root / "state").write_bytes(os.urandom(self.size // 2).hex().encode())
        content = (self.root / "state").read_bytes()
        bundle = make_bundle(self.root / f"bundle{time.monotonic_ns()}", {"Shop": {"x": content}})
        layer = Layer((Placed(bundle, f"/app/src/{PLACE}", ()),))
        with open(self.root / "layer.tar", "wb") as stream:
            stream.writelines(layer.pieces())

    def ours(self, command: str, *options: str) -> list[list[str | Path]]:
        program = Path(sys.executable).with_name("state-bundler")
        return [[program, command, *options, *(f"docker://{name}" for name in self.names)]]

    def theirs(self, *argv: str | Path, option: str = "", more: str = "") -> list[list[str | Path]]:
        """A process for each image, which is the last argument, or that of an option."""
        ends = [[option, name, "-t", f"{name}{more}"] if option else [name] for name in self.names]
        return [[*argv, *end] for end in ends]

    def run(self, *commands: Sequence[str | Path]) -> tuple[float, float]:
        """The CPU seconds of all processes, and the memory of the largest, in MB."""
        cpu = memory = 0.0
        for argv in commands:
            process = subprocess.Popen(
                argv, cwd=self.root / "project", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, said.decode()
            cpu += used.ru_utime + used.ru_stime
            memory = max(memory, used.ru_maxrss / 1024)
        return cpu, memory

    def measure(self, what: str, way: str, commands: Sequence[Sequence[str | Path]]) -> None:
        before, began = self._requests(), time.perf_counter()
        cpu, memory = self.run(*commands)
        elapsed, requests = time.perf_counter() - began, self._requests() - before
        cost = self.costs.setdefault(what, {}).setdefault(way, Cost())
        cost.take(requests=requests, cpu=cpu, elapsed=elapsed, memory=memory)

    def _requests(self) -> int:
        return self.log.read_bytes().count(b" HTTP/1.1")

    def compare(self, crane: str) -> None:
        skopeo = (install("skopeo"), "inspect", "--config", "--tls-verify=false")
        inspected: list[list[str | Path]] = [[*skopeo, f"docker://{name}"] for name in self.names]
        pulled = self.theirs("sh", "-c", _PULL, crane)
        looked = self.theirs("sh", "-c", _LOOK, crane)
        append = (crane, "append", "--insecure", "-f", self.root / "layer.tar")
        ways: list[tuple[str, str, Callable[[], list[list[str | Path]]]]] = [
            ("verify", "state-bundler verify", lambda: self.ours("verify")),
            ("verify", "crane in a loop", lambda: pulled),
            ("status", "state-bundler status", lambda: self.ours("status")),
            ("status", "crane in a loop", lambda: looked),
            ("status", "skopeo in a loop", lambda: inspected),
            ("update", "state-bundler update", lambda: self.ours("update")),
            ("update", "crane in a loop", lambda: self.theirs(*append, option="-b", more="-c")),
        ]
        self.new_state()
        for what, way, commands in ways:
            self.measure(what, way, commands())


_PULL = """
manifest=$("$0" manifest --insecure "$1")
layer=$(echo "$manifest" | sed 's/"annotations.*//' | grep -o 'sha256:[0-9a-f]*' | tail -n 1)
"$0" config --insecure "$1" >/dev/null
"$0" blob --insecure "${1%:*}@$layer" >/dev/null
"""
_LOOK = """
"$0" manifest --insecure "$1" >/dev/null
"$0" config --insecure "$1" >/dev/null
"""


def table(fleet: Fleet) -> str:
    count = len(fleet.names)
    rows = [
        "| | requests an image | of those needed | CPU, s | elapsed, s | MB |",
        "|---|---|---|---|---|---|",
    ]
    for what, ways in fleet.costs.items():
        for way, cost in ways.items():
            each = cost.requests / count
            rows.append(
                f"| {what}: {way} | {each:.2f} | {each / NEEDED[what]:.2f} | {cost.cpu:.2f} | "
                f"{cost.elapsed:.2f} | {cost.memory:.0f} |"
            )
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", default="10K", help="of the state")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one-repository", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        root = Path(name)
        log = root / "access.log"
        with distribution(access_log=log) as host:
            names = [
                f"{host}/fleet/shop:v{number}"
                if options.one_repository
                else f"{host}/fleet/shop{number}:v"
                for number in range(options.images)
            ]
            size = int(options.size[:-1]) * UNITS[options.size[-1]]
            fleet = Fleet(root, host, log, names, size)
            fleet.prepare()
            for _ in range(options.runs):
                fleet.compare(newer_engine.program("crane"))
    print(f"{options.images} images, state {options.size}\n{table(fleet)}")


if __name__ == "__main__":
    main(sys.argv[1:])
