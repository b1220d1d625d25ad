"""``doctor`` for several projects: what they share, a line for each, then what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.cli.console import Console, safe
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.setup.doctor import Examined, Finding

_SIGNS = {"ok": ("✓", "ok", "green"), "warn": ("!", "!", "yellow"), "fail": ("✗", "x", "red")}
# The only successful checks that get a line.
_WORTH_A_LINE = ("repository", "interpreter")


def show(
    console: Console,
    home: Path,
    reports: Mapping[Path, Sequence[Examined]],
    unnamed: Sequence[Path],
) -> None:
    """Shows everything but the failures. unnamed: the projects that no workspace names."""
    shared = _shared(list(reports.values()))
    console.line(console.styled(f"{counted(len(reports), 'project')} in {home}", "bold", "cyan"))
    for (title, _), finding in reversed(shared.items()):
        if finding.grade != "ok" or title in _WORTH_A_LINE:
            show_finding(console, finding)
    for root, checks in reports.items():
        _line(console, _name(home, root), checks, shared)
    for root in unnamed:
        what = f"{_name(home, root)}: no workspace names it, so it was not checked."
        console.warning(what, indent="  ")
    for root, checks in reports.items():
        if own := [finding for finding in _wrong(checks, shared) if finding.grade == "warn"]:
            console.line(console.styled(_name(home, root), "bold"))
            for finding in own:
                show_finding(console, finding)


def show_finding(console: Console, finding: Finding, *, why: bool = True) -> None:
    """Shows a finding that is not a failure."""
    reason = finding.why if why else ""
    if finding.grade == "warn":
        console.warning(finding.what, reason, finding.fix, indent="  ")
    elif finding.grade == "ok":
        first = f"  {sign(console, finding.grade)} "
        console.paragraph(safe(finding.what), indent="    ", first=first)
        console.reason(reason, finding.fix, indent="    ")


def sign(console: Console, grade: str) -> str:
    """The symbol of a grade."""
    unicode, plain, colour = _SIGNS[grade]
    return console.styled(console.sign(unicode, plain), colour)


def distinct(reports: Mapping[Path, Sequence[Examined]]) -> Iterator[Finding]:
    """Every finding that is shown, once. Of several projects, each finding names the file."""
    shared, is_alone = _shared(list(reports.values())), len(reports) == 1
    yield from reversed(shared.values())
    for root, checks in reports.items():
        for finding in _wrong(checks, shared, is_alone=is_alone):
            yield finding if finding.where or is_alone else replace(finding, where=_declared(root))


def _shared(reports: Sequence[Sequence[Examined]]) -> dict[tuple[str, str], Finding]:
    """The findings about each project with state, or the repository, by check and text."""
    concerned = [checks for checks in reports if not _is_stateless(checks)]
    found = [
        ((check.title, finding.what), finding, check.is_shared)
        for checks in concerned or reports
        for check in checks
        for finding in check.findings
    ]
    counts = Counter(key for key, _, _ in found)
    everywhere = max(2, len(concerned or reports))
    return {
        key: finding for key, finding, is_shared in found if is_shared or counts[key] == everywhere
    }


def _line(
    console: Console,
    name: str,
    checks: Sequence[Examined],
    shared: Mapping[tuple[str, str], Finding],
) -> None:
    found = [finding.grade for finding in _wrong(checks, shared)]
    counts = {"failure": found.count("fail"), "warning": found.count("warn")}
    told = [f"{count} {noun}{'s' * (count > 1)}" for noun, count in counts.items() if count]
    if _is_stateless(checks):
        told.insert(0, "no state-backed components")
    worst = "fail" if counts["failure"] else "warn" if counts["warning"] else "ok"
    console.line(f"  {sign(console, worst)} {name}" + (f": {', '.join(told)}" if told else ""))


def _wrong(
    checks: Sequence[Examined],
    shared: Mapping[tuple[str, str], Finding],
    *,
    is_alone: bool = False,
) -> Iterator[Finding]:
    """A project's own warnings and failures. Of several projects, one without state is not warned
    about its state."""
    is_stateless = not is_alone and _is_stateless(checks)
    for check in checks:
        for finding in check.findings:
            is_ours = (check.title, finding.what) not in shared
            if is_ours and (
                finding.grade == "fail" or (finding.grade == "warn" and not is_stateless)
            ):
                yield finding


def _declared(root: Path) -> str:
    files = (root / name for name in ("pyproject.toml", "dg.toml"))
    return os.path.relpath(next((file for file in files if file.is_file()), root))


def _is_stateless(checks: Sequence[Examined]) -> bool:
    return any(finding.is_stateless for check in checks for finding in check.findings)


def _name(home: Path, root: Path) -> str:
    return root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root)
