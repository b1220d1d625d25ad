"""Zip files: what is read, what is refused, what is written. About 10 s."""

from __future__ import annotations

import io
import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.artifacts.image import deflating
from bundler.artifacts.python import zipfiles, zipwriter
from bundler.artifacts.python.zipfiles import CENTRAL, END, ZipFile
from bundler.artifacts.python.zipwriter import ZipWriter
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.verify_at_start import name_problem
from tests.support.examples import scaled


def are_apart(names: Iterable[str]) -> bool:
    """Whether no name is the folder of another: no file can be both."""
    found = sorted(names)
    return not any(other.startswith(f"{name}/") for name in found for other in found)


NAMES = st.lists(
    st.from_regex(r"[a-zé][a-z0-9_. -]{0,9}(/[a-zü][a-z0-9_.]{0,9}){0,3}", fullmatch=True),
    unique=True,
    max_size=8,
).filter(are_apart)
CONTENTS = st.binary(max_size=3000) | st.just(b"x" * 700_000)


def file_of(data: bytes, folder: Path) -> Path:
    path = folder / "a.zip"
    path.write_bytes(data)
    return path


def made(
    entries: dict[str, bytes], prefix: bytes = b"", method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    target = io.BytesIO()
    target.write(prefix)
    with zipfile.ZipFile(target, "a", method) as file:
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return target.getvalue()


def read_all(path: Path) -> dict[str, bytes]:
    with zipfiles.opened(path) as file:
        return {entry.name: file.open(entry).read() for entry in file.entries}


@given(NAMES, st.data(), st.binary(max_size=100), st.sampled_from([0, 8]))
@settings(max_examples=scaled(60))
def test_what_zipfile_wrote_is_read(
    names: list[str], data: st.DataObject, prefix: bytes, method: int
) -> None:
    entries = {name: data.draw(CONTENTS) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(made(entries, prefix, method), Path(folder))
        assert read_all(path) == entries
        with zipfiles.opened(path) as file:
            assert file.read_prefix() == prefix


@given(st.lists(st.text("a./\n\\\x7fé", max_size=6), min_size=1, max_size=4))
def test_names_that_are_judged_together_have_no_problem_alone(names: list[str]) -> None:
    alone = [name_problem(name.removesuffix("/")) is None for name in names]
    together = zipfiles._are_ordinary([name.encode() for name in names])
    assert together == all(
        known and name.isascii() for known, name in zip(alone, names, strict=True)
    )


@given(NAMES, st.data(), st.booleans())
@settings(max_examples=scaled(60))
def test_what_is_written_is_what_zipfile_would_write(
    names: list[str], data: st.DataObject, compress: bool
) -> None:
    entries = {name: data.draw(CONTENTS) for name in names}
    target = io.BytesIO()
    writer = ZipWriter(target, compress=compress)
    writer.write_prefix(b"#!x\n")
    theirs = io.BytesIO()
    theirs.write(b"#!x\n")
    with zipfile.ZipFile(theirs, "a") as file:
        for name, content in entries.items():
            writer.write_stream(name, io.BytesIO(content))
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            file.writestr(info, content)
    writer.finish()
    assert target.getvalue() == theirs.getvalue()


@pytest.mark.slow
@given(NAMES.filter(len), st.data())
@settings(max_examples=scaled(60))
def test_copied_entries_stay_byte_for_byte(names: list[str], data: st.DataObject) -> None:
    entries = {name: data.draw(CONTENTS) for name in names}
    kept = data.draw(st.lists(st.sampled_from(names), unique=True))
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(made(entries, b"before"), Path(folder))
        target = Path(folder) / "b.zip"
        with zipfiles.opened(path) as source, target.open("w+b") as stream:
            writer = ZipWriter(stream)
            writer.copy(source, [entry for entry in source.entries if entry.name in kept])
            writer.finish()
        assert read_all(target) == {name: entries[name] for name in names if name in kept}


@pytest.mark.slow
@given(NAMES.filter(len), st.data(), st.booleans())
@settings(max_examples=scaled(40))
def test_a_head_is_copied_as_one_piece(names: list[str], data: st.DataObject, turned: bool) -> None:
    raw = made({name: data.draw(CONTENTS) for name in names}, b"before")
    raw = _with_directory_turned_round(raw) if turned else raw
    count = data.draw(st.integers(0, len(names)))
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(raw, Path(folder))
        target = Path(folder) / "b.zip"
        with zipfiles.opened(path) as source, target.open("w+b") as stream:
            writer = ZipWriter(stream)
            writer.write_prefix(b"before")
            head = count if source.is_in_order else 0
            writer.copy_head(source, head)
            writer.copy(source, source.entries_from(head))
            writer.finish()
            assert source.is_in_order != (turned and len(names) > 1)
        assert read_all(target) == read_all(path)
        assert turned or target.read_bytes() == raw


def _with_directory_turned_round(raw: bytes) -> bytes:
    """The same entries, listed from the last to the first."""
    *_, size, offset, _ = END.unpack(raw[-END.size :])
    records, left = [], raw[offset : offset + size]
    while left:
        length = CENTRAL.size + sum(CENTRAL.unpack(left[: CENTRAL.size])[10:13])
        records.append(left[:length])
        left = left[length:]
    return raw[:offset] + b"".join(reversed(records)) + raw[offset + size :]


@given(st.data())
@settings(max_examples=scaled(300))
def test_damage_is_always_an_error(data: st.DataObject) -> None:
    raw = bytearray(
        made({"a/b": b"hello" * 50, "c": b"", "d.txt": bytes(range(40))}, b"#!/bin/sh\n")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    damaged = bytes(raw[:cut] if data.draw(st.booleans()) else raw)
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(damaged, Path(folder))
        with suppress(VerificationFailed):
            read_all(path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "a//b", "a\\..\\b", "./a", "a/.", "a\nb"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = file_of(made({"good": b"", name: b"x"}), tmp_path)
    with pytest.raises(VerificationFailed, match="the name"):
        read_all(path)


def test_a_duplicate_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a", "2")
    with pytest.raises(VerificationFailed, match="twice"):
        read_all(tmp_path / "a.zip")


def altered(raw: bytes, at: int, value: int, size: str = "<L") -> bytes:
    return raw[:at] + struct.pack(size, value) + raw[at + struct.calcsize(size) :]


def central(raw: bytes) -> int:
    return raw.index(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda raw: altered(raw, central(raw) + 24, 10),
            "described differently",
        ),  # a smaller size
        (
            lambda raw: altered(raw, central(raw) + 24, 2**31),
            "described differently",
        ),  # a larger one
        (
            lambda raw: altered(raw, central(raw) + 16, 1),
            "described differently",
        ),  # another checksum
        (lambda raw: altered(raw, central(raw) + 8, 1, "<H"), "encrypted"),
        (lambda raw: altered(raw, central(raw) + 10, 93, "<H"), "method 93"),
        (lambda raw: altered(raw, central(raw) + 42, 9), "overlaps|not where"),
        (lambda raw: altered(raw, central(raw) + 20, 0xFFFFFFFF), "ZIP64"),
        (lambda raw: raw.replace(b"a.txt", b"b.txt", 1), "another name"),
        (lambda raw: raw[:-5], "no directory at its end"),
        (lambda raw: raw + b"more", "no directory at its end"),
        (lambda raw: raw[:-2] + b"\x01\x00", "comment"),
        (lambda _: b"", "no directory at its end"),
        (lambda _: b"#!/bin/sh\n" * 100, "no directory at its end"),
    ],
)
def test_a_directory_with_false_entries(
    change: Callable[[bytes], bytes], why: str, tmp_path: Path
) -> None:
    raw = made({"a.txt": b"hello, hello, hello"})
    path = file_of(change(raw), tmp_path)
    with pytest.raises(VerificationFailed, match=why):
        read_all(path)


def test_two_entries_over_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """The way to a bomb that grows faster than its file."""
    raw = made({"a": b"x" * 1000, "b": b"y" * 1000})
    second = raw.rindex(b"PK\x01\x02")
    path = file_of(altered(raw, second + 42, 0), tmp_path)
    with pytest.raises(VerificationFailed, match="overlaps"):
        read_all(path)


def test_a_sparse_file_of_5_gb_is_refused_immediately(tmp_path: Path) -> None:
    path = tmp_path / "huge.pex"
    with path.open("wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(5 * 2**30)
    with pytest.raises(VerificationFailed, match="no directory at its end"):
        read_all(path)
    with path.open("r+b") as stream:  # a directory that claims to be almost the whole
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        stream.write(
            struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**32 - 2, size - 2**32 + 2, 0)
        )
    with pytest.raises(VerificationFailed, match="too large"):
        read_all(path)


@pytest.mark.slow
def test_a_bomb_is_inflated_piece_by_piece(tmp_path: Path) -> None:
    path = file_of(made({"zeros": bytes(64 * 2**20)}), tmp_path)
    with zipfiles.opened(path) as file, file.open(file.entries[0]) as stream:
        while piece := stream.read(1024):
            assert len(piece) <= 1024
        assert sys.getsizeof(stream) < 2**20


def test_what_would_need_zip64_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipwriter, "_MAX_16", 3)
    writer = ZipWriter(io.BytesIO())
    for name in "abc":
        writer.write_stream(name, io.BytesIO())
    with pytest.raises(ConfigurationError, match="4 GiB"):
        writer.finish()


def test_a_zip_inside_another_file(tmp_path: Path) -> None:
    inner = made({"x": b"inside"})
    path = tmp_path / "outer"
    path.write_bytes(b"before" + inner + b"after")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        file = ZipFile("outer:x", descriptor, 6, len(inner))
        assert file.open(file.entries[0]).read() == b"inside"
    finally:
        os.close(descriptor)


@pytest.mark.slow
def test_a_large_file_is_packed_the_same_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"".join(b"%d," % number for number in range(1_500_000))
    files = []
    for cores in (1, 5):
        monkeypatch.setattr(deflating, "processors", lambda cores=cores: cores)
        path = tmp_path / f"{cores}.zip"
        with path.open("w+b") as stream:
            writer = ZipWriter(stream)
            writer.write_stream("large", io.BytesIO(data), size=len(data))
            writer.finish()
        with zipfile.ZipFile(path) as file:
            assert file.read("large") == data
        files.append(path.read_bytes())
    assert files[0] == files[1]
