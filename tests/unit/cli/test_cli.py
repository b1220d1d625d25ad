from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from bundler import errors
from bundler.cli.commands import cli
from bundler.cli.console import Console, age, safe, size, width
from bundler.cli.options import MANAGEMENT_TYPES, REFRESH_MODES
from bundler.cli.page.values import ago
from bundler.cli.progress import ConsoleListener
from bundler.cli.run import report, run
from bundler.listener import KeyProgress
from bundler.state.manifest import canonical
from tests.support import forked
from tests.support.bundles import make_bundle, make_record

_FUTURE = b"9000-01-01T00:00:00Z"


def _fails(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.fixture(autouse=True)
def _own_sigterm() -> object:
    """`run` takes SIGTERM over for the whole process; the test run gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


_ALL = [
    error
    for error in vars(errors).values()
    if isinstance(error, type)
    and issubclass(error, errors.BundlerError)
    and "exit_code" in vars(error)
]


@pytest.mark.parametrize("kind", _ALL)
def test_every_expected_failure_is_a_block_with_its_own_code(
    kind: type[errors.BundlerError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_fails(kind("It broke.", hint="Fix it.")), []) == kind.exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"({kind.exit_code}): It broke." in shown.err
    assert "Fix it." in shown.err
    assert "Traceback" not in shown.err


def test_exit_codes_are_unique() -> None:
    codes = [kind.exit_code for kind in _ALL]
    assert sorted(codes) == [1, 2, 65, 69, 70, 71, 74, 75, 76, 77, 78]


def test_several_failures_are_all_listed_and_the_most_serious_decides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = errors.Several(
        [errors.Unavailable("A is down."), errors.CredentialsRefused("B said no.")]
    )
    assert run(_fails(both), []) == 77
    shown = capsys.readouterr().err
    assert "(69): A is down." in shown
    assert "(77): B said no." in shown
    assert "2 failures" in shown


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((69, 65), 69), ((76, 1), 76), ((143, 70), 143), ((78, 77, 74), 78), ((75, 71), 71), ((), 0)],
)
def test_the_order_of_exit_codes(codes: tuple[int, ...], expected: int) -> None:
    failures = []
    for code in codes:
        failure = errors.Findings("x")
        failure.exit_code = code  # type: ignore[misc]  # any code will do here
        failures.append(failure)
    assert errors.exit_code_of(failures) == expected


def test_a_bug_writes_a_log_to_paste_without_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.group()
    def group() -> None:
        pass

    @group.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    def build(words: tuple[str, ...]) -> None:
        raise ZeroDivisionError(*words) from KeyError(*words)

    monkeypatch.setattr(sys, "argv", ["/usr/bin/state-bundler"])
    words = ["build", "--build-arg=TOKEN=hunter2", "-thunter2", "--push", "hunter2", "--hunter=2"]
    assert run(group, words) == 70
    shown = capsys.readouterr().err
    log = Path(shown.rpartition("with ")[2].strip().rstrip("."))
    reported = log.read_text()
    log.unlink()
    assert "hunter2" not in shown + reported
    assert "command: state-bundler build --build-arg -t --push … --hunter\n" in reported
    for name in ("state-bundler", "Python", "platform", "pex", "git", "docker"):
        assert re.search(rf"^{name}: \S", reported, re.MULTILINE), name
    assert reported.index("builtins.KeyError") < reported.index("builtins.ZeroDivisionError")
    assert "test_cli.py" in reported


def test_a_childs_own_exit_code_passes_through() -> None:
    assert run(_fails(errors.ChildFailed("docker", 17)), []) == 17


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_fails(error), []) == 130
    assert "Stopped by signal 2 (SIGINT)." in capsys.readouterr().err


def test_a_wrong_option_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_fails(RuntimeError()), ["--nonsense"]) == 2
    assert "Unknown option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("refresh --refresh missing", "Did you mean '--when'?"),
        ("build oci --when missing -o x", "Did you mean '--refresh'?"),
        ("status -C x", "Did you mean '--project'?"),
        ("-C x status", "Unknown option '-C'.\n"),
        ("refresh --projct x", "Did you mean '--project'?"),
    ],
)
def test_an_option_of_another_command_is_named_as_it_is_called_here(
    words: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, words.split()) == 2
    assert near in capsys.readouterr().err


def test_sigterm_is_143_and_cleans_up(tmp_path: Path) -> None:
    code = (
        "import sys, time, click; from bundler.cli.run import run\n"
        "@click.command()\n"
        "def command():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    except Exception: pass\n"
        "    finally: open(sys.argv[1], 'w').close()\n"
        "sys.exit(run(command, []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "cleaned"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=20)
    assert process.returncode == 143
    assert (tmp_path / "cleaned").exists()
    assert "Traceback" not in shown


def test_a_closed_pipe_causes_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bundler --help | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("::set-output name=x::y", ": :set-output name=x::y"),
        ("ok\n  ::error::x", "ok\n  : :error::x"),
        ("##vso[task.setvariable]x", "# #vso[task.setvariable]x"),
        ("\u202eright", "\\u202eright"),
    ],
)
def test_text_from_outside_steers_neither_terminal_nor_ci(text: str, shown: str) -> None:
    assert safe(text) == shown


def _stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "✗"), ("ascii", "x"), ("latin-1", "x")])
def test_a_stream_without_unicode_gets_plain_signs(encoding: str, sign: str) -> None:
    stream = _stream(encoding)
    Console(stream, {}).failure(errors.BadData("日本"))
    stream.seek(0)
    assert stream.read().startswith(f"{sign} bad data (65): ")


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_follow_the_environment(environ: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[" in Console(_stream("utf-8"), environ).styled("x", "red")) is coloured


def test_a_table_is_aligned() -> None:
    stream = _stream("utf-8")
    Console(stream, {}).table(("KEY", "SIZE"), [("a", "10 B"), ("long key", "1 B")], "SIZE")
    stream.seek(0)
    assert stream.read().splitlines() == ["KEY       SIZE", "a         10 B", "long key   1 B"]


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 57, 80])
def test_a_terminal_breaks_no_word(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    words = (
        "VendorCatalog[products]: 127.0.0.1 refused the connection, das Länderkürzel 日本語  too."
    )
    hint = "a line to copy stays whole, however wide the terminal is: git rm -r --cached -- state"
    stream = _Terminal()
    console = Console(stream, {})
    listener = ConsoleListener(console)
    listener.note(words)
    listener.warning(words)
    listener.key(KeyProgress("Key", "failed", detail=words))
    console.failure(errors.Unavailable(f"{words}\n{words}", hint=hint))

    assert "\x1b[31m" in stream.getvalue(), "coloured, which takes no room"
    *lines, last = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert last == f"  Fix: {hint}"
    assert all(width(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()).count(" ".join(words.split())) == 5
    assert len(lines) >= 10


def test_without_a_terminal_lines_are_passed_on_unchanged() -> None:
    stream = _stream("utf-8")
    ConsoleListener(Console(stream, {})).warning("word " * 100 + "end")
    stream.seek(0)
    assert stream.read() == f"warning: {'word ' * 100}end\n"


def test_quiet_keeps_warnings() -> None:
    stream = _stream("utf-8")
    listener = ConsoleListener(Console(stream, {}), quiet=True)
    listener.phase("phase")
    listener.note("note")
    listener.warning("careful")
    stream.seek(0)
    assert stream.read() == "warning: careful\n"


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB")]
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        *((5, "5s"), (180, "3m"), (3 * 3600, "3h"), (3 * 86400, "3d")),
        *((-9, "0s"), (-301, "future"), (-86400, "future")),
    ],
)
def test_ages(passed: int, shown: str) -> None:
    now = 1_800_000_000
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - passed))
    assert age(moment, now) == shown
    assert ("in the future" in ago(moment, now)) == (shown == "future")
    assert age(None) == "-"


def test_a_state_of_the_future_is_not_shown_as_new(tmp_path: Path) -> None:
    """The clock of the machine that refreshed it was wrong."""
    bundle = make_bundle(tmp_path / "app/shop/defs/.local_defs_state", {"Shop": {"state": b"1"}})
    record = canonical(make_record(bundle)).replace(b'"attempts":1', b'"confirmed":"%s"' % _FUTURE)
    (bundle.root / "@run.json").write_bytes(record)
    program = Path(sys.executable).with_name("state-bundler")
    for command, shown in (
        ("verify", "oldest state confirmed in the future"),
        ("status", "future"),
    ):
        done = forked.run([program, command, "app"], cwd=tmp_path, env=dict(os.environ))
        assert (done.returncode, shown.encode() in done.stdout) == (0, True), done


def test_the_choices_are_the_models() -> None:
    from typing import get_args

    from bundler.project.options import RefreshMode
    from bundler.state.manifest import ManagementType

    assert get_args(ManagementType) == MANAGEMENT_TYPES
    assert get_args(RefreshMode) == REFRESH_MODES


@pytest.mark.parametrize(
    "name",
    [
        "",
        "init",
        "doctor",
        "status",
        "refresh",
        "guard",
        "build",
        "build pex",
        "build oci",
        "update",
        "verify",
        "predicate",
        "sign",
        "diff",
        "extract",
        "demo",
    ],
)
def test_every_command_has_help(name: str) -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    done = forked.said("state-bundler", *name.split(), "--help", env=environment)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout
    assert all(
        len(line) <= 80 or "MANAGEMENT" in line or "|" in line for line in done.stdout.splitlines()
    )


_REFRESHING = """
import time, click
from bundler.cli.options import narrator
from bundler.cli.run import run
from bundler.errors import Unavailable
from bundler.listener import KeyProgress

@click.command()
def command():
    listener = narrator()
    listener.key(KeyProgress("Slow[eu]", "fetching", 1))
    time.sleep(0.5)
    listener.warning("careful")
    listener.key(KeyProgress("Quick", "done", 1, 1024, 0.1))
    raise Unavailable("It is down.")

raise SystemExit(run(command, []))
"""


@pytest.mark.parametrize(("variables", "live"), [({}, True), ({"CI": "1"}, False)])
def test_a_terminal_shows_what_is_under_way_and_keeps_what_was_reported(
    variables: dict[str, str], live: bool
) -> None:
    import pty

    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    with subprocess.Popen(
        [sys.executable, "-c", _REFRESHING],
        stderr=theirs, env={**environ, "TERM": "xterm", "COLUMNS": "80", **variables},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = _read_all(ours)
    assert process.returncode == 69
    assert ("fetching" in shown) is live
    reported = [line.strip() for line in shown.replace("\r", "\n").split("\n")]
    assert any(line.endswith("careful") for line in reported)
    assert any("Quick  done  1.0 KiB" in line for line in reported)
    assert "It is down." in shown
    assert ("\x1b[?25l" in shown) is live  # rich hides the cursor …
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l")  # … and gives it back


def _read_all(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(descriptor)
    return b"".join(parts).decode()


def test_the_same_advice_for_several_failures_is_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [errors.Findings(f"{name}.", hint=fix, why="W.") for name, fix in ("ax", "bx", "cy")]
    with pytest.raises(errors.Several) as failed:
        errors.raise_all(found)
    report(failed.value)
    lines = [
        line.partition("findings (1): ")[2] or line.strip()
        for line in capsys.readouterr().err.splitlines()
    ]
    assert lines == [
        *("a.", "b.", "Why: W.", "Fix: x", "c.", "Why: W.", "Fix: y"),
        "3 failures; exit code 1.",
    ]
