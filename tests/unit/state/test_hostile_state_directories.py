"""State directories that someone else has prepared: nothing outside is read, moved or changed."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import BundlerError, ConfigurationError, InputOutputError, Locked
from bundler.listener import SILENT
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.state.statedir import StateDir
from tests.support.examples import scaled
from tests.support.hostile import ATTACKS, hash_of, write_journal
from tests.support.statedirs import NEW, OLD, PLACE, publish
from tests.support.untouched import everything
from tests.support.workdir import WorkDir

PROGRAM = Path(sys.executable).with_name("state-bundler")
SOURCE = """\
[project]
name = "shop"
version = "1"

[[tool.state-bundler.source]]
key = "products"
command = ["sh", "-c", "echo state >$0", "{state_path}"]
path = "src/shop/state"
"""


def _project(wd: WorkDir, kind: str, how: str) -> tuple[Path, Path]:
    """A project with a prepared state directory; its home is outside of the repository."""
    home = wd.path.parent / "someone"
    (home / ".ssh").mkdir(parents=True, mode=0o755)
    (home / ".ssh/id_ed25519").write_text("a key")
    (home / ".ssh").chmod(0o755)
    wd.write("pyproject.toml", SOURCE)
    wd.write("src/shop/fetch.py")
    state = wd.path / "src/shop/state"
    ATTACKS[kind](state, home)
    if how == "cloned":
        wd("git add -A -f")
        wd("git commit -qm hostile")
    return state, home


# Whether it came with a clone, or with an archive that git knows nothing of.
HOW = ("cloned", "unpacked")


@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, how) for kind in ATTACKS for how in HOW if how == "unpacked" or "names '" not in kind],
)
def test_a_refresh_touches_nothing_outside(wd: WorkDir, kind: str, how: str) -> None:
    state, _ = _project(wd, kind, how)
    keeps = [path for path in (state / "raw",) if path.exists()]
    before = _files(everything(wd.path.parent, but=[state]))
    raw = [everything(path) for path in keeps]
    error = _failure_of(wd)
    assert _files(everything(wd.path.parent, but=[state])) == before
    if not (kind == "a manifest that came along names data" and how == "unpacked"):
        assert [everything(path) for path in keeps] == raw
    if error is None:
        assert kind in _HARMLESS
        assert (state / "products/state").read_text() == "state\n"
    else:
        assert (error.exit_code in (74, 76, 78), bool(error.hint)) == (True, True), error


def _failure_of(wd: WorkDir) -> BundlerError | None:
    try:
        refresh([open_project(wd.path)], RefreshOptions(), SILENT)
    except BundlerError as error:
        return error
    return None


# What a publish may simply replace, or leave alone.
_HARMLESS = {
    "holder is a link",
    "holder has two names",
    "a set leads elsewhere",
    "a manifest that came along names data",
}


def _files(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Directories with what they hold, but without their times: a new state directory is new."""
    return {k: v[:2] if str(v[0]).startswith("d") else v for k, v in found.items()}


READING = (
    ["status"], ["doctor"], ["guard"], ["verify", "src/shop/state"], ["verify", "."],
    ["diff", "src/shop/state", "."], ["extract", "src/shop/state", "-o", "../elsewhere/taken"],
    ["status", "src/shop/state"],
)  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        *("a journal next to a link to home", "the journal is a fifo", "a set leads elsewhere"),
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in (
                *("staging is a link", "the state directory is a link", "lock is a fifo"),
                *("files of ours are links", "a prepared publish is decided elsewhere"),
            )
        ),
    ],
)
def test_commands_that_read_change_nothing(wd: WorkDir, kind: str) -> None:
    _project(wd, kind, "unpacked")
    (wd.path.parent / "elsewhere").mkdir()
    but = [wd.path.parent / "elsewhere", wd.path.parent / "repository-home/.cache"]
    before = everything(wd.path.parent, but=but)
    for command in READING:
        done = wd.run([PROGRAM, *command])
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 71, 74, 76, 78), (command, done.stderr)
        now = everything(wd.path.parent, but=but)
        assert now == before, command


def test_an_interrupted_publish_is_said_by_those_that_read(wd: WorkDir) -> None:
    wd.write("pyproject.toml", SOURCE)
    wd.write(".gitignore", "/src/shop/state/\n/taken\n")
    wd.commit()
    project = open_project(wd.path)
    refresh([project], RefreshOptions(), SILENT)
    state = wd.path / "src/shop/state"
    write_journal(state, removed=["products"])
    cache = wd.path.parent / "repository-home/.cache"
    before = everything(wd.path.parent, but=[cache])
    for command, code in (
        (["status"], 76), (["verify", "src/shop/state"], 76), (["verify", "."], 76),
        (["diff", "src/shop/state", "src/shop/state"], 76), (["doctor"], 1),
        (["extract", "src/shop/state", "-o", "taken"], 76), (["guard"], 0),
    ):  # fmt: skip
        done = wd.run([PROGRAM, *command])
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == code, (command, said)
        assert everything(wd.path.parent, but=[cache]) == before, command
        if code:
            assert "was interrupted" in said, (command, said)
            assert "state-bundler refresh" in said, (command, said)
    refresh([project], RefreshOptions(), SILENT)
    assert wd.run([PROGRAM, "verify", "src/shop/state"]).returncode == 0


_NAMES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["..", ".", "", "/", "a", "b", "gone", "@staging", ".gitignore", "../x"]),
    st.text(alphabet="./a@\0", max_size=6),
)


@pytest.mark.slow
@settings(max_examples=scaled(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=st.dictionaries(
        _NAMES, st.one_of(st.just(hash_of("x")), st.text(max_size=70)), max_size=3
    ),
    removed=st.lists(_NAMES, max_size=3),
    files=st.lists(st.one_of(_NAMES, st.just("@manifest.json")), max_size=3),
    decided_in=_NAMES,
)
def test_no_journal_reaches_out_of_its_directory(
    tmp_path_factory: pytest.TempPathFactory,
    states: dict[str, str],
    removed: list[str],
    files: list[str],
    decided_in: str,
) -> None:
    root = tmp_path_factory.mktemp("journal")
    (root / "outside").mkdir()
    (root / "outside/data").write_text("x")
    directory = StateDir(root / "in/.local_defs_state", PLACE)
    publish(directory, OLD)
    staging = write_journal(
        directory.path, states=states, removed=removed, files=files, decided_in=decided_in
    )
    (staging / "run").mkdir()
    before = everything(root / "outside")
    with suppress(ConfigurationError, InputOutputError), directory.lock():
        pass
    assert everything(root / "outside") == before
    assert sorted(os.listdir(root)) == ["in", "outside"]
    assert os.listdir(root / "in") == [".local_defs_state"]
    shutil.rmtree(root)


def test_a_directory_of_the_user_survives_a_refresh_next_to_ours(wd: WorkDir) -> None:
    wd.write("pyproject.toml", SOURCE)
    wd.write(".gitignore", "/src/shop/state/\n")
    wd.commit()
    refresh([open_project(wd.path)], RefreshOptions(), SILENT)
    (wd.path / "src/shop/state/notes").mkdir()
    (wd.path / "src/shop/state/notes/a").write_text("mine")
    (wd.path / "src/shop/state/b").write_text("mine")
    before = everything(wd.path / "src/shop/state/notes")
    done = wd.run([PROGRAM, "refresh"])
    assert done.returncode == 0
    assert b"also contains b, notes" in done.stderr
    assert everything(wd.path / "src/shop/state/notes") == before
    doctor = wd.run([PROGRAM, "doctor"])
    assert b"notes" in doctor.stdout + doctor.stderr


@pytest.fixture
def published(tmp_path: Path) -> StateDir:
    directory = StateDir(tmp_path / ".local_defs_state", PLACE)
    publish(directory, OLD)
    return directory


def test_dagsters_own_directory_keeps_what_no_manifest_of_ours_names(published: StateDir) -> None:
    """Dagster itself fills it: a key of ours may replace its own, and nothing removes the rest."""
    for name in ("ByDagster", "a2"):
        (published.path / name).mkdir()
        (published.path / name / "state").write_text("by dagster")
    done = publish(published, {**NEW, "a2": {"state": "new"}})
    assert done.removed == ("gone",)
    assert done.others == ("ByDagster",)
    assert (published.path / "ByDagster/state").read_text() == "by dagster"
    assert (published.path / "a2/state").read_text() == "new"


@pytest.mark.slow
def test_a_deep_and_locked_tree_of_staging_is_removed(published: StateDir) -> None:
    run = published.path / "@staging/run"
    at = run
    at.mkdir()
    here = os.getcwd()
    try:
        os.chdir(at)
        for number in range(2000):
            os.mkdir("d")
            Path(f"f{number}").write_text("x")
            os.chdir("d")
    finally:
        os.chdir(here)
    (run / "locked").mkdir()
    (run / "locked/x").write_text("x")
    (run / "locked").chmod(0o500)
    (run / "link").symlink_to(published.path / "a")
    publish(published, NEW)
    assert (published.path / "a/state").read_text() == "new a"


def test_a_refusal_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("x")
    before = everything(tmp_path)
    with pytest.raises(ConfigurationError, match="contains 'x', which state-bundler did not write"):
        publish(StateDir(tmp_path / "data", "data"), NEW)
    assert everything(tmp_path) == before


def test_a_reader_waits_for_a_publish_and_says_who_publishes(
    published: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.state.statedir._DEFAULT_LOCK_SECONDS", 0.3)
    with published.lock():
        assert published.read() is not None
        write_journal(published.path)
        with pytest.raises(Locked, match=f"process {os.getpid()} since .* is publishing"):
            published.read()
        (published.path / "@staging/journal.json").unlink()
        assert published.read() is not None


# --- the fixes that are printed ---------------------------------------------------------------


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_the_fix_for_a_journal_in_git_works_where_it_is_pasted(
    wd: WorkDir, *, is_on_disk: bool
) -> None:
    directory = StateDir(wd.path / "it's a [state]", PLACE)
    wd.write("it's a [state]/@staging/journal.json", "{}")
    wd.commit()
    if not is_on_disk:
        shutil.rmtree(directory.path)
    with pytest.raises(ConfigurationError) as caught:
        directory.check()
    said, _, rest = caught.value.hint.partition(", then ")
    assert rest == "remove it."
    wd.at("..")(["sh", "-c", said.removeprefix("Run: ")])
    shutil.rmtree(directory.path, ignore_errors=True)
    directory.check()
    assert wd("git ls-files") == ""


@pytest.mark.parametrize(
    "journal",
    [
        pytest.param("{", id="_decoded"),
        pytest.param({"states": {"..": hash_of("x")}}, id="_not_ours"),
        pytest.param({"states": {"a": hash_of("another")}}, id="_is_installed"),
    ],
)
def test_the_fix_for_a_damaged_journal_works_where_it_is_pasted(
    wd: WorkDir, journal: str | dict[str, object]
) -> None:
    directory = StateDir(wd.path / "it's a state", PLACE)
    publish(directory, OLD)
    staging = write_journal(directory.path, **({} if isinstance(journal, str) else journal))
    if isinstance(journal, str):
        staging.joinpath("journal.json").write_text(journal)
    (staging / "run").mkdir(exist_ok=True)
    with pytest.raises((ConfigurationError, InputOutputError)) as caught:
        publish(directory, NEW)
    said, _, rest = caught.value.hint.rpartition("Run: ")[2].partition(", then ")
    assert rest == "refresh again."
    wd.at("..")(["sh", "-c", said])
    publish(directory, NEW)
