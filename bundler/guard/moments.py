"""Checks the repository at one moment and drops the findings that are allowed."""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import ToolFailed
from bundler.guard.state_paths import Places, join, read_project
from bundler.guard.verdict import GuardVerdict, Moment, Movement, Updates, joined
from bundler.state.source_path import is_allowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# Only these read the hook's environment, and only for the hook's own repository.
_OF_HOOKS = ("staged", "push", "receive")
_NOTHING = "0" * 40


def check(
    root: str | os.PathLike[str],
    moment: Moment = "build",
    directories: Sequence[str | os.PathLike[str]] = (),
    allow: Sequence[str] = (),
    *,
    strict: bool = False,
    movement: Movement | None = None,
) -> GuardVerdict:
    """git's verdict on the repository that `root` is in.

    directories: state directories next to those that are found by name and configuration.
    allow: paths or patterns, relative to `root`, that are committed on purpose.
    strict: treat warnings as failures. movement: what is pushed or received, from git.
    Raises `ToolFailed` if there is no repository, or git cannot answer.
    """
    movement = movement or Movement()
    repository = open_or_refuse(root, from_hook=moment in _OF_HOOKS, fast=moment != "history")
    verdict = _ask(repository, moment, directories, movement)
    patterns = [
        *_allowed_here(repository, root, allow),
        *_allowed_in_projects(repository, verdict, movement),
    ]
    verdict = without_allowed(verdict, patterns)
    return verdict.strict() if strict else verdict


def _ask(
    repository: git.Repository,
    moment: Moment,
    directories: Sequence[str | os.PathLike[str]],
    movement: Movement,
) -> GuardVerdict:
    if moment == "build":
        from bundler.guard.worktree import check_work_tree

        return check_work_tree(repository, moment, directories)
    if moment == "history":
        from bundler.guard.commits import check_history

        return check_history(repository, directories)
    staged = _staged(repository, directories, movement) if moment == "staged" else None
    if staged is not None and movement.updates is None:
        return staged
    updates, known = _in_question(repository, moment, movement)
    from bundler.guard.commits import check_commits

    verdict = check_commits(repository, moment, updates, known, directories)
    return verdict if staged is None else joined(staged, verdict)


def _in_question(
    repository: git.Repository, moment: Moment, movement: Movement
) -> tuple[Updates, Sequence[str]]:
    """The refs that move, and options for git that name what is known besides their old commits."""
    updates = movement.updates
    known = [f"--remotes={movement.remote}"] if movement.remote else []
    if updates is not None:
        return updates, {"staged": [], "receive": ["--all"]}.get(moment, known)
    if moment == "receive":
        raise ToolFailed(
            "The standard input is empty, so nothing was received.",
            hint="Use --receive only in git's pre-receive hook.",
        )
    # Without git's input nobody knows what is pushed: it may be any branch.
    names = ["HEAD", *git.branches(repository)]
    return tuple((_NOTHING, name) for name in names), known or ["--remotes"]


def _staged(
    repository: git.Repository,
    directories: Sequence[str | os.PathLike[str]],
    movement: Movement,
) -> GuardVerdict:
    from bundler.guard.index import check_staged, staged_copies

    if movement.compare is None:
        return check_staged(repository, directories)
    places = Places(movement.compare, git.ignores_case(repository))
    return GuardVerdict("staged", tuple(staged_copies(repository, places)))


def open_or_refuse(
    root: str | os.PathLike[str], *, from_hook: bool = False, fast: bool = False
) -> git.Repository:
    repository = git.open_repository(root, from_hook=from_hook, fast=fast)
    if repository is None:
        raise ToolFailed(
            f"{os.path.realpath(root)} is not in a git repository, so git cannot check it.",
            hint="Create one with git init; if CI has removed .git, build with --no-guard.",
        )
    return repository


def _allowed_here(
    repository: git.Repository, root: str | os.PathLike[str], allow: Sequence[str]
) -> list[str]:
    if repository.top is None:
        return list(allow)
    base = os.path.relpath(os.path.realpath(root), os.fsdecode(repository.top))
    return [os.path.normpath(f"{base}/{pattern}") for pattern in allow]


def _allowed_in_projects(
    repository: git.Repository, verdict: GuardVerdict, movement: Movement
) -> list[str]:
    """What the project files above the findings allow; read only when there are findings."""
    if not verdict.findings:
        return []
    top = repository.top
    if top is None or verdict.moment in ("push", "receive"):
        from bundler.guard.commits import tip_projects

        updates: Updates = ((_NOTHING, "HEAD"),)
        if verdict.moment in ("push", "receive"):
            updates, _ = _in_question(repository, verdict.moment, movement)
        projects = tip_projects(repository, [new for _, new in updates if new.strip("0")])
    else:
        above = {b""}
        for finding in verdict.findings:
            path = os.fsencode(finding.where)
            above.update(path[:at] for at in range(len(path)) if path[at : at + 1] == b"/")
        if verdict.moment == "staged":  # what is only on disk allows nothing that is committed
            from bundler.guard.index import staged_projects

            projects = staged_projects(repository, above)
        else:
            projects = [
                read_project(top, path) for path in sorted(above) if os.path.isdir(join(top, path))
            ]
    return [os.fsdecode(pattern) for project in projects for pattern in project.allow]


def without_allowed(verdict: GuardVerdict, patterns: Sequence[str]) -> GuardVerdict:
    """Without the findings about paths that are committed on purpose."""
    return verdict._replace(
        findings=tuple(each for each in verdict.findings if not is_allowed(each.where, patterns))
    )
