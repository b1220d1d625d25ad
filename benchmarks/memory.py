"""The memory of each command with a large state: no process of any may take more than 150 MB.

    python benchmarks/memory.py [MEGABYTES]

The states are a directory with a binary file of that size and a JSON document of an eighth of it,
and a JSON document of the size up to which documents are decoded. Each command runs alone, and what
is measured is the largest of its processes (``ru_maxrss``), workers and tools included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LIMIT = 150
_PROJECT = """\
[project]
name = "large"
version = "1"
requires-python = ">=3.10"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
packages = ["src/large"]
[[tool.state-bundler.source]]
key = "Large"
path = "src/large/state"
command = [PYTHON, "fetch.py", "large", "{state_path}"]
[[tool.state-bundler.source]]
key = "Vendor"
path = "src/large/state"
command = [PYTHON, "fetch.py", "vendor", "{state_path}"]
[tool.state-bundler]
store = "STORE"
[tool.state-bundler.keys."*"]
volatile = ["generated_at"]
"""
_FETCH = """\
import json, os, sys
kind, path = sys.argv[1:]
size, new = int(os.environ["SIZE"]), os.environ["NEW"]
if kind == "vendor":
    tables = {f"t{n}": {"name": f"t{n}", "enabled": True} for n in range(10)}
    rows = [{"id": n, "name": f"c{n}{new}", "tables": tables} for n in range(6200)]
    with open(path, "w") as stream:
        json.dump({"connectors": rows}, stream)
else:
    os.mkdir(path)
    block = (b"%032d" % int(new)) * 32768
    with open(f"{path}/data.bin", "wb") as stream:
        for _ in range(size):
            stream.write(block)
    with open(f"{path}/manifest.json", "w") as stream:
        stream.write('{"generated_at": "%s", "nodes": {' % os.getpid())
        node = json.dumps({"raw_code": "select 1 " * 90, "new": new})
        for n in range(size * 128):
            stream.write(f'"{n}": {node}, ')
        stream.write('"last": 1}}')
"""
# Between it and the process that is measured, so that it does not inherit the memory of this one.
_MEASURE = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as stream:
    stream.write(f"{code} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}")
"""


class Project:
    """A project with a large state, its artifacts and its store, in a folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self.root, self.code = folder, folder / "large", folder / "large/src"
        (self.code / "large").mkdir(parents=True)
        (self.code / "large/__init__.py").touch()
        (self.code / "large/__main__.py").write_text("print('large')\n")
        (self.root / "fetch.py").write_text(_FETCH)
        text = _PROJECT.replace("PYTHON", repr(sys.executable))
        text = text.replace("STORE", f"file://{folder / 'store'}")
        (self.root / "pyproject.toml").write_text(text)
        (self.root / ".gitignore").write_text("/src/large/state/\n/dist/\n")
        self.environment = {**os.environ, "SIZE": str(megabytes), "NEW": "1"}
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, check=True, env=self.environment)

    def run(self, *arguments: str | Path, expected: Sequence[int] = (0,)) -> tuple[int, float]:
        """MiB and seconds of a command."""
        result, began = self.folder / "measured", time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                "-S",
                "-c",
                _MEASURE,
                result,
                sys.executable,
                "-m",
                "bundler",
                *arguments,
            ],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        code, mib = map(int, result.read_text().split())
        if code not in expected:
            raise SystemExit(f"{arguments}: {code}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return mib, seconds


def rows(folder: Path, megabytes: int) -> Iterator[tuple[str, int, float]]:
    """Each command with MiB and seconds, in the order in which they need each other."""
    project = Project(folder, megabytes)
    one, other, pex = f"oci:{folder / 'one'}:1", f"oci:{folder / 'other'}:1", folder / "app.pex"
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    yield "refresh", *project.run("refresh", "--jobs", "1")
    yield "refresh, unchanged", *project.run("refresh", "--jobs", "1")
    yield "status", *project.run("status")
    yield "guard", *project.run("guard")
    yield "doctor", *project.run("doctor", expected=(0, 1))
    never = ("--refresh", "never")
    yield "build oci", *project.run("build", "oci", *never, "-o", f"{folder / 'one'}:1")
    yield "build wheel", *project.run("build", "wheel", *never, "-o", folder / "dist")
    yield (
        "build pex",
        *project.run(*("build", "pex", *never, "-o", pex, "--", "-D", project.code, "-m", "large")),
    )
    yield "embed", *project.run("embed", one, "--tag", other, *never)
    yield "verify OCI", *project.run("verify", one)
    yield "verify PEX", *project.run("verify", pex)
    yield "status PEX", *project.run("status", pex)
    yield "predicate", *project.run("predicate", pex)
    yield "sign", *project.run("sign", pex, "--ssh-key", key)
    yield "extract", *project.run("extract", pex, "--output", folder / "extracted")
    yield "store push", *project.run("store", "push")
    project.environment["NEW"] = "2"
    yield "plan", *project.run("plan", pex, "--out", folder / "plan.bin", expected=(1,))
    yield "update PEX, plan", *project.run("update", pex, "--plan", folder / "plan.bin")
    yield "diff", *project.run("diff", one, pex, expected=(1,))
    yield "update OCI", *project.run("update", one, "--in-place")
    yield "refresh -o", *project.run("refresh", "-o", folder / "states.tar")
    yield "refresh --push", *project.run("refresh", "--push")
    yield "store diff", *project.run("store", "diff", "1", "2", expected=(0, 1))
    yield "store verify", *project.run("store", "verify")
    yield "store pull", *project.run("store", "pull", "-o", folder / "pulled")
    yield (
        "build --state-from",
        *project.run(
            "build", "oci", "--state-from", folder / "states.tar", "-o", folder / "replayed"
        ),
    )


def main() -> None:
    """Prints a table, and ends with 1 if a command takes more than the limit."""
    megabytes = int(sys.argv[1]) if sys.argv[1:] else 200
    worst = 0
    print(f"| command, {megabytes} MB | MiB | s |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        for command, mib, seconds in rows(Path(name), megabytes):
            worst = max(worst, mib)
            print(f"| {command} | {mib} | {seconds:.1f} |", flush=True)
    sys.exit(worst * 1.048576 > LIMIT)


if __name__ == "__main__":
    main()
