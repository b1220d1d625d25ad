"""Opens the repository, asks at one moment, leaves out what is allowed."""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import ToolFailed
from bundler.guard.places import join, read_project
from bundler.guard.verdict import Finding, Moment, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def verdict_at(
    root: str | os.PathLike[str],
    moment: Moment,
    directories: Sequence[str | os.PathLike[str]],
    allow: Sequence[str],
    *,
    strict: bool,
    compare: tuple[bytes, ...] | None,
) -> Verdict:
    """See `bundler.guard.check`."""
    repository = open_or_refuse(root)
    if compare is not None:
        from bundler.guard.index import staged_copies

        verdict = Verdict("staged", tuple(staged_copies(repository, compare)))
    else:
        verdict = _ask(repository, moment, directories)
    patterns = [*_allowed_here(repository, root, allow), *_allowed_in_projects(repository, verdict)]
    verdict = without_allowed(verdict, patterns)
    return verdict.strict() if strict else verdict


def _ask(
    repository: git.Repository, moment: Moment, directories: Sequence[str | os.PathLike[str]]
) -> Verdict:
    if moment == "staged":
        from bundler.guard.index import check_staged

        return check_staged(repository, directories)
    from bundler.guard.worktree import check_work_tree

    return check_work_tree(repository, moment, directories)


def open_or_refuse(root: str | os.PathLike[str]) -> git.Repository:
    repository = git.open_repository(root)
    if repository is None:
        raise ToolFailed(
            f"{os.path.realpath(root)} is in no git repository: git cannot say what it holds.",
            hint="Where CI has stripped .git away, --no-guard builds without an answer.",
        )
    return repository


def _allowed_here(
    repository: git.Repository, root: str | os.PathLike[str], allow: Sequence[str]
) -> list[str]:
    if repository.top is None:
        return list(allow)
    base = os.path.relpath(os.path.realpath(root), os.fsdecode(repository.top))
    return [os.path.normpath(f"{base}/{pattern}") for pattern in allow]


def _allowed_in_projects(repository: git.Repository, verdict: Verdict) -> list[str]:
    """What the project files above the findings allow; read only when there are findings."""
    top = repository.top
    if top is None:
        return []
    above = {b""}
    for finding in verdict.findings:
        path = os.fsencode(finding.where)
        above.update(path[:at] for at in range(len(path)) if path[at : at + 1] == b"/")
    inside = [path for path in sorted(above) if os.path.isdir(join(top, path))]
    return [os.fsdecode(each) for path in inside for each in read_project(top, path).allow]


def without_allowed(verdict: Verdict, patterns: Sequence[str]) -> Verdict:
    """Without the findings about paths that are committed on purpose."""
    return verdict._replace(
        findings=tuple(each for each in verdict.findings if not is_allowed(each, patterns))
    )


def is_allowed(finding: Finding, patterns: Iterable[str]) -> bool:
    """Whether a pattern names the finding's path, or a directory above it."""
    from fnmatch import fnmatchcase

    return any(
        fnmatchcase(finding.where, pattern) or f"{finding.where}/".startswith(f"{pattern}/")
        for pattern in patterns
    )
