"""Checks commits: those being pushed, those being received, and all that any ref reaches.

A commit *brings* state when a state file in it differs from all of its parents': added, changed,
or made by the merge itself. A merge that only carries what its parents had brings nothing, so
that the commits in question are judged, and no older ones.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import ConfigurationError, ToolFailed
from bundler.guard.fixes import amend
from bundler.guard.index import (
    PROJECTS,
    described,
    find_in_index,
    key_directory,
    project_texts,
)
from bundler.guard.state_paths import GuardedProject, Places, project_of, walk
from bundler.guard.unread import changed_below, unread
from bundler.guard.verdict import GuardFinding, GuardVerdict, Moment, Updates
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.guard.content import CopiedState

_GONE = b"000000"
_PUBLISHED = "Everyone who has the commit has the state, even if a later commit removes it."
_DELETE_REF = "Delete the ref to it, also where it was pushed: git update-ref -d REF."
_REWRITE = (
    "Rewrite the commits that hold it, and push the result: docs/explanation/guard.md, "
    '"State in a commit", has the steps.'
)


class Range(NamedTuple):
    """The commits to check: reachable from `new`, but not from `known`.

    options: rev-list's, for sets of refs, as ``--all`` or ``--not --remotes``.
    """

    new: tuple[str, ...]
    known: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def pushed(text: bytes) -> Updates:
    """From the input of a pre-push hook: lines of local ref, its object, remote ref, its object.

    Raises `ToolFailed` if it is not such input.
    """
    # A local ref may be an expression with spaces, as in git push origin ':/Fix a bug:main'.
    return tuple((old, new) for _, new, _, old in _fields(text, 4))


def received(text: bytes) -> Updates:
    """From the input of a pre-receive hook: lines of old object, new object, ref."""
    return tuple((old, new) for old, new, _ in _fields(text, 3))


def _fields(text: bytes, count: int) -> list[list[str]]:
    lines = [os.fsdecode(line).rsplit(" ", count - 1) for line in text.splitlines() if line]
    if any(len(line) < count for line in lines):
        raise ToolFailed(
            "The standard input is not what git passes to this hook.",
            hint="Run state-guard directly from the hook, with the hook's standard input.",
        )
    return lines


def check_commits(
    repository: git.Repository,
    moment: Moment,
    updates: Updates,
    known_refs: Sequence[str],
    directories: Sequence[str | os.PathLike[str]],
) -> GuardVerdict:
    """The verdict on the commits that these updates bring.

    Raises `ToolFailed` if git cannot answer.
    """
    new = [f"{name}^{{}}" for _, name in updates if name.strip("0")]
    old = [name for name, _ in updates if name.strip("0")]
    objects = git.objects(repository, [*new, *old])
    found = [_or_refuse(name, objects[name]) for name in new]
    commits = tuple(dict.fromkeys(each.oid for each in found if each.kind == "commit"))
    known = tuple(each.oid for each in map(objects.__getitem__, old) if each is not None)
    places = _places(repository, directories).with_projects(tip_projects(repository, commits))
    findings = []
    if commits:
        moved = Range(commits, known, ("--not", *known_refs) if known_refs else ())
        places = places.with_projects(_projects_brought(repository, moved))
        findings = _brought(repository, moved, places)
        if places.unread:
            made_here = moved._replace(options=("--not", "--remotes"))
            specs = [*map(git.below, filter(None, places.unread))]
            changed = changed_below(places.unread, _changes(repository, made_here, specs))
            findings += unread(changed, git.FETCH_ALL)
    findings += _tagged(repository, found, places)
    return GuardVerdict(moment, tuple(findings), places.names, _top(repository))


def _or_refuse(name: str, found: git.Object | None) -> git.Object:
    if found is None:
        name = name.removesuffix("^{}")
        raise ToolFailed(
            f"{name} does not exist in this clone, so it cannot be checked.",
            hint="Fetch the missing objects, then try again.",
        )
    return found


def check_history(
    repository: git.Repository, directories: Sequence[str | os.PathLike[str]]
) -> GuardVerdict:
    """The verdict on everything that any ref, stash or work tree reaches.

    Raises `ToolFailed` if git cannot answer, and for a shallow clone without a finding: what
    is below its border is unknown.
    """
    places = _places(repository, directories)
    if repository.top is None and repository.head:
        places = places.with_projects(tip_projects(repository, ["HEAD"]))
    if repository.top is not None:  # there is time to look for states that nothing names
        on_disk = walk(repository.top).states
        places = places._replace(directories=(*places.directories, *on_disk))
    everything = Range(tuple(git.stashes(repository)), options=("--all",))
    tags = [f"{name}^{{}}" for name in git.refs_to_no_commit(repository)]
    found = [_or_refuse(name, each) for name, each in git.objects(repository, tags).items()]
    findings = _brought(repository, everything, places) + _tagged(repository, found, places)
    findings += unread(places.unread, git.FETCH_ALL)
    if git.is_shallow(repository):
        if not findings:
            raise ToolFailed(
                "This is a shallow clone: the content of older commits is unknown.",
                hint="Run git fetch --unshallow (actions/checkout: fetch-depth: 0) and try again.",
            )
        findings.append(_border())
    return GuardVerdict("history", tuple(findings), places.names, _top(repository))


def _border() -> GuardFinding:
    return GuardFinding(
        "warn",
        "history-unknown",
        ".",
        "This is a shallow clone: the content of older commits is unknown.",
        "There may be more state than is listed here.",
        "git fetch --unshallow",
    )


def _top(repository: git.Repository) -> str:
    return os.fsdecode(repository.top or repository.git_dir)


def _places(
    repository: git.Repository,
    directories: Sequence[str | os.PathLike[str]],
) -> Places:
    """The places that the user and the index name."""
    if repository.top is not None:
        return find_in_index(repository, directories).places
    return Places(tuple(os.path.normpath(os.fsencode(each)) for each in directories))


def tip_projects(repository: git.Repository, tips: Sequence[str]) -> list[GuardedProject]:
    """The projects in commits. Raises `ConfigurationError` for one that cannot be read."""
    trees = git.objects(repository, [f"{tip}^{{tree}}" for tip in tips]).values()
    entries = git.entries_of(repository, [each.oid for each in trees if each], [PROJECTS])
    return [
        project_of(b"", *os.path.split(path), text)
        for path, text in project_texts(repository, list(dict.fromkeys(entries)))
    ]


# --- what commits bring ---------------------------------------------------------------------


def _changes(
    repository: git.Repository, commits: Range, pathspecs: Sequence[bytes]
) -> list[git.StagedChange]:
    touching = git.commits(repository, commits.new, commits.known, commits.options, pathspecs)
    return git.changes_in(repository, touching, pathspecs)


def _projects_brought(repository: git.Repository, commits: Range) -> Iterator[GuardedProject]:
    """The projects as these commits change them: a later one may no longer name a source."""
    changes = _changes(repository, commits, [PROJECTS])
    entries = {git.IndexEntry(change.path, change.mode, change.oid): None for change in changes}
    for path, text in project_texts(repository, list(entries)):
        if text is None:  # an older version, which was not made in this clone
            continue
        try:
            yield project_of(b"", *os.path.split(path), text)
        except ConfigurationError:  # at that commit, nothing could refresh from it
            continue


def _brought(repository: git.Repository, commits: Range, places: Places) -> list[GuardFinding]:
    changes = _changes(repository, commits, places.pathspecs())
    findings = [
        _in_commit(repository, change, places, commits)
        for change in changes
        if change.mode != _GONE and places.hold(change.path, change.mode)
    ]
    return findings + _copies(repository, commits, places)


def _in_commit(
    repository: git.Repository, change: git.StagedChange, places: Places, commits: Range
) -> GuardFinding:
    path, commit = os.fsdecode(change.path), change.commit.decode()
    return GuardFinding(
        "fail",
        "state-in-commit",
        path,
        f"Commit {commit[:12]} adds the {described(change.path, places)}.",
        _PUBLISHED,
        _rewrite(repository, change, key_directory(change.path, places), commits),
    )


def _rewrite(
    repository: git.Repository, change: git.StagedChange, path: bytes, commits: Range
) -> str:
    """The command that amends the checked-out, unpublished commit; otherwise a message."""
    is_last = change.commit.decode() == repository.head and commits.new == (repository.head,)
    return amend(repository.top, path) if is_last and repository.top is not None else _REWRITE


def _tagged(
    repository: git.Repository, tagged: Sequence[git.Object], places: Places
) -> list[GuardFinding]:
    """The findings in trees and blobs: a tag may point to one instead of a commit."""
    trees = {each.oid for each in tagged if each.kind == "tree"}
    blobs = {each.oid.encode() for each in tagged if each.kind == "blob"}
    if not trees and not blobs:
        return []
    from bundler.guard.content import finding

    known = _stored_copies(repository, places)
    entries = [
        (f"tree {tree[:12]}", entry)
        for tree in sorted(trees)
        for entry in git.tree_entries(repository, tree)
    ]
    return [
        *(
            _in_tree(tree, entry.path, places)
            for tree, entry in entries
            if places.hold(entry.path, entry.mode)
        ),
        *(
            finding(entry.path, known[entry.oid], f"is in the {tree}", _DELETE_REF)
            for tree, entry in entries
            if entry.oid in known and not places.hold(entry.path)
        ),
        *(finding(oid, known[oid], "has a ref", _DELETE_REF) for oid in sorted(blobs & {*known})),
    ]


def _in_tree(tree: str, path: bytes, places: Places) -> GuardFinding:
    what = f"The {tree} contains the {described(path, places)}."
    return GuardFinding("fail", "state-in-commit", os.fsdecode(path), what, _PUBLISHED, _DELETE_REF)


def _stored_copies(repository: git.Repository, places: Places) -> dict[bytes, CopiedState]:
    """The objects of this repository that are copies of a state file on disk."""
    top = repository.top
    on_disk = places.on_disk(top) if top is not None else []
    if not on_disk:
        return {}
    from bundler.guard.content import copies

    known = copies(repository, on_disk)
    if not known or repository.is_partial:
        return known
    return {oid: known[oid] for oid in git.sizes(repository, sorted(known))}


def _copies(repository: git.Repository, commits: Range, places: Places) -> list[GuardFinding]:
    known = _stored_copies(repository, places)
    if not known:  # no such object was ever added: nothing to look for
        return []
    from bundler.guard.content import finding

    return [
        finding(
            change.path,
            known[change.oid],
            f"is in commit {change.commit[:12].decode()}",
            _rewrite(repository, change, change.path, commits),
        )
        for change in _changes(repository, commits, ())
        if change.oid in known and not places.hold(change.path)
    ]
