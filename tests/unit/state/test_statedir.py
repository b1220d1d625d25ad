from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler import verify_at_start
from bundler.errors import ConfigurationError, InputOutputError, Locked
from bundler.state.manifest import state_of
from bundler.state.statedir import StateDir, check_keys, sanitize_key
from bundler.state.tree import scan
from tests.support.examples import scaled
from tests.support.statedirs import (
    NEW,
    NOTHING_FETCHED,
    OLD,
    PLACE,
    Died,
    failure_of,
    fill,
    interrupt,
    publish,
    snapshot,
)


@pytest.fixture
def directory(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / ".local_defs_state", PLACE)


def test_a_directory_that_does_not_exist_has_published_nothing(directory: StateDir) -> None:
    assert directory.read() is None
    assert directory.bundle() is None
    assert not directory.path.exists()


def test_publish_makes_a_directory_that_verifies_itself(directory: StateDir) -> None:
    publish(directory, {"Shop[eu]": {"state": "1"}, "dbt": {"state": "", "project/a.sql": "2"}})
    assert verify_at_start.problems(str(directory.path)) == []
    done = subprocess.run([sys.executable, "-I", directory.path / "@verify.py"], check=False)
    assert done.returncode == 0
    assert (directory.path / "Shop__eu__" / "state").read_text() == "1"
    assert (directory.path / ".gitignore").read_bytes() == b"*\n*/\n.*"
    assert not list((directory.path / "@staging").glob("run"))


@pytest.mark.parametrize("what", ["altered", "removed", "a link", "altered where it is published"])
def test_what_is_not_what_was_checked_is_not_published(directory: StateDir, what: str) -> None:
    """While one key is checked, the component of another may write anywhere."""
    publish(directory, OLD)
    before = snapshot(directory.path)
    with directory.staging() as staging:
        kept = [state_of("b", "b", scan(directory.path / "b"))]
        states = [*fill(staging, {"a": NEW["a"]}), *kept]
        if what == "altered where it is published":
            (directory.path / "b" / "state").write_text("another")
            before["b/state"] = b"another"
        elif what == "altered":
            (staging.path / "a" / "state").write_text("another")
        else:
            shutil.move(staging.path / "a", staging.path / "other")
            if what == "a link":
                (staging.path / "a").symlink_to("other")
        with pytest.raises(InputOutputError, match=r"is not the state of [ab] that was checked"):
            staging.refuse_altered(states)
    assert snapshot(directory.path) == before


@pytest.mark.parametrize("mode", [0o000, 0o600, 0o666, 0o777, 0o444])
def test_a_state_is_readable_and_only_its_owners_to_change(directory: StateDir, mode: int) -> None:
    with directory.staging() as staging:
        states = fill(staging, {"a": {"state": "1", "project/part": "2"}})
        for path in (staging.path / "a/state", staging.path / "a/project/part"):
            path.chmod(mode & 0o777)
        (staging.path / "a/project").chmod(mode & 0o777 | 0o700)
        staging.publish(states, (), NOTHING_FETCHED)
    for path in (directory.path / "a", *(directory.path / "a").rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o400
        assert path.stat().st_mode & (wanted | 0o002) == wanted, (path, oct(path.stat().st_mode))


def test_the_same_states_make_the_same_manifest(tmp_path: Path) -> None:
    states = {"b": {"state": "1"}, "a": {"state": "2"}}
    one = publish(StateDir(tmp_path / "one", PLACE), states)
    two = publish(StateDir(tmp_path / "two", PLACE), dict(reversed(states.items())))
    assert one.bundle.manifest.raw == two.bundle.manifest.raw


def test_keys_without_a_component_are_removed_and_named(directory: StateDir) -> None:
    publish(directory, {"old": {"state": "1"}, "kept": {"state": "2"}})
    done = publish(directory, {"kept": {"state": "2"}})
    assert done.removed == ("old",)
    assert sorted(path.name for path in directory.path.iterdir()) == [
        ".gitignore", "@manifest.json", "@run.json", "@staging", "@verify.py", "kept",
    ]  # fmt: skip


def test_a_state_that_was_not_staged_stays(directory: StateDir) -> None:
    publish(directory, {"a": {"state": "1"}, "b": {"state": "1"}})
    before = directory.read()
    assert before is not None
    with directory.staging() as staging:
        target = staging.key_directory("a")
        (target / "state").write_text("2")
        staging.key_directory("b")
        staging.discard("b")
        kept = before.manifest.state("b")
        assert kept is not None
        done = staging.publish((state_of("a", "a", scan(target)), kept), (), NOTHING_FETCHED)
    assert done.changed == ("a",)
    assert verify_at_start.problems(str(directory.path)) == []
    assert (directory.path / "b" / "state").read_text() == "1"


def test_a_file_becomes_a_directory(directory: StateDir) -> None:
    publish(directory, {"a": {"state": "1"}})
    publish(directory, {"a": {"state/part": "1"}})
    assert snapshot(directory.path)["a/state/part"] == b"1"


def test_staging_that_is_not_published_leaves_nothing(directory: StateDir) -> None:
    publish(directory, {"a": {"state": "1"}})
    before = snapshot(directory.path)
    with directory.staging() as staging:
        (staging.key_directory("a") / "state").write_text("2")
    assert snapshot(directory.path) == before
    assert not (directory.path / "@staging" / "run").exists()


def test_a_second_writer_learns_who_holds_the_lock(directory: StateDir) -> None:
    with directory.lock(), pytest.raises(Locked, match=f"process {os.getpid()} since 20"):
        _lock_elsewhere(directory)


def _lock_elsewhere(directory: StateDir) -> None:
    code = (
        "import sys; from pathlib import Path; from bundler.state.statedir import StateDir\n"
        "from bundler.errors import Locked\n"
        "try:\n"
        "    with StateDir(Path(sys.argv[1]), 'x').lock(timeout=0.1): pass\n"
        "except Locked as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, directory.path], capture_output=True, text=True, check=True
    )
    raise Locked(done.stdout)


@pytest.mark.parametrize("key", ["", ".", "..", ".gitignore", "x" * 300, "a\x1b[2Jb"])
def test_unsafe_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_keys([key])
    assert repr(key) in caught.value.what


@pytest.mark.parametrize("pair", [("F[a/b]", "F[a:b]"), ("Shop", "shop"), ("a__b", "a/b")])
def test_keys_that_would_share_a_directory_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="would share the directory"):
        check_keys(pair)


def test_one_key_may_be_used_by_several_components() -> None:
    check_keys(["Shop", "Shop"])


@given(st.text(max_size=40))
def test_a_key_that_is_accepted_makes_one_safe_directory_name(key: str) -> None:
    try:
        check_keys([key])
    except ConfigurationError:
        return
    name = sanitize_key(key)
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert not name.startswith("@")


# --- interruptions ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kill", pytest.param("ENOSPC", marks=pytest.mark.slow)])
def test_an_interruption_anywhere_leaves_the_old_set_or_the_new(tmp_path: Path, kind: str) -> None:
    whole = {}
    for name, states in (("old", OLD), ("new", NEW)):
        publish(StateDir(tmp_path / name, PLACE), states)
        whole[name] = snapshot(tmp_path / name)
    at, outcomes = 0, set()
    while True:
        at += 1
        directory = StateDir(tmp_path / f"{at}", PLACE)
        publish(directory, OLD)
        with pytest.MonkeyPatch.context() as patch:
            count = interrupt(patch, at, lambda: failure_of(kind))
            with suppress(Died, InputOutputError, OSError):  # OSError: the test's own writes
                publish(directory, NEW)
        if count[0] < at:
            break
        for key in ("a", "b"):  # at any moment each key is old or new, bit for bit
            found = (directory.path / key / "state").read_text()
            assert found in (f"old {key}", f"new {key}"), at
        with directory.lock():
            pass
        after = snapshot(directory.path)
        assert after in whole.values(), at
        outcomes.add("new" if after == whole["new"] else "old")
        assert verify_at_start.problems(str(directory.path)) == []
        assert set(os.listdir(directory.path / "@staging")) - {"lock"} == {"holder"}, at
    assert at > 20
    assert outcomes == {"old", "new"}


def test_a_damaged_journal_is_an_error(directory: StateDir) -> None:
    publish(directory, OLD)
    (directory.path / "@staging" / "journal.json").write_text("{")
    with pytest.raises(InputOutputError, match=r"journal\.json is damaged"), directory.lock():
        pass


@pytest.mark.parametrize("name", ["../x", "a/b", ".."])
def test_a_journal_cannot_name_a_path_outside(directory: StateDir, name: str) -> None:
    publish(directory, OLD)
    journal = {"states": {name: "0" * 64}, "removed": [], "files": []}
    (directory.path / "@staging" / "journal.json").write_text(json.dumps(journal))
    with pytest.raises(ConfigurationError, match="it names"), directory.lock():
        pass


@pytest.mark.slow
def test_many_concurrent_publishes_leave_one_whole_set(tmp_path: Path) -> None:
    directory = StateDir(tmp_path / "many", PLACE)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_publish_number, args=(directory, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    texts = {(directory.path / key / "state").read_text() for key in ("a", "b")}
    assert len(texts) == 1
    assert verify_at_start.problems(str(directory.path)) == []


def _publish_number(directory: StateDir, number: int) -> None:
    for _ in range(5):
        publish(directory, {key: {"state": f"{number}"} for key in ("a", "b")})


@settings(max_examples=scaled(30))
@given(st.data())
def test_every_flipped_bit_is_found_at_the_start(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        directory = StateDir(Path(folder) / "d", PLACE)
        publish(directory, NEW)
        names = sorted(set(snapshot(directory.path)) - {"@run.json"})
        path = directory.path / data.draw(st.sampled_from(names))
        raw = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        assert verify_at_start.problems(str(directory.path)) != []
