"""What `doctor` examines in a workspace, and which of its findings count, each once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bundler.errors import ConfigurationError
from bundler.project.projects import project_above, projects_in
from bundler.project.stateful import has_state
from bundler.project.survey import survey
from bundler.setup.doctor import Examined, Finding


def roots_of(project: Path) -> Sequence[Path]:
    """The projects to check: those here, or else the one that the current directory is in.

    A directory that is not a project is reported as such.
    """
    root = project.resolve()
    try:
        return projects_in(root)
    except ConfigurationError:
        above = project_above(root) if project == Path() else None
        return [above or root]


def stateless_of(roots: Sequence[Path]) -> Sequence[Path]:
    """Of several projects, those for which nothing is embedded: they need no environment.

    None of them if no project has state: then each is checked.
    """
    found = [root for root in roots if not has_state(survey(root))]
    return found if len(found) < len(roots) else []


def without_state() -> list[Examined]:
    """The answer for a project that needs no check."""
    what = "Its files have no state-backed component."
    return [Examined("components", (Finding("ok", what, is_stateless=True),))]


def distinct(reports: Mapping[Path, Sequence[Examined]]) -> Iterator[Finding]:
    """Every finding that is shown, once. Of several projects, each finding names the file."""
    shared, is_alone = shared_by(list(reports.values())), len(reports) == 1
    yield from reversed(shared.values())
    for root, checks in reports.items():
        for finding in wrong_in(checks, shared, is_alone=is_alone):
            yield finding if finding.where or is_alone else replace(finding, where=_declared(root))


def shared_by(reports: Sequence[Sequence[Examined]]) -> dict[tuple[str, str], Finding]:
    """The findings about each project with state, or the repository, by check and text."""
    concerned = [checks for checks in reports if not is_stateless(checks)]
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


def wrong_in(
    checks: Sequence[Examined],
    shared: Mapping[tuple[str, str], Finding],
    *,
    is_alone: bool = False,
) -> Iterator[Finding]:
    """A project's own warnings and failures. Of several projects, one without state is not warned
    about its state."""
    warns = is_alone or not is_stateless(checks)
    for check in checks:
        for finding in check.findings:
            is_wrong = finding.grade == "fail" or (finding.grade == "warn" and warns)
            if is_wrong and (check.title, finding.what) not in shared:
                yield finding


def is_stateless(checks: Sequence[Examined]) -> bool:
    return any(finding.is_stateless for check in checks for finding in check.findings)


def _declared(root: Path) -> str:
    files = (root / name for name in ("pyproject.toml", "dg.toml"))
    return os.path.relpath(next((file for file in files if file.is_file()), root))
