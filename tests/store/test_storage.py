"""Every test here runs on every kind of store."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.artifacts.stored import open_stored
from bundler.artifacts.verify import verify
from bundler.errors import (
    ConfigurationError,
    InputOutputError,
    Locked,
    UsageError,
    VerificationFailed,
)
from bundler.state.manifest import KeyRefresh
from bundler.store import (
    Store,
    checking,
    importing,
    lease,
    open_store,
    pointer,
    prune,
    shards,
)
from bundler.store.pointer import Author
from bundler.store.pushing import NewState
from bundler.store.records import Current, Joined
from bundler.store.store import open_objects
from tests.support.storefixtures import Make, confirmed, contents

ME = Author("ada@build", "a" * 40)
MEBIBYTE = 1024 * 1024


def test_what_was_pushed_comes_back(store: Store, states: Make, tmp_path: Path) -> None:
    large = os.urandom(9 * MEBIBYTE + 17)
    tree = {"state": b"", "project/manifest.json": b"{}", "project/large": large, "project/e": b""}
    assert store.current() is None
    pushed = store.push(states(A=b"one", dbt=tree), ME)
    assert pushed.number == 1
    assert contents(open_store(store.url), tmp_path) == {"A": {"state": b"one"}, "dbt": tree}
    version = open_store(store.url).version(pushed.versions["A"])
    assert (version.by, version.commit) == (ME.by, ME.commit)
    assert not checking.check(store).problems


def test_an_unchanged_state_uploads_nothing(store: Store, states: Make) -> None:
    first = store.push(states(A=b"one", B=b"two" * MEBIBYTE))
    before = {item.name for item in store.objects.list("content")}
    again = open_store(store.url).push(states(A=b"one", B=b"two" * MEBIBYTE))
    assert (again.number, again.versions, again.uploaded) == (1, first.versions, 0)
    assert again.unchanged == ("A", "B")
    assert {item.name for item in store.objects.list("content")} == before


def test_files_that_stay_are_not_uploaded_again(store: Store, states: Make, tmp_path: Path) -> None:
    store.push(states(dbt={"state": b"1", "large": b"x" * 2 * MEBIBYTE}))
    pushed = store.push(states(dbt={"state": b"2", "large": b"x" * 2 * MEBIBYTE}))
    assert (pushed.number, pushed.uploaded) == (2, 1)
    assert contents(store, tmp_path)["dbt"]["state"] == b"2"


def test_a_push_is_one_set(store: Store, states: Make) -> None:
    store.push(states(A=b"1", B=b"1"))
    store.push(states(A=b"2", B=b"2"))
    newest, oldest = store.history()
    assert [move.key for move in newest.moves] == [move.key for move in oldest.moves] == ["A", "B"]
    assert store.at(1)[1] == {move.key: move.after for move in oldest.moves}


def test_rollback(store: Store, states: Make, tmp_path: Path) -> None:
    first = store.push(states(A=b"1", B=b"1"))
    store.push(states(A=b"2"))
    store.push(states(C=b"3"))
    store.rollback()
    assert set(contents(store, tmp_path)) == {"A", "B"}
    store.rollback(first.versions["A"])
    assert contents(store, tmp_path)["A"] == {"state": b"1"}
    store.rollback(2, ["A"])
    assert contents(store, tmp_path) == {"A": {"state": b"2"}, "B": {"state": b"1"}}
    assert [change.action for change in store.history()][:3] == ["rollback"] * 3
    made = store.require_current().change.made
    assert store.rollback(made).number == 6, "nothing to change, so no set"
    with pytest.raises(UsageError, match="has no set from"):
        store.rollback("1999-01-01T00:00:00Z")


def test_confirmation_is_noted_without_a_new_set(
    store: Store, states: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refreshed(moment: str, content: bytes = b"1") -> list[NewState]:
        refresh = KeyRefresh("A", fetched=moment, confirmed=moment)
        return [NewState(new.state, new.directory, refresh=refresh) for new in states(A=content)]

    store.push(refreshed("2026-01-01T00:00:00Z"))
    store.push(refreshed("2026-01-02T00:00:00Z"))
    current = store.require_current()
    assert (current.number, current.keys["A"].confirmed) == (1, "2026-01-02T00:00:00Z")
    store.push(refreshed("2026-01-01T12:00:00Z"))
    assert store.require_current().keys["A"].confirmed == "2026-01-02T00:00:00Z"
    # Whatever reads the state reads that, also after a join, and after a wrong clock.
    shards.stage(store, refreshed("2026-01-03T00:00:00Z"), "7", (1, 1), ME)
    shards.join(store, "7", 1)
    store.push(refreshed("9999-01-01T00:00:00Z"))
    assert confirmed(store) == "9999-01-01T00:00:00Z"
    store.push(refreshed("2026-01-04T00:00:00Z"))
    assert confirmed(store) == "2026-01-04T00:00:00Z"
    store.push(refreshed("9999-01-01T00:00:00Z", b"2"))
    store.push(refreshed("2026-01-05T00:00:00Z", b"2"))
    assert confirmed(store) == "2026-01-05T00:00:00Z", "though the version itself has the other"
    monkeypatch.setattr(
        time, "time", lambda: 1_700_000_000
    )  # this machine's clock is the wrong one
    store.push(refreshed("2023-11-14T22:13:20Z", b"2"))
    assert confirmed(store) == "2026-01-05T00:00:00Z"


def test_a_file_that_changes_meanwhile_is_not_pushed(store: Store, states: Make) -> None:
    news = states(A=b"one", B=b"x" * 2 * MEBIBYTE)
    (news[1].directory / "state").write_bytes(b"y" * 2 * MEBIBYTE)
    with pytest.raises(VerificationFailed, match="changed between hashing"):
        store.push(news)
    assert store.current() is None


def test_prune_keeps_what_is_needed(store: Store, states: Make, tmp_path: Path) -> None:
    versions = [store.push(states(A=b"%d" % n, B=b"same")).versions["A"] for n in range(6)]
    store.pin(versions[1], "the release")
    rules = prune.PruneRules(keep=2, referenced=frozenset({versions[2]}))
    planned = prune.prune(store, rules, dry_run=True)
    assert contents(store, tmp_path, {"A": versions[0]})
    done = prune.prune(store, rules)
    assert done == planned
    assert {version.version for version in done.versions} == {versions[0], versions[3]}
    fresh = open_store(store.url)
    left = {version: fresh.known.find(version) for version in versions}
    assert [left[version] is not None for version in versions] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]
    assert not fresh.require_current().retired
    assert not checking.check(fresh).problems
    assert contents(fresh, tmp_path)["B"] == {"state": b"same"}
    assert contents(fresh, tmp_path, {"A": versions[1]})["A"] == {"state": b"1"}
    assert prune.prune(fresh, rules).versions == ()
    with pytest.raises(UsageError, match="no version"):
        fresh.rollback(versions[0])


def test_prune_keeps_shared_content_and_young_versions(
    store: Store, states: Make, tmp_path: Path
) -> None:
    large = b"x" * 2 * MEBIBYTE
    for n in range(4):
        store.push(states(A={"state": b"%d" % n, "large": large}))
    assert not prune.prune(store, prune.PruneRules(keep=1, older_than=3600)).versions
    done = prune.prune(store, prune.PruneRules(keep=1))
    assert len(done.versions) == 3
    assert done.size == 3, "the large file stays"
    assert contents(store, tmp_path)["A"] == {"state": b"3", "large": large}
    assert store.require_current().oldest == 4
    assert len(list(store.history())) == 1


@pytest.mark.parametrize("pinned", [True, False])
def test_a_rollback_after_a_prune_needs_the_versions_and_not_the_set(
    store: Store, states: Make, tmp_path: Path, pinned: bool
) -> None:
    before = store.push(states(A=b"1", B=b"1")).versions["A"]
    store.push(states(A=b"2"))
    if pinned:
        store.pin(before)
    prune.prune(store, prune.PruneRules(keep=1))
    assert store.require_current().oldest == 2
    if pinned:
        assert store.rollback().number == 3
    else:
        with pytest.raises(UsageError, match="has no set from 1"):
            store.rollback()
    kept = b"1" if pinned else b"2"
    assert contents(store, tmp_path) == {"A": {"state": kept}, "B": {"state": b"1"}}


def test_bit_rot_is_found_and_never_pulled(store: Store, states: Make, tmp_path: Path) -> None:
    store.push(states(A=b"small", B=os.urandom(2 * MEBIBYTE)))
    for key, version in store.currents().items():
        name = version.objects[0]
        data = bytearray(store.objects.read(name, 0, 3 * MEBIBYTE))
        data[len(data) // 2] ^= 1
        store.objects.write(name, [bytes(data)], len(data))
        assert any(key in problem for problem in checking.check(store).problems)
        with pytest.raises(VerificationFailed, match="altered"):
            contents(store, tmp_path, {key: version.version})
    store.objects.delete([store.currents()["A"].objects[0]])
    assert any("missing" in problem for problem in checking.check(store).problems)


def test_an_altered_pointer_is_refused(store: Store, states: Make) -> None:
    store.push(states(A=b"1"))
    stored = store.objects.get("current.json")
    assert stored is not None
    store.objects.replace(
        "current.json", stored.data.replace(b'"number":1', b'"number":1.0'), stored.tag
    )
    with pytest.raises(VerificationFailed, match=r"current\.json"):
        store.current()


def test_a_pointer_that_was_restored_makes_its_own_history(store: Store, states: Make) -> None:
    for value in (b"1", b"2", b"3"):
        store.push(states(A=value))
        if value == b"1":
            restored = store.objects.get("current.json")
    now = store.objects.get("current.json")
    assert now is not None
    assert restored is not None
    store.objects.replace("current.json", restored.data, now.tag)
    for value in (b"4", b"5"):
        store.push(states(B=value))
    assert [move.key for change in store.history() for move in change.moves] == ["B", "B", "A"]


def test_a_lease_keeps_others_away(store: Store) -> None:
    with lease.lease(store.objects, ["A", "B"], "pipeline 1"):
        with pytest.raises(Locked, match="B: pipeline 1 is refreshing"):
            lease.lease(store.objects, ["B", "C"], "pipeline 2").__enter__()
        with lease.lease(store.objects, ["C"], "pipeline 3"):
            pass
        with pytest.raises(Locked, match="Every key: pipeline 1"):
            lease.lease(store.objects, [], "pipeline 4").__enter__()
    with lease.lease(store.objects, [], "pipeline 5") as held:
        held.check()


@pytest.mark.parametrize("new_url", ["file", "s3"], indirect=True)  # it is all waiting
def test_a_lease_is_renewed_and_that_of_a_dead_holder_runs_out(store: Store) -> None:
    with lease.lease(store.objects, ["A"], "alive", length=3.0), pytest.raises(Locked):
        lease.lease(store.objects, ["A"], "waiting", wait=5.0).__enter__()
    dead = lease._Lease(uuid.uuid4().hex, "dead", 0, ("A",))
    lease._acquire(store.objects, dead, 1.0, 0.0)
    with lease.lease(store.objects, ["A"], "next", wait=10.0):
        pass


def test_shards_become_one_set(store: Store, states: Make, tmp_path: Path) -> None:
    store.push(states(A=b"1", B=b"1", C=b"same"))
    shards.stage(store, states(A=b"2"), "run-1", (1, 2), ME)
    assert contents(store, tmp_path)["A"] == {"state": b"1"}, "not before the join"
    with pytest.raises(UsageError, match="no shard 2/2 of run run-1"):
        shards.join(store, "run-1", 2)
    shards.stage(open_store(store.url), states(B=b"wrong", C=b"same"), "run-1", (2, 2), ME)
    shards.stage(open_store(store.url), states(B=b"2", C=b"same"), "run-1", (2, 2), ME)
    joined = shards.join(store, "run-1", 2)
    assert isinstance(joined, Current)
    assert [move.key for move in joined.change.moves] == ["A", "B"]
    assert {k: v["state"] for k, v in contents(store, tmp_path).items()} == {
        "A": b"2",
        "B": b"2",
        "C": b"same",
    }


def test_a_join_that_is_asked_for_again_finds_what_it_did(store: Store, states: Make) -> None:
    for index, value in enumerate((b"1", b"2"), start=1):
        shards.stage(store, states(**{f"K{index}": value}), "run-1", (index, 2), ME)
    left = [item.name for item in store.objects.list("shards")]
    kept = {name: stored.data for name in left if (stored := store.objects.get(name))}
    joined = shards.join(store, "run-1", 2)
    assert isinstance(joined, Current)
    store.push(states(K1=b"newer"))
    for killed in (left[:0], left[:1], left):  # what it had not removed yet
        for name in killed:
            store.objects.create(name, kept[name])
        again = shards.join(open_store(store.url), "run-1", 2)
        assert isinstance(again, Joined)
        assert again.number == joined.number
        assert not [item.name for item in store.objects.list("shards") if item.name in left]
    with pytest.raises(UsageError, match="no shard 1/3, 2/3, 3/3 of run run-1"):
        shards.join(store, "run-1", 3)
    # The whole run once more: what it fetched is joined like any other.
    for index, value in enumerate((b"3", b"4"), start=1):
        shards.stage(store, states(**{f"K{index}": value}), "run-1", (index, 2), ME)
    once_more = shards.join(store, "run-1", 2)
    assert isinstance(once_more, Current)
    assert once_more.number == joined.number + 2


@pytest.mark.parametrize("is_unchanged", [False, True])
def test_a_shard_replaces_no_other_projects(
    is_unchanged: bool, store: Store, states: Make, tmp_path: Path
) -> None:
    """Two projects in one CI run have the same ID."""
    if is_unchanged:
        store.push(states(A=b"1"))
    shards.stage(store, states(A=b"1"), "7", (1, 1), ME)
    with pytest.raises(UsageError, match="1/1 of run 7 was already pushed with other keys: A"):
        shards.stage(open_store(store.url), states(B=b"1"), "7", (1, 1), ME)
    shards.stage(store, states(A=b"2", New=b"1"), "7", (1, 1), ME)
    shards.stage(store, states(B=b"1"), "7-b", (1, 1), ME)
    for run in ("7", "7-b"):
        shards.join(store, run, 1)
    assert set(contents(store, tmp_path)) == {"A", "B", "New"}


def test_every_key_belongs_to_one_shard() -> None:
    for key in (f"Key[{n}]" for n in range(200)):
        assert sum(shards.belongs(key, index, 7) for index in range(1, 8)) == 1
    assert shards.parse_shard("3/10") == (3, 10)
    for wrong in ("0/3", "4/3", "a/b", "3"):
        with pytest.raises(UsageError):
            shards.parse_shard(wrong)


def test_what_dagster_wrote_is_imported(new_url: Callable[[], str], tmp_path: Path) -> None:
    source, target = open_objects(new_url()), open_store(new_url())
    old, new = str(uuid.uuid4()), str(uuid.uuid4())
    source.create(f"Foo__a__/{old}", b"old")
    source.create(f"Foo__a__/{new}", b"new")
    source.create(f"Bar/{uuid.uuid4()}", b"whose?")
    done = importing.import_dagster(source, target, ["Foo[a]"], latest={"Foo[a]": old})
    assert done.versions == {"Foo[a]": (new, old)}
    assert done.unknown == ("Bar",)
    assert contents(target, tmp_path) == {"Foo[a]": {"state": b"old"}}
    assert contents(target, tmp_path, {"Foo[a]": new}) == {"Foo[a]": {"state": b"new"}}
    with pytest.raises(ConfigurationError, match="contains nothing for Baz"):
        importing.import_dagster(source, target, ["Baz"])
    with pytest.raises(ConfigurationError, match=f"contains no version {'0' * 8} for Foo"):
        importing.import_dagster(source, target, ["Foo[a]"], latest={"Foo[a]": "0" * 8})
    with pytest.raises(UsageError, match="Bar has a latest version"):
        importing.import_dagster(source, target, ["Foo[a]"], latest={"Bar": old})
    importing.import_dagster(source, target, ["Foo[a]"])
    assert target.current_ids() == {"Foo[a]": old}, "what was imported before is not current again"
    importing.import_dagster(source, target, ["Foo[a]"], latest={"Foo[a]": new})
    assert target.current_ids() == {"Foo[a]": new}, "unless it is named"


def test_a_store_is_an_artifact(store: Store, states: Make, tmp_path: Path) -> None:
    first = store.push(states(A=b"1", B=os.urandom(9 * MEBIBYTE)))
    store.push(states(A=b"2"))
    artifact = open_stored(f"store:{store.url}")
    verdict = verify(artifact)
    assert not verdict.all_problems
    (found,) = extract(artifact, tmp_path / "out")
    assert (found.target / "A" / "state").read_bytes() == b"2"
    (old,) = extract(open_stored(f"store:{store.url}@1"), tmp_path / "old")
    assert (old.target / "A" / "state").read_bytes() == b"1"
    one = open_stored(f"store:{store.url}@{first.versions['A']}")
    record = one.run_record()
    assert record is not None
    assert [key.origin for key in record.refresh[0].keys] == [f"store:{first.versions['A']}"]


LARGE = """
import sys
from pathlib import Path
from bundler.state.manifest import state_of
from bundler.store import open_store
from bundler.store.pushing import NewState
from bundler.state.tree import scan

root, url = Path(sys.argv[1]), sys.argv[2]
store = open_store(url)
states = [NewState(state_of(path.name, path.name, scan(path)), path) for path in root.iterdir()]
store.push(states)
store.known.pull((version, root / f"pulled-{key}") for key, version in store.currents().items())
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize("new_url", ["s3"], indirect=True)
def test_large_files_take_less_memory_concurrently_than_their_size(
    url: str, tmp_path: Path
) -> None:
    size, count = 32 * MEBIBYTE, 4
    for number in range(count):
        path = tmp_path / "large" / f"K{number}" / "state"
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(MEBIBYTE) * (size // MEBIBYTE))
    argv = [sys.executable, "-c", LARGE, str(tmp_path / "large"), url]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
    assert int(done.stdout) * 1024 < 200e6


# --- faults of a folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 100, 400, 2000, MEBIBYTE])
def test_a_folder_that_takes_no_more_bytes_stays_as_it_is(
    states: Make, tmp_path: Path, most: int
) -> None:
    """The system refuses to write any file beyond a size, as it does where a disk is full."""
    store = open_store(f"file://{tmp_path}/store")
    store.push(states(A=b"1"))
    before = contents(store, tmp_path)
    news = states(A=os.urandom(2 * MEBIBYTE), B=b"2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(InputOutputError):
            store.push(news)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    fresh = open_store(store.url)
    assert contents(fresh, tmp_path) == before
    assert not checking.check(fresh).problems
    fresh.push(news)
    assert contents(fresh, tmp_path)["B"] == {"state": b"2"}


def test_a_place_that_ignores_conditions_is_refused(tmp_path: Path, states: Make) -> None:
    from bundler.store.folder import Folder
    from bundler.store.reading import Versions

    class Careless(Folder):
        def replace(self, name: str, data: bytes, tag: str) -> bool:
            self.write(name, [data], len(data))
            return True

    objects = Careless(tmp_path / "store")
    with pytest.raises(ConfigurationError, match="does not support conditional writes"):
        Store(objects, Versions(objects)).push(states(A=b"1"))


@pytest.mark.parametrize(
    "url",
    ["", "s3://", "ftp://a/b", "/folder", "file://host/x", "file://it", "s3:/x", "file:///a%00"],
)
def test_what_is_not_a_store(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


@pytest.mark.parametrize("name", ["loop", "loop/store", "x" * 300, "file/store"])
def test_a_folder_that_cannot_be_one_is_reported_when_it_is_used(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    store = open_store(f"file://{tmp_path}/{name}")
    with pytest.raises(InputOutputError):
        pointer.make(store.objects)


def test_a_folder_in_git_or_in_a_state_directory_cannot_hold_states(
    tmp_path: Path, states: Make
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    store = open_store(f"file://{tmp_path}/100%25 \u00fc")
    store.push(states(A=b"1"))
    assert open_store(store.url).currents().keys() == {"A"}
    argv = ["git", "-C", tmp_path, "status", "--porcelain", "-uall"]
    assert b"content" not in subprocess.check_output(argv)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/@manifest.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "new/.local_defs_state").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "new/.local_defs_state")
    inside = ("shop/.local_defs_state/store", "other", "other/a/store", "link/store", "linked")
    for folder in inside:
        with pytest.raises(ConfigurationError, match="is in the state directory"):
            open_store(f"file://{tmp_path}/{folder}")


def test_a_url_is_shown_without_credentials() -> None:
    from bundler.store.objects import shown

    assert shown("s3://key:secret@bucket/p?token=x") == "s3://bucket/p"
    with pytest.raises(ConfigurationError) as error:
        open_store("ftp://key:secret@bucket/p?token=x")
    assert "secret" not in str(error.value)


def test_an_artifact_can_be_named_as_a_store(tmp_path: Path, states: Make) -> None:
    url = f"file://{tmp_path}/store"
    open_store(url).push(states(A=b"1"))
    with open_artifact(f"store:{url}") as artifact:
        assert artifact.kind == "store"
