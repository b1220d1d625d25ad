"""Ours and ``dg utils refresh-defs-state`` on the same projects, side by side, alternating.

    python benchmarks/refresh.py [--rounds N] [--keys 1,10,50,200] [--dbt]
    python benchmarks/refresh.py --body 100 [--against CHECKOUT]

Each project has N keys whose component waits 200 ms for its system: once as a plain function, once
as an ``async def`` with blocking I/O inside, the shape of most vendors' integrations. The fixed
cost is a project with nothing to fetch. The fetch time is the whole time less the fixed cost.
Prints the best of the rounds and the ratio ours/theirs; less than one is faster.

With ``--body`` one key fetches a JSON document of so many megabytes, and either writes it to disk
as it streams or parses it. Prints the CPU seconds of the refresh, here and in another checkout.
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
import threading
import time
import zlib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.environments import python_of  # noqa: E402  # the tests' helper

_PYPROJECT = """\
[project]
name = "bench"
version = "1"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "bench"
"""
_COMPONENT = """\
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs


@dataclass
class Waits(dg.StateBackedComponent, dg.Resolvable):
    name: str

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            DefsStateConfigArgs.local_filesystem(), default_key=f"Waits[{self.name}]"
        )

    def write_state_to_path(self, state_path: Path) -> None:
        time.sleep(0.2)
        state_path.write_text('["something"]')

    def build_defs_from_state(self, context, state_path):
        return dg.Definitions()


@dataclass
class WaitsAsync(Waits):
    async def write_state_to_path(self, state_path: Path) -> None:
        Waits.write_state_to_path(self, state_path)
"""


_FETCHES = """

@dataclass
class Fetches(Waits):
    def write_state_to_path(self, state_path: Path) -> None:
        import json
        import os

        import requests

        with requests.get(os.environ["BODY_URL"], stream=True) as answer:
            if self.name == "parsed":
                state_path.write_text(json.dumps(answer.json()))
                return
            with state_path.open("wb") as file:
                for part in answer.iter_content(65536):
                    file.write(part)
"""


def make_project(root: Path, kind: str, keys: int) -> None:
    defs = root / "src" / "bench" / "defs"
    defs.mkdir(parents=True)
    (root / "pyproject.toml").write_text(_PYPROJECT)
    (root / "src/bench/__init__.py").touch()
    (defs / "__init__.py").touch()
    (root / "src/bench/waits.py").write_text(_COMPONENT + _FETCHES)
    if keys:
        (defs / "all").mkdir()
        (defs / "all" / "defs.yaml").write_text(
            "---\n".join(
                f"type: bench.waits.{kind}\nattributes:\n  name: '{number}'\n"
                for number in range(keys)
            )
        )


def measure(argv: Sequence[str | Path], root: Path, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{argv[0]} failed:\n{done.stderr.decode()[-3000:]}")
    return took


def compare(root: Path, rounds: int) -> tuple[float, float]:
    """The best times of ours and of dg's, in seconds."""
    python = python_of("dagster")
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "DAGSTER_HOME": "",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    ours = [sys.executable, "-m", "bundler", "refresh", "--python", python]
    theirs = [python.parent / "dg", "utils", "refresh-defs-state"]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(
            measure(ours, root, {**environment, "PYTHONPATH": f"{root / 'src'}:{ROOT}"})
        )
        times[1].append(measure(theirs, root, environment))
    return min(times[0]), min(times[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", default="1,10,50,200")
    parser.add_argument("--dbt", action="store_true", help="also a dbt component")
    parser.add_argument("--body", type=int, help="a document of so many megabytes instead")
    parser.add_argument("--against", type=Path, help="another checkout, for --body")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="refresh-benchmark-"))
    try:
        if given.body:
            run_body(work, given.rounds, given.body, given.against or ROOT)
            return
        run(work, given.rounds, [int(count) for count in given.keys.split(",")])
        if given.dbt:
            run_dbt(work, given.rounds)
    finally:
        shutil.rmtree(work)


def run(work: Path, rounds: int, counts: Sequence[int]) -> None:
    make_project(work / "nothing", "Waits", 0)
    fixed = compare(work / "nothing", rounds)
    print(f"{'':24} {'ours s':>8} {'dg s':>8} {'ratio':>6}   fetch: ours s   dg s  ratio")
    print(f"{'fixed cost':24} {fixed[0]:8.2f} {fixed[1]:8.2f} {fixed[0] / fixed[1]:6.2f}")
    for kind in ("Waits", "WaitsAsync"):
        for count in counts:
            root = work / f"{kind}-{count}"
            make_project(root, kind, count)
            ours, theirs = compare(root, rounds)
            mine, others = max(ours - fixed[0], 0.0), max(theirs - fixed[1], 0.001)
            name = f"{count} {'async' if kind == 'WaitsAsync' else 'sync'}"
            print(
                f"{name:24} {ours:8.2f} {theirs:8.2f} {ours / theirs:6.2f}   "
                f"{mine:13.2f} {others:6.2f} {mine / others:6.2f}",
                flush=True,
            )


class _Document(BaseHTTPRequestHandler):
    """Serves the document, compressed for a path that says so."""

    bodies: dict[str, bytes]  # set before it serves

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if self.path == "/gzip":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.bodies[self.path])))
        self.end_headers()
        self.wfile.write(self.bodies[self.path])

    def log_message(self, *_: object) -> None:
        pass


def _document(megabytes: int) -> bytes:
    draw = random.Random(1)
    rows: list[bytes] = []
    size = 0
    while size < megabytes * 1_000_000:
        number = len(rows)
        row = {
            "id": number,
            "name": f"item number {number}",
            "tags": ["a", "b"],
            "ratio": draw.random(),
            "note": 'some "quoted" text\nwith lines' if number % 10 == 0 else None,
        }
        rows.append(json.dumps(row).encode())
        size += len(rows[-1]) + 2
    return b"[" + b", ".join(rows) + b"]"


def run_body(work: Path, rounds: int, megabytes: int, against: Path) -> None:
    body = _document(megabytes)
    packer = zlib.compressobj(5, zlib.DEFLATED, 31)
    _Document.bodies = {"/plain": body, "/gzip": packer.compress(body) + packer.flush()}
    python = python_of("dagster")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Document) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("streamed", "parsed"):
            root = work / name
            make_project(root, "Fetches", 1)
            defs = root / "src/bench/defs/all/defs.yaml"
            defs.write_text(defs.read_text().replace("name: '0'", f"name: {name}"))
            for path in ("/plain", "/gzip"):
                url = f"http://127.0.0.1:{server.server_address[1]}{path}"
                took: dict[Path, list[float]] = {against: [], ROOT: []}
                for _ in range(rounds):
                    for checkout, seconds in took.items():
                        seconds.append(_cpu(root, python, checkout, url))
                here, there = min(took[ROOT]), min(took[against])
                print(f"{name + path:24} {here:8.2f} {there:8.2f} {here / there:6.2f}", flush=True)
        server.shutdown()


def _cpu(root: Path, python: Path, checkout: Path, url: str) -> float:
    """The seconds that a refresh takes of all processors."""
    shutil.rmtree(root / "src/bench/defs/.local_defs_state", ignore_errors=True)
    environment = {
        **os.environ,
        "BODY_URL": url,
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "DAGSTER_HOME": "",
        "PYTHONPATH": f"{root / 'src'}:{checkout}",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    measure([sys.executable, "-m", "bundler", "refresh", "--python", python], root, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_dbt(work: Path, rounds: int) -> None:
    from tests.support.sample import make

    sample = make(work / "shop")
    for name in ("products", "suppliers", "calendar"):
        shutil.rmtree(sample.root / "src/shop/defs" / name)
    environment = sample.env
    environment["PATH"] = f"{sample.python.parent}{os.pathsep}{environment['PATH']}"
    ours = [sys.executable, "-m", "bundler", "refresh"]
    theirs = [sample.python.parent / "dg", "utils", "refresh-defs-state"]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(measure(ours, sample.root, {**environment, "PYTHONPATH": str(ROOT)}))
        times[1].append(measure(theirs, sample.root, environment))
    mine, others = min(times[0]), min(times[1])
    print(f"{'dbt':24} {mine:8.2f} {others:8.2f} {mine / others:6.2f}")


if __name__ == "__main__":
    main()
