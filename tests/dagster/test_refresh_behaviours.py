"""What a component may do wrong: hang, die, leave processes, write what no state may hold."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.errors import BundlerError, ConfigurationError, Locked, Several
from bundler.listener import KeyProgress, Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh.run import Refreshed, discover, refresh
from tests.support.environments import ROOT
from tests.support.recording import RecordingListener

TOKEN = "canary/token+with=signs"


Prepare = Callable[..., Project]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """The project with the behaviours that are named taking part, and a table of configuration."""

    def project(*behaviours: str, table: str = "") -> Project:
        root = tmp_path / "project"
        shutil.copytree(ROOT / "tests/projects/refresh_behaviours", root, dirs_exist_ok=True)
        file = root / "pyproject.toml"
        file.write_text(file.read_text() + f"\n[tool.state-bundler]\n{table}\n")
        monkeypatch.setenv("BEHAVIOURS", " ".join(behaviours))
        monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
        monkeypatch.setenv("VENDOR_TOKEN", TOKEN)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        return open_project(root, python=Path(sys.executable))

    return project


def failures_of(
    project: Project, listener: Listener | None = None, timeout: float = 20.0
) -> dict[str, BundlerError]:
    """What the refresh of each behaviour failed with, by the behaviour's name."""
    options = RefreshOptions(over_all=KeyOptions(timeout=timeout, attempts=2))
    try:
        refresh([project], options, listener or Listener())
    except Several as several:
        failures = several.failures
    except BundlerError as failure:
        failures = (failure,)
    else:
        return {}
    return {(item.key or "")[4:-1]: item for item in failures}


def succeed(project: Project, listener: Listener | None = None) -> Refreshed:
    return refresh([project], RefreshOptions(), listener or Listener())


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("thread", [False, True])
def test_a_child_that_ignores_sigterm_is_killed_with_all_it_has_started(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, thread: bool
) -> None:
    if thread:  # then each key gets its own worker, as it does on macOS
        monkeypatch.setenv("THREAD", "1")
    failures = failures_of(prepare("stubborn", "good"), timeout=3.0)
    assert list(failures) == ["stubborn"]
    assert failures["stubborn"].exit_code == 69
    assert "did not finish within 3 s" in failures["stubborn"].what
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) in (3, 4)
    assert wait_for(lambda: not alive(pids), 1.0), alive(pids)


def test_what_a_component_leaves_running_is_ended_before_its_state_is_read(
    prepare: Prepare, tmp_path: Path
) -> None:
    class Looks(RecordingListener):
        found: list[int] | None = None

        def key(self, progress: KeyProgress) -> None:
            if progress.phase == "done":
                self.found = alive([int((tmp_path / "pids").read_text())])

    listener = Looks()
    succeed(prepare("leaves_a_daemon"), listener)
    assert listener.found == []


COMPLETED = (
    "leaves_a_file_open",
    "leaves_a_thread",
    "leaves_a_pool",
    "leaves_a_process_of_python",
    "leaves_it_to_the_end",
    "leaves_it_to_a_finalizer",
    "leaves_it_to_the_end_of_a_manager",
    "leaves_compressed_text_open",
)


@pytest.mark.parametrize("has", ["", "THREAD", "PROCESS"])
def test_what_a_component_leaves_to_the_end_of_its_process_is_done(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, has: str
) -> None:
    """has: what the project's code has started while it was loaded."""
    if has:
        monkeypatch.setenv(has, "1")
    (bundle,) = succeed(prepare(*COMPLETED)).bundles
    for name in COMPLETED:
        raw = (bundle.root / f"Odd__{name}__" / "state").read_bytes()
        text = gzip.decompress(raw) if "compressed" in name else raw
        assert (len(json.loads(text)), name) == (10_000, name)


def test_the_last_good_state_survives_a_component_that_writes_to_another(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gives(RecordingListener):
        def key(self, progress: KeyProgress) -> None:
            if progress.phase == "done":
                (tmp_path / "word").touch()

    monkeypatch.setenv("WORD", str(tmp_path / "word"))
    project = prepare("good", "alters_another")
    failures = failures_of(project, Gives())
    assert {name: failure.exit_code for name, failure in failures.items()} == {"good": 74}
    assert not (project.root / "src/odd/state/Odd__good__").exists()


def _start(project: Project) -> subprocess.Popen[bytes]:
    script = (
        "import sys; from bundler.cli.refresh import refresh; from bundler.cli.run import run; "
    )
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            script + "sys.exit(run(refresh, sys.argv[1:]))",
            "--python",
            sys.executable,
        ],
        cwd=project.root,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(
    prepare: Prepare, tmp_path: Path, number: signal.Signals
) -> None:
    project = prepare("good")
    succeed(project)
    state = project.root / "src/odd/state"
    before = (state / "@manifest.json").read_bytes()
    process = _start(prepare("stubborn", "good"))
    pids = tmp_path / "pids"
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) >= 3, 15)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)  # what it runs would never end
    assert process.returncode == 128 + number
    assert b"nothing was published" in error
    assert b"Traceback" not in error
    assert wait_for(lambda: not alive([int(pid) for pid in pids.read_text().split()]), 1.0)
    assert (state / "@manifest.json").read_bytes() == before
    assert {path.name for path in (state / "@staging").iterdir()} <= {"lock", "holder"}


def test_when_we_are_killed_our_workers_end_too(prepare: Prepare, tmp_path: Path) -> None:
    process = _start(prepare("stubborn"))
    pids = tmp_path / "pids"
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) >= 3, 15)
    process.kill()
    process.communicate(timeout=10)
    assert wait_for(lambda: not alive([int(pid) for pid in pids.read_text().split()]), 2.0)


def test_what_a_killed_run_left_in_temporary_files_goes_with_the_next_run(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    killed, running = _start(prepare("stubborn")), _start(prepare("stubborn", "good"))
    assert wait_for(lambda: len(list((tmp_path / "temporary").glob("*/lock"))) == 2, 15)
    killed.kill()
    killed.communicate(timeout=10)
    assert len(list((tmp_path / "temporary").iterdir())) == 2
    discover([prepare("good")], RecordingListener())
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert not list((tmp_path / "temporary").iterdir())


def test_of_two_concurrent_refreshes_one_waits_or_says_who_holds_the_lock(
    prepare: Prepare, tmp_path: Path
) -> None:
    process = _start(prepare("stubborn"))
    assert wait_for((tmp_path / "pids").exists, 15)
    with pytest.raises(Locked, match=f"locked by process {process.pid} since"):
        refresh([prepare("good")], RefreshOptions(total_timeout=0.5), Listener())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert succeed(prepare("good")).changed == ("Odd[good]",)


def test_a_failed_key_is_reported_while_others_continue_and_its_reason_once(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = tmp_path / "word"
    monkeypatch.setenv("WORD", str(word))
    shown = []
    with _start(prepare("writes_a_secret", "waits_for_word")) as process:
        for line in process.stderr or ():  # each one as soon as it is written
            shown.append(line.decode().strip())
            if shown[-1].endswith("to find every failure."):
                word.touch()
    assert process.returncode == 77
    why = "state contains the value of VENDOR_TOKEN."
    reported = shown.index("Odd[writes_a_secret]  failed  credentials refused (77)")
    (done,) = [at for at, line in enumerate(shown) if line.startswith("Odd[waits_for_word]  done")]
    assert reported < done < shown.index(f"✗ credentials refused (77): Odd[writes_a_secret]: {why}")
    assert str(shown).count(why) == 1
    assert shown[-1].startswith("1 of 2 keys failed; nothing was published, ")


def test_why_the_only_key_failed_is_reported_once(prepare: Prepare) -> None:
    listener = RecordingListener()
    assert failures_of(prepare("writes_a_secret"), listener)
    last = listener.progress[-1]
    assert (last.key, last.phase) == ("Odd[writes_a_secret]", "failed")
    assert last.detail == "credentials refused (77)"


RIGHT = ("good", "chatters", "looks_at_what_fails", "repeats_what_fails")
EXPECTED = {
    "exits": (71, "exited without reporting a result"),
    "says_exit": (71, "the vendor is tired"),
    "is_killed": (71, "killed by signal 9"),
    "divides": (71, "ZeroDivisionError: division by zero"),
    "prints_a_secret": (71, "RuntimeError: https://vendor.example.org/"),
    "needs_a_variable": (78, "the environment variable NOBODY_SETS_THIS is not set"),
    "writes_nothing": (65, "wrote nothing"),
    "writes_an_empty_list": (65, "the state is empty"),
    "writes_elsewhere": (65, "wrote other, but not the path it was given"),
    "writes_a_link": (65, "a symbolic link"),
    "writes_a_fifo": (65, "a FIFO"),
    "writes_a_socket": (65, "a socket"),
    "writes_a_secret": (77, "state contains the value of VENDOR_TOKEN"),
    "writes_its_path": (65, "contains the path of the staging directory"),
    "leaves_a_program_writing": (65, "it left running was still writing state"),
    "leaves_a_fork": (65, "it left running had not finished: python"),
    "fails_in_a_thread": (71, "RuntimeError: not now"),
    "fails_in_a_task": (71, "RuntimeError: not now"),
    "fails_in_a_future": (71, "RuntimeError: not now"),
    "fails_in_what_a_task_waits_for": (71, "RuntimeError: not now, either"),
    "fails_in_a_task_group": (71, "the component failed: "),
    "fails_in_an_executor": (71, "RuntimeError: not now"),
    "fails_in_the_loop_of_a_thread": (71, "RuntimeError: not now"),
    "fails_in_a_process": (71, "RuntimeError: not now"),
    "fails_in_its_own_process": (71, "RuntimeError: not now"),
    "hides_a_refusal_in_a_fork": (69, "refused the connection"),
    "hides_a_refusal_in_a_spawn": (69, "refused the connection"),
    "hides_a_refusal_in_a_forkserver": (69, "refused the connection"),
    "gives_up_on_a_thread": (69, "had not answered when the component ended"),
    "gives_up_on_a_process": (69, "had not answered when the component ended"),
    "fails_while_a_program_writes": (71, "RuntimeError: not now"),
    "becomes_a_link": (65, "a symbolic link"),
    "fails_in_async": (69, "refused the connection"),
}
if os.geteuid() == 0:  # nobody else can make one
    EXPECTED["writes_a_device"] = (65, "a device")


@pytest.mark.parametrize("thread", [False, True])
def test_everything_a_component_does_wrong_is_one_message(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, *, thread: bool
) -> None:
    if thread:
        monkeypatch.setenv("THREAD", "1")
    listener = RecordingListener()
    failures = failures_of(prepare(*RIGHT, *EXPECTED), listener)
    assert set(failures) == set(EXPECTED)
    for behaviour, (code, sentence) in EXPECTED.items():
        failure = failures[behaviour]
        assert (failure.exit_code, behaviour) == (code, behaviour), failure.what
        assert sentence in failure.what
        assert failure.what.startswith(f"Odd[{behaviour}]: ")
        assert TOKEN not in failure.what + failure.hint
    text = "\n".join([*listener.texts, *(f.what + f.hint for f in failures.values())])
    assert "about to divide" in text
    assert TOKEN not in text
    assert "Bearer [VENDOR_TOKEN]" in text
    assert "\x1b" not in text


def test_what_does_not_belong_into_a_state_is_left_out_and_said(prepare: Prepare) -> None:
    listener = RecordingListener()
    (bundle,) = succeed(prepare("writes_litter"), listener).bundles
    assert [file.path for file in bundle.manifest.states[0].files] == [
        "project/model.sql",
        "project/warehouse.duckdb",
        "state",
    ]
    text = "\n".join(listener.texts)
    for name in (".git", ".venv", ".env", "logs"):
        assert f"project/{name}" in text
    assert "the state contains the database project/warehouse.duckdb" in text


def test_excludes_and_includes_of_a_key_decide(prepare: Prepare) -> None:
    table = (
        '[tool.state-bundler.keys."Odd[writes_litter]"]\n'
        'exclude = ["*.duckdb"]\ninclude = ["project/logs/*", "logs"]'
    )
    (bundle,) = succeed(prepare("writes_litter", table=table)).bundles
    paths = [file.path for file in bundle.manifest.states[0].files]
    assert paths == ["project/logs/dbt.log", "project/model.sql", "state"]


def test_an_empty_state_is_right_where_that_was_said(prepare: Prepare) -> None:
    project = prepare("writes_an_empty_list")
    done = refresh([project], RefreshOptions(allow_empty=("Odd[writes_*",)), Listener())
    assert done.changed == ("Odd[writes_an_empty_list]",)


def test_a_key_without_a_component_is_removed_and_said(prepare: Prepare) -> None:
    succeed(prepare("good", "writes_many"))
    listener = RecordingListener()
    (bundle,) = succeed(prepare("good"), listener).bundles
    assert [state.key for state in bundle.manifest.states] == ["Odd[good]"]
    assert any("Removed Odd__writes_many__" in word for word in listener.texts)
    assert not (bundle.root / "Odd__writes_many__").exists()


def test_the_state_is_where_the_configuration_says(prepare: Prepare) -> None:
    project = prepare("good")
    (bundle,) = succeed(project).bundles
    assert bundle.root == project.root / "src/odd/state"
    assert bundle.place == "odd/state"
    assert json.loads((bundle.root / "Odd__good__/state").read_text()) == [1, 2, 3]
    assert os.listdir(bundle.root / "@staging") != []


def test_an_unknown_key_is_an_error_with_a_suggestion(prepare: Prepare) -> None:
    project = prepare("good")
    with pytest.raises(ConfigurationError, match="No component has the key") as failed:
        refresh([project], RefreshOptions(keys=("Odd[god]",)), Listener())
    assert "Odd[good]" in failed.value.hint


def test_nothing_is_left_in_the_folder_for_temporary_files(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert failures_of(prepare("good", "divides"))
    succeed(prepare("good"))
    assert not list((tmp_path / "temporary").iterdir())
