"""The store beside Dagster's UPathDefsStateStorage, the aws command and s3fs, on one S3 server.

    python benchmarks/storage.py            small cases: seconds
    python benchmarks/storage.py --full     1,000 x 10 KB, 10 x 100 MB, 1 x 5 GB

Each measurement is a process of its own, so that its peak memory is its own. The server is moto's,
on loopback, from the tests. Times are wall-clock seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
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


def make_files(root: Path, count: int, size: int) -> None:
    for number in range(count):
        path = root / f"key-{number}" / "state"
        path.parent.mkdir(parents=True)
        with path.open("wb") as stream:
            left = size
            while left:
                left -= stream.write(os.urandom(min(CHUNK, left)))


# --- one process each -----------------------------------------------------------------------------


def store_push(root: Path, prefix: str) -> None:
    from bundler.manifest import state_of
    from bundler.storage import open_store
    from bundler.storage.pushing import NewState
    from bundler.tree import scan

    news = [NewState(state_of(path.name, path.name, scan(path)), path) for path in root.iterdir()]
    open_store(f"s3://states/{prefix}").push(news)


def store_pull(root: Path, prefix: str) -> None:
    from bundler.storage import open_store

    store = open_store(f"s3://states/{prefix}")
    store.pull((version, root / key) for key, version in store.currents().items())


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
    program = Path(sys.executable).parent / "aws"
    argv = [program, "s3", "cp", "--recursive", "--quiet", source, target]
    subprocess.run(argv, check=True)


WORK: dict[str, Callable[[Path, str], None]] = {
    name: function
    for name, function in globals().items()
    if name.endswith(("_push", "_pull")) and callable(function)
}


# --- the comparison -------------------------------------------------------------------------------


def measure(
    work: str, python: Path, root: Path, prefix: str, env: dict[str, str]
) -> dict[str, float]:
    argv = [python, __file__, "--work", work, "--root", root, "--prefix", prefix]
    done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def carry_out(work: str, root: Path, prefix: str) -> None:
    # What a program pays anyway, once in its life, is not the transfer's.
    if work.startswith("upath"):
        _upath(prefix)
    begun = time.monotonic()
    WORK[work](root, prefix)
    seconds = time.monotonic() - begun
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"seconds": seconds, "mib": max(own, children) / 1024}))


def compare(cases: list[tuple[int, int]]) -> None:
    import stores
    from environments import python_of

    with stores.s3() as server, TemporaryDirectory() as scratch:
        base = {
            **os.environ,
            **server.environment,
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": str(ROOT),
            "DAGSTER_DISABLE_TELEMETRY": "true",
        }
        print("| case | tool | push s | pull s | again s | peak MiB |\n|---|---|---|---|---|---|")
        for count, size in cases:
            root, home = (Path(scratch) / uuid.uuid4().hex for _ in range(2))
            make_files(root, count, size)
            # Dagster keeps in its home what is in the bucket: a home for each case.
            home.mkdir()
            (home / "dagster.yaml").touch()
            env = {**base, "DAGSTER_HOME": str(home)}
            for tool in ("store", "upath", "s3fs", "aws"):
                python = Path(sys.executable) if tool == "store" else python_of("transfer")
                prefix, target = uuid.uuid4().hex, Path(scratch) / uuid.uuid4().hex
                push = measure(f"{tool}_push", python, root, prefix, env)
                again = measure(f"{tool}_push", python, root, prefix, env)
                target.mkdir()
                pull = measure(f"{tool}_pull", python, target, prefix, env)
                peak = max(push["mib"], pull["mib"], again["mib"])
                print(
                    f"| {count} x {size:,} B | {tool} | {push['seconds']:.2f} | "
                    f"{pull['seconds']:.2f} | {again['seconds']:.2f} | {peak:.0f} |",
                    flush=True,
                )
                subprocess.run(["rm", "-rf", target], check=True)
            subprocess.run(["rm", "-rf", root], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--work", choices=WORK)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--prefix")
    given = parser.parse_args()
    if given.work:
        carry_out(given.work, given.root, given.prefix)
    else:
        compare(CASES["full" if given.full else "small"])
