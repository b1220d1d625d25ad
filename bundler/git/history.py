"""Questions about commits, answered by plumbing commands: ``git log`` obeys the repository's
settings."""

from __future__ import annotations

import os

from bundler.git.questions import IndexEntry, StagedChange, changes, empty_tree
from bundler.git.repository import Question, Repository
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# For walking a long history and comparing what is found.
_WALK_SECONDS = 1800.0
_DIFF_TREE = (
    *("diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff"),
    "--ignore-submodules=none",  # .gitmodules can hide a submodule
)


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
    options: Sequence[str],
    pathspecs: Iterable[bytes],
) -> list[bytes]:
    """The commits that touch the paths, on any side of a merge; all commits if there are no
    paths.

    new, known: object ids, which are passed on standard input: a push can move more refs than
    fit in a command line. options: for sets of refs, such as ``--all`` or ``--not --remotes``.
    """
    stdin = "".join(f"{oid}\n" for oid in [*new, *(f"^{oid}" for oid in known)])
    question = Question(
        ["rev-list", "--full-history", "--stdin", *options, "--", *pathspecs], stdin.encode()
    )
    (answer,) = repository.ask(question, timeout=_WALK_SECONDS)
    return answer.split()


def changes_in(
    repository: Repository, touching: Sequence[bytes], pathspecs: Iterable[bytes]
) -> list[StagedChange]:
    """Where each commit differs from all of its parents."""
    if not touching:
        return []
    question = Question(
        [*_DIFF_TREE, "--root", "-c", "--", *pathspecs],
        b"".join(commit + b"\n" for commit in touching),
    )
    (answer,) = repository.ask(question, timeout=_WALK_SECONDS)
    return changes(answer)


def entries_of(
    repository: Repository, trees: Iterable[str], pathspecs: Iterable[bytes]
) -> list[IndexEntry]:
    """The entries of many trees at these paths: where each differs from the empty tree."""
    lines = "".join(f"{empty_tree(repository)} {tree}\n" for tree in dict.fromkeys(trees))
    if not lines:
        return []
    question = Question([*_DIFF_TREE, "--", *pathspecs], lines.encode())
    (answer,) = repository.ask(question, timeout=_WALK_SECONDS)
    entries = []
    fields = iter(answer.split(b"\0"))
    for field in fields:
        _, mode, _, oid, *_ = [*field.rpartition(b"\n")[2].split(b" "), b"", b"", b""]
        if mode:  # else the ids of two trees without a difference
            entries.append(IndexEntry(next(fields), mode, oid))
    return entries
