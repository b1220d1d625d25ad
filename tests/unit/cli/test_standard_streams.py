"""Standard streams that are closed, full, or that nobody reads: never a bug, never findings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.fault_campaign import STATES, configure, write_inputs

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
VERIFIER = Path(f"{STATES}/@verify.py")
# Each prints to stdout, or to stderr where it has something against the state.
OUTPUT = (
    "state-bundler status",
    "state-bundler status --format json",
    f"state-bundler verify {STATES}",
    f"state-bundler verify {STATES} --format json",
    f"state-bundler diff {STATES} {STATES}",
    "state-bundler refresh",
    "state-bundler --help",
    "state-bundler update --help",
    "state-guard --help",
    "state-guard --format json",
    "pex-bundle --help",
    "docker-bundle docker-cli-plugin-metadata",
    "docker-bundle bundle build --help",
)
CLOSED_PIPE = 141
# Each is several processes: `make quick` tries two.
_QUICK = ("state-bundler status", "state-guard --format json")
EACH = [
    command if command in _QUICK else pytest.param(command, marks=pytest.mark.slow)
    for command in OUTPUT
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a published state."""
    root = tmp_path_factory.mktemp("streams") / "shop"
    write_inputs(root / "inputs", {"a": {"state": "some"}})
    configure(root, root / "inputs", ["a"])
    subprocess.run(["git", "init", "--quiet", "."], cwd=root, check=True)
    subprocess.run([BIN / "state-bundler", "refresh"], cwd=root, check=True, capture_output=True)
    return root


def run(root: Path, line: str) -> tuple[int, str]:
    """The exit code of a pipe's first command, and what was printed to stderr."""
    done = subprocess.run(
        ["bash", "-c", f"PATH={BIN}:$PATH; {line}; exit ${{PIPESTATUS[0]}}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", EACH)
def test_what_cannot_be_printed_is_an_input_output_error(shop: Path, command: str) -> None:
    for redirection in (">&-", ">/dev/full"):
        code, said = run(shop, f"{command} {redirection}")
        assert code == 74
        if "metadata" not in command:
            assert "standard output: " in said
    assert run(shop, f"{command} >/dev/full 2>&1")[0] == 74
    assert run(shop, f"{command} >&- 2>&-")[0] == 74


@pytest.mark.parametrize("command", EACH)
def test_a_pipe_that_nobody_reads_ends_it_quietly(shop: Path, command: str) -> None:
    # `sleep` keeps the shell from ending the reader later than we write.
    code, said = run(shop, f"(sleep 0.3; exec {command}) | true")
    assert code == CLOSED_PIPE
    assert "rror" not in said


@pytest.mark.parametrize("command", EACH)
def test_nobody_needs_to_read_the_narrative(shop: Path, command: str) -> None:
    assert run(shop, f"{command} 2>&- >/dev/null </dev/null")[0] == 0
    assert run(shop, f"{command} >/dev/null <&-")[0] == 0


def test_a_refresh_whose_log_is_full_ends_with_74(shop: Path) -> None:
    assert run(shop, "state-bundler refresh 2>/dev/full")[0] == 74
    assert run(shop, f"state-bundler verify {STATES}")[0] == 0


def test_no_file_of_ours_becomes_a_standard_stream(shop: Path) -> None:
    """What a component prints must not end up in a state or a journal."""
    assert run(shop, "state-bundler refresh <&- >&- 2>&-")[0] == 74
    assert run(shop, f"state-bundler verify {STATES}")[0] == 0


def test_a_negative_verdict_stays_one_without_a_reader(shop: Path) -> None:
    state = shop / STATES / "a/state"
    before = state.read_bytes()
    state.write_bytes(b"other")
    try:
        for redirection in ("2>&-", "2>/dev/full", ">&- 2>&-"):
            assert run(shop, f"python3 {VERIFIER} {redirection}")[0] == 76
        assert run(shop, f"state-bundler verify {STATES} 2>&-")[0] == 76
    finally:
        state.write_bytes(before)


def test_the_verifier_starts_the_program_whatever_the_streams_are(shop: Path) -> None:
    for redirection in ("", ">&-", "2>&-", ">&- 2>&- <&-"):
        assert run(shop, f"python3 {VERIFIER} sh -c 'exit 3' {redirection}")[0] == 3
    code, said = run(shop, f"python3 {VERIFIER} no-such-program")
    assert code == 71
    assert "no-such-program cannot be started: No such file or directory." in said
