"""The page that ``status --html`` writes, looked at in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.cli.commands import cli
from bundler.cli.page import page
from bundler.cli.page.values import labels
from bundler.cli.run import run
from bundler.errors import VerificationFailed
from bundler.state.manifest import Build, KeyRefresh, RunRecord
from bundler.workflows.policy import Breach
from bundler.workflows.status import Holder, KeyStatus, Moment
from tests.support.browser import Browser, browser
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.slow

_DAY = 86400.0


def _now() -> float:
    return time.time()  # the page's script has no other clock


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _status(*arguments: str | Path) -> int:
    return run(cli, ["status", *map(str, arguments)])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def _fleet() -> list[Holder]:
    """Three artifacts, of which one cannot be read and one is full of traps."""

    def key(name: str, size: int | None, age: float, *, stale: bool = False) -> KeyStatus:
        refresh = KeyRefresh(name, fetched=_iso(_now() - age), confirmed=_iso(_now() - age / 2),
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
    file.write_text(page(_fleet(), _now()), encoding="utf-8")
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
    click = "document.querySelectorAll('#holder-0 th button')[5].click()"  # Size
    assert [name for name in chromium.value(names) if len(name) == 1] == ["b", "a"]
    chromium.value(click)
    assert [name for name in chromium.value(names) if len(name) == 1] == ["a", "b"]
    chromium.value(click)
    assert [name for name in chromium.value(names) if len(name) == 1] == ["b", "a"]
    sorted_by = "document.querySelectorAll('#holder-0 th')[5].getAttribute('aria-sort')"
    assert chromium.value(sorted_by) == "descending"


_SHOWN = """
  (() => {
    const shown = (rows) => [...document.querySelectorAll(rows)]
      .filter((row) => !row.hidden && !row.closest("section").hidden)
      .map((row) => row.querySelector("code, a").textContent);
    return {
      fleet: shown("table.fleet tbody tr"), keys: shown("table.keys tbody tr"),
      cards: [...document.querySelectorAll(".holder")].filter((card) => !card.hidden).length,
      count: document.getElementById("shown").value,
    };
  })()"""


def _filter(chromium: Browser, words: str, health: str = "any") -> dict[str, object]:
    """What is left on the page: rows of the overview, of keys, and cards."""
    chromium.value(
        f"(filter.value = {json.dumps(words)}, health.value = {json.dumps(health)},"
        " filter.dispatchEvent(new Event('input')))"
    )
    found: dict[str, object] = chromium.value(_SHOWN)
    return found


@pytest.mark.parametrize(
    ("asked", "fleet", "keys"),
    [
        (("SHOP:1", "any"), ["shop:1"], ["b", "a"]),  # an artifact, with all of its keys
        (("orders", "any"), ["shop:2", "shop:3"], ["orders", "orders"]),  # a key
        (("staging", "any"), ["shop:3"], ["orders", "users"]),  # an environment
        (("", "needs attention"), ["shop:2", "shop:3", "cut.pex"], ["users", "orders", "users"]),
        (("", "stale"), ["shop:2"], ["users"]),
        (("orders", "max-age"), ["shop:3"], ["orders"]),
        (("", "dirty"), ["shop:3"], ["orders", "users"]),  # an artifact's word holds for its keys
        (("", "signed"), ["shop:1"], ["b", "a"]),
        (("", "unreadable"), ["cut.pex"], []),
        (("nothing has this", "any"), [], []),
    ],
)
def test_the_filter_keeps_what_matches_in_every_table(
    chromium: Browser, tmp_path: Path, asked: tuple[str, str], fleet: list[str], keys: list[str]
) -> None:
    def key(name: str, *, stale: bool = False) -> KeyStatus:
        return KeyStatus("shop", name, "LOCAL_FILESYSTEM", 5, "1" * 64,
                         refresh=KeyRefresh(name, fetched=_iso(_now()), stale=stale))  # fmt: skip

    staging = RunRecord(build=Build(commit="5" * 40, dirty=True), environment="staging")
    holders = [
        Holder("shop:1", "docker", (key("b"), key("a")), verified=True, signer="ci@acme.example"),
        Holder("shop:2", "docker", (key("orders"), key("users", stale=True)), verified=True),
        Holder("shop:3", "docker", (key("orders"), key("users")), record=staging, verified=True,
               breaches=(Breach("max-age", "orders is too old.", "orders"),)),
        Holder("/home/ci/cut.pex", "unknown", failure=VerificationFailed("It is cut short.")),
    ]  # fmt: skip
    file = tmp_path / "page.html"
    file.write_text(page(holders, _now()), encoding="utf-8")
    chromium.show(file)
    everything = chromium.value(_SHOWN)
    left = _filter(chromium, *asked)
    count = f"{len(keys)} of 6 keys"
    assert left == {"fleet": fleet, "keys": keys, "cards": len(fleet), "count": count}
    assert _filter(chromium, "") == everything


def test_a_projects_keys_can_be_filtered(chromium: Browser, tmp_path: Path) -> None:
    keys = tuple(KeyStatus("shop", name, "LOCAL_FILESYSTEM", 5) for name in ("orders", "users"))
    file = tmp_path / "page.html"
    file.write_text(page([Holder("/home/ci/shop", "project", keys)], _now()), encoding="utf-8")
    chromium.show(file)
    assert chromium.value("document.title") == "State of shop"
    assert _filter(chromium, "user")["keys"] == ["users"]


def test_the_history_of_a_key_is_a_line(chromium: Browser, tmp_path: Path) -> None:
    """Over several artifacts and a store's versions; the same state twice is one point."""

    def holder(name: str, age: float, size: int, entries: int) -> Holder:
        refresh = KeyRefresh("orders", fetched=_iso(_now() - age))
        key = KeyStatus("shop", "orders", "LOCAL_FILESYSTEM", size, f"{size:064x}",
                        entries=entries, refresh=refresh)  # fmt: skip
        once = KeyStatus("shop", "once", "LOCAL_FILESYSTEM", 1, "2" * 64, refresh=refresh)
        return Holder(name, "docker", (key, *[once] * (size == 100)), verified=True)

    stored = Moment("orders", _iso(_now() - 9 * _DAY), 400, "9" * 64, "version 1")
    store = Holder("store:s3://acme", "store", earlier=(stored,))
    artifacts = [holder("shop:1", 3 * _DAY, 100, 10), holder("shop:2", _DAY, 200, 12)]
    file = tmp_path / "page.html"
    held = [*artifacts, holder("shop:again", _DAY, 200, 12), store]
    file.write_text(page(held, _now()), encoding="utf-8")
    chromium.show(file)
    cells = "[...document.querySelectorAll('table.history tbody td')]"
    row = f"{cells}.map(cell => cell.innerText.trim())"
    assert chromium.value(row) == ["orders", "3", "9 d ago", "24 h ago", "400 B → 200 B", "10 → 12"]
    heights = (
        "document.querySelector('table.history polyline').getAttribute('points')"
        ".split(' ').map(point => Number(point.split(',')[1]))"
    )
    first, second, third = chromium.value(heights)
    assert first < third < second  # on a screen, higher is less
    assert chromium.complaints == []


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["/home/ci/shop"], ["shop"]),
        (["/home/ci/a/shop", "/home/ci/b/shop/"], ["a/shop", "b/shop"]),
        (["/srv/shop", "/srv/a-shop"], ["shop", "a-shop"]),
        (["oci:/home/ci/image:1", "oci:build/image"], ["oci:image:1", "oci:build/image"]),
        (["docker://registry.acme.example/shop", "app.pex"], None),
        (["/"], ["/"]),
    ],
)
def test_no_title_names_the_folders_of_the_machine(
    names: list[str], shown: list[str] | None
) -> None:
    assert list(labels(names).values()) == (shown or names)


def test_a_policy_is_judged_for_each_artifact(chromium: Browser, tmp_path: Path) -> None:
    make_bundle(tmp_path / "state", {"orders": {"state": b"[1]"}})
    target = tmp_path / "report.html"
    demands = ("--min-entries", "orders=2", "--require", "users")
    assert _status(tmp_path / "state", *demands, "--html", target) == 1
    chromium.show(target)
    reported = chromium.value(
        "[...document.querySelectorAll('.failure li')].map(li => li.innerText)"
    )
    assert [line.partition(":")[0] for line in reported] == ["require", "min-entries"]
    assert "its state has 1 entry, fewer than 2" in reported[1]
    assert _status(tmp_path / "state", "--min-entries", "1") == 0
    assert _status("--min-entries", "1") == 2  # of what?


def test_a_link_in_the_overview_unfolds(chromium: Browser, fleet_page: Path) -> None:
    chromium.show(fleet_page)
    opened = "document.querySelector('#holder-0 > details').open"
    assert chromium.value(opened) is False
    chromium.value("document.querySelector('table.fleet a').click()")
    deadline = time.monotonic() + 5
    while not chromium.value(opened) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert chromium.value(opened) is True


def test_a_comparison_and_a_project_are_pages_too(chromium: Browser, tmp_path: Path) -> None:
    items = [{"id": number} for number in range(40)]
    make_bundle(tmp_path / "before", {"Gone": {"state": b"[1]"},
                                      "Vendor": {"state": json.dumps(items).encode()}})  # fmt: skip
    make_bundle(tmp_path / "after", {"Vendor": {"state": json.dumps(items[3:]).encode()}})
    target = tmp_path / "report.html"
    baseline = tmp_path / "before"
    assert _status(tmp_path / "after", "--baseline", baseline, "--html", target) == 0
    assert str(tmp_path) not in target.read_text()
    chromium.show(target, width=390)
    reported = chromium.value("document.querySelector('.changes').innerText")
    assert "Gone removed" in reported
    assert "Vendor changed: -3 entries" in reported
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
    file.write_text(page([Holder("shop", "project", keys)], _now()), encoding="utf-8")
    shown = "[...document.querySelectorAll('tbody tr')].map(row => row.innerText.split(/\\s+/))"
    chromium.show(file, width=390)
    assert chromium.value(shown) == [["Calendar", "legacy"], ["Lost", "no", "state", "local"]]
    chromium.show(file, width=1280)
    assert chromium.value("document.querySelectorAll('th').length") == 3  # no others have values


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
        "contents": "2 different",
        "stale": "1",
        "unreadable": "1",
    }
