"""How far a key is: bytes for a listener that follows it, a note now and then for another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bundler.listener import KeyProgress, Listener
from bundler.refresh import watching
from bundler.refresh.watching import size_below, watched


class Following(Listener):
    def __init__(self, *, follows: bool) -> None:
        self.follows = follows
        self.progress: list[KeyProgress] = []
        self.notes: list[str] = []

    def key(self, progress: KeyProgress) -> None:
        self.progress.append(progress)

    def note(self, text: str) -> None:
        self.notes.append(text)


def _watch(directory: Path, listener: Listener) -> None:
    async def main() -> None:
        async with watched("Foo", 2, directory, listener):
            (directory / "state").write_bytes(b"x" * 5000)
            await asyncio.sleep(0.1)

    asyncio.run(main())


@pytest.mark.parametrize("follows", [True, False])
def test_a_listener_hears_how_far_a_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    monkeypatch.setattr(watching, "_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(watching, "_PATIENCE_SECONDS", 0.02)
    listener = Following(follows=follows)
    _watch(tmp_path, listener)
    sizes = {(item.phase, item.attempt, item.size) for item in listener.progress}
    assert sizes == ({("fetching", 2, 5000)} if follows else set())
    assert listener.notes[:1] == ([] if follows else ["Foo: still fetching after 0.02 s."])


def test_what_disappears_meanwhile_and_what_is_too_much_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / f"a/{number}").write_bytes(b"12345")
    assert size_below(tmp_path) == 150
    assert size_below(tmp_path / "nowhere") == 0
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(watching, "_MOST_FILES", 1)
    assert size_below(tmp_path) < 150
