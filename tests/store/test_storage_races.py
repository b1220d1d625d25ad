"""Many writers, writers that die at every request, and any sequence of commands."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bundler.errors import VerificationFailed
from bundler.store import Store, checking, importing, open_store, prune
from bundler.store.folder import Folder
from bundler.store.objects import Buffer, Listed, StoredObject
from bundler.store.pushing import NewState
from bundler.store.reading import Versions
from bundler.store.store import open_objects
from tests.support.bundles import make_bundle

WRITER = """
import sys, threading
from pathlib import Path
from bundler.state.manifest import state_of
from bundler.store import open_store
from bundler.store.pushing import NewState
from bundler.state.tree import scan

def write(number):
    news = []
    for key in ("shared", f"own-{number}"):
        directory = root / str(number) / key
        directory.mkdir(parents=True)
        (directory / "state").write_text(str(number))
        news.append(NewState(state_of(key, key, scan(directory)), directory))
    open_store(url).push(news)

url, root, first, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
threads = [threading.Thread(target=write, args=(first + n,)) for n in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def news_of(root: Path, states: dict[str, bytes]) -> list[NewState]:
    bundle = make_bundle(root / uuid.uuid4().hex, {key: {"state": v} for key, v in states.items()})
    return [NewState(state, bundle.root / state.path) for state in bundle.manifest.states]


def pulled(store: Store, root: Path) -> dict[str, bytes]:
    if store.current() is None:
        return {}
    target = root / uuid.uuid4().hex
    found = store.currents()
    store.known.pull((version, target / key) for key, version in found.items())
    return {key: (target / key / "state").read_bytes() for key in found}


def check_order(store: Store) -> None:
    """The sets are numbered without a gap, and each rests on the one before."""
    changes = list(store.history())
    assert [change.number for change in changes] == list(range(len(changes), 0, -1))
    keys: dict[str, str | None] = {}
    for change in reversed(changes):
        for move in change.moves:
            assert keys.get(move.key) == move.before
            keys[move.key] = move.after
    current = store.require_current()
    assert {k: e.version for k, e in current.keys.items()} == {k: v for k, v in keys.items() if v}


def test_fifty_writers_in_ten_processes_lose_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    argv = [sys.executable, "-c", WRITER, url, str(tmp_path / "work")]
    writers = [subprocess.Popen([*argv, str(first), "5"]) for first in range(0, 50, 5)]
    seen: list[int] = []
    reader = open_store(url)
    while any(writer.poll() is None for writer in writers):
        current = reader.current()
        if current is not None:
            seen.append(current.number)
            # A writer pushes two keys: a reader of one sees the other.
            mine = current.change.moves[-1].after
            assert {move.key for move in current.change.moves} > {"shared"}
            assert mine == current.keys["shared"].version
    assert [writer.wait() for writer in writers] == [0] * 10
    assert seen == sorted(seen)
    check_order(reader)
    found = pulled(reader, tmp_path)
    assert found.pop("shared") in found.values()
    assert found == {f"own-{n}": b"%d" % n for n in range(50)}
    assert reader.require_current().number == 50


class Dead(BaseException):
    """The writer was killed: nothing of ours runs after it, as no `except Exception` sees it."""


class Mortal(Folder):
    """A folder whose user dies at a given request, before or after it was carried out."""

    def __init__(self, root: Path, left: int, *, after: bool) -> None:
        super().__init__(root)
        self.left = left
        self.after = after
        self.dead = False

    def _pass(self, work: Callable[[], object]) -> object:
        if self.dead:
            raise Dead
        self.left -= 1
        self.dead = self.left < 0
        if self.dead and not self.after:
            raise Dead
        result = work()
        if self.dead:
            raise Dead
        return result

    def get(self, name: str) -> StoredObject | None:
        return self._pass(lambda: Folder.get(self, name))  # type: ignore[return-value]

    def create(self, name: str, data: bytes) -> bool:
        return bool(self._pass(lambda: Folder.create(self, name, data)))

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        return bool(self._pass(lambda: _replace(self.root, name, data, tag)))

    def write(self, name: str, chunks: Iterable[Buffer], size: int) -> None:
        self._pass(lambda: Folder.write(self, name, chunks, size))

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._pass(lambda name=name: Folder.delete(self, [name]))  # type: ignore[misc]

    def list(self, prefix: str) -> Iterator[Listed]:
        found = self._pass(lambda: list(Folder.list(self, prefix)))
        return iter(found)  # type: ignore[call-overload, no-any-return]


def _replace(root: Path, name: str, data: bytes, tag: str) -> bool:
    return Folder(root).replace(name, data, tag)


def mortal(root: Path, left: int, *, after: bool) -> Store:
    objects = Mortal(root, left, after=after)
    return Store(objects, Versions(objects))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("work", ["first push", "push", "rollback", "prune"])
def test_a_writer_killed_at_any_request_leaves_the_old_or_the_new(
    tmp_path: Path, work: str, *, after: bool
) -> None:
    old, new = {"A": b"1", "B": b"1" * 2_000_000}, {"A": b"2", "B": b"2", "C": b"2"}
    before, pushed = news_of(tmp_path, old), news_of(tmp_path, new)
    allowed = {"first push": [{}, new], "push": [old, new], "rollback": [new, old], "prune": [new]}
    for step in range(100):
        root = tmp_path / f"store-{step}"
        whole = open_store(f"file://{root}")
        if work != "first push":
            whole.push(before)
        if work in ("rollback", "prune"):
            whole.push(pushed)
        ended = _work(mortal(root, step, after=after), work, pushed)
        fresh = open_store(f"file://{root}")
        assert pulled(fresh, tmp_path) in allowed[work]
        _goes_on(fresh, tmp_path)
        if ended:
            assert step > 4
            return
    raise AssertionError("it never came to its end")


def _work(store: Store, work: str, news: list[NewState]) -> bool:
    """Whether it came to its end."""
    try:
        if work == "rollback":
            store.rollback()
        elif work == "prune":
            prune.prune(store, prune.PruneRules(keep=1))
        else:
            store.push(news)
    except Dead:
        return False
    return True


def _goes_on(store: Store, root: Path) -> None:
    """The next writer, and the next prune, find nothing in their way."""
    store.push(news_of(root, {"A": b"3"}))
    assert pulled(store, root)["A"] == b"3"
    current = store.require_current()
    assert len(list(store.history())) == current.number - current.oldest + 1
    prune.prune(store, prune.PruneRules(keep=2))
    fresh = open_store(store.url)
    assert not fresh.require_current().retired
    assert not checking.check(fresh).problems


KEYS = st.sampled_from(["A", "B", "C"])
SIZES = st.sampled_from([0, 1, 2, 1_100_000])  # hypothesis would print the bytes themselves


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of commands, compared with plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.url = f"file://{self.root}/store"
        self.sets: list[dict[str, bytes]] = [{}]
        self.pinned: dict[str, tuple[str, bytes]] = {}
        self.oldest = 1

    @property
    def store(self) -> Store:
        return open_store(self.url)

    @property
    def now(self) -> dict[str, bytes]:
        return self.sets[-1]

    def became(self, states: dict[str, bytes]) -> None:
        if states != self.now:
            self.sets.append(states)

    @rule(sizes=st.dictionaries(KEYS, SIZES, min_size=1))
    def push(self, sizes: dict[str, int]) -> None:
        states = {key: b"x" * size for key, size in sizes.items()}
        self.store.push(news_of(self.root, states))
        self.became({**self.now, **states})

    @precondition(lambda self: len(self.sets) > 1)
    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.store.remove([key])
        self.became({k: v for k, v in self.now.items() if k != key})

    @precondition(lambda self: len(self.sets) > 2)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        oldest = self.store.require_current().oldest
        number = data.draw(st.integers(oldest, len(self.sets) - 1))
        then = self.store.at(number)[1]
        if all(map(self.store.known.find, then.values())):
            before = self.store.require_current()
            self.store.rollback(number)
            # Another version is another set, though it may hold the same bytes.
            if then != {key: entry.version for key, entry in before.keys.items()}:
                self.sets.append(self.sets[number])

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.now)))
        version = self.store.require_current().keys[key].version
        self.store.pin(version)
        self.pinned[version] = (key, self.now[key])

    @precondition(lambda self: len(self.sets) > 1)
    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        prune.prune(self.store, prune.PruneRules(keep=keep))

    @invariant()
    def what_is_there_is_what_was_pushed(self) -> None:
        store = self.store
        assert pulled(store, self.root) == self.now
        current = store.current()
        assert (current.number if current else 0) == len(self.sets) - 1
        if current is not None:
            assert not checking.check(store).problems
            assert not current.retired
            assert {pin.version for pin in current.pins} == set(self.pinned)
        for version, (key, value) in self.pinned.items():
            target = self.root / uuid.uuid4().hex
            store.known.pull([(store.version(version), target / key)])
            assert (target / key / "state").read_bytes() == value

    def teardown(self) -> None:
        self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each step is on a disk: no shrinking
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


class Lagging(Folder):
    """A place whose listings show nothing of what was written lately."""

    def list(self, prefix: str) -> Iterator[Listed]:  # nothing of it
        return iter(())


def test_a_listing_that_lags_hides_nothing(tmp_path: Path) -> None:
    objects = Lagging(tmp_path / "store")
    store = Store(objects, Versions(objects))
    for value in (b"1", b"2", b"3"):
        store.push(news_of(tmp_path, {"A": value}))
    prune.prune(store, prune.PruneRules(keep=2))
    assert pulled(store, tmp_path) == {"A": b"3"}
    store.rollback()
    assert pulled(store, tmp_path) == {"A": b"2"}
    assert not checking.check(store).problems


def test_leftovers_go_after_a_day_by_the_stores_clock(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    store.push(news_of(tmp_path, {"A": b"1"}))
    for name, days in (("young", 0.9), ("old", 1.1)):
        path = (
            tmp_path / "store" / "content" / f"{hashlib.sha256(name.encode()).hexdigest()}.00000000"
        )
        path.write_bytes(b"")
        moment = time.time() - days * 86400
        os.utime(path, (moment, moment))
    needed = tmp_path / "store" / store.currents()["A"].objects[0]
    os.utime(needed, (0, 0))
    (left,) = prune.prune(store, prune.PruneRules()).leftovers
    assert hashlib.sha256(b"old").hexdigest() in left
    assert pulled(store, tmp_path) == {"A": b"1"}


def test_an_import_of_a_file_that_is_cut_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = open_objects(f"file://{tmp_path}/source"), open_store(f"file://{tmp_path}/new")
    source.create(f"Foo/{uuid.uuid4()}", b"12")
    monkeypatch.setattr(Folder, "read", lambda *_: b"1")
    with pytest.raises(VerificationFailed, match="changed while it was read"):
        importing.import_dagster(source, target, ["Foo"])
    assert target.current() is None
