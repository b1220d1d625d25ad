"""How fast new state gets into an image in a registry and in a layout, next to other ways.

    python benchmarks/registry.py [--sizes 1M,100M,1G] [--runs 3] [--content half|json]
                                  [--crane PATH] [--docker] [--buildx]

- ours: embed into the registry (no packing, gzip, zstd), read back as `embed` does it; the same
  with every byte read back; the same by a separate process, started for it, with the most memory
  that it ever held; into an OCI layout; and ``verify`` of what is in the registry;
- ``crane append`` of a ready archive, where there is a crane (``--crane``, on PATH, or the one that
  ``make clients`` left): it packs with gzip, whatever the image has;
- ``skopeo copy`` of the finished layout to the registry, and from there to a folder;
- with ``--docker``: ``docker build`` (FROM the image, COPY the state) and ``docker push``, with the
  engine of the tests; the same steps by ``buildah``, in its own store;
- with ``--buildx``: ``docker buildx build --push`` of the same, with Debian's next Docker.

The registry is Debian's, on loopback. Each way has its own repository, which knows nothing of
the layers of the others, and other bytes in each run; the ways take turns, and in every second run
in the reverse order. Shown are the least wall and processor time, and the ratio of the wall time
to crane's (or to the first), and which aims are met: ahead of crane at each size, 10 times ahead of
build and push, below 150 MB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.layer import Layer, Placed
from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.artifacts.verify import verify
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.manifest import Contents, build, state_of
from bundler.state.tree import scan
from tests.support import newer_engine
from tests.support.bundles import PLACE, make_record
from tests.support.embedding import embed_layout
from tests.support.engine import CLIENT_VARIABLE, Engine, install, running_engine
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.registries import distribution

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
PACKINGS = ("none", "gzip", "zstd")
CRANE = "crane append"
# How others build and push, and how they pack what they push.
BUILD_AND_PUSH = {
    "docker build, docker push": "gzip",
    "buildah, and its push": "gzip",
    "docker buildx build --push": "gzip",
}
_BLOCK = 64 * 1024
# A process that embeds and ends; it prints the most memory that it held, in MB.
_ONE = """\
import gc
gc.set_threshold(100_000)  # as the command line does, and the freezing at the end

import sys
from pathlib import Path
from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.manifest import RunRecord, parse
from bundler.artifacts.verify import verify

state, repository, place = sys.argv[1:]
manifest = parse(Path(state, MANIFEST_NAME).read_bytes(), state)
with registry.opened(f"{repository}:base") as (target, reference):
    found = registry.source(reference, target.connection)
    to = registry.RegistryDestination(target, (reference.tagged("made"),), (found,))
    with to.embed(EmbedRequest((Bundle(Path(state), manifest, place),), RunRecord())) as made:
        verify(made).raise_for_problems()
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
gc.freeze()
"""


@dataclass
class Least:
    """The least of each over all runs, in seconds and megabytes."""

    wall: float = float("inf")
    processor: float = float("inf")
    memory: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1M,100M,1G", help="of the state")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--content", choices=("half", "json"), default="half",
                        help="half: every other 32 KB are random, the rest zeros")  # fmt: skip
    parser.add_argument("--crane", default=_crane(), help="go-containerregistry's")
    parser.add_argument("--docker", action="store_true", help="build and push, too")
    parser.add_argument("--buildx", action="store_true", help="and by Debian's next Docker")
    given = parser.parse_args()
    if given.docker:
        install("buildah")
    with (
        running_engine() if given.docker else nullcontext() as engine,
        newer_docker() if given.buildx else nullcontext() as newer,
        distribution() as host,
        tempfile.TemporaryDirectory(prefix="registry-benchmark-") as name,
    ):
        for size in given.sizes.split(","):
            amount = int(size[:-1]) * UNITS[size[-1]]
            case = Case(Path(name) / size, f"{host}/bench/s{amount}", amount, given.content)
            least: dict[str, Least] = {}
            for run in range(given.runs):
                case.renew()
                ways = list({**case.ways(given.crane, engine), **case.buildx(newer)}.items())
                for way, do in ways[:: -1 if run % 2 else 1]:
                    measure(do, least.setdefault(way, Least()))
            show(f"{size} of state, {given.content}", least)
            shutil.rmtree(case.root)


@contextmanager
def newer_docker() -> Iterator[Mapping[str, str]]:
    """The environment in which ``docker`` is Debian's next, with its engine and buildx."""
    with newer_engine.environment("containerd") as found:
        yield {**found, "DOCKER_CONFIG": found[CLIENT_VARIABLE]}


def _crane() -> str | None:
    left = newer_engine.HOME / "programs/usr/bin/crane"
    return shutil.which("crane") or (str(left) if left.exists() else None)


def measure(do: Callable[[], object], least: Least) -> None:
    began, used = time.perf_counter(), _processor()
    said = do()
    least.wall = min(least.wall, time.perf_counter() - began)
    least.processor = min(least.processor, _processor() - used)
    if isinstance(said, int):
        least.memory = max(said, least.memory or 0)


def _processor() -> float:
    """What this process and those that it waited for have used; the registry goes on."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def show(title: str, least: dict[str, Least]) -> None:
    order = list(least)
    base = least[next((way for way in order if way.startswith(CRANE)), order[0])].wall
    print(f"{title}{'':14} wall s  ratio  processor s")
    for way in order:
        one = least[way]
        memory = f"  {one.memory} MB" if one.memory is not None else ""
        print(f"  {way:<36} {one.wall:8.3f} {one.wall / base:6.2f} {one.processor:8.3f}{memory}")
    for aim, is_met in _aims(least):
        print(f"  aim: {aim}: {'met' if is_met else 'MISSED'}")
    print(flush=True)


def _aims(least: dict[str, Least]) -> Iterator[tuple[str, bool]]:
    """Each of ours against the other's that packs in the same way."""
    for packing in ("gzip", "none"):
        if theirs := least.get(f"{CRANE}, onto {packing}"):
            yield f"ahead of crane, {packing}", least[f"ours, {packing}"].wall < theirs.wall
    for way, packing in BUILD_AND_PUSH.items():
        if way in least:
            is_met = least[way].wall >= 10 * least[f"ours, {packing}"].wall
            yield f"10 times ahead of {way}", is_met
    memory = max(one.memory or 0 for one in least.values())
    yield "150 MB of memory", memory < 150


class Case:
    """A state of one size, and images in the registry and a layout to put it on."""

    def __init__(self, root: Path, name: str, size: int, content: str) -> None:
        self.root = root
        self.context = root / "context"
        self.name = name
        self.size = size
        self.content = content
        self._pushed: set[str] = set()
        root.mkdir()
        for packing in PACKINGS:
            maker = LayoutMaker(root / packing)
            maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}, packing=packing))
        self.bundle: Bundle | None = None

    def repository(self, way: str, packing: str) -> str:
        """A repository for one way alone, with the image to put the state on as ``:base``."""
        name = f"{self.name}/{way}-{packing}"
        if name not in self._pushed:
            store = open_store(self.root / packing)
            registry.publish(store, choose(store, None), [registry.parse(f"{name}:base")])
            self._pushed.add(name)
        return name

    def renew(self) -> None:
        """Other bytes; and the archive and layout of them."""
        shutil.rmtree(self.context, ignore_errors=True)
        shutil.rmtree(self.root / "made", ignore_errors=True)
        state = self.context / "state"
        (state / "K").mkdir(parents=True)
        with open(state / "K/state", "wb") as stream:
            stream.writelines(self._blocks())
        manifest = build(Contents((state_of("K", "K", scan(state / "K")),)), ())
        (state / MANIFEST_NAME).write_bytes(manifest.raw)
        self.bundle = Bundle(state, manifest, PLACE)
        layer = Layer((Placed(self.bundle, f"/app/src/{self.bundle.place}", ()),))
        with open(self.root / "layer.tar", "wb") as stream:
            stream.writelines(layer.pieces())
        (self.context / "Dockerfile").write_text(
            f"FROM {self.repository('docker', 'gzip')}:base\n"
            f"COPY state /app/src/{self.bundle.place}\n"
        )
        self._into_layout()  # what is read by verify and skopeo, whichever comes first
        _embedded(self.repository("there", "none"), self.bundle)

    def _blocks(self) -> Iterator[bytes]:
        if self.content == "half":
            for _ in range(max(1, self.size // _BLOCK)):
                yield os.urandom(_BLOCK // 2) + bytes(_BLOCK // 2)
            return
        written = 0
        some = random.Random(os.urandom(8))
        while written < self.size:
            line = json.dumps(
                {
                    "id": written,
                    "name": f"raw.shop_{some.randrange(10000)}",
                    "type": some.choice(("table", "view", "model")),
                    "columns": ["id", "created_at", "updated_at"][: some.randrange(4)],
                    "checksum": f"{some.getrandbits(64):016x}",
                }
            ).encode()
            yield line
            written += len(line)

    def ways(self, crane: str | None, engine: Engine | None) -> dict[str, Callable[[], object]]:
        ways: dict[str, Callable[[], object]] = {}
        for packing in PACKINGS:
            ways[f"ours, {packing}"] = self._ours("ours", packing)
        ways["ours, none, every byte read back"] = self._ours("bytes", "none", every_byte=True)
        for packing in PACKINGS[:2]:
            ways[f"ours, {packing}, separate process"] = self._process(packing)
        ways["ours: verify"] = self._verify
        ways["ours, into a layout, none"] = self._into_layout
        if crane:
            for packing in ("gzip", "none"):
                name = self.repository("crane", packing)
                ways[f"{CRANE}, onto {packing}"] = self._run(
                    *(crane, "append", "--insecure", "-b", f"{name}:base"),
                    *("-f", str(self.root / "layer.tar"), "-t", f"{name}:made"),
                )
        skopeo = shutil.which("skopeo")
        if skopeo:
            copy = [skopeo, "--insecure-policy", "copy", "--dest-tls-verify=false"]
            made, there = f"oci:{self.root}/made:x", f"docker://{self.name}/skopeo:made"
            copied = f"dir:{self.root}/copied"
            ways["skopeo copy, layout to registry"] = self._run(*copy, made, there)
            source = f"docker://{self.repository('there', 'none')}:made"
            copy.append("--src-tls-verify=false")
            ways["skopeo copy, registry to folder"] = self._run(*copy, source, copied)
        if engine is not None:
            name = f"{self.repository('docker', 'gzip')}:made"
            ways["docker build, docker push"] = lambda: (
                engine.docker("build", "-q", "-t", name, str(self.context)),
                engine.docker("push", "-q", name),
            )
            ways["buildah, and its push"] = self._buildah
        return ways

    def buildx(self, environment: Mapping[str, str] | None) -> dict[str, Callable[[], object]]:
        if environment is None:
            return {}
        name = f"{self.repository('docker', 'gzip')}:made-by-buildx"
        argv = ("docker", "buildx", "build", "-q", "--push", "-t", name, str(self.context))
        run = self._run(*argv, environment=environment)
        return {"docker buildx build --push": run}

    def _buildah(self) -> None:
        """The base is in its store after the first run."""
        assert self.bundle is not None
        name, made = self.repository("buildah", "gzip"), f"benchmark-{os.getpid()}"
        for words in (
            ("from", "-q", "--tls-verify=false", "--name", made, f"{name}:base"),
            ("copy", "-q", made, str(self.context / "state"), f"/app/src/{self.bundle.place}"),
            ("commit", "-q", "--rm", made, f"{name}:made"),
            ("push", "-q", "--tls-verify=false", f"{name}:made"),
        ):
            subprocess.run(("buildah", *words), check=True, capture_output=True)

    def _ours(self, way: str, packing: str, *, every_byte: bool = False) -> Callable[[], object]:
        name = self.repository(way, packing)

        def run() -> None:
            assert self.bundle is not None
            _embedded(name, self.bundle, every_byte=every_byte)

        return run

    def _process(self, packing: str) -> Callable[[], int]:
        """Gives the most memory that it held, in MB."""
        name = self.repository("process", packing)
        argv = [sys.executable, "-c", _ONE, str(self.context / "state"), name, PLACE]
        return lambda: int(subprocess.run(argv, check=True, capture_output=True).stdout)

    def _verify(self) -> None:
        with registry.open_image(f"{self.repository('there', 'none')}:made") as artifact:
            verify(artifact).raise_for_problems()

    def _into_layout(self) -> None:
        assert self.bundle is not None
        record = make_record(self.bundle)
        embed_layout(self.root / "none", [self.bundle], record, self.root / "made", tag="x")

    def _run(
        self, *argv: str, environment: Mapping[str, str] | None = None
    ) -> Callable[[], object]:
        return lambda: subprocess.run(argv, check=True, capture_output=True, env=environment).args


def _embedded(repository: str, bundle: Bundle, *, every_byte: bool = False) -> None:
    with registry.opened(f"{repository}:base") as (target, reference):
        found = registry.source(reference, target.connection)
        to = registry.RegistryDestination(target, (reference.tagged("made"),), (found,))
        request = EmbedRequest((bundle,), make_record(bundle), every_byte=every_byte)
        with to.embed(request) as made:
            verify(made).raise_for_problems()


if __name__ == "__main__":
    main()
