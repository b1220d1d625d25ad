"""The layer: any bundle comes out of the tar stream as it went in, in the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bundler.artifacts.image.compression import Compression, unpack
from bundler.artifacts.image.layer import Layer, Owned, Placed, Written, parents_of
from bundler.errors import BadData, ConfigurationError, VerificationFailed
from tests.support.bundles import PLACE, make_bundle
from tests.support.examples import scaled

_NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="/\\"),
    min_size=1,
    max_size=120,
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
_FILES = st.dictionaries(
    st.lists(_NAMES.map(str.casefold), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=1500),
    min_size=1,
    max_size=6,
)


def placed(root: Path, files: dict[str, bytes], path: str = f"/app/{PLACE}") -> Placed:
    bundle = make_bundle(root, {"Key": files})
    return Placed(bundle, path, tuple(Owned(parent) for parent in parents_of(path)))


def written(layer: Layer, compression: Compression = "none") -> tuple[bytes, str, str]:
    finished: list[Written] = []
    blob = b"".join(layer.packed(compression, finished.append))
    assert finished[0].size == len(blob)
    return blob, finished[0].diff_id, finished[0].digest


@settings(max_examples=scaled(60))
@given(_FILES, st.sampled_from(["none", "gzip", "zstd"]))
def test_every_bundle_comes_out_as_it_went_in(
    files: dict[str, bytes], compression: Compression
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            item = placed(Path(folder) / "state", files)
        except (BadData, OSError):  # names that no state can have, a file that is also a folder
            reject()
        layer = Layer((item,))
        blob, diff_id, digest = written(layer, compression)
        with unpack(io.BytesIO(blob))[0] as stream:
            plain = stream.read()
        assert hashlib.sha256(blob).hexdigest() == digest
        assert hashlib.sha256(plain).hexdigest() == diff_id == written(layer)[1]
        assert len(plain) == layer.size()
        assert (blob, diff_id, digest) == written(layer, compression)
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            read = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]  # a file
                for member in archive
                if member.isreg()
            }
    assert {name.removeprefix(f"app/{PLACE}/Key/") for name in read if "/Key/" in name} == set(
        files
    )
    for path, content in files.items():
        assert read[f"app/{PLACE}/Key/{path}"] == content


def test_files_belong_to_root_and_carry_no_time(tmp_path: Path) -> None:
    item = placed(tmp_path, {"state": b"x", "a/b": b"y"})
    blob, *_ = written(Layer((item,), user=1000))
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[:5] == [
        "app",
        "app/shop",
        "app/shop/defs",
        f"app/{PLACE}",
        f"app/{PLACE}/.wh..wh..opq",
    ]
    assert names[5:] == sorted(names[5:], key=str.encode)
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {
        (0, 0, 0, "")
    }
    assert {oct(member.mode) for member in members} == {"0o644", "0o755"}


def test_two_state_directories_share_their_parents(tmp_path: Path) -> None:
    one = placed(tmp_path / "one", {"state": b"1"}, "/app/a/.local_defs_state")
    two = placed(tmp_path / "two", {"state": b"2"}, "/app/b/.local_defs_state")
    first, *_ = written(Layer((one, two)))
    second, *_ = written(Layer((two, one)))
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    assert names[0] == "app"


def test_a_writable_file_and_folder_belong_to_the_user(tmp_path: Path) -> None:
    bundle = make_bundle(
        tmp_path,
        {
            "Dbt": {
                "state": b"",
                "project/target/manifest.json": b"{}",
                "project/models/a.sql": b"1",
            }
        },
        writable={"Dbt": ("project/target", "project/logs")},
    )
    item = Placed(bundle, f"/{PLACE}", ())
    blob, *_ = written(Layer((item,), user=1234))
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        owned = {
            member.name.removeprefix(f"{PLACE}/Dbt/"): oct(member.mode)
            for member in archive
            if member.uid == 1234
        }
    assert owned == {
        "project/logs": "0o775",
        "project/target": "0o775",
        "project/target/manifest.json": "0o664",
    }


@pytest.mark.parametrize("path", ["relative", "/", "/a//b", "/a/../b", "/a/"])
def test_a_place_is_an_absolute_normal_path(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absolute path"):
        placed(tmp_path, {"state": b""}, path)


@pytest.mark.parametrize("content", [b"other", b"longer than before", b""])
def test_a_file_that_changed_after_hashing_is_refused(content: bytes, tmp_path: Path) -> None:
    item = placed(tmp_path, {"state": b"value"})
    (tmp_path / "Key" / "state").write_bytes(content)
    with pytest.raises(VerificationFailed, match="Key/state changed"):
        written(Layer((item,)))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_memory_stays_flat(compression: Compression, tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    (tmp_path / "Key").mkdir()
    with (tmp_path / "Key" / "big").open("wb") as stream:
        stream.truncate(size)
    item = placed(tmp_path, {"state": b""})
    tracemalloc.start()
    try:
        for _ in Layer((item,)).packed(compression, lambda _: None):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 10  # gzip: a few chunks a thread
