"""``status``: a project's and an artifact's keys, a fleet from stdin, and the page of them all."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundler.errors import VerificationFailed
from bundler.refresh.model import Component, Found
from bundler.state.directory import DirectoryArtifact
from bundler.workflows.status import of_artifact, of_names, of_sources
from tests.support import forked
from tests.support.bundles import make_bundle
from tests.support.sample import Sample

_BUNDLER = [sys.executable, "-m", "bundler"]
_DAY = 86400.0


def _status(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return forked.said("state-bundler", "status", *arguments, stdin=stdin.encode())


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two state directories: one key changed, one is new, one was removed, one is the same."""
    items = [{"id": number} for number in range(40)]
    before = {"Vendor": json.dumps(items), "Gone": "[1]", "Same": "[1]"}
    after = {"Vendor": json.dumps(items[3:]), "New": "[1, 2]" * 500, "Same": "[1]"}
    for name, states in (("before", before), ("after", after)):
        content = {key: {"state": text.encode()} for key, text in states.items()}
        make_bundle(tmp_path / name, content)
    return tmp_path / "before", tmp_path / "after"


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# --- what is known -----------------------------------------------------------------------------


def test_what_changed_since_a_baseline(two: tuple[Path, Path]) -> None:
    before, after = two
    with DirectoryArtifact(before) as old, DirectoryArtifact(after) as new:
        holder = of_artifact(new, old)
    assert holder.since is not None
    changes = {key.key: (key.kind, key.summary) for key in holder.since.keys}
    assert changes == {
        "Vendor": ("changed", "-3 entries"),
        "New": ("added", ""),
        "Gone": ("removed", ""),
    }
    assert [key.key for key in holder.keys] == ["New", "Same", "Vendor"]
    assert holder.contents is not None
    assert list(holder.contents) == ["."]


def test_of_several_state_directories_it_is_said_of_each(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    """The project has ``a`` and ``b``; the baseline has both at other places, as an image has."""
    before, after = two
    image = tmp_path / "image/app/src"
    shutil.copytree(before, image / "a/state")
    shutil.copytree(before, image / "b/state")

    def found(path: Path, place: str) -> Found:
        keys = ("Vendor", "New", "Same")
        return Found(path, place, tuple(Component(k, "LOCAL_FILESYSTEM", "x") for k in keys))

    sources = [found(before, "a/state"), found(after, "b/state")]
    holder = of_sources("shop", sources, str(tmp_path / "image"))
    assert holder.since is not None
    reported = {
        (key.directory, key.key): change and change.kind
        for key in holder.keys
        for change in [holder.since.of(key.key, key.directory)]
    }
    assert reported["b/state", "Vendor"] == "changed"
    assert (
        reported["a/state", "Vendor"]
        == reported["a/state", "Same"]
        == reported["b/state", "Same"]
        is None
    )
    assert reported["b/state", "New"] == "added"
    gone = [key.key for key in holder.since.keys if key.kind == "removed"]
    assert gone == ["Gone in app/src/b/state"]


def test_of_a_project_it_is_known_who_uses_a_key(tmp_path: Path) -> None:
    def component(key: str, location: str) -> Component:
        return Component(key, "LOCAL_FILESYSTEM", "shop.Vendor", location=location)

    shared = (component("Shared", "defs/a/defs.yaml"), component("Shared", "defs/b/defs.yaml"))
    found = Found(tmp_path / "state", "shop/state", (*shared, component("Own", "")))
    holder = of_sources("shop", [found])
    assert {key.key: key.users for key in holder.keys} == {
        "Own": ("shop.Vendor",),
        "Shared": ("defs/a/defs.yaml", "defs/b/defs.yaml"),
    }
    assert holder.size == 0


def test_one_that_cannot_be_read_does_not_hide_the_others(two: tuple[Path, Path]) -> None:
    (two[0] / "@manifest.json").write_text("{}")
    holders = list(of_names([str(path) for path in two]))
    assert isinstance(holders[0].failure, VerificationFailed)
    assert [key.key for key in holders[1].keys] == ["New", "Same", "Vendor"]


# --- the command -------------------------------------------------------------------------------


def test_a_fleet_comes_from_stdin(two: tuple[Path, Path]) -> None:
    names = [str(path) for path in two]
    done = _status("-", stdin="\n".join([*names, names[0], ""]))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in names] == names
    assert done.stdout.splitlines()[-1] == "2 in total: 6 keys, 3.8 KiB, 2 different contents."
    assert _status("-").returncode == 2
    assert _status("-", *two).returncode == 2


def test_a_member_of_a_fleet_that_fails_fails_the_command_at_the_end(
    two: tuple[Path, Path],
) -> None:
    (two[0] / "@manifest.json").write_text("{}")
    done = _status(*two, "--format", "json")
    assert done.returncode == 76
    first, second = json.loads(done.stdout)["artifacts"]
    assert first["error"]["exitCode"] == 76
    assert [key["key"] for key in second["keys"]] == ["New", "Same", "Vendor"]


def test_the_changes_are_in_the_table_and_in_json(two: tuple[Path, Path]) -> None:
    before, after = two
    shown = _status(after, "--baseline", before).stdout
    assert re.search(r"^Vendor .* -3 entries$", shown, re.MULTILINE)
    assert "Gone was removed." in shown
    (reported,) = json.loads(_status(after, "--baseline", before, "--format", "json").stdout)[
        "artifacts"
    ]
    assert reported["since"]["unchanged"] == 1
    assert {key["key"]: key["kind"] for key in reported["since"]["keys"]} == {
        "Gone": "removed",
        "New": "added",
        "Vendor": "changed",
    }


def test_a_project_names_the_declarations(sample: Sample) -> None:
    done = sample.run(*_BUNDLER, "status", "--format", "json")
    (reported,) = json.loads(done.stdout)["artifacts"]
    assert {key["key"]: key["usedBy"] for key in reported["keys"]} == {
        "DbtProjectComponent[warehouse]": ["src/shop/defs/warehouse/defs.yaml"],
        "ShopCalendar[2026]": ["src/shop/defs/calendar/defs.yaml"],
        "VendorCatalog[products]": ["src/shop/defs/products/defs.yaml"],
        "VendorCatalog[suppliers]": ["src/shop/defs/suppliers/defs.yaml"],
    }


@pytest.mark.parametrize(
    ("columns", "first"), [("120", "KEY"), ("40", "  type local  fetched -  confirmed -")]
)
def test_a_narrow_terminal_gets_lines_instead_of_columns(
    two: tuple[Path, Path], columns: str, first: str
) -> None:
    shown = _on_a_terminal("status", two[0], COLUMNS=columns)
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\r\n")]
    assert any(line.startswith(first) for line in lines), lines
    assert all(len(line) <= int(columns) for line in lines if not line.startswith("/"))


def test_watch_shows_what_changes_until_ctrl_c(two: tuple[Path, Path]) -> None:
    shown = _on_a_terminal("status", "--watch", two[0], interrupt="press Ctrl-C to stop")
    assert "\x1b[H\x1b[2J" in shown
    assert "Vendor" in shown
    assert "nothing was published" not in shown


def _on_a_terminal(*arguments: str | Path, interrupt: str = "", **variables: str) -> str:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*_BUNDLER, *arguments], stdout=theirs, stderr=theirs, stdin=theirs,
        env={**os.environ, "TERM": "xterm", **variables}, start_new_session=True,
        preexec_fn=_hear_ctrl_c,  # noqa: PLW1509  # no other thread runs here
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
                if interrupt and interrupt.encode() in shown:
                    process.send_signal(signal.SIGINT)
                    interrupt = ""
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def _hear_ctrl_c() -> None:
    """A shell lets what it starts with & ignore SIGINT, and so would all that is started here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
