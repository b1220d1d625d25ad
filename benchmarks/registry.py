"""How fast new state gets into an image in a registry and in a layout, beside other ways.

    python benchmarks/registry.py [--sizes 1M,100M,1G] [--runs 3] [--crane PATH] [--docker]

- ours: embed into the registry (no packing, gzip, zstd), the same with every byte read back, into
  an OCI layout, and ``verify`` of what lies in the registry;
- ``crane append`` of a ready archive, where there is a crane (``--crane``, or on PATH);
- ``skopeo copy`` of the finished layout to the registry, and from there to a layout;
- with ``--docker``: ``docker build`` (FROM the image, COPY the state) and ``docker push``.

The registry is Debian's, on loopback. All take turns, with other bytes in each turn; the minimum
counts, and is compared with the first. Aims: ahead of crane at each size, 10 times ahead of build
and push. Memory: the most that this process ever held.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bundles import PLACE, make_record
from layouts import LayoutMaker, code_layer
from registries import distribution

from bundler.artifacts import oci, registry
from bundler.artifacts.layer import Layer, Placed
from bundler.artifacts.layout import open_store
from bundler.artifacts.ociread import choose
from bundler.bundle import Bundle
from bundler.manifest import Contents, build, state_of
from bundler.tree import scan
from bundler.verify import verify

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
PACKINGS = ("none", "gzip", "zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1M,100M,1G", help="of the state")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--crane", default=shutil.which("crane"), help="go-containerregistry's")
    parser.add_argument("--docker", action="store_true", help="build and push, too")
    given = parser.parse_args()
    with distribution() as host, tempfile.TemporaryDirectory(prefix="registry-benchmark-") as name:
        for size in given.sizes.split(","):
            case = Case(Path(name) / size, host, int(size[:-1]) * UNITS[size[-1]])
            least: dict[str, float] = {}
            for _ in range(given.runs):
                case.renew()
                for way, run in case.ways(given.crane, docker=given.docker).items():
                    began = time.perf_counter()
                    run()
                    took = time.perf_counter() - began
                    least[way] = min(took, least.get(way, took))
            show(size, least)
            shutil.rmtree(case.root)


def show(size: str, least: Mapping[str, float]) -> None:
    first = next(iter(least.values()))
    print(f"{size} of state")
    for way, took in least.items():
        print(f"  {way:<38} {took:8.3f} s  {took / first:6.2f}")
    status = Path("/proc/self/status").read_text()
    print(
        f"  at most {int(status.split('VmHWM:')[1].split()[0]) // 1024} MB of memory\n", flush=True
    )


class Case:
    """A state of one size, and images in the registry and a layout to put it on."""

    def __init__(self, root: Path, host: str, size: int) -> None:
        self.root = root
        self.repository = f"{host}/bench/s{size}"
        self.size = size
        root.mkdir()
        for packing in PACKINGS:
            maker = LayoutMaker(root / packing)
            maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}, packing=packing))
            store = open_store(maker.path)
            with registry.opened(f"{self.repository}:{packing}") as (target, _):
                registry.push(target, store, choose(store, None)).name(packing)
        self.bundle: Bundle | None = None

    def renew(self) -> None:
        """Other bytes, half of which can be packed; and the archive and layout of them."""
        shutil.rmtree(self.root / "state", ignore_errors=True)
        shutil.rmtree(self.root / "made", ignore_errors=True)
        block = 64 * 1024
        state = self.root / "state"
        (state / "K").mkdir(parents=True)
        with open(state / "K/state", "wb") as stream:
            blocks = range(max(1, self.size // block))
            stream.writelines(os.urandom(block // 2) + bytes(block // 2) for _ in blocks)
        manifest = build(Contents((state_of("K", "K", scan(state / "K")),)), ())
        self.bundle = Bundle(state, manifest, PLACE)
        layer = Layer((Placed(self.bundle, f"/app/src/{self.bundle.place}", ()),))
        with open(self.root / "layer.tar", "wb") as stream:
            layer.write(stream.write)
        (self.root / "Dockerfile").write_text(
            f"FROM {self.repository}:gzip\nCOPY state /app/src/{self.bundle.place}\n"
        )

    def ways(self, crane: str | None, *, docker: bool) -> dict[str, Callable[[], object]]:
        ways: dict[str, Callable[[], object]] = {
            **{f"ours, {packing}": self._ours(packing) for packing in PACKINGS},
            "ours, none, every byte read back": self._ours("none", every_byte=True),
            "ours: verify": self._verify,
            "ours, into a layout, none": self._into_layout,
        }
        if crane:
            for packing in ("none", "gzip"):
                ways[f"crane append, onto {packing}"] = self._run(
                    *(crane, "append", "--insecure", "-b", f"{self.repository}:{packing}"),
                    *("-f", str(self.root / "layer.tar"), "-t", f"{self.repository}:crane"),
                )
        skopeo = shutil.which("skopeo")
        if skopeo:
            options = (
                "--insecure-policy",
                "copy",
                "--dest-tls-verify=false",
                "--src-tls-verify=false",
            )
            made, there = f"oci:{self.root}/made:x", f"docker://{self.repository}:skopeo"
            ways["skopeo copy, layout to registry"] = self._run(skopeo, *options, made, there)
            copied = f"dir:{self.root}/copied"
            ways["skopeo copy, registry to folder"] = self._run(skopeo, *options, there, copied)
        if docker:
            name = f"{self.repository}:docker"
            build = self._run("docker", "build", "-q", "-t", name, str(self.root))
            push = self._run("docker", "push", "-q", name)
            ways["docker build, docker push"] = lambda: (build(), push())
        return ways

    def _ours(self, packing: str, *, every_byte: bool = False) -> Callable[[], object]:
        def run() -> None:
            assert self.bundle is not None
            tag = f"{packing}-{'read' if every_byte else 'made'}"
            with registry.opened(f"{self.repository}:{packing}") as (target, reference):
                pushed = registry.embed(
                    target,
                    [registry.source(reference, target.connection)],
                    [self.bundle],
                    make_record(self.bundle),
                    check=lambda made: every_byte and verify(made).raise_for_problems(),
                )
                pushed.name(tag)

        return run

    def _verify(self) -> None:
        with registry.open_image(f"{self.repository}:none-made") as artifact:
            verify(artifact).raise_for_problems()

    def _into_layout(self) -> None:
        assert self.bundle is not None
        record = make_record(self.bundle)
        oci.embed(self.root / "none", [self.bundle], record, self.root / "made", tag="x")

    def _run(self, *argv: str) -> Callable[[], object]:
        return lambda: subprocess.run(argv, check=True, capture_output=True)


if __name__ == "__main__":
    main()
