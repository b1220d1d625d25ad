"""The store next to Dagster's UPathDefsStateStorage, the aws command and s3fs, on one S3 server.

    python benchmarks/storage.py                        small cases: seconds
    python benchmarks/storage.py --full                 1,000 x 10 KB, 10 x 100 MB, 1 x 5 GB
    python benchmarks/storage.py --full --scale 0.01    the same with a hundredth of bytes and keys
    python benchmarks/storage.py --full --folder /dev/shm   the clients rather than the disk

Each measurement is a separate process, so that its peak memory is its own; it may take 6 GiB.
The server is that of `s3files`, on loopback, a new one for each tool's turn: with ``--folder
/dev/shm`` the whole takes at most 18 GB of memory, 10 of them for the server's copy of the largest
case and what is pulled of it. Times are wall-clock seconds: of what a program does once it is
loaded, and for the aws command, which is loaded every time, of everything. CPU seconds are the
client's alone, and less disturbed by what else a machine does. The tools take turns, three each,
and the least of them counts; a tool whose turn takes longer than a minute has had it, which the
table says.

The store pushes published states, whose digests a refresh has worked out: how long that took
is next to it. The others look at no digest. Every byte that the store sends and takes is hashed,
and all of them sign what they send, since there is no TLS. An unchanged state is pushed again by
the store alone: the others send everything once more.

At the end it says which aims are met: faster than each of the others, an unchanged state 50
times faster, less than 200 MB of memory throughout.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# How many keys, of how many bytes each.
CASES = {
    "small": [(100, 10_000), (2, 20_000_000)],
    "full": [(1000, 10_000), (10, 100_000_000), (1, 5_000_000_000)],
}
CHUNK = 8 * 1024 * 1024
MOST_MEMORY = 6 * 1024**3
TOOLS = ("store", "upath", "s3fs", "aws")
TURNS, LONG_SECONDS = 3, 60.0
AGAIN, MOST_MEGABYTES = 50, 200


def make_files(root: Path, count: int, size: int) -> None:
    """No two blocks of them are the same."""
    block, blocks = bytearray(os.urandom(CHUNK)), itertools.count()
    for number in range(count):
        path = root / f"key-{number}" / "state"
        path.parent.mkdir(parents=True)
        with path.open("wb") as stream:
            left = size
            while left:
                block[:8] = next(blocks).to_bytes(8, "big")
                left -= stream.write(memoryview(block)[:left])


def _store() -> None:
    importlib.import_module("bundler.store.remote")
    importlib.import_module("obstore.store")


# --- one process each -----------------------------------------------------------------------------


def hash_states(root: Path, _prefix: str) -> None:
    """What a refresh does anyway: works out what the states are."""
    import msgspec

    from bundler.state.manifest import state_of
    from bundler.state.tree import scan

    states = [state_of(path.name, path.name, scan(path)) for path in root.iterdir()]
    _manifest(root).write_bytes(msgspec.json.encode(states))


def _manifest(root: Path) -> Path:
    return root.with_name(f"{root.name}.json")


def store_push(root: Path, prefix: str) -> None:
    import msgspec

    from bundler.state.manifest import State
    from bundler.store import open_store
    from bundler.store.pushing import NewState

    states = msgspec.json.decode(_manifest(root).read_bytes(), type=list[State])
    open_store(f"s3://states/{prefix}").push([NewState(s, root / s.path) for s in states])


def store_pull(root: Path, prefix: str) -> None:
    from bundler.store import open_store

    store = open_store(f"s3://states/{prefix}")
    store.known.pull((version, root / key) for key, version in store.currents().items())


def upath_push(root: Path, prefix: str) -> None:
    storage, instance = _upath(prefix)
    with instance:
        for path in root.iterdir():
            storage.upload_state_from_path(path.name, str(uuid.uuid4()), path / "state")


def upath_pull(root: Path, prefix: str) -> None:
    storage, instance = _upath(prefix)
    with instance:
        for key, info in storage.get_latest_defs_state_info().info_mapping.items():
            (root / key).mkdir(parents=True)
            storage.download_state_to_path(key, info.version, root / key / "state")


def _upath(prefix: str):  # noqa: ANN202  # Dagster's, which is not in every environment
    from dagster import DagsterInstance
    from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage
    from upath import UPath

    endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    instance = DagsterInstance.get()
    storage = UPathDefsStateStorage(UPath(f"s3://states/{prefix}", client_kwargs=endpoint))
    storage.register_instance(instance)
    return storage, instance


def s3fs_push(root: Path, prefix: str) -> None:
    _s3fs().put(f"{root}/", f"states/{prefix}/", recursive=True)


def s3fs_pull(root: Path, prefix: str) -> None:
    _s3fs().get(f"states/{prefix}/", f"{root}/", recursive=True)


def _s3fs():  # noqa: ANN202  # not in every environment
    import s3fs

    return s3fs.S3FileSystem(client_kwargs={"endpoint_url": os.environ["AWS_ENDPOINT_URL"]})


def aws_push(root: Path, prefix: str) -> None:
    _aws(str(root), f"s3://states/{prefix}")


def aws_pull(root: Path, prefix: str) -> None:
    _aws(f"s3://states/{prefix}", str(root))


def _aws(source: str, target: str) -> None:
    """The aws command, in this process, so that its memory can be read."""
    from awscli.clidriver import create_clidriver

    code = create_clidriver().main(["s3", "cp", "--recursive", "--quiet", source, target])
    assert not code, code


WORK: dict[str, Callable[[Path, str], None]] = {
    name: function
    for name, function in globals().items()
    if (name == "hash_states" or name.endswith(("_push", "_pull"))) and callable(function)
}


# --- the comparison -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """seconds, cpu: of the work; mib: the peak memory. All infinite where it failed, and why."""

    seconds: float = math.inf
    cpu: float = math.inf
    mib: float = math.inf
    failed: str = ""


def measure(
    work: str, python: Path | str, root: Path, prefix: str, env: dict[str, str]
) -> Measured:
    argv = [python, __file__, "--work", work, "--root", root, "--prefix", prefix]
    done = subprocess.run(argv, env=env, check=False, capture_output=True, text=True)
    if done.returncode and work.startswith(("store_", "hash_")):
        raise SystemExit(done.stderr)
    if "MemoryError" in done.stderr:
        return Measured(failed=f"more than {MOST_MEMORY // 1024**3} GiB of memory")
    if done.returncode:
        return Measured(failed=(done.stderr.strip().splitlines() or ["no word"])[-1])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def carry_out(work: str, root: Path, prefix: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    # What a program pays anyway, once in its life, is not the transfer's.
    warm = {"upath": lambda: (_upath(prefix), _s3fs()), "s3fs": _s3fs, "store": _store}
    warm.get(work.partition("_")[0], list)()
    begun, used = time.monotonic(), sum(os.times()[:4])
    WORK[work](root, prefix)
    seconds, cpu = time.monotonic() - begun, sum(os.times()[:4]) - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mib": peak_kib() / 1024}))


def peak_kib() -> int:
    """This process's own peak memory; getrusage would begin with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@contextmanager
def serving(folder: Path | None = None) -> Iterator[dict[str, str]]:
    """The server, which keeps its objects in a folder; gives the variables by which to find it."""
    argv = [
        sys.executable,
        str(Path(__file__).parent / "s3files.py"),
        *([folder] if folder else []),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield {
            "AWS_ACCESS_KEY_ID": "unused",
            "AWS_SECRET_ACCESS_KEY": "unused",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{process.stdout.readline().strip()}",
            # No client shall pay for checksums that another one does not send.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
    finally:
        process.send_signal(signal.SIGINT)  # it removes its files
        process.wait(60)


@dataclass(frozen=True)
class Turn:
    """What a tool did in its turn. again: of an unchanged state."""

    push: Measured
    pull: Measured
    again: Measured

    @property
    def seconds(self) -> float:
        return self.push.seconds + self.pull.seconds

    @property
    def mib(self) -> float:
        return max(self.push.mib, self.pull.mib, self.again.mib)


@dataclass(frozen=True)
class Case:
    """A case, and every tool's turns."""

    name: str
    turns: dict[str, list[Turn]]

    def least(self, tool: str, what: str) -> Measured:
        return min((getattr(turn, what) for turn in self.turns[tool]), key=lambda one: one.seconds)

    def mib(self, tool: str) -> float:
        return max(turn.mib for turn in self.turns[tool])

    def ratio(self, what: str) -> float:
        """How many times as long the fastest of the others takes."""
        others = [self.least(tool, what).seconds for tool in TOOLS if tool != "store"]
        return min(others) / self.least("store", what).seconds

    def show(self) -> None:
        for tool in TOOLS:
            push, pull, again = (self.least(tool, what) for what in ("push", "pull", "again"))
            failed = push.failed or pull.failed
            who = f"{tool} ({failed})" if failed else tool
            print(
                f"| {self.name} | {who} | {push.seconds:.2f} | {pull.seconds:.2f} | "
                f"{again.seconds:.2f} | {push.cpu:.1f}, {pull.cpu:.1f} | {self.mib(tool):.0f} | "
                f"{len(self.turns[tool])} |"
            )
        ratios = " | ".join(f"{self.ratio(what):.1f}" for what in ("push", "pull", "again"))
        print(
            f"| {self.name} | the next best, in times of the store | {ratios} | | | |", flush=True
        )

    def aims(self) -> Iterator[tuple[bool, str]]:
        """Whether each aim is met, and by how much."""
        for what in ("push", "pull"):
            ratio = self.ratio(what)
            yield ratio > 1, f"{what}: the fastest of the others takes {ratio:.1f} times as long"
        ratio, megabytes = self.ratio("again"), self.mib("store") * 1024**2 / 1e6
        yield ratio >= AGAIN, f"unchanged: {ratio:.0f} times, of {AGAIN}"
        yield megabytes < MOST_MEGABYTES, f"memory: {megabytes:.0f} MB, of {MOST_MEGABYTES}"


def compare(sizes: list[tuple[int, int]], folder: Path | None) -> None:
    from tests.support.environments import python_of

    python_of("transfer")
    print("| case | tool | push s | pull s | again s | CPU s of push, pull | peak MiB | turns |")
    print("|---|---|---|---|---|---|---|---|")
    cases = [one_case(count, size, folder) for count, size in sizes]
    print()
    for case in cases:
        for met, text in case.aims():
            print(f"{'met' if met else 'MISSED'}: {case.name}: {text}")


def one_case(count: int, size: int, folder: Path | None) -> Case:
    """Every tool in turn, until each has had all its turns or takes too long for another."""
    case = Case(f"{count} x {size:,} B", {tool: [] for tool in TOOLS})
    with TemporaryDirectory() as sources:
        root = Path(sources) / "states"
        make_files(root, count, size)
        hashed = measure("hash_states", sys.executable, root, "", _environment())
        print(f"| {case.name} | hashing | {hashed.seconds:.2f} | | | {hashed.cpu:.2f} | | 1 |")
        for number, tool in itertools.product(range(TURNS), TOOLS):
            turns = case.turns[tool]
            if number == 0 or (len(turns) == number and turns[0].seconds < LONG_SECONDS):
                turns.append(one_turn(tool, root, folder))
    case.show()
    return case


def _environment() -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(ROOT),
        "DAGSTER_DISABLE_TELEMETRY": "true",
    }


def one_turn(tool: str, root: Path, folder: Path | None) -> Turn:
    """Push, pull, push again: into a new server, with a new home of Dagster."""
    from tests.support.environments import python_of

    python = Path(sys.executable) if tool == "store" else python_of("transfer")
    with serving(folder) as server, _scratch(folder) as scratch, TemporaryDirectory() as home:
        # Dagster keeps in its home what is in the bucket.
        (Path(home) / "dagster.yaml").touch()
        env = {**_environment(), **server, "DAGSTER_HOME": home}
        prefix = uuid.uuid4().hex
        push = measure(f"{tool}_push", python, root, prefix, env)
        if math.isinf(push.seconds):
            return Turn(push, push, push)
        # The others send everything again, which has been measured.
        again = measure("store_push", python, root, prefix, env) if tool == "store" else push
        return Turn(push, measure(f"{tool}_pull", python, scratch, prefix, env), again)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder) as path:
        yield Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path, help="for the server's objects and what is pulled")
    parser.add_argument("--scale", type=float, default=1.0, help="of bytes and keys")
    parser.add_argument("--work", choices=WORK)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--prefix")
    given = parser.parse_args()
    if given.work:
        carry_out(given.work, given.root, given.prefix)
    else:
        sizes = [
            (max(min(count, 10), int(count * given.scale)), max(1, int(size * given.scale)))
            for count, size in CASES["full" if given.full else "small"]
        ]
        compare(sizes, given.folder)
