"""A state directory is read while another process publishes in it: nothing of both is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundler.artifacts.diff import diff
from bundler.artifacts.extract import extract
from bundler.artifacts.verify import verify
from bundler.errors import VerificationFailed
from bundler.project.options import RefreshOptions
from bundler.refresh import directories
from bundler.refresh.model import Found
from bundler.state.artifact import Member
from bundler.state.directory import DirectoryArtifact, StateDirectoryOnDisk
from bundler.state.manifest import Manifest
from bundler.state.statedir import StateDir
from bundler.state.tree import has_dir_hash
from bundler.workflows.status import Holder, of_artifact, of_sources
from tests.support.statedirs import NEW, OLD, PLACE, publish, snapshot


@pytest.fixture
def directory(tmp_path: Path) -> StateDir:
    statedir = StateDir(tmp_path / PLACE, PLACE)
    publish(statedir, OLD)
    return statedir


@pytest.fixture
def publishes_meanwhile(directory: StateDir, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A new set is published between the manifest and the states, and once more while they are
    listed."""
    waiting = [NEW, OLD]
    members = StateDirectoryOnDisk.members

    def slow(read: StateDirectoryOnDisk) -> Iterator[Member]:
        if waiting:
            publish(directory, waiting.pop())
        found = members(read)
        yield next(found)
        if waiting:
            publish(directory, waiting.pop())
        yield from found

    def begin() -> None:
        monkeypatch.setattr(StateDirectoryOnDisk, "members", slow)

    return begin


def _now(directory: StateDir) -> Manifest:
    published = directory.read()
    assert published is not None
    return published.manifest


def _digests(holder: Holder) -> dict[str, str | None]:
    assert holder.failure is None
    return {status.key: status.digest for status in holder.keys}


def test_verify_reads_again(directory: StateDir, publishes_meanwhile: Callable[[], None]) -> None:
    publishes_meanwhile()
    with DirectoryArtifact(directory.path) as artifact:
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    assert [found.manifest for found in verdict.directories] == [_now(directory)]


def test_status_shows_one_set(directory: StateDir, publishes_meanwhile: Callable[[], None]) -> None:
    publishes_meanwhile()
    with DirectoryArtifact(directory.path) as artifact:
        shown = _digests(of_artifact(artifact))
    assert shown == {state.key: state.digest.dir_hash for state in _now(directory).states}


def test_status_of_a_project_shows_one_set(
    directory: StateDir, publishes_meanwhile: Callable[[], None]
) -> None:
    publishes_meanwhile()
    shown = of_sources("shop", [Found(directory.path, PLACE, ())])
    assert shown.failure is None
    assert shown.contents == {PLACE: _now(directory).content_digest}


def test_extract_writes_one_set(
    directory: StateDir, publishes_meanwhile: Callable[[], None], tmp_path: Path
) -> None:
    publishes_meanwhile()
    with DirectoryArtifact(directory.path) as artifact:
        (extracted,) = extract(artifact, tmp_path / "out")
    there, here = snapshot(extracted.target), snapshot(directory.path)
    assert {path: there[path] for path in there if path[0] != "@"} == {
        path: here[path] for path in there if path[0] != "@"
    }
    assert extracted.manifest == _now(directory)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_diff_compares_one_set(
    directory: StateDir, publishes_meanwhile: Callable[[], None], tmp_path: Path
) -> None:
    earlier = StateDir(tmp_path / "earlier" / ".local_defs_state", "earlier")
    publish(earlier, {**OLD, "a": {"state": "[1]"}})
    publishes_meanwhile()
    with DirectoryArtifact(earlier.path) as before, DirectoryArtifact(directory.path) as after:
        difference = diff(before, after)
    assert {key.key for key in difference.keys} == {"a", "b", "c", "gone"}


def test_an_altered_state_is_not_read_again_and_again(directory: StateDir) -> None:
    (directory.path / "a" / "state").write_text("alt a")
    with DirectoryArtifact(directory.path) as artifact:
        assert verify(artifact).all_problems
        with pytest.raises(VerificationFailed, match="altered"):
            extract(artifact, directory.path.parent / "out")


def test_a_publish_that_is_interrupted_meanwhile_is_refused(
    directory: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(read: StateDirectoryOnDisk) -> Iterator[Member]:
        (directory.path / "@staging" / "journal.json").write_text("{}")
        yield from ()

    monkeypatch.setattr(StateDirectoryOnDisk, "members", interrupted)
    with (
        DirectoryArtifact(directory.path) as artifact,
        pytest.raises(VerificationFailed, match="interrupted"),
    ):
        verify(artifact)


def test_a_refresh_takes_one_set(directory: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it keeps and compares with is what the manifest that it read describes."""
    waiting = [NEW, OLD, NEW]

    def slow(root: Path, expected: str) -> bool:
        if waiting:
            publish(directory, waiting.pop())
        return has_dir_hash(root, expected)

    monkeypatch.setattr(directories, "has_dir_hash", slow)
    refreshing = directories.Directory(directory, RefreshOptions())
    manifest = asyncio.run(refreshing.read_baselines(directory))
    assert manifest == _now(directory)
    taken = {key: baseline.state.digest for key, baseline in refreshing.baselines.items()}
    assert taken == {state.key: state.digest for state in manifest.states}
