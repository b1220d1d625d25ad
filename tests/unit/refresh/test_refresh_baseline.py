"""What a new state is compared with, with commands as the source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundler.errors import (
    BadData,
    BundlerError,
)
from bundler.project.options import KeyOptions
from bundler.refresh.command_output import refuse_no_data
from bundler.state import json_entries
from bundler.system import documents
from bundler.system.documents import read_document
from tests.support.recording import RecordingListener
from tests.support.scripts import KEY, Refresh, items, writes


def test_a_state_that_has_shrunk_is_refused_unless_that_is_right(run: Refresh) -> None:
    listener = RecordingListener()
    run(writes(items(100)), listener=listener)
    assert any("No baseline" in word for word in listener.texts)
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
    listener = RecordingListener()
    done = run(writes({"log": log, "items": items(10)}), table=volatile, listener=listener)
    assert done.changed == ()
    assert not any("shrunk" in word for word in listener.texts)
    with pytest.raises(BadData, match="shrunk from 10 to 4 entries"):
        run(writes({"log": items(2000), "items": items(4)}), table=volatile)
    assert run(writes({"log": log, "items": items(9)}), table=volatile).changed == (KEY,)


@pytest.mark.slow
def test_a_state_that_has_shrunk_a_little_less_is_published_with_a_warning(run: Refresh) -> None:
    for now, warned in ((30, False), (15, True), (13, False), (14, False)):
        listener = RecordingListener()
        assert run(writes(items(now)), listener=listener).changed == (KEY,)
        assert any("has shrunk from 30 to 15 entries" in word for word in listener.texts) is warned
    run(writes(items(30)))
    listener = RecordingListener()
    run(writes(items(15)), listener=listener, allow_shrink=(KEY,))
    assert not any("has shrunk" in word for word in listener.texts)


def test_a_state_that_stops_being_json_is_refused_unless_allowed(run: Refresh) -> None:
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
def test_a_response_without_data_is_not_a_state_unless_allowed(
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
    listener = RecordingListener()
    small = f"json.dump({_LARGE % 60_001}, open(path, 'w'), separators=(',', ':'))"
    assert run(small, table=table, listener=listener).changed == (KEY,)
    assert read_document(root / "state/Vendor__catalogue__/state") is not None
    assert not any("shrunk" in word for word in listener.texts)
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


def test_a_baseline_with_what_is_published_changes_nothing(
    run: Refresh, root: Path, tmp_path: Path
) -> None:
    run(writes([1]))
    shutil.copytree(root / "state", other := tmp_path / "other")
    assert run(writes([1]), baseline=str(other)).changed == ()
    assert run(writes([2]), baseline=str(other)).changed == (KEY,)
    assert run(writes([1]), baseline=str(other)).changed == (KEY,), "it differs from the published"


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
