"""Damaged and forged layers: what verifies is what another unpacker, umoci, makes of the image."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.image.tarstream import read_tar
from bundler.errors import UsageError, VerificationFailed
from tests.support.crafted import (
    END,
    STATE,
    Crafted,
    chunks,
    header,
    joined,
    long_name,
    make,
    pax,
    refusal,
)
from tests.support.engine import install
from tests.support.examples import scaled
from tests.support.layouts import LayoutMaker, blob_of

FILE = f"{STATE}/Catalog/state"
EVIL = b'{"products": 9}'
_NAMES = st.sampled_from(
    [
        *(FILE, f"./{FILE}", f"/{FILE}", f"{FILE}/", f"{STATE}/Catalog", STATE, "app", "app/src"),
        *("alias", f"alias/{FILE.removeprefix('app/')}", f"{STATE}/Catalog/.wh.state"),
        *(f"{STATE}/.wh.Catalog", f"{STATE}/.wh..wh..opq", f"{STATE}/Catalog/more", "etc/x"),
        *("app/x", f"{STATE}/@manifest.json"),
    ]
)
_TARGETS = st.sampled_from(["app", "/app", "app/x", f"/{FILE}", "../..", ".", "etc/x"])
_KEYS = st.sampled_from(
    [
        "path",
        "linkpath",
        "size",
        "uid",
        "mtime",
        "hdrcharset",
        "comment",
        "GNU.sparse.name",
        "GNU.sparse.major",
        "GNU.sparse.realsize",
        "SCHILY.xattr.user.x",
    ]
)
_VALUES = st.one_of(_NAMES, st.sampled_from(["15", "0", "1", "BINARY", ""]))
_EXTENSIONS = st.one_of(
    st.builds(lambda records: pax(*records), st.lists(st.tuples(_KEYS, _VALUES), max_size=3)),
    st.builds(lambda record: pax(record, flag=b"g"), st.tuples(_KEYS, _VALUES)),
    st.builds(long_name, _NAMES, st.sampled_from([b"L", b"K"])),
)
_MEMBERS = st.builds(
    lambda extensions, name, data, flag, target, mode, magic: (
        b"".join(extensions)
        + header(name.encode()[:100], data, flag, target=target.encode(), mode=mode, magic=magic)
    ),
    st.lists(_EXTENSIONS, max_size=2),
    _NAMES,
    st.sampled_from([b"", EVIL, b'{"products": 3}']),
    st.sampled_from([b"0", b"0", b"0", b"\0", b"1", b"2", b"5", b"6", b"7", b"S", b"Z"]),
    _TARGETS,
    st.sampled_from([0o644, 0o755, 0o4755, 0]),
    st.sampled_from([b"ustar\x0000", b"ustar  \0", bytes(8)]),
)
_POSITIONS = st.integers(min_value=0, max_value=30)


@cache
def _good() -> Crafted:
    return make(Path(tempfile.mkdtemp()))


@st.composite
def _layers(draw: st.DrawFn) -> bytes:
    """The members of the state layer, some of them gone, elsewhere or others; and bytes altered."""
    parts = list(chunks(_good().layers[-1]).values())
    for _ in range(draw(st.integers(0, 2))):
        position = draw(_POSITIONS) % len(parts)
        change = draw(st.sampled_from(["drop", "twice", "move"]))
        part = parts[position]
        if change != "twice":
            parts.remove(part)
        if change != "drop":
            parts.insert(draw(_POSITIONS) % (len(parts) + 1), part)
    for member in draw(st.lists(_MEMBERS, max_size=2)):
        parts.insert(draw(_POSITIONS) % (len(parts) + 1), member)
    data = bytearray(joined(parts))
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=1)
    ):
        data[at % len(data)] = value
    return bytes(data)


@st.composite
def _images(draw: st.DrawFn) -> Crafted:
    good = _good()
    where = draw(st.sampled_from(["top", "bare", "above"]))
    if where == "above":
        return good.with_layer(b"".join(draw(st.lists(_MEMBERS, min_size=1, max_size=3))) + END)
    made = good.with_top(draw(_layers()))
    if where == "bare":  # as a plain COPY would have filled it
        made.config["config"]["Labels"] = {}
        made.annotations.clear()
    return made


@pytest.mark.slow
@settings(max_examples=scaled(250))
@given(_images())
def test_what_verifies_is_what_umoci_unpacks(crafted: Crafted) -> None:
    with tempfile.TemporaryDirectory() as name:
        layout = crafted.layout(Path(name, "layout"))
        said = refusal(lambda: open_layout(layout))
        event("refused" if said else "verified")
        if not said:
            assert _unpacked(layout, Path(name, "root")) in (None, crafted.expected)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", f"/{STATE}", "sha256:0"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


def _paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in a JSON document."""
    found = []
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((*above, key))
        if isinstance(value[key], (dict, list)):
            found += _paths(value[key], (*above, key))
    return found


@pytest.mark.slow
@settings(max_examples=scaled(250))
@given(st.data())
def test_no_document_of_an_image_is_believed(data: st.DataObject) -> None:
    """One value of the index, the manifest or the configuration is replaced, removed or renamed."""
    crafted = _good()
    with tempfile.TemporaryDirectory() as name:
        layout = crafted.layout(Path(name, "layout"))
        index = json.loads((layout / "index.json").read_text())
        entry = index["manifests"][0]
        manifest = json.loads(blob_of(layout, entry["digest"]).read_text())
        documents = {"index": index, "manifest": manifest, "config": copy.deepcopy(crafted.config)}
        which = data.draw(st.sampled_from(sorted(documents)))
        *above, last = data.draw(st.sampled_from(_paths(documents[which])))
        parent = reduce(getitem, above, documents[which])
        change = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        removed = parent.pop(last)
        if change == "replace" and isinstance(parent, list):
            parent.insert(last, data.draw(_JSON))
        elif change != "remove" and isinstance(parent, dict):
            parent[str(last).swapcase() if change == "rename" else last] = (
                removed if change == "rename" else data.draw(_JSON)
            )
        maker = LayoutMaker(layout)
        if which == "config":
            raw = json.dumps(documents["config"]).encode()
            manifest["config"] = maker.blob(raw, manifest["config"]["mediaType"])
        if which != "index":
            index["manifests"][0] |= maker.blob(json.dumps(manifest).encode(), entry["mediaType"])
        (layout / "index.json").write_text(json.dumps(index))
        try:
            said = refusal(lambda: open_layout(layout))
        except UsageError as error:  # no image, or none of the name
            said = [error.what]
        if not said:
            assert _unpacked(layout, Path(name, "root")) in (None, crafted.expected)


def _unpacked(layout: Path, root: Path) -> dict[str, bytes] | None:
    """The files of the state directory; None where umoci refuses the image."""
    argv = [
        install("umoci"),
        "raw",
        "unpack",
        "--rootless",
        "--image",
        f"{layout}:latest",
        str(root),
    ]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        return None
    top = root / STATE
    try:
        return {
            path.relative_to(top).as_posix(): path.read_bytes() if path.is_file() else b"<other>"
            for path in top.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
    finally:
        shutil.rmtree(root)


@settings(max_examples=scaled(400))
@given(st.one_of(_layers(), st.binary(max_size=2000).map(lambda tail: header("a", b"x") + tail)))
def test_what_is_read_is_what_python_reads(data: bytes) -> None:
    """Two readers agree about names, kinds and bytes, or ours refuses."""
    try:
        ours = [
            (member.path, member.kind == "file", member.size)
            for member in read_tar(io.BytesIO(data))
        ]
    except VerificationFailed:
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = [
            (_normal(member.name), member.isreg(), member.size if member.isreg() else 0)
            for member in archive
        ]
    assert ours == theirs


@pytest.mark.parametrize("extended", [long_name, lambda name: pax(("path", name))])
@pytest.mark.parametrize(("own", "given"), [("a/state", "a/state/"), ("a/state/", "a/state")])
def test_an_old_header_whose_names_differ_in_the_slash_is_refused(
    own: str, given: str, extended: Callable[[str], bytes]
) -> None:
    """Found by the fuzzer: Go takes the kind from the extended name, Python from its own."""
    with pytest.raises(VerificationFailed, match="programs read differently"):
        list(read_tar(io.BytesIO(joined([extended(given), header(own, flag=b"\0")]))))
    (member,) = read_tar(io.BytesIO(joined([header("a/", flag=b"\0")])))
    assert member.kind == "directory"


def _normal(name: str) -> str:
    return "/" + "/".join(part for part in name.split("/") if part not in ("", "."))


def test_a_manifest_that_is_first_a_directory_and_then_a_file_is_refused(tmp_path: Path) -> None:
    """Found by the fuzzer: the directory was opened."""
    parts = chunks(_good().layers[-1])
    directory = header(f"{STATE}/@manifest.json/", flag=b"5", mode=0o755)
    crafted = _good().with_top(joined([directory, *parts.values()]))
    crafted.config["config"]["Labels"] = {}
    crafted.annotations.clear()
    assert refusal(lambda: open_layout(crafted.layout(tmp_path / "layout")))
