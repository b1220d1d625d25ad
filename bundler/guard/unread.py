"""The project files that a partial clone lacks, as one with a sparse checkout does.

What they configure is unknown. A build does not read what is not checked out, which is a warning. A
commit that changes something in such a project could bring its state, which is a failure.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.guard.fixes import git_command
from bundler.guard.state_paths import join
from bundler.guard.verdict import Grade, GuardFinding
from bundler.system.git_directory import is_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def unread(directories: Iterable[bytes], fix: str, grade: Grade = "fail") -> list[GuardFinding]:
    """A finding for each of these projects."""
    return [
        GuardFinding(
            grade,
            "project-unread",
            os.fsdecode(path),
            f"This partial clone lacks {git.printable(path)}.",
            "State in a directory that it configures would not be found.",
            fix,
        )
        for path in (join(directory, b"pyproject.toml") for directory in directories)
    ]


def changed_below(directories: Sequence[bytes], changes: Iterable[git.StagedChange]) -> list[bytes]:
    paths = [change.path for change in changes]
    return [each for each in directories if not each or any(is_below(it, each) for it in paths)]


def unread_and_staged(
    repository: git.Repository, directories: Sequence[bytes], base: str
) -> list[GuardFinding]:
    """The findings for those in which something is staged that was made here.

    What the clone lacks, or is empty, was not: a merge stages what others have pushed.
    """
    (answer,) = repository.ask(git.staged_question(base, map(git.below, filter(None, directories))))
    changes = git.changes(answer)
    here = git.existing(repository, {change.oid for change in changes})
    here.discard(git.object_id(repository, b"blob", b""))
    made = [change for change in changes if change.oid in here]
    return unread_here(repository, changed_below(directories, made), "fail")


def unread_here(
    repository: git.Repository, directories: Iterable[bytes], grade: Grade = "warn"
) -> list[GuardFinding]:
    """The findings for projects in the index. One request fetches their files."""
    specs = " ".join(f"':(top,glob)**/{name}'" for name in ("pyproject.toml", ".gitignore"))
    call = f"{git_command(repository.top or b'')} diff --stat --cached"
    return unread(directories, f"{call} {git.empty_tree(repository)} -- {specs} > /dev/null", grade)
