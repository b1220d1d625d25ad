"""PEX files that are damaged, or made to do harm. About 15 s."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError, VerificationFailed
from tests.support.embedding import embed_pex
from tests.support.pex_projects import PLACE, RECORD, bundle_of, package, run_pex, set_state

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The entries of a PEX with state in it."""
    folder = tmp_path_factory.mktemp("good")
    package(folder / "src")
    run_pex("-D", "src", "-m", "shop", "-o", "app.pex", cwd=folder, root=folder / "root")
    bundle = bundle_of(set_state(folder / "state", A="1"))
    embed_pex(folder / "app.pex", [bundle], RECORD, folder / "app.pex")
    with zipfile.ZipFile(folder / "app.pex") as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def judge(path: Path) -> None:
    """What `verify` does. Raises `BundlerError`."""
    with PexArtifact(path) as artifact:
        verify(artifact).raise_for_problems()


def with_info(change: Callable[[dict[str, Any]], None]) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        info = json.loads(files["PEX-INFO"])
        change(info)
        files["PEX-INFO"] = json.dumps(info, sort_keys=True, separators=(",", ":")).encode()

    return apply


def test_the_good_one_is_good(good: Files, tmp_path: Path) -> None:
    judge(write(tmp_path / "app.pex", good))


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.pop("PEX-INFO"),
        lambda files: files.pop("__main__.py"),
        lambda files: files.update({"PEX-INFO": b"{}"}),
        lambda files: files.update({"PEX-INFO": b"[" * 100_000}),
        lambda files: files.update({"PEX-INFO": b"not JSON"}),
        lambda files: files.update({"PEX-INFO": b'{"a": 1}'}),
        lambda files: files.update({"PEX-INFO": b" " * 20 * 2**20}),
        with_info(lambda info: info.update(code_hash=7)),
        with_info(lambda info: info.update(distributions={"gone-1.0.whl": "0" * 64})),
        with_info(lambda info: info.update(distributions={"../gone": "0" * 64})),
        with_info(lambda info: info.update(distributions=[])),
        with_info(lambda info: info["build_properties"].update({"io.state-bundler.states": 1})),
        with_info(lambda info: info["build_properties"].update({"io.state-bundler.states": "[]"})),
        with_info(lambda info: info["build_properties"].update({"io.state-bundler.states": "[ ]"})),
        with_info(lambda info: info["build_properties"].pop("io.state-bundler.states")),
        lambda files: files.pop(f"{PLACE}/@manifest.json"),
        lambda files: files.update({f"{PLACE}/@manifest.json": b"{}"}),
        lambda files: files.update({f"{PLACE}/@manifest.json": b"{" + b" " * 200 * 2**20}),
        lambda files: files.update({f"{PLACE}/A/state": b"2"}),
        lambda files: files.update({f"{PLACE}/A/more": b""}),
        lambda files: files.update({f"{PLACE}/@more": b""}),
        lambda files: files.update({f"copy/{PLACE}/A/state": b"1"}),
        lambda files: files.pop(f"{PLACE}/A/state"),
    ],
)
def test_what_was_changed_does_not_verify(
    change: Callable[[Files], Any], good: Files, tmp_path: Path
) -> None:
    files = dict(good)
    change(files)
    with pytest.raises(VerificationFailed):
        judge(write(tmp_path / "app.pex", files))


@pytest.mark.parametrize(
    "change",
    [
        with_info(lambda info: info.update(code_hash="0" * 40)),
        with_info(lambda info: info.update(pex_hash="0" * 40)),
        with_info(lambda info: info.update(entry_point="other")),
        lambda files: files.update({"shop/__init__.py": b"changed"}),
        lambda files: files.update({"__main__.py": b"no hash"}),
        lambda files: files.update({"__pex__/__init__.py": b"no hash"}),
    ],
)
def test_a_pex_that_was_changed_gets_no_state(
    change: Callable[[Files], Any], good: Files, tmp_path: Path
) -> None:
    files = dict(good)
    change(files)
    path = write(tmp_path / "app.pex", files)
    before = path.read_bytes()
    bundle = bundle_of(set_state(tmp_path / "state", A="2"))
    with pytest.raises(VerificationFailed) as caught:
        embed_pex(path, [bundle], RECORD, path)
    assert "Build it again" in caught.value.hint
    assert path.read_bytes() == before


def test_state_that_is_a_link_does_not_verify(good: Files, tmp_path: Path) -> None:
    path = tmp_path / "app.pex"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in good.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name.endswith("A/state") else 0o100644) << 16
            file.writestr(info, data)
    with pytest.raises(VerificationFailed, match="not a regular file"):
        judge(path)


def test_every_cut_is_an_error(good: Files, tmp_path: Path) -> None:
    path = write(tmp_path / "app.pex", good)
    raw = path.read_bytes()
    for cut in range(0, len(raw), len(raw) // 50):
        path.write_bytes(raw[:cut])
        with pytest.raises(VerificationFailed):
            judge(path)


def test_a_folder_that_is_not_a_pex(tmp_path: Path) -> None:
    (tmp_path / "PEX-INFO").write_text("{}")
    with pytest.raises(BundlerError):
        PexArtifact(tmp_path)


def bomb(path: Path, files: Files) -> None:
    """A state of 3 GB of zeros in 3 MB, which the manifest does not know."""
    write(path, files)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file,
        file.open(f"{PLACE}/A/bomb", "w", force_zip64=False) as stream,
    ):
        for _ in range(300):
            stream.write(bytes(2**20))


def huge(path: Path, files: Files) -> None:
    write(path, files)
    with path.open("r+b") as stream:
        stream.truncate(5 * 2**30)


def whole(path: Path, files: Files) -> None:
    """5 GB with everything in its place, as ZIP64: a hole in the file holds no disk space."""
    name = f"{PLACE}/A/large".encode()
    with zipfile.ZipFile(path, "w") as file:
        for entry, data in files.items():
            file.writestr(entry, data)
        file.writestr(name.decode(), b"")
    small = path.read_bytes()
    at = small.index(b"PK\x01\x02")
    size, directory = 5 * 2**30, small[at : small.rindex(b"PK\x05\x06")]
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    last = bytearray(directory[directory.rindex(b"PK\x01\x02") :])
    last[20:28] = b"\xff" * 8
    last[30:32] = struct.pack("<H", len(extra))
    directory = directory[: directory.rindex(b"PK\x01\x02")] + bytes(last) + extra
    count, start = len(files) + 1, at + size
    with path.open("r+b") as stream:
        stream.seek(start)
        stream.truncate()
        stream.write(directory)
        end = start + len(directory)
        sizes = struct.pack("<4Q", count, count, len(directory), start)
        stream.write(struct.pack("<4sQ2H2L", b"PK\x06\x06", 44, 45, 45, 0, 0) + sizes)
        stream.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
        ends = (b"PK\x05\x06", 0, 0, count, count, len(directory), 2**32 - 1, 0)
        stream.write(struct.pack("<4s4H2LH", *ends))
    with zipfile.ZipFile(path) as file:
        assert file.getinfo(name.decode()).file_size == size


@pytest.mark.parametrize("make", [bomb, huge, whole])
def test_memory_stays_flat_and_the_exit_code_is_76(
    make: Callable[[Path, Files], None], good: Files, tmp_path: Path
) -> None:
    make(tmp_path / "app.pex", good)
    script = (
        "import sys\n"
        "from bundler.cli.run import run\n"
        "from bundler.cli.commands import cli\n"
        "code = run(cli, ['verify', sys.argv[1]])\n"
        "status = open('/proc/self/status').read()\n"
        "print(code, status.partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "app.pex"],
        capture_output=True,
        text=True,
        check=True,
    )
    code, kilobytes = done.stdout.split()[-2:]
    assert code == "76", done.stderr
    assert int(kilobytes) < 100 * 1024
