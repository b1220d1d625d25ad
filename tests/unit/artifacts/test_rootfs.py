"""What layers add up to, against a file system that the same tar streams are unpacked into."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.errors import VerificationFailed
from tests.support.examples import scaled
from tests.support.layouts import layer

_NAMES = st.sampled_from(["a", "b", "c"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_MEMBERS = st.one_of(
    st.tuples(_PATHS, st.binary(max_size=3)),
    st.tuples(_PATHS, st.none()),
    st.tuples(st.lists(_NAMES, max_size=2), _NAMES).map(
        lambda parts: ("/".join([*parts[0], f".wh.{parts[1]}"]), b"")
    ),
    st.lists(_NAMES, min_size=1, max_size=2).map(
        lambda parts: ("/".join([*parts, ".wh..wh..opq"]), b"")
    ),
)
_LAYERS = st.lists(st.lists(_MEMBERS, max_size=6).map(dict), max_size=4)


def unpack(root: Path, entries: dict[str, bytes | None]) -> None:
    """As an engine does it: what whiteouts name of the layers below goes first."""
    for path in entries:
        folder, name = (root / path).parent, Path(path).name
        if name == ".wh..wh..opq":
            for child in folder.iterdir() if folder.is_dir() else ():
                _remove(child)
        elif name.startswith(".wh."):
            _remove(folder / name[4:])
    for path, content in entries.items():
        if Path(path).name.startswith(".wh."):
            continue
        target = root / path
        for parent in reversed(target.relative_to(root).parents):
            _replace_by_folder(root / parent)
        if content is None:
            _replace_by_folder(target)
        else:
            _remove(target)
            target.write_bytes(content)


def _replace_by_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        path.unlink()
    path.mkdir(exist_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(NotADirectoryError):  # below a file there is nothing
            path.unlink(missing_ok=True)


@settings(max_examples=scaled(150))
@given(_LAYERS)
def test_layers_add_up_as_an_engine_unpacks_them(layers: list[dict[str, bytes | None]]) -> None:
    tree = RootFilesystem()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, entries in enumerate(layers):
            tree.apply(
                io.BytesIO(layer(dict(entries))), number, lambda _, member: member.open().read()
            )
            unpack(root, entries)
        expected = {
            "/" + path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
            for path in root.rglob("*")
        }
    found = {path: None if node.kind == "directory" else node.content for path, node in tree.walk()}
    assert found == expected


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/.."])
def test_a_name_that_leads_outside_is_refused(name: str) -> None:
    with pytest.raises(VerificationFailed, match="outside"):
        RootFilesystem().apply(io.BytesIO(layer({name: b""})), 0)


@pytest.mark.parametrize("data", [b"no tar", b"x" * 2000, layer({"a": b"x" * 4000})[:2000]])
def test_what_is_not_a_tar_archive_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationFailed, match="not a tar archive"):
        RootFilesystem().apply(io.BytesIO(data), 0, lambda _, member: member.open().read())


def test_links_resolve_as_linux_does() -> None:
    tree = RootFilesystem()
    entries = {
        "a/b/c": b"",
        "x": "-> a/b",
        "y": "-> /x/../b",
        "a/up": "-> ../../../a",
        "z": "-> none",
    }
    tree.apply(io.BytesIO(layer(dict(entries))), 0)
    found = {
        path: tree.resolve(path) for path in ("/x/c", "/y/c", "/a/up/b", "/z", "/a//b/./c", "/")
    }
    assert found == {
        "/x/c": "/a/b/c", "/y/c": "/a/b/c", "/a/up/b": "/a/b", "/z": None, "/a//b/./c": "/a/b/c",
        "/": "/",
    }  # fmt: skip
