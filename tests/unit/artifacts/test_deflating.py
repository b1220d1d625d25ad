"""gzip on several processors: one member that any reader takes, the same bytes for any number."""

from __future__ import annotations

import base64
import gzip
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.artifacts.image import deflating
from tests.support.examples import scaled


def _noise(size: int) -> bytes:
    return random.Random(9).randbytes(size)


KINDS: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"".join(b'{"id": %d, "name": "%x"}\n' % (n, n * n) for n in range(200_000)),
    "random": lambda: _noise(6_000_001),
    "both": lambda: b"".join(_noise(32768 + n)[n:] + bytes(32768) for n in range(100))[300:],
    "base64": lambda: base64.b64encode(_noise(500_000)),
    "digests": lambda: _noise(1_000_000).hex().encode(),
    "nothing": bytes,
}


def packed(pieces: Iterable[bytes], threads: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(deflating, "processors", lambda: threads)
        packer = deflating.Gzip()
    return b"".join([*map(packer.compress, pieces), packer.flush()])


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_the_same_whatever_the_processors_and_the_pieces(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = KINDS[kind]()
    alone = packed(cut(data, 262_144), 1, monkeypatch)
    assert packed(cut(data, 100_003), 4, monkeypatch) == alone
    assert packed([data], 2, monkeypatch) == alone

    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert inflate.decompress(alone) == data
    assert inflate.eof  # one member
    assert inflate.unused_data == b""
    tool = shutil.which("gzip")
    assert tool is not None
    done = subprocess.run([tool, "-dc"], input=alone, capture_output=True, check=True)
    assert done.stdout == data


@pytest.mark.parametrize(
    ("kind", "most"),
    [("text", 1.02), ("both", 1.03), ("random", 1.001), ("base64", 0.99), ("digests", 0.9)],
)
def test_it_packs_about_as_well_as_zlib_does(
    kind: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = KINDS[kind]()
    plain = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = len(plain.compress(data) + plain.flush())
    assert len(packed([data], 2, monkeypatch)) <= size * most


@settings(max_examples=scaled(150))
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.integers(0, 70_000).map(_noise),
            st.integers(0, 70_000).map(bytes),
        ),
        max_size=30,
    )
)
def test_whatever_goes_in_comes_out(pieces: list[bytes]) -> None:
    packer = deflating.Gzip()
    blob = b"".join([*map(packer.compress, pieces), packer.flush()])
    assert gzip.decompress(blob) == b"".join(pieces)


@pytest.mark.slow
def test_an_abandoned_one_ends_its_thread() -> None:
    import gc
    import threading

    before = set(threading.enumerate())
    packer = deflating.Gzip()
    packer.compress(KINDS["text"]() * 3)
    waiting = [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
    del packer
    gc.collect()
    for thread in waiting:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= before  # others' may have ended meanwhile
