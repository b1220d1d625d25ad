"""How long it takes to get new state into a PEX, next to every way that pex itself offers.

    python benchmarks/pex.py [--sizes 10K,10M,1G] [--projects small,large] [--runs 3]
                             [--minutes 60] [--keep DIR]

Whole processes, wall and CPU time of the process and its children, the minimum, the candidates in
turn so that a busy machine is busy for all of them. Ours is `state-bundler update`: it asks git,
refreshes (a command that copies a file), embeds and reads back. Theirs builds the PEX again with
the new state in `-D src`: without a lock, with one, from the older PEX (``--pex-repository``), and
with a lock and ``--no-pre-install-wheels`` or ``--layout packed``. All caches are warm, that of
Python's bytecode too.

The aim is 100 times faster than plain pex, 10 times than pex with a lock, 3 times than its fastest
way; and `verify` and `status` of the large file within 3 times ``python -c 'import click'`` plus
the reading of its state. The ratios say by how much each is slower than ours; the last line, what
share of that allowance `verify` and `status` take. With ``--keep`` a second run takes the projects
that the first has made.

Everything takes about half an hour on two quiet cores, for a PEX of 40 MB and one of 130 MB, and
10 GB of disk. What takes long is measured once: a state of 1 GB, and each way of more than 20
seconds. After ``--minutes`` nothing more is begun, and what is missing is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
REQUIREMENTS = {
    "small": ["dagster", "dagster-webserver"],
    "large": [
        "dagster",
        "dagster-webserver",
        "dagster-dbt",
        "dbt-duckdb",
        "dbt-core<1.12",
        "pandas",
    ],
}
# The pip that pex brings along does not resolve Dagster; the newest is not on every registry.
PIP = ("--pip-version", "25.3")
CLICK = "python -c 'import click'"
CLICK_AND_STATE = "the same, and the packed state read"
# As it is in a PEX: what reads it inflates it, with a checksum, and hashes the result.
READ = """
import click, hashlib, sys, zlib
digest, checksum, unpack = hashlib.sha256(), 0, zlib.decompressobj()
with open(sys.argv[1], "rb") as stream:
    while packed := stream.read(2**18):
        piece = unpack.decompress(packed)
        digest.update(piece)
        checksum = zlib.crc32(piece, checksum)
"""
# Of a way that takes longer one measurement will do.
LONG_SECONDS = 20.0
UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
PYPROJECT = """
[project]
name = "shop"
version = "1"
[[tool.state-bundler.source]]
key = "Shop"
command = ["cp", "../state", "{state_path}"]
path = "src/shop/defs/.local_defs_state"
"""


@dataclass
class Timing:
    """Seconds, the minimum of all runs."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def take(self, wall: float, cpu: float) -> None:
        self.wall = min(self.wall, wall)
        self.cpu = min(self.cpu, cpu)


@dataclass
class Bench:
    """One project in its own folder. end: when to begin nothing more."""

    folder: Path
    requirements: Sequence[str]
    end: float = float("inf")
    times: dict[str, Timing] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def environ(self) -> dict[str, str]:
        foreign = ("PEX_", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**kept, "PEX_ROOT": str(self.folder / "pex root")}

    def run(self, *argv: str | Path, check: bool = True) -> tuple[float, float]:
        before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(argv, cwd=self.project, env=self.environ, check=check, capture_output=True)
        wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def measure(self, name: str, *argv: str | Path) -> None:
        timing = self.times.setdefault(name, Timing())
        if time.monotonic() > self.end or LONG_SECONDS < timing.wall < float("inf"):
            return
        try:
            timing.take(*self.run(*argv))
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{name}: {error.stderr.decode()[-500:]}\n")

    def prepare(self) -> None:
        """The project in git, a lock, an older PEX, and every cache warm."""
        if (self.project / "ours.pex").exists():
            return
        package = self.project / "src" / "shop" / "defs"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        (self.project / "pyproject.toml").write_text(PYPROJECT)
        (self.project / ".gitignore").write_text(".local_defs_state/\n*.pex\nlock.json\n")
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
            self.run("git", *command)
        lock = ("lock", "create", *self.requirements, "--style", "universal", "-o", "lock.json")
        self.run(BIN / "pex3", *lock, *PIP, "--interpreter-constraint", _this_python())
        self.new_state(1024)
        self.run(BIN / "state-bundler", "refresh")
        self.run(*self.theirs()["pex with a lock"], "-o", "old.pex")
        shutil.copy(self.project / "old.pex", self.project / "ours.pex")
        self.run(BIN / "state-bundler", "update", "ours.pex")

    def new_state(self, size: int) -> None:
        """Half of it packs well, half of it does not, as names and identities in JSON do."""
        packing, left = zlib.compressobj(), size
        with (
            (self.folder / "state").open("wb") as stream,
            (self.folder / "state.z").open("wb") as packed,
        ):
            while left > 0:
                piece = os.urandom(256 * 1024).hex().encode()[:left]
                left -= stream.write(piece)
                packed.write(packing.compress(piece))
            packed.write(packing.flush())

    def theirs(self) -> dict[str, list[str | Path]]:
        pex: list[str | Path] = [BIN / "pex", "-D", "src", "--venv"]
        locked = [*pex, "--lock", "lock.json"]
        return {
            "pex": [*pex, *PIP, *self.requirements],
            "pex with a lock": locked,
            "pex --pex-repository": [*pex, "--pex-repository", "old.pex", *self.requirements],
            "pex --no-pre-install-wheels": [*locked, "--no-pre-install-wheels"],
            "pex --layout packed": [*locked, "--layout", "packed"],
        }

    def compare(self, size: int, runs: int) -> None:
        for _ in range(runs):
            self.new_state(size)
            # With --keep, an earlier run has left a larger state.
            update = ("update", "ours.pex", "--allow-shrink", "Shop")
            self.measure("state-bundler update", BIN / "state-bundler", *update)
            for name, argv in self.theirs().items():
                self.measure(name, *argv, "-o", f"{name.replace(' ', '-')}.pex")
            self.measure("state-bundler verify", BIN / "state-bundler", "verify", "ours.pex")
            self.measure("state-bundler status", BIN / "state-bundler", "status", "ours.pex")
            self.measure(CLICK, sys.executable, "-c", "import click")
            self.measure(CLICK_AND_STATE, sys.executable, "-c", READ, self.folder / "state.z")


def _this_python() -> str:
    return f"CPython=={sys.version_info.major}.{sys.version_info.minor}.*"


def table(bench: Bench) -> str:
    ours = bench.times["state-bundler update"]
    rows = ["| | wall s | CPU s | times ours (wall) | (CPU) |", "|---|---|---|---|---|"]
    for name, took in bench.times.items():
        if took.wall == float("inf"):
            rows.append(f"| {name} | not measured | | | |")
            continue
        ratios = f"{took.wall / ours.wall:.1f} | {took.cpu / ours.cpu:.1f}"
        rows.append(f"| {name} | {took.wall:.2f} | {took.cpu:.2f} | {ratios} |")
    whole = all(took.wall < float("inf") for took in bench.times.values())
    return "\n".join([*rows, "", allowance(bench.times) if whole else "Not all was measured."])


def allowance(times: dict[str, Timing]) -> str:
    """What share of 3 times click and one reading of the state our own reading takes."""
    click, both = times[CLICK], times[CLICK_AND_STATE]
    allowed = {"wall": 2 * click.wall + both.wall, "CPU": 2 * click.cpu + both.cpu}
    shares = [
        f"{command} {took.wall / allowed['wall']:.0%} (wall) {took.cpu / allowed['CPU']:.0%} (CPU)"
        for command in ("verify", "status")
        for took in [times[f"state-bundler {command}"]]
    ]
    return f"Of 3 times click and the reading of the state: {', '.join(shares)}"


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="bench-pex-") as name:
        yield Path(name)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    split: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731  # argparse's type
    parser.add_argument("--sizes", type=split, default=["10K", "10M", "1G"])
    parser.add_argument("--projects", type=split, default=list(REQUIREMENTS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    with _folder(options.keep) as folder:
        for name in options.projects:
            bench = Bench(folder / name, REQUIREMENTS[name], end)
            bench.prepare()
            for size in options.sizes:
                bench.times.clear()
                count = int(size[:-1]) * UNITS[size[-1]]
                bench.compare(count, options.runs if count < UNITS["G"] else 1)
                file = bench.project / "ours.pex"
                print(f"\n{name}, {file.stat().st_size / 1e6:.0f} MB, state {size}\n{table(bench)}")


if __name__ == "__main__":
    main(sys.argv[1:])
