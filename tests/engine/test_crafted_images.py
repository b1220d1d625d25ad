"""Tampered images: what `verify` accepts is what a real engine unpacks, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.artifacts.image import image
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.connection import Engine as Api
from bundler.artifacts.image.engine.opening import EngineImage
from bundler.artifacts.image.ociread import open_layout
from tests.support.bundles import PLACE
from tests.support.crafted import (
    END,
    STATE,
    Crafted,
    chunks,
    header,
    joined,
    loaded,
    long_name,
    make,
    pax,
    problems,
    refusal,
    unpacked,
)
from tests.support.engine import Engine

pytestmark = pytest.mark.engine(offline=True)

FILE = f"{STATE}/Catalog/state"
EVIL = b'{"products": 9}'
MORE = header(FILE, EVIL)
DIRECTORY = f"{STATE}/Catalog"


def _top(change: Callable[[dict[str, bytes]], bytes]) -> Callable[[Crafted], Crafted]:
    return lambda good: good.with_top(change(chunks(good.layers[-1])))


def _after(*extra: bytes) -> Callable[[Crafted], Crafted]:
    """More members at the end of the state layer."""
    return _top(lambda parts: joined([*parts.values(), *extra]))


def _instead(*parts: bytes) -> Callable[[Crafted], Crafted]:
    """Other members in place of a state's file."""
    return _top(lambda found: joined({**found, FILE: b"".join(parts)}))


def _above(*parts: bytes) -> Callable[[Crafted], Crafted]:
    return lambda good: good.with_layer(joined(list(parts)))


def _settings(**settings: object) -> Callable[[Crafted], Crafted]:
    return lambda good: good.with_settings(**settings)


def _annotated(good: Crafted) -> Crafted:
    changed = good.changed(good.layers)
    changed.annotations[image.LABEL_STATES] = "[]"
    return changed


GOOD = b'{"products": 3}'
ELSEWHERE = "app/src/bank/defs/.local_defs_state"
SECOND = [header(f"{ELSEWHERE}/K/state", EVIL), header(f"{ELSEWHERE}/@manifest.json", b"{}")]
# By what was done. Each must be refused by every reader that knows of it.
REFUSED: dict[str, Callable[[Crafted], Crafted]] = {
    "a file twice": _after(MORE),
    "a file twice, the same": _after(header(FILE, GOOD)),
    "GNU name and pax path": _instead(
        long_name(FILE), pax(("path", "app/x")), header("y", GOOD), MORE
    ),
    "pax path and GNU name": _instead(
        pax(("path", FILE)), long_name("app/x"), header("y", GOOD), MORE
    ),
    "a global path": _instead(pax(("path", FILE), flag=b"g"), header("app/x", GOOD), MORE),
    "a path twice": _instead(pax(("path", "app/x"), ("path", FILE)), header("y", GOOD)),
    "two sets of attributes": _instead(
        pax(("path", FILE)), pax(("mtime", "1")), header("app/x", GOOD)
    ),
    "two GNU names": _instead(long_name(FILE), long_name("app/x"), header("y", GOOD)),
    "a size in pax": _instead(pax(("size", "15")), header(FILE, GOOD, size=0)),
    "sparse": _instead(
        pax(
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", FILE),
            ("GNU.sparse.realsize", "15"),
        ),
        header("app/x", b"1\n0\n15\n".ljust(512, b"\0") + GOOD),
    ),
    "a prefix in GNU's format": _instead(
        header("Catalog/state", GOOD, magic=b"ustar  \0", prefix=STATE.encode())
    ),
    "a symbolic link": _instead(header(FILE, flag=b"2", target=b"/app/x"), header("app/x", GOOD)),
    "a hard link": _instead(header("app/x", GOOD), header(FILE, flag=b"1", target=b"app/x")),
    "a contiguous file": _instead(header(FILE, GOOD, b"7")),
    "an unknown type": _instead(header(FILE, GOOD, b"Z")),
    "a device": _instead(header(FILE, flag=b"3")),
    "a FIFO": _instead(header(FILE, flag=b"6")),
    "a directory in its place": _instead(header(FILE, flag=b"5", mode=0o755)),
    "setuid": _instead(header(FILE, GOOD, mode=0o4755)),
    "mode 000": _instead(header(FILE, GOOD, mode=0)),
    "other bytes": _instead(MORE),
    "nothing": _instead(),
    "one more file in it": _after(header(f"{STATE}/Catalog/more", b"x")),
    "one more directory in it": _after(header(f"{STATE}/empty/", flag=b"5", mode=0o755)),
    "a file next to it": _after(header("app/src/shop/defs/evil.py", b"x")),
    "a second state directory in our layer": _after(*SECOND),
    "a whiteout of a file in our layer": _after(header(f"{STATE}/Catalog/.wh.state")),
    "nothing hidden": _top(
        lambda parts: joined({k: v for k, v in parts.items() if not k.endswith(".wh..wh..opq")})
    ),
    "a parent that nobody may enter": _top(
        lambda parts: joined({**parts, "app/src": header("app/src/", flag=b"5", mode=0)})
    ),
    "bytes after the end": _top(lambda parts: joined(parts) + MORE + END),
    "one block of zeros": _top(lambda parts: joined([*parts.values(), bytes(512), MORE])),
    "above: other bytes": _above(MORE),
    "above: other bytes through a link": _above(
        header("alias", flag=b"2", target=b"app"),
        header(f"alias/{FILE.removeprefix('app/')}", EVIL),
    ),
    "above: a whiteout of a file": _above(header(f"{STATE}/Catalog/.wh.state")),
    "above: a whiteout of the directory": _above(header("app/src/shop/defs/.wh..local_defs_state")),
    "above: a whiteout of a parent": _above(header("app/.wh.src")),
    "above: an opaque parent": _above(header("app/src/.wh..wh..opq")),
    "above: a link for a parent": _above(
        header("app/src", flag=b"2", target=b"/evil"),
        header("evil/" + FILE.removeprefix("app/src/"), EVIL),
    ),
    "above: a file for the directory": _above(header(STATE, b"x")),
    "above: one more file": _above(header(f"{STATE}/Catalog/more", b"x")),
    "above: a file twice": _above(MORE, header(FILE, GOOD)),
    "above: removed and added": _above(header(FILE, GOOD), header(f"{STATE}/Catalog/.wh.state")),
    "above: a second state directory": _above(*SECOND),
    "above: setuid": _above(header(FILE, GOOD, mode=0o4755)),
    "above: mode 000": _above(header(FILE, GOOD, mode=0)),
    "above: one more directory": _above(header(f"{STATE}/empty/", flag=b"5", mode=0o755)),
    "above: a copy first on PYTHONPATH": lambda good: _settings(Env=["PYTHONPATH=/opt:/app/src"])(
        _above(
            header("opt/shop/__init__.py"),
            header("opt/shop/defs/__init__.py"),
            header(f"opt/{PLACE}/Catalog/state", EVIL),
        )(good)
    ),
    "above: a module in the working directory": _above(header("app/shop/__init__.py")),
    "a VOLUME over the directory": _settings(Volumes={f"/{STATE}": {}}),
    "a VOLUME over a parent": _settings(Volumes={"/app": {}}),
    "a VOLUME in other words": _settings(Volumes={"//app/./x/../src/": {}}),
    "a VOLUME over a state": _settings(Volumes={f"/{DIRECTORY}": {}}),
    "a VOLUME over a linked parent": lambda good: _settings(Volumes={"/alias/src": {}})(
        _above(header("alias", flag=b"2", target=b"app"))(good)
    ),
}
HARMLESS: dict[str, Callable[[Crafted], Crafted]] = {
    "nothing changed": lambda good: good,
    "above: a file elsewhere": _above(header("etc/motd", b"hello")),
    "above: the same bytes again, as chown makes them": _above(
        header("app/", flag=b"5", mode=0o755), header(FILE, GOOD)
    ),
    "above: a long path": _above(pax(("path", "x/" * 90 + "y")), header("z", b"x")),
    "above: another variable": _settings(Env=["PATH=/bin", "A=1"]),
    "above: another command": _settings(Cmd=["python", "-m", "shop"]),
    "a VOLUME elsewhere": _settings(Volumes={"/data": {}, "/application": {}}),
    "git's comment": _above(pax(("comment", "a" * 40), flag=b"g"), header("etc/motd", b"x")),
}


@pytest.fixture
def api(engine: Engine) -> Api:
    return Docker(engine.clis[0], (), engine.environment).connect()


@pytest.mark.parametrize("what", [*REFUSED, *HARMLESS])
def test_what_verifies_is_what_an_engine_unpacks(what: str, api: Api, tmp_path: Path) -> None:
    crafted = {**REFUSED, **HARMLESS}[what](make(tmp_path))
    name = f"crafted.invalid/image:{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    (tmp_path / "saved.tar").write_bytes(crafted.docker_archive(name))
    said = {
        "layout": refusal(lambda: open_layout(crafted.layout(tmp_path / "layout"))),
        "archive": refusal(lambda: open_layout(tmp_path / "saved.tar")),
    }
    there = None
    if loaded(api, crafted, name):
        try:
            with EngineImage(api, name) as artifact:
                there = unpacked(artifact)
                said["engine"] = problems(artifact)
        finally:
            api.remove_image(name, noprune=False, force=True)
    if what in HARMLESS:
        assert said == {"layout": [], "archive": [], "engine": []}
        assert there == crafted.expected
    else:
        assert all(said.values()), said


def test_annotations_that_say_something_else_are_refused(tmp_path: Path) -> None:
    crafted = _annotated(make(tmp_path))
    (problem,) = refusal(lambda: open_layout(crafted.layout(tmp_path / "layout")))
    assert image.LABEL_STATES in problem
