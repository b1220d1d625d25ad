"""``doctor`` for several projects: what they share, a line for each, then what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bundler.cli.console import Console, safe
from bundler.setup.doctor import Examined, Finding
from bundler.setup.doctor.workspace import is_stateless, shared_by, wrong_in
from bundler.system.wording import counted

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
    shared = shared_by(list(reports.values()))
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
        if own := [finding for finding in wrong_in(checks, shared) if finding.grade == "warn"]:
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
    unicode, plain, colour = _SIGNS[grade]
    return console.styled(console.sign(unicode, plain), colour)


def _line(
    console: Console,
    name: str,
    checks: Sequence[Examined],
    shared: Mapping[tuple[str, str], Finding],
) -> None:
    found = [finding.grade for finding in wrong_in(checks, shared)]
    counts = {"failure": found.count("fail"), "warning": found.count("warn")}
    told = [f"{count} {noun}{'s' * (count > 1)}" for noun, count in counts.items() if count]
    if is_stateless(checks):
        told.insert(0, "no state-backed components")
    worst = "fail" if counts["failure"] else "warn" if counts["warning"] else "ok"
    console.line(f"  {sign(console, worst)} {name}" + (f": {', '.join(told)}" if told else ""))


def _name(home: Path, root: Path) -> str:
    return root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root)
