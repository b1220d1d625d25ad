"""Says at the end of a run which tests it left out, why, and how to run them.

Tests are left out by a target of make that selects others, and where a program is missing that
cannot be installed: without root, or on macOS. As root on Debian nothing is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import pytest

_BEGINNING = "left out: "
_DESELECTED = pytest.StashKey[dict[str, int]]()


def leave_out(why: str, remedy: str) -> NoReturn:
    """Ends the test, or the fixture, without a verdict."""
    pytest.skip(f"{_BEGINNING}{why} ({remedy})")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        modules = item.config.stash.setdefault(_DESELECTED, {})
        module = item.nodeid.partition("::")[0]
        modules[module] = modules.get(module, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands on what it deselected; each of them deselects the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash.get(_DESELECTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    config: pytest.Config = getattr(node, "config")  # noqa: B009  # of xdist, which has no types
    config.stash[_DESELECTED] = dict(getattr(node, "workeroutput", {}).get("deselected", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    reasons: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for report in terminalreporter.stats.get("skipped", ()):
        _, _, why = report.longrepr
        if _BEGINNING in why:
            module = report.nodeid.partition("::")[0]
            reasons[why.partition(_BEGINNING)[2]][module] += 1
    if deselected := config.stash.get(_DESELECTED, {}):
        chosen = " and ".join(
            f"{option} {value!r}"
            for option, value in (("-m", config.option.markexpr), ("-k", config.option.keyword))
            if value
        )
        reasons[f"not selected by {chosen or 'the command line'} (make test)"] = deselected
    if reasons:
        terminalreporter.section("left out")
        for line in described(reasons):
            terminalreporter.line(line)


def described(reasons: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    """For each reason the modules, with the number of their tests."""
    for why, modules in sorted(reasons.items()):
        count = sum(modules.values())
        yield f"{count} {'test' if count == 1 else 'tests'}: {why}"
        yield from (f"  {module} ({modules[module]})" for module in sorted(modules))
