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
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.cli.page import page
from bundler.errors import VerificationFailed
from bundler.refresh.sources.model import Component, Found
from bundler.state.directory import DirectoryArtifact
from bundler.state.manifest import KeyRefresh
from bundler.workflows.status import Holder, KeyStatus, of_artifact, of_names, of_sources
from tests.support.browser import Browser, browser
from tests.support.bundles import make_bundle
from tests.support.sample import Sample

_BUNDLER = [sys.executable, "-m", "bundler"]
_NOW = time.time()  # the page's script has no other clock
_DAY = 86400.0


def _status(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_BUNDLER, "status", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two state directories: one key changed, one is new, one is gone, one is the same."""
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
    told = {
        (key.directory, key.key): change and change.kind
        for key in holder.keys
        for change in [holder.since.of(key.key, key.directory)]
    }
    assert told["b/state", "Vendor"] == "changed"
    assert told["a/state", "Vendor"] == told["a/state", "Same"] == told["b/state", "Same"] is None
    assert told["b/state", "New"] == "added"
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


def test_the_changes_stand_in_the_table_and_in_json(two: tuple[Path, Path]) -> None:
    before, after = two
    shown = _status(after, "--baseline", before).stdout
    assert re.search(r"^Vendor .* -3 entries$", shown, re.MULTILINE)
    assert "Gone was removed." in shown
    (told,) = json.loads(_status(after, "--baseline", before, "--format", "json").stdout)[
        "artifacts"
    ]
    assert told["since"]["unchanged"] == 1
    assert {key["key"]: key["kind"] for key in told["since"]["keys"]} == {
        "Gone": "removed",
        "New": "added",
        "Vendor": "changed",
    }


def test_a_project_names_the_declarations(sample: Sample) -> None:
    done = sample.run(*_BUNDLER, "status", "--format", "json")
    (told,) = json.loads(done.stdout)["artifacts"]
    assert {key["key"]: key["usedBy"] for key in told["keys"]} == {
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


# --- the page ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def _fleet() -> list[Holder]:
    """Three artifacts, of which one cannot be read and one is full of traps."""

    def key(name: str, size: int | None, age: float, *, stale: bool = False) -> KeyStatus:
        refresh = KeyRefresh(name, fetched=_iso(_NOW - age), confirmed=_iso(_NOW - age / 2),
                             stale=stale)  # fmt: skip
        return KeyStatus("shop/defs/.local_defs_state", name, "LOCAL_FILESYSTEM", size,
                         f"{len(name):064x}", refresh=refresh, users=(f"defs/{name}",))  # fmt: skip

    hostile = "</script><script>document.title='hacked'</script><img src=x onerror=alert(1)>"
    return [
        Holder("shop:1", "docker", (key("b", 900, _DAY), key("a", 12, 8 * _DAY)),
               contents={"shop": "1" * 64}),
        Holder(hostile, "pex",
               (key(hostile, 5_000_000, 60.0, stale=True), key("\u202egpj", 0, 5.0)),
               contents={"shop": "2" * 64}),
        Holder("broken.pex", "unknown", failure=VerificationFailed("It is cut <b>short</b>.")),
    ]  # fmt: skip


@pytest.fixture
def fleet_page(tmp_path: Path) -> Path:
    file = tmp_path / "fleet.html"
    file.write_text(page(_fleet(), _NOW), encoding="utf-8")
    return file


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_can_be_read(
    chromium: Browser, fleet_page: Path, width: int, dark: bool
) -> None:
    chromium.show(fleet_page, width=width, dark=dark)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value("document.querySelectorAll('table.fleet tbody tr').length") == 3
    ground, ink = (
        chromium.value(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert _contrast(ground, ink) > 7.0  # WCAG's strictest level
    assert (_luminance(ground) < 0.1) is dark
    for name in ("--soft", "--alarm", "--good", "--changed", "--accent"):
        probe = f"document.querySelector('h1').style.color = 'var({name})'"
        colour = chromium.value(f"({probe}, getComputedStyle(document.querySelector('h1')).color)")
        assert _contrast(ground, colour) >= 4.5, name
    assert chromium.value("innerWidth") == width


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_nothing_from_an_artifact_runs_and_nothing_is_asked_for(
    chromium: Browser, fleet_page: Path
) -> None:
    chromium.show(fleet_page)
    assert chromium.complaints == []
    assert chromium.requests == [fleet_page.resolve().as_uri()]
    assert chromium.value("document.title") == "State of 3 artifacts"
    assert chromium.value("document.querySelectorAll('script, img').length") == 1
    assert "\\u202e" in fleet_page.read_text()


def test_even_a_script_that_got_in_does_not_run(chromium: Browser, fleet_page: Path) -> None:
    smuggled = "<script>document.title='hacked'</script></main>"
    fleet_page.write_text(fleet_page.read_text().replace("</main>", smuggled))
    chromium.show(fleet_page)
    assert chromium.value("document.title") == "State of 3 artifacts"
    assert any("Content Security Policy" in text for text in chromium.complaints)


def test_the_columns_sort_up_and_down(chromium: Browser, fleet_page: Path) -> None:
    chromium.show(fleet_page)
    names = "[...document.querySelectorAll('#holder-0 tbody code')].map(c => c.textContent)"
    click = "document.querySelectorAll('#holder-0 th button')[4].click()"  # Size
    assert [name for name in chromium.value(names) if len(name) == 1] == ["b", "a"]
    chromium.value(click)
    assert [name for name in chromium.value(names) if len(name) == 1] == ["a", "b"]
    chromium.value(click)
    assert [name for name in chromium.value(names) if len(name) == 1] == ["b", "a"]
    sorted_by = "document.querySelectorAll('#holder-0 th')[4].getAttribute('aria-sort')"
    assert chromium.value(sorted_by) == "descending"


def test_the_filter_leaves_what_matches_and_a_link_unfolds(
    chromium: Browser, fleet_page: Path
) -> None:
    chromium.show(fleet_page)
    chromium.value("(filter.value = 'SHOP:1', filter.dispatchEvent(new Event('input')))")
    visible = "[...document.querySelectorAll('table.fleet tbody tr')].filter(r => !r.hidden).length"
    assert chromium.value(visible) == 1
    opened = "document.querySelector('#holder-0 > details').open"
    assert chromium.value(opened) is False
    chromium.value("document.querySelector('table.fleet a').click()")
    deadline = time.monotonic() + 5
    while not chromium.value(opened) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert chromium.value(opened) is True


def test_a_comparison_and_a_project_are_pages_too(
    chromium: Browser, two: tuple[Path, Path], tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    done = _status(two[1], "--baseline", two[0], "--html", target)
    assert (done.returncode, done.stdout) == (0, "")
    chromium.show(target, width=390)
    told = chromium.value("document.querySelector('.changes').innerText")
    assert "Gone removed" in told
    assert "Vendor changed: -3 entries" in told
    assert chromium.value("document.querySelectorAll('table.fleet').length") == 0
    assert chromium.complaints == []


def test_a_phone_shows_a_key_as_a_card_without_what_is_not_known(
    chromium: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    keys = (
        KeyStatus("shop", "Calendar", "LEGACY_CODE_SERVER_SNAPSHOTS", None, None),
        KeyStatus("shop", "Lost", "LOCAL_FILESYSTEM", None, None),
    )
    file.write_text(page([Holder("shop", "project", keys)], _NOW), encoding="utf-8")
    shown = "[...document.querySelectorAll('tbody tr')].map(row => row.innerText.split(/\\s+/))"
    chromium.show(file, width=390)
    assert chromium.value(shown) == [["Calendar", "legacy"], ["Lost", "local", "no", "state"]]
    chromium.show(file, width=1280)
    assert len(chromium.value(shown)[0]) == 6


def test_the_figures_are_those_that_matter(chromium: Browser, fleet_page: Path) -> None:
    chromium.show(fleet_page)
    figures = chromium.value(
        "Object.fromEntries([...document.querySelectorAll('.figures div')]"
        ".map(d => [d.children[0].textContent, d.children[1].textContent]))"
    )
    assert figures == {
        "keys": "4",
        "size": "4.8 MiB",
        "oldest confirmed": "4 d ago",
        "different contents": "2",
        "stale": "1",
        "unreadable": "1",
    }
