"""What a new state is held against, and what stands in for it; with commands as the source."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.errors import (
    BadData,
    BundlerError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
    VerificationFailed,
)
from bundler.listener import Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh import checks, dotenv
from bundler.refresh.command_output import refuse_no_data
from bundler.refresh.run import Refreshed, refresh
from bundler.state import json_entries
from bundler.system import documents
from bundler.system.documents import read_document

KEY = "Vendor[catalogue]"
Refresh = Callable[..., Refreshed]


class Told(Listener):
    def __init__(self) -> None:
        self.words: list[str] = []

    def warning(self, text: str) -> None:
        self.words.append(text)

    note = phase = warning


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def run(root: Path) -> Refresh:
    """Refreshes a project whose one command is a Python script that is given."""

    def run(
        script: str, table: str = "", told: Listener | None = None, **options: object
    ) -> Refreshed:
        root.mkdir(exist_ok=True)
        (root / "fetch.py").write_text(
            f"import json, os, sys, time\npath = sys.argv[1]\n{script}\n"
        )
        (root / "pyproject.toml").write_text(
            f"[tool.state-bundler]\nattempts = 1\n{table}\n[[tool.state-bundler.source]]\n"
            f'key = "{KEY}"\npath = "state"\n'
            'command = ["python", "fetch.py", "{state_path}", "{previous_path}"]\n'
        )
        project = open_project(root, python=Path(sys.executable))
        given = RefreshOptions(**options)  # type: ignore[arg-type]
        return refresh([project], given, told or Listener())

    return run


def writes(value: object) -> str:
    return f"open(path, 'w').write({json.dumps(json.dumps(value))})"


def items(count: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(count)]


@pytest.mark.parametrize(
    ("script", "kind", "sentence"),
    [
        ("sys.exit(3)", ToolFailed, "exit code 3: it printed nothing"),
        ("print('no luck'); sys.exit(1)", ToolFailed, "no luck"),
        ("sys.exit(69)", Unavailable, "exit code 69"),
        ("sys.exit(75)", Unavailable, "exit code 75"),
        ("sys.exit(77)", CredentialsRefused, "exit code 77"),
        ("import urllib.request as u; u.urlopen('http://127.0.0.1:1')", Unavailable, "refused"),
        ("pass", BadData, "the command wrote nothing"),
    ],
)
def test_a_command_is_judged_by_its_exit_code_its_output_and_what_it_wrote(
    script: str, kind: type[BundlerError], sentence: str, run: Refresh
) -> None:
    with pytest.raises(kind, match=sentence) as failed:
        run(script)
    assert failed.value.key == KEY
    assert "Traceback" not in failed.value.what


@pytest.mark.parametrize(
    ("words", "is_warned"),
    [
        (["sh", "-c", "false | echo '[1]' > $0"], True),
        (["/bin/bash", "-uc", "false; echo '[1]' > $0"], True),
        (["bash", "-c", "false\necho '[1]' > $0"], True),
        (["sh", "-c", "test -e x; echo '[1]' > $0"], True),
        (["bash", "-c", "set -u -e; echo '[1]' > $0"], False),
        (["bash", "-c", "set -o errexit\necho '[1]' > $0"], False),
        (["bash", "-c", "set -eo pipefail; echo '[1]' | cat > $0"], False),
        (["bash", "-eo", "pipefail", "-c", "echo '[1]' | cat > $0; true"], False),
        (["sh", "-c", "false || echo '[\"|;\"]' > $0"], False),
        (["sh", "-c", "echo '[1]' > \"$0\""], False),
        (["sh", "-c", "echo \"isn't it\" && echo '[1]' > $0 # it's; good"], False),
        (["sh", "-c", "export A=1; cd . || exit 1; true && \n  echo '[1]' >| $0;\n"], False),
        (["sh", "-c", "if true; then echo '[1]' > $0; else false; fi"], False),
        (["sh", "-c", "cat > $0 <<'END'\n[1,\n1]\nEND\n"], False),
        (["sh", "-c", "cat > $0 <<END\n[1]\nEND\ntrue"], True),
        (["sh", "-c", "export A=$(false); echo '[1]' > $0"], True),
    ],
)
def test_a_shell_that_ignores_failures_is_warned_of(
    words: list[str], *, is_warned: bool, run: Refresh, root: Path
) -> None:
    told = Told()
    run(writes([1]))
    file = root / "pyproject.toml"
    argv = json.dumps([*words, "{state_path}"])
    file.write_text(f"{file.read_text().partition('command =')[0]}command = {argv}\n")
    refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), told)
    assert any("ignores a failure" in word for word in told.words) is is_warned


@pytest.mark.parametrize(
    ("first_line", "mode", "problem"),
    [
        ("#!/bin/sh\r", 0o755, "the interpreter in its first line does not exist"),
        ("#!/bin/sh", 0o644, "Permission denied"),
        ("", 0o755, "Exec format error"),
    ],
)
def test_a_script_that_is_no_program_is_a_sentence(
    first_line: str, mode: int, problem: str, run: Refresh, root: Path
) -> None:
    run(writes([1]))
    (root / "fetch.sh").write_bytes(first_line.encode())
    (root / "fetch.sh").chmod(mode)
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"python"', '"./fetch.sh"'))
    with pytest.raises(ToolFailed, match=f"cannot be started: ./fetch.sh: {problem}") as failed:
        refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), Listener())
    assert "executable" in failed.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("import sys; sys.stdin.read()", "had not finished: "),
        ("import sys; file = open(sys.argv[1], 'a'); sys.stdin.read()", "was still writing state"),
    ],
)
def test_a_process_that_is_left_with_the_path_of_the_state_makes_it_incomplete(
    script: str, problem: str, run: Refresh
) -> None:
    """It has not opened a file yet, as a download that waits for its first bytes."""
    left = (
        "import subprocess; read, write = os.pipe(); os.set_inheritable(write, True)\n"
        f"argv = [sys.executable, '-c', {script!r}, path]\n"
        "subprocess.Popen(argv, stdin=read, start_new_session=True, close_fds=False)\n"
    )
    wait = "while not os.path.exists(path): time.sleep(0.01)\n"
    with pytest.raises(BadData, match=f"it left running {problem}"):
        run(left + (wait if "open" in script else "") + writes([1]))


@pytest.mark.parametrize(
    ("command", "why"),
    [('"no-such-program"', "No such file"), (r'"python", "\u0000"', "embedded null byte")],
)
def test_a_command_that_cannot_be_started_is_a_sentence(
    command: str, why: str, run: Refresh, root: Path
) -> None:
    run(writes([1]))
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"python"', command))
    with pytest.raises(ToolFailed, match=f"the program cannot be started: .*{why}") as failed:
        refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), Listener())
    assert KEY in failed.value.what


_SNAPSHOT = """
import shutil, sqlite3
previous = sys.argv[2]
if os.path.exists(previous):
    os.replace(previous, path)
base = sqlite3.connect(path)
base.execute('CREATE TABLE IF NOT EXISTS days (day)')
base.execute('INSERT INTO days VALUES (1)')
base.commit()
base.close()
"""


def _days(state: Path) -> int:
    (count,) = sqlite3.connect(state).execute("SELECT count(*) FROM days").fetchone()
    return int(count)


@pytest.mark.slow
def test_a_snapshot_starts_from_the_last_one_and_cannot_spoil_it(run: Refresh, root: Path) -> None:
    state = root / "state/Vendor__catalogue__/state"
    for count in (1, 2, 3):
        run(_SNAPSHOT)
        assert _days(state) == count
    with pytest.raises(ToolFailed):
        run(f"{_SNAPSHOT}\nprint(os.path.getsize(path))\nsys.exit(1)")
    assert _days(state) == 3
    state.write_bytes(b"edited")  # no good state any more
    run(_SNAPSHOT)
    assert _days(state) == 1


def test_each_attempt_gets_its_own_copy_of_everything_in_the_last_state(
    run: Refresh, root: Path
) -> None:
    run("os.mkdir(path); open(path + '/a', 'w').write('1'); open(path + '.more', 'w').write('2')")
    looks = """
previous = sys.argv[2]
assert open(previous + '/a').read() + open(previous + '.more').read() == '12'
assert os.path.isabs(previous) and os.access(previous + '/a', os.W_OK)
os.unlink(previous + '/a')
if not os.path.exists('again'):
    open('again', 'w')
    sys.exit(75)
os.mkdir(path); open(path + '/a', 'w').write('3')
"""
    run(looks, table="", defaults=KeyOptions(attempts=2))
    assert (root / "state/Vendor__catalogue__/state/a").read_text() == "3"


def test_without_a_last_state_there_is_nothing_at_its_path(run: Refresh) -> None:
    run(f"assert not os.path.lexists(sys.argv[2]) and os.path.isabs(sys.argv[2])\n{writes([1])}")


def test_the_path_of_the_last_state_does_not_ship(run: Refresh) -> None:
    with pytest.raises(BadData, match="path of the staging directory"):
        run("open(path, 'w').write(sys.argv[2])")


def test_a_state_that_has_shrunk_is_refused_unless_that_is_right(run: Refresh) -> None:
    told = Told()
    run(writes(items(100)), told=told)
    assert any("No baseline" in word for word in told.words)
    run(writes(items(51)))
    run(writes(items(100)))
    with pytest.raises(BadData, match="shrunk from 100 to 20 entries"):
        run(writes(items(20)))
    with pytest.raises(BadData, match="shrunk"):
        run(writes(items(80)), table="shrink = 0.9")
    assert run(writes(items(20)), allow_shrink=(KEY,)).changed == (KEY,)
    assert run(writes(items(1)), table="shrink = 0.0").changed == (KEY,)


@pytest.mark.slow
@pytest.mark.parametrize("log", [[], items(10), None, "none"])
def test_a_volatile_member_may_shrink(log: object, run: Refresh) -> None:
    volatile = 'volatile = ["log"]'
    run(writes({"log": items(1000), "items": items(10)}), table=volatile)
    told = Told()
    done = run(writes({"log": log, "items": items(10)}), table=volatile, told=told)
    assert done.changed == ()
    assert not any("shrunk" in word for word in told.words)
    with pytest.raises(BadData, match="shrunk from 10 to 4 entries"):
        run(writes({"log": items(2000), "items": items(4)}), table=volatile)
    assert run(writes({"log": log, "items": items(9)}), table=volatile).changed == (KEY,)


@pytest.mark.slow
def test_a_state_that_has_shrunk_a_little_less_is_published_loudly(run: Refresh) -> None:
    for now, warned in ((30, False), (15, True), (13, False), (14, False)):
        told = Told()
        assert run(writes(items(now)), told=told).changed == (KEY,)
        assert any("has shrunk from 30 to 15 entries" in word for word in told.words) is warned
    run(writes(items(30)))
    told = Told()
    run(writes(items(15)), told=told, allow_shrink=(KEY,))
    assert not any("has shrunk" in word for word in told.words)


def test_a_state_that_is_no_json_any_more_is_refused_unless_that_is_right(run: Refresh) -> None:
    run(writes(items(9)))
    text = f"open(path, 'w').write({'down for maintenance ' * 99!r})"
    with pytest.raises(BadData, match="from 9 to 0 entries"):
        run(text)
    run(text, f'[tool.state-bundler.keys."{KEY}"]\nshrink = 0')


@pytest.mark.parametrize(
    ("text", "fault", "problem"),
    [
        ("<!DOCTYPE html><p>Sign in", "html", "is an HTML page"),
        ('{"error": {"code": 503, "message": "no"}}', "error-object", "only reports an error"),
        ('{"data": null, "errors": [{"message": "no"}]}', "graphql-errors", "with errors"),
        (json.dumps(items(9999))[:-9], "not-json", "incomplete or malformed"),
    ],
)
def test_an_answer_without_data_is_no_state_of_a_command_unless_that_is_right(
    text: str, fault: str, problem: str, run: Refresh
) -> None:
    script = f"open(path, 'w').write({text!r})"
    with pytest.raises(BadData, match=problem) as failed:
        run(script)
    accept = f'allow-http = ["* * {fault}"]'
    assert accept in failed.value.hint
    run(script, accept)


@pytest.mark.parametrize(
    "text",
    [
        '["a.b"]\nname = 1\n[[list]]\nname = "x"\n',
        '{"a": 1}|5\n{"a": 2}|6\n',
        '{"a": 1}\n// end\n',
        "<html-report><row/></html-report>",
        "<?php echo 1; ?>",
        '<?xml version="1.0"?><!DOCTYPE a [<!-- [b] --><!ENTITY c "]">\n] ><a>&c;</a>',
    ],
)
def test_another_format_that_begins_like_an_answer_is_a_state(text: str, tmp_path: Path) -> None:
    """TOML, a table with a column of JSON, JSON with comments, XML, a program."""
    (tmp_path / "state").write_text(text)
    refuse_no_data(KEY, tmp_path / "state", KeyOptions())


def test_a_state_without_entries_is_compared_by_its_bytes(run: Refresh) -> None:
    run("open(path, 'wb').write(b'x' * 1000)")
    with pytest.raises(BadData, match="shrunk from 1000 to 10 bytes"):
        run("open(path, 'wb').write(b'x' * 10)")


@pytest.mark.parametrize(
    "value", [[], {}, None, "", {"tables": []}, {"n": 0, "items": []}, [[], {}]]
)
def test_what_holds_nothing_is_empty(value: object, run: Refresh) -> None:
    with pytest.raises(BadData, match="the state is empty"):
        run(writes(value))
    assert run(writes(value), allow_empty=("Vendor*",)).changed == (KEY,)


@pytest.mark.parametrize(
    "raw", [b"\n", b" \t\n ", b"\xef\xbb\xbf", *("[]".encode(it) for it in ("utf-8-sig", "utf-16"))]
)
def test_nothing_is_empty_in_every_encoding(raw: bytes, run: Refresh) -> None:
    with pytest.raises(BadData, match="the state is empty"):
        run(f"open(path, 'wb').write({raw!r})")


@pytest.mark.parametrize("module", ["gzip", "bz2", "lzma"])
def test_nothing_stays_nothing_if_it_is_compressed(module: str, run: Refresh) -> None:
    script = f"import {module}; open(path, 'wb').write({module}.compress(text))"
    with pytest.raises(BadData, match="is empty"):
        run(f"text = b''; {script}")
    run(f"text = b'1'; {script}")


@pytest.mark.parametrize("name", ["NaN", r'"\ud83d"'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_whatever_pythons_json_reads_is_compared(encoding: str, name: str, run: Refresh) -> None:
    def tables(count: int) -> str:
        text = json.dumps({"text": "x" * 1000, "tables": items(count)})
        raw = text.replace('"text"', f'"name": {name}, "text"').encode(encoding)
        return f"open(path, 'wb').write({raw!r})"

    run(tables(20))
    with pytest.raises(BadData, match="shrunk from 20 to 2 entries"):
        run(tables(0))


@pytest.mark.parametrize("value", [0, False, [0], {"a": 1}, {"a": [], "b": {"c": [1]}}, "text"])
def test_what_holds_something_is_not_empty(value: object, run: Refresh) -> None:
    assert run(writes(value)).changed == (KEY,)


def test_too_few_entries_are_refused(run: Refresh) -> None:
    with pytest.raises(BadData, match="has 4 entries, fewer than min-entries = 5"):
        run(writes(items(4)), table="min-entries = 5")


_LARGE = "{'rows': [{'id': n, 'n': 'x'} for n in range(%d)]}"


@pytest.mark.slow
def test_the_entries_of_a_state_that_is_not_decoded_are_counted(run: Refresh, root: Path) -> None:
    table = "min-entries = 60001"
    with pytest.raises(BadData, match="has 60000 entries, fewer than min-entries = 60001"):
        run(f"json.dump({_LARGE % 60_000}, open(path, 'w'), indent=8)", table=table)
    # The baseline is not decoded, and the new state is: it has less white space.
    indented = f"json.dump({_LARGE % 60_001}, open(path, 'w'), indent=20)"
    assert run(indented, table=table).changed == (KEY,)
    assert read_document(root / "state/Vendor__catalogue__/state") is None
    told = Told()
    small = f"json.dump({_LARGE % 60_001}, open(path, 'w'), separators=(',', ':'))"
    assert run(small, table=table, told=told).changed == (KEY,)
    assert read_document(root / "state/Vendor__catalogue__/state") is not None
    assert not any("shrunk" in word for word in told.words)
    with pytest.raises(BadData, match="shrunk from 60001 to 20 entries"):
        run(f"json.dump({_LARGE % 20}, open(path, 'w'))")


def test_what_is_too_large_to_count_is_an_error_that_says_so(
    run: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1000)
    monkeypatch.setattr(json_entries, "_MOST_BYTES", 1000)
    with pytest.raises(BadData, match="too large to count its entries, which min-entries"):
        run(writes(items(1000)), table="min-entries = 5")
    run(writes(items(1000)))
    with pytest.raises(BadData, match=r"bytes \(one is too large to count its entries\)"):
        run(writes(items(2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner", ["[]", "{}", pytest.param('{"n": 1, "rows": []}', marks=pytest.mark.slow)]
)
def test_a_large_state_that_holds_nothing_is_empty(inner: str, run: Refresh) -> None:
    with pytest.raises(BadData, match="the state is empty"):
        run(f"open(path, 'w').write('[' + ','.join(['{inner}'] * 400_000) + ']')")


@pytest.mark.parametrize("depth", [300, 600, 5000])
@pytest.mark.parametrize("table", ["", 'volatile = ["at"]'])
def test_a_state_may_be_nested_deeply(depth: int, table: str, run: Refresh) -> None:
    deep = "open(path, 'w').write('[' * {0} + '{1}' + ']' * {0})".format
    assert run(deep(depth, 1), table=table).changed == (KEY,)
    assert run(deep(depth, 2), table=table).changed == (KEY,)


@pytest.mark.parametrize(
    ("document", "table", "refused"),
    [
        ({"generated_at": "now"}, "", "is empty"),
        ({"generated_at": "now", "tables": []}, "", "is empty"),
        ({"generated_at": "now", "run": {"id": 1}}, "", "is empty"),
        ({"generated_at": "now", "version": 1}, "min-entries = 2", "has 1 entry, fewer than"),
        ({"run": items(9), "tables": items(2)}, "min-entries = 3", "has 2 entries, fewer than"),
        ({"generated_at": "now", "version": 1}, "min-entries = 1", None),
    ],
)
def test_volatile_members_are_no_content(
    document: object, table: str, refused: str | None, run: Refresh
) -> None:
    table += '\nvolatile = ["generated_at", "run"]'
    if refused is None:
        run(writes(document), table=table)
    else:
        with pytest.raises(BadData, match=refused):
            run(writes(document), table=table)


@pytest.mark.slow
def test_another_baseline_is_compared_with_and_its_bytes_are_kept(
    run: Refresh, root: Path, tmp_path: Path
) -> None:
    volatile = 'volatile = ["at"]'
    run(writes({"at": 1, "items": items(100)}), table=volatile)
    (root / "state").rename(tmp_path / "other")
    with pytest.raises(BadData, match="shrunk"):
        run(writes({"at": 2, "items": items(3)}), table=volatile, baseline=str(tmp_path / "other"))
    done = run(
        writes({"at": 2, "items": items(100)}), table=volatile, baseline=str(tmp_path / "other")
    )
    written = json.loads((root / "state" / "Vendor__catalogue__" / "state").read_text())
    assert written["at"] == 1
    assert done.bundles[0].manifest.state(KEY) is not None
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BundlerError, match="contains no state directory"):
        run(writes([1]), baseline=str(tmp_path / "nothing"))


def test_what_means_the_same_keeps_its_bytes_and_its_time(
    run: Refresh, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volatile = 'volatile = ["generated_at"]'
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    first = run(writes({"generated_at": "a", "n": [1]}), table=volatile)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "2000")
    second = run(writes({"generated_at": "b", "n": [1]}), table=volatile)
    assert second.changed == ()
    assert first.bundles[0].manifest.raw == second.bundles[0].manifest.raw
    (key,) = second.record[0].keys
    assert (key.fetched, key.confirmed) == ("1970-01-01T00:16:40Z", "1970-01-01T00:33:20Z")
    third = run(writes({"generated_at": "b", "n": [2]}), table=volatile)
    assert third.changed == (KEY,)
    assert third.record[0].keys[0].fetched == "1970-01-01T00:33:20Z"


@pytest.mark.slow
def test_an_older_state_stands_in_only_if_allowed_young_and_for_what_is_unavailable(
    run: Refresh, root: Path
) -> None:
    state = root / "state" / "Vendor__catalogue__" / "state"
    run(writes([1, 2]))
    with pytest.raises(Unavailable):
        run("sys.exit(69)")
    told = Told()
    done = run("sys.exit(69)", told=told, allow_stale=3600.0)
    assert done.record[0].keys[0].stale
    assert json.loads(state.read_text()) == [1, 2]
    assert any("because of --allow-stale" in word for word in told.words)
    time.sleep(1.1)
    with pytest.raises(Unavailable):
        run("sys.exit(69)", allow_stale=1.0)
    with pytest.raises(CredentialsRefused):
        run("sys.exit(77)", allow_stale=3600.0)
    state.write_text("[9]")
    with pytest.raises(Unavailable):
        run("sys.exit(69)", allow_stale=3600.0)


@pytest.mark.parametrize(("ahead", "taken"), [(200, True), (4000, False), (10**8, False)])
def test_a_state_of_the_future_does_not_stand_in(
    run: Refresh, monkeypatch: pytest.MonkeyPatch, ahead: int, taken: bool
) -> None:
    """The clock of the machine that confirmed it was wrong: `verify --max-age` says the same."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(time.time()) + ahead))
    run(writes([1, 2]))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    told = Told()
    if taken:
        assert run("sys.exit(69)", told=told, allow_stale=1e9).record[0].keys[0].stale
        return
    with pytest.raises(Unavailable):
        run("sys.exit(69)", told=told, allow_stale=1e9)
    assert any("confirmed in the future" in word for word in told.words)


def test_never_refreshes_nothing_and_refuses_what_does_not_verify(run: Refresh, root: Path) -> None:
    with pytest.raises(VerificationFailed, match="has no valid state"):
        run(writes([1]), mode="never")
    run(writes([1]))
    assert run("sys.exit(1)", mode="never").changed == ()
    (root / "state" / "Vendor__catalogue__" / "state").write_text("[9]")
    with pytest.raises(VerificationFailed):
        run("sys.exit(1)", mode="never")


def test_missing_asks_only_for_what_does_not_verify(run: Refresh, root: Path) -> None:
    run(writes([1]), mode="missing")
    assert run("sys.exit(1)", mode="missing").changed == ()
    (root / "state" / "Vendor__catalogue__" / "state").write_text("[9]")
    assert run(writes([2]), mode="missing").changed == (KEY,)


def test_the_configuration_of_a_key_decides_unless_the_command_line_does(run: Refresh) -> None:
    run(writes([1]))
    table = f'refresh = "always"\n[tool.state-bundler.keys."{KEY}"]\nrefresh = "missing"'
    assert run("sys.exit(1)", table=table).changed == ()
    with pytest.raises(ToolFailed):
        run("sys.exit(1)", table=table, mode="always")


@pytest.mark.slow
def test_the_whole_refresh_ends_in_time(run: Refresh) -> None:
    with pytest.raises(Unavailable, match="the refresh did not finish within 1 s"):
        run("time.sleep(3600)", total_timeout=1.0)


@pytest.mark.slow
def test_a_key_ends_in_time(run: Refresh) -> None:
    with pytest.raises(Unavailable, match="did not finish within 1 s"):
        run("time.sleep(60)", over_all=KeyOptions(timeout=1.0))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('validate = ["python", "-c", "import sys; sys.exit(\'too odd\')"]', "too odd"),
        ('json-schema = "schema.json"', "does not match"),
    ],
)
def test_a_state_that_the_projects_own_check_refuses_is_bad_data(
    table: str, sentence: str, run: Refresh, root: Path
) -> None:
    root.mkdir()
    (root / "schema.json").write_text('{"type": "array", "items": {"type": "string"}}')
    with pytest.raises(BadData, match=sentence):
        run(writes([1]), table=table)
    code = "import json, sys; json.load(open(sys.argv[1]))"
    good = f'validate = ["python", "-c", "{code}", "{{state_path}}"]'
    run(writes(["a"]), table=f'json-schema = "schema.json"\n{good}')


def _second_project(root: Path, script: str) -> None:
    root.mkdir()
    (root / "pyproject.toml").write_text(
        f'[tool.state-bundler]\nattempts = 1\n[[tool.state-bundler.source]]\nkey = "{KEY}"\n'
        f'path = "state"\ncommand = ["python", "-c", {json.dumps(script)}, "{{state_path}}"]\n'
    )


@pytest.mark.slow
def test_of_several_projects_all_are_published_or_none(
    run: Refresh, root: Path, tmp_path: Path
) -> None:
    run(writes([1]))
    other = tmp_path / "other"
    _second_project(other, "import sys; open(sys.argv[1], 'w').write('[2]')")
    both = [open_project(path, python=Path(sys.executable)) for path in (root, other)]
    done = refresh(both, RefreshOptions(), Listener())
    assert [bundle.root for bundle in done.bundles] == [root / "state", other / "state"]
    (root / "fetch.py").write_text("import sys; open(sys.argv[1], 'w').write('[1, 2]')")
    file = other / "pyproject.toml"
    file.write_text(file.read_text().replace("import sys;", "import sys; sys.exit(69);"))
    both[1] = open_project(other, python=Path(sys.executable))
    with pytest.raises(Unavailable):
        refresh(both, RefreshOptions(), Listener())
    assert (root / "state/Vendor__catalogue__/state").read_text() == "[1]"
    assert (other / "state/Vendor__catalogue__/state").read_text() == "[2]"


def test_too_many_files_are_refused(run: Refresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_FILES", 50)
    script = "os.mkdir(path)\nfor n in range(60): open(f'{path}/{n}', 'w').write('x')"
    with pytest.raises(BadData, match="more than 50 files"):
        run(script)


def test_a_byte_order_mark_in_an_env_file_is_warned_of(
    run: Refresh, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.listener.of_process", told := Told())
    read_by_older = {"values": {"\ufeffA": "1"}, "ignored": []}  # newer ones skip the mark
    monkeypatch.setattr(dotenv, "_ask", lambda *_: read_by_older)
    root.mkdir()
    (root / ".env").write_text("A=1\n", encoding="utf-8-sig")
    run(writes([1]))
    assert [word for word in told.words if "begins with a byte order mark" in word]


@pytest.mark.slow
def test_a_large_state_is_read_with_little_memory(run: Refresh, root: Path) -> None:
    run("open(path, 'w').write('x')")
    script = "import sys\nwith open(sys.argv[1], 'wb') as f: f.seek(150_000_000); f.write(b'x')\n"
    (root / "fetch.py").write_text(script)
    measured = (
        "import sys; from bundler.cli.refresh import refresh\n"
        "refresh(['--python', sys.executable], standalone_mode=False)\n"
        # Not ru_maxrss: a process inherits that of the one that started it.
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured], cwd=root, capture_output=True, text=True, check=True
    )
    kibibytes = int(done.stdout.splitlines()[-1])
    assert kibibytes < 120 * 1024
