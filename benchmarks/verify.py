"""How fast artifacts are verified, beside what one would do by hand.

    python benchmarks/verify.py [--size 256M] [--image 256M] [--runs 3]

- hashing: our scan of one file and of many, against ``sha256sum``, wall and CPU seconds;
- ``@verify.py`` on 1,000 files and 50 MB, whole process, against an empty interpreter;
- ``state-bundler diff`` of two states of 10 MB of JSON, whole process and inside alone;
- ``state-bundler verify`` of an image with 10 MB of state in it, in a layout against
  ``skopeo copy`` and in an engine against ``docker save``, where these are installed;
- memory: the greatest resident size of ``verify`` for a small and a large state.

All take turns, the minimum counts. Aims: one file within 10 % of sha256sum; many files 1.8 times as
fast with two processors; a tenth of a second for @verify.py; the engine 20 times faster than save.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bundler.artifacts import oci
from bundler.bundle import Bundle
from bundler.jsondiff import compare
from bundler.manifest import RunRecord, state_of
from bundler.statedir import StateDir, sanitize_key
from bundler.tree import scan

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
BUNDLER = [sys.executable, "-m", "bundler"]
_RESIDENT = (
    "import resource, subprocess, sys; "
    "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
PLACE = "shop/defs/.local_defs_state"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256M", help="of the one large file")
    parser.add_argument("--image", default="256M", help="of the image below its state")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="verify-benchmark-") as folder:
        root = Path(folder)
        hashing(root / "hashing", _bytes(given.size), given.runs)
        at_start(root / "start", given.runs)
        difference(root / "diff", given.runs)
        images(root / "images", _bytes(given.image), given.runs)
        memory(root / "memory", _bytes(given.size))


def _bytes(size: str) -> int:
    return int(size[:-1]) * UNITS[size[-1]]


# --- measuring --------------------------------------------------------------------------------


def measure(candidates: Mapping[str, Callable[[], object]], runs: int) -> None:
    """Prints the least wall and CPU time of each, and how it compares with the first."""
    least: dict[str, tuple[float, float]] = {}
    for _ in range(runs):
        for name, run in candidates.items():
            began = _clock()
            run()
            spent = [now - then for now, then in zip(_clock(), began, strict=True)]
            before = least.get(name, (float("inf"), float("inf")))
            least[name] = (min(spent[0], before[0]), min(spent[1], before[1]))
    ours = next(iter(least.values()))
    for name, (wall, cpu) in least.items():
        print(f"  {name:<34} {wall:8.3f} s wall {cpu:8.3f} s cpu {wall / ours[0]:7.2f} x")


def _clock() -> tuple[float, float]:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(*argv: str | Path, expected: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode not in expected:
        raise SystemExit(f"{argv}: {done.stderr.decode()}")


def publish(root: Path, states: Mapping[str, Mapping[str, bytes]]) -> Bundle:
    directory = StateDir(root / PLACE, PLACE)
    with directory.staging() as staging:
        entries = []
        for key, files in states.items():
            target = staging.key_directory(key)
            for name, content in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(content)
            entries.append(state_of(key, sanitize_key(key), scan(target)))
        return staging.publish(entries, (), lambda _: RunRecord()).bundle


def many(count: int, size: int) -> dict[str, bytes]:
    return {f"d{number % 50}/f{number}": os.urandom(size) for number in range(count)}


# --- what is measured ---------------------------------------------------------------------------


def hashing(root: Path, size: int, runs: int) -> None:
    (root / "one").mkdir(parents=True)
    with (root / "one" / "state").open("wb") as stream:
        for _ in range(0, size, UNITS["M"]):
            stream.write(os.urandom(UNITS["M"]))
    for name, content in many(4000, 50_000).items():
        (root / "many" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "many" / name).write_bytes(content)
    for title, folder in (("one file", root / "one"), ("4,000 files of 50 KB", root / "many")):
        files = [path for path in folder.rglob("*") if path.is_file()]
        print(f"Hashing {title}")
        measure(
            {"ours": lambda f=folder: scan(f), "sha256sum": lambda f=files: run("sha256sum", *f)},
            runs,
        )
    shutil.rmtree(root)


def at_start(root: Path, runs: int) -> None:
    bundle = publish(root, {"Shop": {"state": b"{}", **many(999, 50_000)}})
    print("@verify.py, 1,000 files and 50 MB")
    script = bundle.root / "@verify.py"
    python = sys.executable
    measure(
        {
            "@verify.py": lambda: run(python, "-S", script),
            "an empty interpreter": lambda: run(python, "-S", "-c", ""),
        },
        runs,
    )


def difference(root: Path, runs: int) -> None:
    tables = [
        {"id": n, "name": f"t{n}", "columns": [{"name": f"c{m}", "type": "text"} for m in range(8)]}
        for n in range(33_000)
    ]
    before = json.dumps(tables).encode()
    publish(root / "a", {"Shop": {"state": before}})
    tables[7]["columns"][3]["type"] = "int"  # type: ignore[index]
    after = json.dumps(tables[:-9]).encode()
    publish(root / "b", {"Shop": {"state": after}})
    print(f"Comparing two states of {len(before) / 1e6:.0f} MB")
    measure(
        {
            "state-bundler diff": lambda: run(
                *BUNDLER, "diff", root / "a", root / "b", expected=(1,)
            ),
            "the comparison alone": lambda: compare(json.loads(before), json.loads(after)),
            "diff (GNU)": lambda: run("diff", root / "a", root / "b", "-r", expected=(1, 2)),
        },
        runs,
    )


def images(root: Path, size: int, runs: int) -> None:
    bundle = publish(root, {"Shop": {"state": os.urandom(10 * UNITS["M"])}})
    base = _base(root / "base", size)
    oci.embed(base, [bundle], RunRecord(), root / "image", places={PLACE: f"/app/{PLACE}"})
    name = f"oci:{root / 'image'}:latest"
    print(f"An image of {size / UNITS['M']:.0f} MiB and 10 MiB of state, in a layout")
    ways: dict[str, Callable[[], object]] = {
        "state-bundler verify": lambda: run(*BUNDLER, "verify", name)
    }
    if shutil.which("skopeo"):
        ways["skopeo copy"] = lambda: _copied(name, root / "copy")
    measure(ways, runs)
    if not shutil.which("skopeo") or not shutil.which("docker"):
        print("  (skopeo and docker are needed to measure an engine)")
        return
    tag = "state-bundler-benchmark/verify:latest"
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        print("  (no engine answers)")
        return
    run("skopeo", "copy", name, f"docker-daemon:{tag}")
    print("The same in an engine")
    measure(
        {
            "state-bundler verify": lambda: run(*BUNDLER, "verify", f"docker-daemon:{tag}"),
            "docker save": lambda: run("docker", "save", "-o", root / "saved.tar", tag),
        },
        runs,
    )
    run("docker", "image", "rm", "--force", tag)


def _copied(name: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    run("skopeo", "copy", name, f"dir:{target}")


def _base(root: Path, size: int) -> Path:
    """A layout with an image whose one layer is as large as asked."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = root / "layer"
    with tarfile.open(layer, "w") as archive:
        for name in ("app/shop/__init__.py", "app/shop/defs/__init__.py"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        for number in range(max(1, size // UNITS["M"])):
            info = tarfile.TarInfo(f"usr/lib/{number}")
            info.size = UNITS["M"]
            archive.addfile(info, io.BytesIO(os.urandom(UNITS["M"])))

    def blob(raw: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}

    kind = "application/vnd.oci.image"
    packed = blob(layer.read_bytes(), f"{kind}.layer.v1.tar")
    layer.unlink()
    config = {
        "architecture": oci.architecture(),
        "os": "linux",
        "config": {"WorkingDir": "/app"},
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
        "history": [{"created_by": "benchmark"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [packed],
    }
    entry = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return root


def memory(root: Path, size: int) -> None:
    print("Memory of verify, the greatest resident size")
    for amount in (UNITS["M"], size):
        bundle = publish(root / str(amount), {"Shop": {"state": os.urandom(amount)}})
        oci.embed(None, [bundle], RunRecord(), root / f"{amount}.image")
        for name in (str(bundle.root), f"oci:{root}/{amount}.image"):
            # From a small process: a child begins with what its parent takes up.
            ask = [sys.executable, "-S", "-c", _RESIDENT, *BUNDLER, "verify", name]
            resident = int(subprocess.run(ask, check=True, capture_output=True).stdout) / 1024
            kind = "layout" if name.startswith("oci:") else "directory"
            megabytes = amount / UNITS["M"]
            print(f"  {kind:<10} {megabytes:6.0f} MiB of state {resident:8.1f} MiB")


if __name__ == "__main__":
    main()
