from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler import verify_at_start
from bundler.artifacts.diff import diff
from bundler.artifacts.extract import extract
from bundler.artifacts.verify import Verdict, verify
from bundler.errors import ConfigurationError, InputOutputError, UsageError, VerificationFailed
from bundler.state.directory import DirectoryArtifact
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, RunRecord, canonical, state_of
from bundler.state.statedir import StateDir, check_keys, sanitize_key
from bundler.state.tree import scan
from bundler.workflows import status
from tests.support.examples import scaled
from tests.support.statedirs import NOTHING_FETCHED, publish

STATES = {
    "Shop[eu]": {"state": '{"a": 1}'},
    "dbt": {"state": "", "project/models/a.sql": "select 1", "project/target/manifest.json": "{}"},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A published state directory below ``app/defs``."""
    path = tmp_path / "app" / "defs" / ".local_defs_state"
    publish(StateDir(path, "app/defs/.local_defs_state"), STATES)
    return path


def _verify(path: Path) -> Verdict:
    with DirectoryArtifact(path) as artifact:
        return verify(artifact)


@pytest.mark.parametrize("up", [0, 1, 3])
def test_what_was_published_verifies_from_any_folder_above(directory: Path, up: int) -> None:
    root = [directory, *directory.parents][up]
    verdict = _verify(root)
    assert verdict.all_problems == ()
    assert [len(item.manifest.states) for item in verdict.directories if item.manifest] == [2]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda d: _append(d / "Shop__eu__" / "state"),
            "Shop__eu__/state has 9 bytes instead of 8",
        ),
        (lambda d: (d / "Shop__eu__" / "state").write_text('{"a": 2}'), "state was altered"),
        (lambda d: (d / "dbt" / "project" / "models" / "a.sql").unlink(), "a.sql is missing"),
        (lambda d: (d / "dbt" / "extra").touch(), "dbt/extra is not in the manifest"),
        (lambda d: (d / "Old").mkdir() or (d / "Old" / "state").touch(), "Old/state is not in"),
        (lambda d: (d / ".gitignore").write_text("*\n*/\n.x"), ".gitignore was altered"),
        (lambda d: _append(d / "@verify.py"), "@verify.py has"),
        (lambda d: (d / "@manifest.json").unlink(), "@manifest.json is missing"),
        (lambda d: _append(d / "@manifest.json"), "canonical|trailing"),
        (lambda d: _replace_by_link(d / "Shop__eu__" / "state"), "state is not a regular file"),
        (lambda d: (d / "dbt" / "empty").mkdir(), "dbt/empty is not in the manifest"),
        (lambda d: (d / "dbt" / "state").chmod(0o4644), "dbt/state is a setuid file"),
    ],
)
def test_each_change_is_named(
    directory: Path, tmp_path: Path, change: Callable[[Path], object], sentence: str
) -> None:
    change(directory)
    with pytest.raises(VerificationFailed, match=sentence):
        _verify(directory).raise_for_problems()
    assert verify_at_start.problems(str(directory)) != []
    with DirectoryArtifact(directory) as artifact, pytest.raises(VerificationFailed):
        extract(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _replace_by_link(path: Path) -> None:
    copy = path.with_name("copy")
    path.rename(copy)
    shutil.move(copy, path.parent.parent.parent / "copy")
    path.symlink_to("../../copy")


@pytest.mark.parametrize(
    "read",
    [
        lambda artifact, _: verify(artifact).raise_for_problems(),
        extract,
        lambda artifact, _: diff(artifact, artifact),
        lambda artifact, _: status.of_artifact(artifact),
    ],
)
def test_for_an_artifact_without_state_the_fix_says_how_to_embed_it(
    tmp_path: Path, read: Callable[[DirectoryArtifact, Path], object]
) -> None:
    (tmp_path / "in").mkdir()
    with DirectoryArtifact(tmp_path / "in") as artifact, pytest.raises(VerificationFailed) as error:
        read(artifact, tmp_path / "out")
    assert error.value.what == f"{artifact.name} contains no state directory."
    assert "state-bundler embed" in error.value.hint


def test_a_program_may_add_files_below_a_writable_path_and_change_none(tmp_path: Path) -> None:
    directory = StateDir(tmp_path / "s", "s")
    with directory.staging() as staging:
        target = staging.key_directory("dbt")
        for path in STATES["dbt"]:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text("x")
        state = state_of("dbt", "dbt", scan(target), writable=("project/target",))
        staging.publish([state], (), NOTHING_FETCHED)
    below = directory.path / "dbt" / "project" / "target"
    (below / "run").mkdir()
    (below / "run" / "log").write_text("new")
    assert _verify(directory.path).all_problems == ()
    assert verify_at_start.problems(str(directory.path)) == []
    (below / "manifest.json").write_text("y")
    assert "manifest.json was altered" in _verify(directory.path).all_problems[0]
    assert "manifest.json does not match" in verify_at_start.problems(str(directory.path))[0]
    (below / "manifest.json").unlink()
    assert "manifest.json is missing" in _verify(directory.path).all_problems[0]
    assert "manifest.json is missing" in verify_at_start.problems(str(directory.path))[0]
    (below / "manifest.json").write_text("x")
    (directory.path / "dbt" / "project" / "target2").write_text("x")
    assert _verify(directory.path).all_problems != ()
    assert verify_at_start.problems(str(directory.path)) != []


@pytest.mark.slow
def test_flipped_bits_are_found_in_every_file_that_ships(directory: Path) -> None:
    """Up to 400 bits of each file, spread over the whole, are flipped one after the other."""
    shipped = [
        path
        for path in directory.rglob("*")
        if path.is_file() and "@staging" not in path.parts and path.name != "@run.json"
    ]
    for path in shipped:
        raw = path.read_bytes()
        step = max(1, len(raw) * 8 // 400)
        for bit in range(0, len(raw) * 8, step):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert _verify(directory).all_problems, (path, bit)
        path.write_bytes(raw)
    assert _verify(directory).all_problems == ()


_FILES = st.dictionaries(
    st.sampled_from(["state", "project/a", "project/b"]), st.text(max_size=20), min_size=1
)
_KEYS = st.text(min_size=1, max_size=8).filter(str.isprintable)


def _are_possible(states: dict[str, dict[str, str]]) -> bool:
    try:
        check_keys(states)
    except ConfigurationError:
        return False
    return True


@settings(max_examples=scaled(30))
@given(st.dictionaries(_KEYS, _FILES, min_size=1, max_size=4).filter(_are_possible))
def test_what_is_extracted_is_what_was_published(states: dict[str, dict[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in" / ".local_defs_state"
        published = publish(StateDir(path, "x"), states)
        with DirectoryArtifact(path.parent) as artifact:
            (out,) = extract(artifact, Path(folder) / "out")
        assert out.manifest == published.bundle.manifest
        assert _verify(out.target).all_problems == ()
        for key, files in states.items():
            for name, text in files.items():
                assert (out.target / sanitize_key(key) / name).read_bytes() == text.encode()


def test_extract_refuses_a_state_that_was_altered_and_leaves_nothing_behind(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "Shop__eu__" / "state").write_text('{"a": 2}')
    with (
        DirectoryArtifact(directory) as artifact,
        pytest.raises(VerificationFailed, match="altered"),
    ):
        extract(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".out")]


@pytest.mark.parametrize("where", ["private", "link", "dangling", "here", "left"])
def test_extract_fills_an_empty_directory_and_does_not_replace_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It may be a volume, the current directory, or have its own mode and owner."""
    place = tmp_path / ("new" if where == "dangling" else where)
    if where != "dangling":
        place.mkdir(mode=0o700)
    if where == "left":  # by a run that was killed
        (place / ".states.state-bundler-abcdefgh").mkdir()
    destination = place
    if where in ("link", "dangling"):
        destination = tmp_path / "out"
        destination.symlink_to(place)
    if where == "here":
        monkeypatch.chdir(place)
        destination = Path()
    before = place.stat() if place.exists() else None
    with DirectoryArtifact(directory) as artifact:
        extract(artifact, destination)
    assert (place / "Shop__eu__" / "state").read_text() == '{"a": 1}'
    assert _verify(place).all_problems == ()
    after = place.stat()
    assert before is None or (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not [name for name in os.listdir(place) if name.startswith(".states")]


def test_extract_that_fails_leaves_an_empty_directory_empty(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "Shop__eu__" / "state").write_text('{"a": 2}')
    (tmp_path / "out").mkdir()
    with DirectoryArtifact(directory) as artifact, pytest.raises(VerificationFailed):
        extract(artifact, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("where", ["loop", "file", "file/below", f"{'x' * 300}"])
def test_extract_says_what_cannot_be_a_directory(
    directory: Path, tmp_path: Path, where: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with DirectoryArtifact(directory) as artifact, pytest.raises(InputOutputError):
        extract(artifact, tmp_path / where)


def test_extract_does_not_overwrite(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with DirectoryArtifact(directory) as artifact, pytest.raises(UsageError, match="not empty"):
        extract(artifact, tmp_path / "out")


def test_a_run_record_of_other_states_is_refused(tmp_path: Path) -> None:
    """A record with a younger `confirmed`, taken from another artifact, makes no state younger."""
    places = {}
    for name, text in (("mine", "1"), ("other", "2")):
        path = tmp_path / name / ".local_defs_state"
        published = publish(StateDir(path, "defs"), {"Shop": {"state": text}})
        refresh = DirectoryRefresh("defs", (KeyRefresh("Shop", confirmed="2026-01-02T03:04:05Z"),))
        bound = RunRecord(refresh=(refresh.of(published.bundle.manifest),))
        (path / "@run.json").write_bytes(canonical(bound))
        places[name] = path
    assert _verify(places["mine"]).all_problems == ()
    shutil.copy(places["other"] / "@run.json", places["mine"] / "@run.json")
    with pytest.raises(VerificationFailed, match="describes other states"):
        _verify(places["mine"]).raise_for_problems()


def test_a_bug_in_json_never_escapes(directory: Path) -> None:
    (directory / "@manifest.json").write_text(json.dumps({"predicate": []}))
    assert _verify(directory).all_problems != ()
    assert verify_at_start.problems(str(directory)) != []


@pytest.mark.parametrize("number", [0, 1, 5, 6])
def test_at_the_start_many_bytes_are_checked_as_well_as_few(tmp_path: Path, number: int) -> None:
    """More than 8 MiB are hashed by two threads; each file is checked by one of them."""
    path = tmp_path / ".local_defs_state"
    files = {"state": "", **{f"f{index}": str(index) * 2_000_000 for index in range(6)}}
    publish(StateDir(path, "x"), {"Shop": files})
    assert verify_at_start.problems(str(path)) == []
    name = f"f{number}" if number < 6 else "state"
    with (path / "Shop" / name).open("r+b") as stream:
        stream.write(b"x")
    assert verify_at_start.problems(str(path)) == [f"Shop/{name} does not match the manifest."]
