"""New state into an image of an engine: ours next to what a user would do otherwise.

    python benchmarks/docker.py [--rounds N] [--sizes 1,100,1000] [--image-megabytes 150]
                                [--newer classic|containerd]

Each way is a whole process (or several), timed by the clock, with its own state each round so
that no cache answers; the ways alternate. Prints the median seconds, the ratio to ours, what the
clients used of the processor, our peak memory, and whether the aims are met. With --newer the
engine is that of Debian's next release, which has buildx, with either of its image stores.

- ours: `state-bundler update`'s step as a process: place, layer, load, read back, tag
- engine alone: curl sends the engine an archive with that layer, made beforehand: nobody who uses
  the engine's API can be faster
- docker bundle build: the whole command, guard and all, but for the refresh
- docker build: the same without state, all cached: what the command before it costs on top
- documentation: the Dockerfile that copies the project with its state, then installs
- from-copy: ``FROM image`` and ``COPY state``, by BuildKit, with the state's folder as the context
- named-context: the same with buildx's ``--build-context``, where there is buildx
- commit: create a container, copy in, commit
- buildah: from, copy, commit
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support import newer_engine
from tests.support.bundles import PLACE, make_bundle
from tests.support.engine import PYTHON_BASE, Engine, install, make_python_base, running_engine

_MEGABYTE = 1_000_000
_IMAGE = "sbt/benchmark"
_PROGRAM = Path(sys.executable).with_name("state-bundler")
_OURS = """
import gc
gc.set_threshold(100_000)  # as the command line does, and the freezing at the end
import sys
from pathlib import Path
from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.embedding import EngineDestination
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord, parse
from bundler.artifacts.verify import verify
root, image, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
bundle = Bundle(root, parse((root / "@manifest.json").read_bytes()), sys.argv[4])
engine = Docker.from_environment().connect()
request = EmbedRequest((bundle,), RunRecord(), every_byte=sys.argv[5] == "deep")
with EngineDestination(engine, image, (target,)).embed(request) as made:
    verify(made).raise_for_problems()
gc.freeze()
"""
_PROJECT = f"""\
[project]
name = "shop"
version = "1"
[[tool.state-bundler.source]]
key = "Key"
command = ["true"]
path = "src/{PLACE}"
"""
_DOCUMENTATION = f"""\
FROM {PYTHON_BASE}
WORKDIR /app
COPY . /app
RUN mkdir -p /usr/local/lib/python3.11/dist-packages && \\
    echo /app/src > /usr/local/lib/python3.11/dist-packages/_shop.pth && \\
    cp -r /app/packages /usr/local/lib/python3.11/dist-packages/ && \\
    python3 -m compileall -q /usr/local/lib/python3.11/dist-packages
"""


@dataclass
class Bench:
    """A project in a folder, its image in the engine."""

    engine: Engine
    root: Path
    program: str

    @property
    def environment(self) -> dict[str, str]:
        """As people have it: what was compiled once is not compiled again."""
        own = {"DOCKER_BUILDKIT": "1", "STATE_BUNDLER_DOCKER": self.program}
        kept = self.engine.environment
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**kept, **own}

    @property
    def state(self) -> Path:
        return self.root / "src" / PLACE

    @property
    def archive(self) -> Path:
        """Outside the project: no build is to see it."""
        return self.root.parent / "layer.tar"

    def run(self, *argv: str | Path) -> None:
        done = subprocess.run(
            argv, env=self.environment, cwd=self.root, capture_output=True, check=False
        )
        if done.returncode:
            sys.exit(f"{argv}: {done.stderr.decode()[-1500:]}")

    def docker(self, *arguments: str | Path) -> None:
        self.run(self.program, *arguments)

    def has(self, *argv: str) -> bool:
        done = subprocess.run(argv, env=self.environment, capture_output=True, check=False)
        return done.returncode == 0

    def new_state(self, megabytes: float) -> None:
        """Random bytes in files of at most 8 MB: no packing, no cache helps anybody."""
        shutil.rmtree(self.state, ignore_errors=True)
        left, files = int(megabytes * _MEGABYTE), {}
        while left > 0:
            size = min(left, 8 * _MEGABYTE)
            files[f"part{len(files)}"] = os.urandom(size)
            left -= size
        make_bundle(self.state, {"Key": files})


def make_project(bench: Bench, megabytes: int) -> None:
    """A project whose installation takes something: packages of many small modules."""
    (bench.root / "src/shop/defs").mkdir(parents=True)
    for path in ("src/shop/__init__.py", "src/shop/defs/__init__.py"):
        (bench.root / path).touch()
    (bench.root / "Dockerfile").write_text(_DOCUMENTATION)
    (bench.root / "FromCopy").write_text(f"FROM {_IMAGE}\nCOPY . /app/src/{PLACE}/\n")
    (bench.root / "pyproject.toml").write_text(_PROJECT)
    (bench.root / ".gitignore").write_text(".local_defs_state/\n")
    (bench.root / "OfCode").write_text(_DOCUMENTATION)
    (bench.root / "OfCode.dockerignore").write_text("**/.local_defs_state\n.git\n")
    (bench.root / "Named").write_text(f"FROM {_IMAGE}\nCOPY --from=state / /app/src/{PLACE}/\n")
    for words in (("init", "-q"), ("add", ".gitignore"), ("commit", "-qm", "All")):
        bench.run("git", "-c", "user.name=A", "-c", "user.email=a@example.com", *words)
    packages = bench.root / "packages"
    packages.mkdir()
    body = "".join(
        f"def f{number}(a, b=1):\n    return a + b + {number}\n" for number in range(400)
    )
    for number in range(megabytes * _MEGABYTE // (len(body) * 5 // 2)):
        (packages / f"m{number}.py").write_text(f"# {number}\n{body}")


def ours(bench: Bench, how: str = "cheap") -> None:
    bench.run(sys.executable, "-c", _OURS, bench.state, _IMAGE, f"{_IMAGE}:ours", PLACE, how)


def ours_deep(bench: Bench) -> None:
    ours(bench, "deep")


def bundle_build(bench: Bench) -> None:
    options = ("--refresh", "never", "-q", "-t", f"{_IMAGE}:bundle", "-f", "OfCode")
    bench.run(_PROGRAM, "build", "docker", *options, ".")


def docker_build(bench: Bench) -> None:
    bench.docker("build", "-q", "-t", f"{_IMAGE}:of-code", "-f", "OfCode", ".")


def documentation(bench: Bench) -> None:
    bench.docker("build", "-q", "-t", f"{_IMAGE}:documentation", ".")


def from_copy(bench: Bench) -> None:
    """Its own context: in the project's, the next build would have to send the code again."""
    bench.docker("build", "-q", "-f", "FromCopy", "-t", f"{_IMAGE}:from-copy", bench.state)


def new_layer_archive(bench: Bench) -> None:
    """Ours, reduced to the new layer, the configuration and the list; the engine forgets it."""
    whole_path = bench.root.parent / "whole.tar"
    ours(bench)
    bench.docker("save", "-o", whole_path, f"{_IMAGE}:ours")
    bench.docker("image", "rm", f"{_IMAGE}:ours")
    with tarfile.open(whole_path) as whole:
        (listed,) = json.load(whole.extractfile("manifest.json") or io.BytesIO())
        with tarfile.open(bench.archive, "w") as archive:
            for name in (listed["Layers"][-1], listed["Config"], "manifest.json"):
                archive.addfile(whole.getmember(name), whole.extractfile(name))
    whole_path.unlink()


def engine_alone(bench: Bench) -> None:
    socket = bench.environment["DOCKER_HOST"].removeprefix("unix://")
    options = ("--fail", "--silent", "--show-error", "--unix-socket", socket, "-X", "POST")
    sent = ("-H", "Content-Type: application/x-tar", "-T", bench.archive)
    bench.run("curl", *options, *sent, "http://docker/v1.41/images/load?quiet=1")


def commit(bench: Bench) -> None:
    name = f"benchmark-{os.getpid()}"
    bench.docker("create", "--name", name, _IMAGE)
    bench.docker("cp", f"{bench.state}/.", f"{name}:/app/src/{PLACE}")
    bench.docker("commit", name, f"{_IMAGE}:commit")
    bench.docker("rm", "-v", name)


def named_context(bench: Bench) -> None:
    state = f"state={bench.state}"
    options = ("--build-context", state, "--load", "-q", "-t", f"{_IMAGE}:named", "-f", "Named")
    bench.docker("buildx", "build", *options, ".")


def buildah(bench: Bench) -> None:
    """In its own store, into which the image is brought before the clock starts."""
    made = f"benchmark-{os.getpid()}"
    bench.run("buildah", "from", "--pull-never", "--name", made, f"localhost/{_IMAGE}")
    bench.run("buildah", "copy", made, bench.state, f"/app/src/{PLACE}")
    bench.run("buildah", "commit", "-q", "--rm", made, f"localhost/{_IMAGE}:buildah")


_WAYS: Mapping[str, Callable[[Bench], None]] = {
    "ours": ours,
    "engine alone": engine_alone,
    "ours, every byte read back": ours_deep,
    "docker build": docker_build,
    "docker bundle build": bundle_build,
    "documentation": documentation,
    "from-copy": from_copy,
    "commit": commit,
}


def ways_here(bench: Bench, *, takes_a_layer: bool) -> dict[str, Callable[[Bench], None]]:
    """The ways that this docker has; says which it has not."""
    ways = dict(_WAYS)
    install("curl")
    if not takes_a_layer:
        del ways["engine alone"]
    if bench.has(bench.program, "buildx", "version"):
        ways["named-context"] = named_context
    else:
        print("no buildx here: named-context is left out, --newer has it")
    install("buildah")
    archive = bench.root / "image.tar"
    bench.docker("save", "-o", archive, _IMAGE)
    bench.run("buildah", "pull", "-q", f"docker-archive:{archive}")
    bench.run("buildah", "tag", f"{_IMAGE}:latest", f"localhost/{_IMAGE}")
    archive.unlink()
    ways["buildah"] = buildah
    return ways


def processor_seconds() -> float:
    """What the programs that we have started and waited for used; the engine is none of them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Cost:
    """Medians of a way's rounds, in seconds."""

    clock: float
    processor: float


def measure(
    bench: Bench, ways: Mapping[str, Callable[[Bench], None]], megabytes: float, rounds: int
) -> dict[str, Cost]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            bench.new_state(megabytes)
            if way is engine_alone:
                new_layer_archive(bench)
            used, start = processor_seconds(), time.perf_counter()
            way(bench)
            found[name].append((time.perf_counter() - start, processor_seconds() - used))
    bench.engine.docker("image", "prune", "--force")
    return {
        name: Cost(*map(statistics.median, zip(*costs, strict=True)))
        for name, costs in found.items()
    }


def show(megabytes: float, found: Mapping[str, Cost], peak: float) -> None:
    mine = found["ours"].clock
    print("                                 clock   clients' CPU")
    for name, cost in found.items():
        print(f"  {name:28} {cost.clock:7.2f} s {cost.processor:7.2f} s   "
              f"{cost.clock / mine:6.1f} times ours")  # fmt: skip
    print(f"  our peak memory              {peak:7.0f} MB")
    on_top = found["docker bundle build"].clock - found["docker build"].clock
    print(f"  docker bundle build costs    {on_top:7.2f} s on top of docker build")
    aims = {"from-copy 3 times ours": found["from-copy"].clock >= 3 * mine}
    if megabytes <= 1:
        aims["documentation 50 times ours"] = found["documentation"].clock >= 50 * mine
        layer = found["engine alone"].clock if "engine alone" in found else 0.0
        aims["0.5 s and the engine's own load on top of docker build"] = on_top <= 0.5 + layer
    else:
        aims["150 MB of memory"] = peak < 150
    for aim, met in aims.items():
        print(f"  aim: {aim}: {'met' if met else 'MISSED'}")


def peak_megabytes(bench: Bench) -> float:
    """The peak of our process by its own account; what a parent had is not counted."""
    code = _OURS + "\nprint(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    argv = [sys.executable, "-c", code, str(bench.state), _IMAGE, f"{_IMAGE}:ours", PLACE, "deep"]
    done = subprocess.run(argv, env=bench.environment, check=True, capture_output=True)
    return int(done.stdout) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,100,1000", help="of the state, in megabytes")
    parser.add_argument("--image-megabytes", type=int, default=150, help="of packages in the image")
    parser.add_argument("--newer", choices=["classic", "containerd"], help="Debian's next Docker")
    options = parser.parse_args()
    newer = newer_docker(options.newer) if options.newer else nullcontext()
    with newer, running_engine() as engine, tempfile.TemporaryDirectory() as folder:
        make_python_base(engine)
        bench = Bench(engine, Path(folder) / "project", engine.clis[-1 if options.newer else 0])
        make_project(bench, options.image_megabytes)
        bench.docker("build", "-q", "-t", _IMAGE, ".")
        ways = ways_here(bench, takes_a_layer=options.newer != "containerd")
        bench.new_state(1)
        for prepare in (ours, bundle_build, docker_build):  # the place is known, layers are cached
            prepare(bench)
        for megabytes in (float(size) for size in options.sizes.split(",")):
            print(f"\nstate of {megabytes:g} MB (median of {options.rounds})")
            show(megabytes, measure(bench, ways, megabytes, options.rounds), peak_megabytes(bench))
        engine.remove_made()


@contextmanager
def newer_docker(store: str) -> Iterator[None]:
    """The engine and the client of Debian's next release, in this process' environment."""
    with newer_engine.environment(store) as found:
        os.environ.update(found)
        yield


if __name__ == "__main__":
    main()
