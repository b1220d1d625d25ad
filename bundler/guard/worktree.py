"""The check before a build and in CI: the index, HEAD and the ignore rules.

A rule *protects* a state directory when ``git add -A`` takes nothing from it. The protection is
*durable* when a fresh clone has it, too: see `bundler.guard.durable`.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import BundlerError
from bundler.guard import fixes
from bundler.guard.durable import PROBE, durably_protected
from bundler.guard.index import (
    IndexContents,
    committed,
    contents,
    copied,
    projects_not_here,
    within_or_refuse,
    work_tree_of,
)
from bundler.guard.state_paths import (
    RULE_FILE,
    GuardedPlace,
    GuardedProject,
    Located,
    Places,
    join,
    read_project,
    walk,
)
from bundler.guard.unread import unread_here
from bundler.guard.verdict import GuardFinding, GuardVerdict, Moment, joined
from bundler.system.fast_tuple import NamedTuple
from bundler.system.git_directory import is_below
from bundler.system.wording import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Scope(NamedTuple):
    """What to check in one repository. Paths are relative to its top.

    present: state directories that are on disk. expected: those that are configured, named, or that
    Dagster will make. links: links where a state directory is expected. outside: absolute, where
    these lead out of the repository.
    """

    present: tuple[bytes, ...]
    expected: tuple[bytes, ...]
    links: tuple[bytes, ...]
    submodules: tuple[bytes, ...]
    outside: tuple[bytes, ...]
    projects: tuple[GuardedProject, ...]
    ignore_case: bool

    @property
    def places(self) -> Places:
        return Places(self.directories, self.ignore_case)

    @property
    def directories(self) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(self.present + self.expected))


def check_work_tree(
    repository: git.Repository, moment: Moment, directories: Sequence[str | os.PathLike[str]]
) -> GuardVerdict:
    """The verdict on one repository and the submodules in it.

    Raises `ToolFailed` if git cannot answer.
    """
    top = work_tree_of(repository)
    git.require_whole_index(repository)
    named = within_or_refuse(top, directories)
    fold = git.ignores_case(repository)
    found = contents(repository, Places(tuple(named), fold))
    scope, rules = find(repository, named, found, ignore_case=fold)
    if scope.links or scope.places.pathspecs() != Places(tuple(named), fold).pathspecs():
        found = contents(repository, scope.places, scope.links)
    findings = [
        *committed(top, found, scope.places),
        *copied(repository, scope.places, scope.present),
        *unprotected(repository, scope, rules, found),
        *unread_here(repository, [each.directory for each in scope.projects if each.is_unread]),
    ]
    verdict = GuardVerdict(
        moment,
        tuple(findings),
        tuple(os.fsdecode(directory) for directory in scope.directories),
        os.fsdecode(top),
    )
    others = [join(top, path) for path in scope.submodules] + list(scope.outside)
    return joined(verdict, *(_elsewhere(repository, place, moment) for place in others))


def _elsewhere(repository: git.Repository, place: bytes, moment: Moment) -> GuardVerdict:
    """The verdict on another repository, with paths relative to the top of this one."""
    top = work_tree_of(repository)
    other = git.open_repository(os.fsdecode(place), fast=repository.fast)
    if other is None or other.top is None or other.top == top:
        return GuardVerdict(moment)
    inside = os.path.relpath(os.fsdecode(other.top), os.fsdecode(top))
    verdict = check_work_tree(other, moment, [os.fsdecode(place)] if place != other.top else [])
    return verdict._replace(
        findings=tuple(
            each._replace(
                inside=inside, where=f"{inside}/{each.where}", what=f"In {inside}: {each.what}"
            )
            for each in verdict.findings
        ),
        directories=tuple(f"{inside}/{directory}" for directory in verdict.directories),
    )


def find(
    repository: git.Repository, named: Sequence[bytes], found: IndexContents, *, ignore_case: bool
) -> tuple[Scope, IgnoreRules]:
    """Every state directory of a repository with a work tree, and what git's rules say of them.

    What is in a directory that git ignores (an environment, a cache, ``node_modules``) is not the
    repository's own. named: by the user. found: the projects and ignore files in the index.
    """
    top = repository.top or b""
    walked = walk(top)
    read = {
        **walked.unreadable,
        **{directory: _read(top, directory) for directory in walked.projects},
    }
    in_index = {path for path, name in map(os.path.split, found.tracked()) if name != RULE_FILE}
    projects = [
        *(each for each in read.values() if isinstance(each, GuardedProject)),
        *projects_not_here(repository, found.entries),
    ]
    owners = {
        each.directory: b"" if each.directory in in_index else each.directory for each in projects
    }
    sources = [
        GuardedPlace(path, owners[each.directory]) for each in projects for path in each.sources
    ]
    links = [GuardedPlace(path, os.path.dirname(path)) for path in walked.links]
    expected = [
        GuardedPlace(path, owners[each.directory]) for each in projects for path in each.expected
    ]
    located = Located.of(top, [*map(GuardedPlace, named), *sources, *links, *expected])
    by_name = [GuardedPlace(path, os.path.dirname(path)) for path in walked.states]
    rules = _ask(
        repository,
        [*by_name, *located.inside],
        [*located.links, *located.outside],
        list(read),
        from_index=found.rules_not_here(top),
    )
    for directory, outcome in read.items():
        if isinstance(outcome, BundlerError) and directory not in rules.ignored:
            raise outcome
    on_disk = [each for each in located.inside if os.path.isdir(join(top, each.path))]
    scope = Scope(
        present=rules.kept([*by_name, *on_disk]),
        expected=rules.kept(located.inside),
        links=rules.kept(located.links),
        submodules=_submodules(repository, walked.repositories),
        outside=rules.kept(located.outside),
        projects=tuple(each for each in projects if owners[each.directory] not in rules.ignored),
        ignore_case=ignore_case,
    )
    return scope, rules


def _read(top: bytes, directory: bytes) -> GuardedProject | BundlerError:
    """A project, or why it cannot be read, which matters only if git does not ignore it."""
    try:
        return read_project(top, directory)
    except BundlerError as error:
        return error


def _submodules(repository: git.Repository, repositories: Sequence[bytes]) -> tuple[bytes, ...]:
    """The submodules: repositories in the work tree that are in the index."""
    if not repositories:
        return ()
    entries = git.in_index(repository, map(git.exactly, repositories))
    known = {entry.path for entry in entries if entry.mode == b"160000"}
    return tuple(path for path in repositories if path in known)


# --- what the rules protect -----------------------------------------------------------------


class IgnoreRules(NamedTuple):
    """What git's rules say. inside: the rule that decides over the next state in a directory.
    over: the one over the directory itself, or a link. ignored: directories that are not ours.
    """

    inside: dict[bytes, git.IgnoreRule]
    over: dict[bytes, git.IgnoreRule]
    ignored: frozenset[bytes]

    def kept(self, places: Iterable[GuardedPlace]) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(path for path, owner in places if owner not in self.ignored))


def _ask(
    repository: git.Repository,
    directories: Sequence[GuardedPlace],
    links: Sequence[GuardedPlace],
    projects: Sequence[bytes],
    *,
    from_index: bool,
) -> IgnoreRules:
    probes = {join(path, PROBE): path for path, _ in directories}
    places = {path for path, _ in (*directories, *links) if not path.startswith(b"/")}
    owners = {*projects, *(owner for _, owner in (*directories, *links))} - {b""}
    paths = [*probes, *sorted(places | owners)]
    if not paths:
        return IgnoreRules({}, {}, frozenset())
    (answer,) = repository.ask(git.rules_question(paths, from_index=from_index))
    rules = {rule.path: rule for rule in git.rules(answer)}
    ignored = sorted(owner for owner in owners if rules[owner].ignores)
    return IgnoreRules(
        {path: rules[probe] for probe, path in probes.items()},
        {path: rules[path] for path in places},
        frozenset(_without_tracked(repository, ignored)),
    )


def _without_tracked(repository: git.Repository, ignored: Sequence[bytes]) -> list[bytes]:
    """Those directories of which git tracks nothing: ``git add -f`` makes one the repository's."""
    topmost: list[bytes] = []
    for path in ignored:  # sorted: what is above a directory comes before it
        if not any(is_below(path, above) for above in topmost):
            topmost.append(path)
    if not topmost:
        return []
    tracked = [entry.path for entry in git.in_index(repository, map(git.below, topmost))]
    return [path for path in ignored if not any(is_below(each, path) for each in tracked)]


def _addable(
    repository: git.Repository, scope: Scope, rules: IgnoreRules
) -> dict[bytes, list[bytes]]:
    """What ``git add -A`` would add, by state directory."""
    # In a directory that is ignored itself, no rule can take that back.
    open_ones = [path for path in scope.present if not rules.over[path].ignores]
    if not open_ones:
        return {}
    addable: dict[bytes, list[bytes]] = {}
    (listing,) = repository.ask(git.addable_question(open_ones))
    for path in listing.split(b"\0")[:-1]:
        owner = scope.places.directory_of(path)
        if owner is not None:
            addable.setdefault(owner, []).append(path.rstrip(b"/"))
    return addable


def unprotected(
    repository: git.Repository, scope: Scope, rules: IgnoreRules, found: IndexContents
) -> list[GuardFinding]:
    """A finding for each state directory that ``git add -A`` would add, now or in a clone."""
    top = repository.top or b""
    if not (scope.directories or scope.links):
        return []
    addable = _addable(repository, scope, rules)
    protected = {path: rules.inside[path] for path in scope.directories if path not in addable}
    durable = durably_protected(repository, protected, found)
    tracked = found.tracked()
    rule_files = {path for path in tracked if os.path.basename(path) == RULE_FILE}

    def target(directory: bytes) -> fixes.FixTarget:
        return fixes.target_of(top, directory, rules.over.get(directory), rule_files)

    findings = [
        _offered(top, directory, files, target(directory))
        for directory, files in sorted(addable.items())
    ]
    findings += [
        _not_durable(top, directory, rule, target(directory))
        for directory, rule in protected.items()
        if directory not in durable
    ]
    open_links = (path for path in scope.links if not rules.over[path].ignores)
    return findings + [
        _open_link(top, link, target(link)) for link in open_links if link not in tracked
    ]


def _offered(
    top: bytes, directory: bytes, files: Sequence[bytes], target: fixes.FixTarget
) -> GuardFinding:
    return GuardFinding(
        "fail",
        "state-unprotected",
        os.fsdecode(directory),
        f"git add -A would add {counted(len(files), 'file')} of the state directory "
        f"{git.printable(directory)}: no rule ignores {git.printable(min(files))}.",
        _why("The next careless commit would contain the state.", target),
        fixes.ignore(top, directory, target),
    )


def _not_durable(
    top: bytes, directory: bytes, rule: git.IgnoreRule, target: fixes.FixTarget
) -> GuardFinding:
    """rule: the one that decides over what is in it, here."""
    if not rule.ignores:
        return GuardFinding(
            "warn",
            "protection-missing",
            os.fsdecode(directory),
            f"No ignore rule covers the state directory {git.printable(directory)} yet.",
            _why("git add -A would add state that is copied or restored there.", target),
            fixes.ignore(top, directory, target),
        )
    is_written = rule.source == RULE_FILE and target.is_here and not target.problem
    return GuardFinding(
        "warn",
        "protection-local",
        os.fsdecode(directory),
        f"The state directory {git.printable(directory)} is ignored on this machine only: "
        "HEAD has no rule for it.",
        _why("git add -A would add it in a fresh clone and on every other machine.", target),
        fixes.commit_rules(top) if is_written else fixes.ignore(top, directory, target),
    )


def _open_link(top: bytes, link: bytes, target: fixes.FixTarget) -> GuardFinding:
    return GuardFinding(
        "warn",
        "protection-missing",
        os.fsdecode(link),
        f"git add -A would add {git.printable(link)}: a link where a state directory is expected.",
        _why("Every clone would have the link, which is broken there.", target),
        fixes.ignore(top, link, target),
    )


def _why(reason: str, target: fixes.FixTarget) -> str:
    return f"{target.problem} {reason}" if target.problem else reason
