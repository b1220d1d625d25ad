"""Checks the index and HEAD: what the next commit and the last one contain."""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import ConfigurationError, ToolFailed
from bundler.guard.state_paths import (
    NAME,
    RULE_FILE,
    GuardedProject,
    Located,
    Places,
    is_behind_link,
    join,
    project_of,
    read,
    read_project,
    within,
)
from bundler.guard.verdict import GuardFinding, GuardVerdict
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

IN_GIT = "Everyone who can read the repository can read it, and it goes stale."
_NO_FILE = b"000000"
_LINK = b"120000"


def check_staged(
    repository: git.Repository, directories: Sequence[str | os.PathLike[str]]
) -> GuardVerdict:
    """The verdict on what the commit being made will contain.

    HEAD is not asked: the commit that removes a leak must pass.
    Raises `ToolFailed` if git cannot answer.
    """
    top = work_tree_of(repository)
    git.require_whole_index(repository)
    found = find_in_index(repository, directories)
    findings = [
        state_in(top, path, found.places, found.sparse, in_index=True, in_head=False)
        for path in found.state
    ]
    on_disk = found.places.on_disk(top)
    copies = staged_copies(repository, found.places) if on_disk else []
    findings += copies
    if found.places.unread:
        from bundler.guard.unread import unread_and_staged

        findings += unread_and_staged(repository, found.places.unread, _base(repository))
    return GuardVerdict("staged", tuple(findings), found.places.names, os.fsdecode(top))


def _base(repository: git.Repository) -> str:
    return repository.head or git.empty_tree(repository)


def work_tree_of(repository: git.Repository) -> bytes:
    """The top. Raises `ToolFailed` in a bare repository."""
    if repository.top is None:
        raise ToolFailed(
            f"{os.fsdecode(repository.git_dir)} has no work tree.",
            hint="In a bare repository, check commits: guard --history or guard --receive.",
        )
    return repository.top


class InIndex(NamedTuple):
    """What the index says: state files, and the places of state besides those with the name.

    sparse: the key directories of which the work tree may lack something.
    """

    state: list[bytes]
    places: Places
    sparse: frozenset[bytes]


def find_in_index(
    repository: git.Repository, directories: Sequence[str | os.PathLike[str]]
) -> InIndex:
    """State files by name and by the configuration of every project in the index."""
    top = repository.top or b""
    named = within_or_refuse(top, directories)
    at_first = Places(tuple(named), git.ignores_case(repository))
    entries = git.in_index(repository, [*at_first.pathspecs(), PROJECTS])
    projects = _read_projects(repository, entries)
    configured = [path for project in projects for path in project.sources]
    expected = [path for project in projects for path in project.expected]
    links = [entry.path for entry in entries if _is_link_of_the_name(entry)]
    targets = {place.path for place in Located.of(top, [*configured, *expected, *links]).inside}
    sources = [*configured, *sorted(targets.difference(configured, expected, links))]
    if sources:
        entries += git.in_index(
            repository, at_first._replace(directories=tuple(sources)).pathspecs()
        )
    every = dict.fromkeys([*named, *sources, *expected])
    places = at_first.with_projects(projects)._replace(directories=tuple(every))
    state = sorted({entry.path for entry in entries if places.hold(entry.path, entry.mode)})
    return InIndex(state, places, sparse_keys(entries, places))


def _is_link_of_the_name(entry: git.IndexEntry) -> bool:
    return entry.mode == _LINK and os.path.basename(entry.path).lower() == NAME


def sparse_keys(entries: Iterable[git.IndexEntry], places: Places) -> frozenset[bytes]:
    return frozenset(
        key_directory(entry.path, places)
        for entry in entries
        if entry.is_sparse and places.hold(entry.path)
    )


_PROJECT_FILE = b"pyproject.toml"
PROJECTS = b":(top,glob)**/" + _PROJECT_FILE
_RULES = b":(top,glob)**/" + RULE_FILE


def _read_projects(
    repository: git.Repository, entries: Iterable[git.IndexEntry]
) -> list[GuardedProject]:
    """The projects in the index, as they are on disk and as the commit will contain them."""
    top = repository.top or b""
    projects = [entry for entry in entries if os.path.basename(entry.path) == _PROJECT_FILE]
    here = [entry.path for entry in projects if is_checked_out(top, entry.path)]
    ids = {path: git.object_id(repository, b"blob", read(join(top, path))) for path in here}
    others = [entry for entry in projects if ids.get(entry.path) != entry.oid]
    on_disk_too = [read_project(top, os.path.dirname(path)) for path in here]
    return on_disk_too + _as_staged(repository, others)


def _as_staged(
    repository: git.Repository, entries: Sequence[git.IndexEntry]
) -> list[GuardedProject]:
    """What project files say as they are staged. Raises as `project_of` does."""
    texts = project_texts(repository, entries)
    top = repository.top or b""
    try:
        return [project_of(top, *os.path.split(path), text) for path, text in texts]
    except ConfigurationError as error:
        hint = error.hint or "Correct the file, and stage it with git add."
        raise ConfigurationError(f"As it is staged, {error.what}", hint=hint) from error


def project_texts(
    repository: git.Repository, entries: Sequence[git.IndexEntry]
) -> list[tuple[bytes, bytes | None]]:
    """The paths and contents of project files that are no links; None if this clone lacks it."""
    files = [entry for entry in entries if entry.mode.startswith(b"100")]
    oids = list(dict.fromkeys(entry.oid for entry in files))
    if repository.is_partial:
        oids = sorted(git.existing(repository, oids))
    texts = dict(zip(oids, git.blobs(repository, oids), strict=True))
    return [(entry.path, texts.get(entry.oid)) for entry in files]


def staged_projects(
    repository: git.Repository, directories: Collection[bytes]
) -> list[GuardedProject]:
    """The projects in these directories, as the commit will contain them."""
    entries = git.in_index(repository, [PROJECTS])
    return _as_staged(
        repository, [entry for entry in entries if os.path.dirname(entry.path) in directories]
    )


def is_checked_out(top: bytes, path: bytes) -> bool:
    """Whether there is a file on disk for an entry: not one behind a link, where git has none."""
    return os.path.lexists(join(top, path)) and not is_behind_link(top, path)


def projects_not_here(
    repository: git.Repository, entries: Iterable[git.IndexEntry]
) -> list[GuardedProject]:
    """The projects in the index that are not checked out."""
    top = repository.top or b""
    return _read_projects(
        repository, [each for each in entries if not is_checked_out(top, each.path)]
    )


def staged_copies(repository: git.Repository, places: Places) -> list[GuardFinding]:
    """A finding for each staged change that brings a copy of a state file."""
    from bundler.guard.content import copied_in_changes, finding

    (answer,) = repository.ask(git.staged_question(_base(repository)))
    changes = [change for change in git.changes(answer) if not places.hold(change.path)]
    return [
        finding(change.path, copy, "is staged", _take_out(repository, change.path))
        for change, copy in copied_in_changes(repository, changes, places.directories)
    ]


def copied(
    repository: git.Repository, places: Places, present: Sequence[bytes]
) -> list[GuardFinding]:
    """A finding for each path in the index that holds a copy of a state file on disk."""
    if not present:
        return []
    from bundler.guard.content import copied_in_index, finding

    return [
        finding(path, copy, "is in the index", _take_out(repository, path))
        for path, copy in copied_in_index(repository, present)
        if not places.hold(path)
    ]


class IndexContents(NamedTuple):
    """The index's entries in some places, its project and ignore files, and where HEAD differs."""

    entries: list[git.IndexEntry]
    changes: list[git.StagedChange]
    has_head: bool

    def tracked(self) -> set[bytes]:
        return {entry.path for entry in self.entries}

    def rules_not_here(self, top: bytes) -> bool:
        """Whether an ignore file is in the index alone: in a sparse checkout git reads it there."""
        return any(
            os.path.basename(entry.path) == RULE_FILE and not is_checked_out(top, entry.path)
            for entry in self.entries
        )

    def in_head(self, path: bytes) -> git.IndexEntry | None:
        """The content in HEAD of an ignore file without a merge conflict."""
        for change in self.changes:
            if change.path == path:
                before = git.IndexEntry(path, change.mode_before, change.oid_before)
                return None if before.mode == _NO_FILE else before
        return next((entry for entry in self.entries if entry.path == path), None)


def contents(
    repository: git.Repository, places: Places, others: Sequence[bytes] = ()
) -> IndexContents:
    """Reads the index and HEAD concurrently. others: more paths to read.

    Raises `ToolFailed` if git cannot answer.
    """
    pathspecs = [*places.pathspecs(), _RULES, *map(git.exactly, others)]
    questions = [git.index_question([*pathspecs, PROJECTS])]
    has_head = repository.head is not None
    if has_head:
        questions.append(git.staged_question("HEAD", pathspecs))
    index, *changes = repository.ask(*questions)
    found = git.changes(changes[0]) if changes else []
    return IndexContents(git.index_entries(index), found, has_head)


def committed(top: bytes, found: IndexContents, places: Places) -> list[GuardFinding]:
    """A finding for each state file in the index or in HEAD."""
    added = {change.path for change in found.changes if change.mode_before == _NO_FILE}
    in_index = {entry.path for entry in found.entries if places.hold(entry.path, entry.mode)}
    in_head = {it.path for it in found.changes if places.hold(it.path, it.mode_before)} - added
    if found.has_head:
        in_head |= in_index - added
    sparse = sparse_keys(found.entries, places)
    return [
        state_in(top, path, places, sparse, in_index=path in in_index, in_head=path in in_head)
        for path in sorted(in_index | in_head)
    ]


def state_in(
    top: bytes,
    path: bytes,
    places: Places,
    sparse: Collection[bytes],
    *,
    in_index: bool,
    in_head: bool,
) -> GuardFinding:
    from bundler.guard.fixes import commit, take_out

    name, shown = os.fsdecode(path), described(path, places)
    if in_index:
        place = key_directory(path, places)
        where = "in the index and in HEAD" if in_head else "in the index"
        return GuardFinding(
            "fail",
            "state-in-index",
            name,
            f"The {shown} is {where}.",
            f"The next commit will contain it. {IN_GIT}",
            take_out(top, place, is_sparse=place in sparse),
        )
    return GuardFinding(
        "fail",
        "state-in-head",
        name,
        f"The {shown} is in HEAD, although it is no longer in the index.",
        IN_GIT,
        commit(top, "Remove state"),
    )


def _take_out(repository: git.Repository, path: bytes) -> str:
    from bundler.guard.fixes import take_out

    top = repository.top or b""
    return take_out(top, path, is_sparse=not os.path.lexists(join(top, path)))


def key_directory(path: bytes, places: Places) -> bytes:
    """The key directory of a path: a fix removes it, not the state directory with its rule."""
    directory = places.directory_of(path)
    if directory is None:  # a submodule
        return path
    return join(directory, path[len(directory) + 1 :].partition(b"/")[0])


def described(path: bytes, places: Places) -> str:
    """A path that is state, as messages name it."""
    return f"state {'file' if places.hold(path) else 'submodule'} {git.printable(path)}"


def within_or_refuse(top: bytes, directories: Sequence[str | os.PathLike[str]]) -> list[bytes]:
    """Directories that were named, relative to the top. Raises `ToolFailed` for one outside."""
    try:
        return within(top, directories)
    except ValueError as error:
        raise ToolFailed(
            f"{error} is not inside the repository {os.fsdecode(top)}.",
            hint="Run the guard in the repository that contains the directory.",
        ) from error
