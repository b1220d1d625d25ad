"""The moment before a build and in CI: the index, HEAD, and what the ignore rules protect.

A rule *protects* a state directory when ``git add -A`` takes nothing from it. The protection is
*durable* when a fresh clone has it, too: see `bundler.guard.durable`.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.guard.durable import PROBE, durably_protected, rule_files
from bundler.guard.index import (
    Contents,
    committed,
    contents,
    copied,
    projects_not_here,
    within_or_refuse,
    work_tree_of,
)
from bundler.guard.state_paths import (
    NAME,
    RULE_FILE,
    Places,
    Project,
    join,
    read_project,
    takeable,
    walk,
)
from bundler.guard.verdict import Finding, Moment, Verdict, joined
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Scope(NamedTuple):
    """What is looked at in one repository. Paths are relative to its top."""

    present: tuple[bytes, ...]  # state directories that lie on disk
    expected: tuple[bytes, ...]  # those that are configured, named, or that Dagster will make
    submodules: tuple[bytes, ...]
    outside: tuple[bytes, ...]  # absolute: where links of the name lead out of the repository
    projects: tuple[Project, ...]
    ignore_case: bool

    @property
    def places(self) -> Places:
        return Places(self.directories, self.ignore_case)

    @property
    def directories(self) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(self.present + self.expected))


def check_work_tree(
    repository: git.Repository, moment: Moment, directories: Sequence[str | os.PathLike[str]]
) -> Verdict:
    """The verdict on one repository and the submodules in it.

    Raises `ToolFailed` where git cannot answer.
    """
    top = work_tree_of(repository)
    git.require_whole_index(repository)
    named = within_or_refuse(top, directories)
    scope = find(repository, named)
    found = contents(repository, scope.places, rule_files(scope.directories))
    elsewhere = projects_not_here(repository, found.entries)
    if any(project.sources for project in elsewhere):
        scope = find(repository, named, elsewhere)
        found = contents(repository, scope.places, rule_files(scope.directories))
    findings = [
        *committed(found, scope.places),
        *copied(repository, scope.places, scope.present),
        *unprotected(repository, scope, found),
    ]
    verdict = Verdict(
        moment,
        tuple(findings),
        tuple(os.fsdecode(directory) for directory in scope.directories),
        os.fsdecode(top),
    )
    others = [join(top, path) for path in scope.submodules] + list(scope.outside)
    return joined(verdict, *(_elsewhere(top, place, moment) for place in others))


def _elsewhere(top: bytes, place: bytes, moment: Moment) -> Verdict:
    """The verdict on another repository, in paths that are relative to this one's top."""
    other = git.open_repository(os.fsdecode(place))
    if other is None or other.top is None or other.top == top:
        return Verdict(moment)
    inside = os.path.relpath(os.fsdecode(other.top), os.fsdecode(top))
    verdict = check_work_tree(other, moment, [os.fsdecode(place)] if place != other.top else [])
    return verdict._replace(
        findings=tuple(
            each._replace(
                inside=inside,
                where=f"{inside}/{each.where}",
                what=f"In {inside}: {each.what}",
                mend=f"(cd {git.quoted(inside)} && {each.mend})",
            )
            for each in verdict.findings
        ),
        directories=tuple(f"{inside}/{directory}" for directory in verdict.directories),
    )


def find(
    repository: git.Repository, extra: Sequence[bytes], elsewhere: Sequence[Project] = ()
) -> Scope:
    """Every state directory of a repository with a work tree.

    extra: directories that were named. elsewhere: projects that are not checked out.
    """
    top = repository.top or b""
    found = walk(top)
    projects = [
        *(read_project(top, directory) for directory in found.projects),
        *elsewhere,
    ]
    targets = [os.path.realpath(join(top, link)) for link in found.links]
    inside = [path[len(top) + 1 :] for path in targets if path.startswith(top + b"/")]
    configured = [
        *extra,
        *(path for project in projects for path in project.sources),
        *inside,
    ]
    on_disk = [path for path in configured if os.path.isdir(join(top, path))]
    expected = [path for project in projects for path in project.expected]
    return Scope(
        present=tuple(dict.fromkeys([*found.states, *on_disk])),
        expected=tuple(dict.fromkeys([*configured, *expected])),
        submodules=_submodules(repository, found.repositories),
        outside=tuple(
            path for path in targets if not path.startswith(top + b"/") and os.path.isdir(path)
        ),
        projects=tuple(projects),
        ignore_case=git.ignores_case(repository),
    )


def _submodules(repository: git.Repository, repositories: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those repositories in the work tree that the index knows: the others are not ours."""
    if not repositories:
        return ()
    pathspecs = [git.exactly(path) for path in repositories]
    (answer,) = repository.ask(git.index_question(pathspecs))
    known = {entry.path for entry in git.index_entries(answer) if entry.mode == b"160000"}
    return tuple(path for path in repositories if path in known)


# --- what the rules protect -----------------------------------------------------------------


def unprotected(repository: git.Repository, scope: Scope, found: Contents) -> list[Finding]:
    """A finding for each state directory that ``git add -A`` would take, now or in a clone."""
    top = repository.top or b""
    directories = scope.directories
    if not directories:
        return []
    takes = {path: list(takeable(top, path)) for path in scope.present}
    probes = {join(directory, PROBE): directory for directory in directories}
    paths = [*(path for files in takes.values() for path in files), *probes]
    (answer,) = repository.ask(git.rules_question(paths))
    deciding = {rule.path: rule for rule in git.rules(answer)}
    open_paths = [path for path, rule in deciding.items() if not rule.ignores]
    tracked = found.tracked()
    exposed: dict[bytes, list[bytes]] = {}
    for path in open_paths:
        owner = scope.places.directory_of(path)
        if owner is not None and path not in tracked and path not in probes:
            exposed.setdefault(owner, []).append(path)
    open_probes = {probes[path] for path in open_paths if path in probes}
    protected = {
        directory: deciding[probe]
        for probe, directory in probes.items()
        if directory not in exposed
    }
    durable = durably_protected(repository, protected, found)
    findings = [_offered(directory, files) for directory, files in sorted(exposed.items())]
    if durable:
        from bundler.guard.wheel import dropped_from_wheels

        projects = (project.directory for project in scope.projects)
        findings += dropped_from_wheels(top, projects, sorted(durable))
    findings += [
        _not_durable(directory, deciding[probe], nowhere=directory in open_probes)
        for probe, directory in probes.items()
        if directory not in exposed and directory not in durable
    ]
    return findings


def _offered(directory: bytes, files: Sequence[bytes]) -> Finding:
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return Finding(
        "fail",
        "state-unprotected",
        os.fsdecode(directory),
        f"git add -A would take {count} of the state directory {git.printable(directory)}: "
        f"no rule ignores {git.printable(min(files))}.",
        "The next careless commit holds the state.",
        ignore_command(directory),
    )


def _not_durable(directory: bytes, rule: git.Rule, *, nowhere: bool) -> Finding:
    """rule: the one that decides over what is in it, here."""
    if nowhere:
        return Finding(
            "warn",
            "protection-missing",
            os.fsdecode(directory),
            f"No ignore rule covers the state directory {git.printable(directory)} yet.",
            "State that is copied or restored there would be taken by git add -A.",
            ignore_command(directory),
        )
    is_written = rule.source == RULE_FILE and rule.ignores
    return Finding(
        "warn",
        "protection-local",
        os.fsdecode(directory),
        f"The state directory {git.printable(directory)} is ignored on this machine only: "
        "HEAD holds no rule for it.",
        "A fresh clone, and every other machine, would offer it to git add -A.",
        "git add .gitignore && git commit .gitignore" if is_written else ignore_command(directory),
    )


def ignore_rule(directory: bytes) -> bytes:
    """The line for the root's ignore file that protects a state directory everywhere."""
    if directory.rpartition(b"/")[2] == NAME:
        return NAME + b"/"
    escaped = b"".join(b"\\" + byte if byte in b"\\*?[] !#" else byte for byte in _bytes(directory))
    return b"/" + escaped + b"/"


def _bytes(text: bytes) -> Iterable[bytes]:
    return (text[at : at + 1] for at in range(len(text)))


def ignore_command(directory: bytes) -> str:
    line = git.quoted(os.fsdecode(ignore_rule(directory)))
    return f"printf '%s\\n' {line} >> .gitignore && git add .gitignore"
