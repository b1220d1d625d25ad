"""Questions about commits, answered by plumbing commands: ``git log`` obeys the repository's
settings."""

from __future__ import annotations

import os

from bundler.git.questions import StagedChange, changes
from bundler.git.repository import Question, Repository
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# For walking a long history and comparing what is found.
_WALK_SECONDS = 1800.0


def is_shallow(repository: Repository) -> bool:
    """Whether the clone is shallow."""
    border = repository.environment.get("GIT_SHALLOW_FILE")
    path = os.fsencode(border) if border else os.path.join(repository.common_dir, b"shallow")
    return os.path.exists(path) and os.path.getsize(path) > 0


def branches(repository: Repository) -> list[str]:
    """The refs of the local branches."""
    (answer,) = repository.ask(Question(["for-each-ref", "--format=%(refname)", "refs/heads"]))
    return [os.fsdecode(line) for line in answer.splitlines()]


def refs_to_no_commit(repository: Repository) -> list[str]:
    """The refs that do not point to a commit: annotated tags, and those of a tree or a blob."""
    question = Question(["for-each-ref", "--format=%(objecttype) %(refname)"])
    (answer,) = repository.ask(question)
    refs = (os.fsdecode(line).split(" ", 1) for line in answer.splitlines())
    return [name for kind, name in refs if kind != "commit"]


class Object(NamedTuple):
    """An object's id, and whether it is a commit, tree, blob or tag."""

    oid: str
    kind: str


def objects(repository: Repository, names: Sequence[str]) -> dict[str, Object | None]:
    """What names resolve to; None for each that does not exist here.

    Names are passed on standard input, so that none can be mistaken for an option.
    """
    if not names:
        return {}
    stdin = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
    (answer,) = repository.ask(
        Question(["cat-file", "--batch-check=%(objectname) %(objecttype)"], stdin)
    )
    said = [os.fsdecode(line) for line in answer.splitlines()]
    return {
        name: None if line.endswith((" missing", " ambiguous")) else Object(*line.split(" "))
        for name, line in zip(names, said, strict=True)
    }


def stashes(repository: Repository) -> list[str]:
    """Every stash: only the last one is a ref, the others are in its log."""
    (answer,) = repository.ask(Question(["for-each-ref", "--format=%(refname)", "refs/stash"]))
    if not answer:
        return []
    (answer,) = repository.ask(Question(["rev-list", "--walk-reflogs", "refs/stash"]))
    return answer.decode().split()


def commits(
    repository: Repository,
    new: Sequence[str],
    known: Sequence[str],
    known_refs: Sequence[str],
    pathspecs: Iterable[bytes],
) -> list[bytes]:
    """The commits that touch the paths, on any side of a merge; all commits if there are no
    paths."""
    options = ["--full-history", *new, "--not", *known, *known_refs]
    (answer,) = repository.ask(
        Question(["rev-list", *options, "--", *pathspecs]), timeout=_WALK_SECONDS
    )
    return answer.split()


def changes_in(
    repository: Repository, touching: Sequence[bytes], pathspecs: Iterable[bytes]
) -> list[StagedChange]:
    """Where each commit differs from all of its parents."""
    if not touching:
        return []
    options = ["--stdin", "-r", "-z", "--raw", "--root", "-c", "--no-renames", "--no-abbrev"]
    question = Question(
        ["diff-tree", *options, "--no-ext-diff", "--", *pathspecs],
        b"".join(commit + b"\n" for commit in touching),
    )
    (answer,) = repository.ask(question, timeout=_WALK_SECONDS)
    return changes(answer)
