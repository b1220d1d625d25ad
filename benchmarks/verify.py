"""How fast artifacts are verified, next to what one would do by hand.

    python benchmarks/verify.py [--size 1G] [--image 1G] [--runs 5] [--only PART,…]

- hashing: our scan of one file and of many, against ``sha256sum``;
- start: ``@verify.py`` on 1,000 files and 50 MB, whole process, against an empty interpreter;
- diff: ``state-bundler diff`` of two states of 10 MB of JSON, whole process and inside alone;
- images: ``state-bundler verify``, whole process, of an image with 10 MB of state in it: in a
  layout and in a registry against ``skopeo copy``, in an engine against ``docker save`` and a
  script that looks for the state in what was saved; the registry and the engine are Debian's,
  started here where none answers;
- memory: the greatest resident size of ``verify`` for a small and a large state.

The ways take turns, every other run in the opposite order; the least wall and CPU seconds count,
the CPU's of our own processes and those we start (a registry and an engine work meanwhile).
Aims: one file within 10 % of sha256sum; many files 1.8 times as fast with two processors; a tenth
of a second for @verify.py; images 20 times as fast as saving or copying them; memory flat.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bundler.artifacts.image.ociread import architecture
from bundler.state.bundle import Bundle
from bundler.state.jsondiff import compare
from bundler.state.manifest import RunRecord, state_of
from bundler.state.statedir import StateDir, sanitize_key
from bundler.state.tree import scan
from bundler.system.parallel import processors
from tests.support.embedding import embed_layout
from tests.support.engine import running_engine
from tests.support.registries import distribution
from tests.support.statedirs import NOTHING_FETCHED

UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}
BUNDLER = [sys.executable, "-m", "bundler"]
# What a user would write who has saved an image and wants to know whether its state is whole.
SEARCH = """
import hashlib, json, sys, tarfile
found, manifest = {}, None
with tarfile.open(sys.argv[1]) as saved:
    names = [l for entry in json.load(saved.extractfile("manifest.json")) for l in entry["Layers"]]
    for name in names:
        with tarfile.open(fileobj=saved.extractfile(name), mode="r|*") as layer:
            for member in layer:
                folder, inside, path = member.name.partition(".local_defs_state/")
                if inside and member.isreg():
                    stream = layer.extractfile(member)
                    if path == "@manifest.json":
                        manifest = json.load(stream)
                    else:
                        digest = hashlib.sha256()
                        while chunk := stream.read(1 << 18):
                            digest.update(chunk)
                        found[path] = digest.hexdigest()
for state in manifest["predicate"]["contents"]["states"]:
    for file in state["files"]:
        assert found[state["path"] + "/" + file["path"]] == file["sha256"]
"""
PLACE = "shop/defs/.local_defs_state"
VERIFY, COPY, SAVE = "state-bundler verify", "skopeo copy", "docker save and a script"
AIM_START = 0.1
AIM_IMAGE = 20
AIM_MEMORY = 24  # MiB: buffers, but not the state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1G", help="of the one large file, and state")
    parser.add_argument("--image", default="1G", help="of the image below its state")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="parts, with commas between them")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # people run from compiled modules
    size, image, runs = _bytes(given.size), _bytes(given.image), given.runs
    parts: dict[str, Callable[[Path], list[str]]] = {
        "hashing": lambda root: hashing(root, size, runs),
        "start": lambda root: at_start(root, max(runs, 15)),
        "diff": lambda root: difference(root, runs),
        "images": lambda root: images(root, image, runs),
        "memory": lambda root: memory(root, size),
    }
    missed = []
    for name in (given.only or ",".join(parts)).split(","):
        with tempfile.TemporaryDirectory(prefix="verify-benchmark-") as folder:
            missed += parts[name](Path(folder) / name)
    print("\n" + ("\n".join(f"missed: {each}" for each in missed) or "All aims are met."))
    sys.exit(bool(missed))


def _bytes(size: str) -> int:
    return int(size[:-1]) * UNITS[size[-1]]


# --- measuring --------------------------------------------------------------------------------


Times = dict[str, tuple[float, float]]


def measure(candidates: Mapping[str, Callable[[], object]], runs: int) -> Times:
    """Prints the least wall and CPU time of each, and its wall time to the first one's."""
    least: Times = {}
    order = list(candidates)
    for _ in range(runs):
        for name in order:
            began = _clock()
            candidates[name]()
            spent = [now - then for now, then in zip(_clock(), began, strict=True)]
            before = least.get(name, (float("inf"), float("inf")))
            least[name] = (min(spent[0], before[0]), min(spent[1], before[1]))
        order.reverse()
    ours = least[next(iter(candidates))]
    for name in candidates:
        wall, cpu = least[name]
        print(f"  {name:<34} {wall:8.3f} s wall {cpu:8.3f} s cpu {wall / ours[0]:7.2f} x")
    sys.stdout.flush()
    return least


def judge(what: str, ratio: float, aim: float) -> list[str]:
    """What is missed, as a message, where a ratio is below its aim."""
    return [f"{what}: {ratio:.2f} times as fast, not {aim:g}"] if ratio < aim else []


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
        return staging.publish(entries, (), NOTHING_FETCHED).bundle


def many(count: int, size: int) -> dict[str, bytes]:
    return {f"d{number % 50}/f{number}": os.urandom(size) for number in range(count)}


# --- what is measured ---------------------------------------------------------------------------


def hashing(root: Path, size: int, runs: int) -> list[str]:
    (root / "one").mkdir(parents=True)
    with (root / "one" / "state").open("wb") as stream:
        for _ in range(0, size, UNITS["M"]):
            stream.write(os.urandom(UNITS["M"]))
    for name, content in many(4000, 50_000).items():
        (root / "many" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "many" / name).write_bytes(content)
    missed = []
    for title, aim in (("one", 0.9), ("many", 1.8)):
        files = [path for path in (root / title).rglob("*") if path.is_file()]
        print(f"Hashing {len(files):,} files of {files[0].stat().st_size / 1e6:.2f} MB")
        least = measure(
            {
                "ours": lambda title=title: scan(root / title),
                "sha256sum": lambda files=files: run("sha256sum", *files),
                "openssl dgst": lambda files=files: run("openssl", "dgst", "-sha256", *files),
            },
            runs,
        )
        if title == "one" or processors() > 1:
            missed += judge(f"hashing {title}", least["sha256sum"][0] / least["ours"][0], aim)
    return missed


def at_start(root: Path, runs: int) -> list[str]:
    bundle = publish(root, {"Shop": {"state": b"{}", **many(999, 50_000)}})
    print("@verify.py, 1,000 files and 50 MB")
    script = bundle.root / "@verify.py"
    python = sys.executable
    least = measure(
        {
            "@verify.py": lambda: run(python, "-S", script),
            "an empty interpreter": lambda: run(python, "-S", "-c", ""),
        },
        runs,
    )
    wall = least["@verify.py"][0]
    return [f"@verify.py: {wall:.3f} s, not 0.1"] if wall > AIM_START else []


def difference(root: Path, runs: int) -> list[str]:
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
    return []


def images(root: Path, size: int, runs: int) -> list[str]:
    bundle = publish(root, {"Shop": {"state": os.urandom(10 * UNITS["M"])}})
    base = _base(root / "base", size)
    layout = root / "image"
    embed_layout(base, [bundle], RunRecord(), layout, places={PLACE: f"/app/{PLACE}"})
    shutil.rmtree(base)
    return [
        *_in_layout(f"oci:{layout}:latest", root, size, runs),
        *_in_registry(f"oci:{layout}:latest", root, runs),
        *_in_engine(f"oci:{layout}:latest", root, runs),
    ]


def _in_layout(name: str, root: Path, size: int, runs: int) -> list[str]:
    print(f"An image of {size / UNITS['M']:.0f} MiB and 10 MiB of state, in a layout")
    ways = {VERIFY: lambda: run(*BUNDLER, "verify", name), COPY: lambda: _copied(name, root / "to")}
    least = measure(ways, runs)
    return judge("a layout", least[COPY][0] / least[VERIFY][0], AIM_IMAGE)


def _in_registry(name: str, root: Path, runs: int) -> list[str]:
    print("The same in a registry")
    with distribution() as host:
        there = f"docker://{host}/shop:1"
        skopeo("copy", "--dest-tls-verify=false", name, there)
        ways = {
            VERIFY: lambda: run(*BUNDLER, "verify", there),
            COPY: lambda: _copied(there, root / "to"),
        }
        least = measure(ways, runs)
    return judge("a registry", least[COPY][0] / least[VERIFY][0], AIM_IMAGE)


def _in_engine(name: str, root: Path, runs: int) -> list[str]:
    print("The same in an engine")
    tag = "sbt/verify-benchmark:latest"
    saved = root / "saved.tar"
    with running_engine() as engine:
        os.environ.update(
            {key: engine.environment[key] for key in ("DOCKER_HOST", "DOCKER_CONFIG")}
        )
        skopeo("copy", name, f"docker-archive:{saved}:{tag}")
        engine.docker("load", "-i", str(saved))

        def save() -> None:
            run(engine.clis[0], "save", "-o", saved, tag)
            run(sys.executable, "-c", SEARCH, saved)

        ways = {VERIFY: lambda: run(*BUNDLER, "verify", f"docker-daemon:{tag}"), SAVE: save}
        try:
            least = measure(ways, runs)
        finally:
            engine.docker("image", "rm", "--force", tag)
    return judge("an engine", least[SAVE][0] / least[VERIFY][0], AIM_IMAGE)


def skopeo(*arguments: str) -> None:
    run("skopeo", "--insecure-policy", *arguments)


def _copied(name: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    skopeo("copy", "--src-tls-verify=false", name, f"dir:{target}")


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
        "architecture": architecture(),
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


def memory(root: Path, size: int) -> list[str]:
    print("Memory of verify, the greatest resident size")
    peaks: dict[str, list[float]] = {"directory": [], "layout": []}
    for amount in (UNITS["M"], size):
        bundle = publish(root / str(amount), {"Shop": {"state": os.urandom(amount)}})
        embed_layout(None, [bundle], RunRecord(), root / f"{amount}.image")
        for kind, name in (("directory", bundle.root), ("layout", f"oci:{root}/{amount}.image")):
            peaks[kind].append(peak(*BUNDLER, "verify", str(name)))
            megabytes = amount / UNITS["M"]
            print(f"  {kind:<10} {megabytes:6.0f} MiB of state {peaks[kind][-1]:8.1f} MiB")
    return [
        f"memory, {kind}: {large:.0f} MiB for the large state, {small:.0f} for the small one"
        for kind, (small, large) in peaks.items()
        if large > small + AIM_MEMORY
    ]


def peak(*argv: str) -> float:
    """The most memory that a program ever held, in MiB: the kernel's own mark, at its end."""
    code = "import re, runpy, sys; sys.argv = sys.argv[1:]\n"
    code += "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
    code += "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    assert list(argv[:2]) == BUNDLER[:2]
    program = [sys.executable, "-c", code, *argv[2:]]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return int(re.findall(rb"\d+", done.stdout)[-1]) / 1024


if __name__ == "__main__":
    main()
