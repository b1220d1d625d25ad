"""The guard's result: findings, each with a grade, a path, a reason and a fix."""

from __future__ import annotations

from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    Grade = Literal["fail", "warn"]
    Moment = Literal["staged", "build", "push", "receive", "history"]
    # The old and the new object of each ref that moves: names, or zeros if there is none.
    Updates = tuple[tuple[str, str], ...]
else:
    Grade = Moment = str
    Updates = tuple


class GuardFinding(NamedTuple):
    """One thing that is wrong, or could become so.

    rule: a stable name for the kind. what: a message that names the path. where: the path,
    relative to the top of the repository. why: the reason that it matters. fix: the command that
    fixes it, or a message, with a full stop, if that takes a user.
    inside: the other repository (a submodule) that it is about, relative to the top.
    """

    grade: Grade
    rule: str
    where: str
    what: str
    why: str
    fix: str
    inside: str = ""


class GuardVerdict(NamedTuple):
    """The answer to one question. `directories` are the state directories it is about."""

    moment: Moment
    findings: tuple[GuardFinding, ...] = ()
    directories: tuple[str, ...] = ()
    top: str = ""

    @property
    def failures(self) -> tuple[GuardFinding, ...]:
        return tuple(finding for finding in self.findings if finding.grade == "fail")

    @property
    def warnings(self) -> tuple[GuardFinding, ...]:
        return tuple(finding for finding in self.findings if finding.grade == "warn")

    @property
    def failed(self) -> bool:
        return bool(self.failures)

    def strict(self) -> GuardVerdict:
        """The same with every warning a failure."""
        return self._replace(findings=tuple(each._replace(grade="fail") for each in self.findings))


class Movement(NamedTuple):
    """The input of a check apart from the repository itself.

    updates: of the refs that are pushed or received; None if git did not tell. remote: the name of
    the remote that is pushed to. compare: at the moment ``staged``, where the index is known to
    hold no state under its own name, the directories with state that could have been copied.
    """

    updates: Updates | None = None
    remote: str = ""
    compare: tuple[bytes, ...] | None = None


_NAMED = 3


def shared(finding: GuardFinding) -> tuple[str, ...]:
    """What findings that share an explanation have in common."""
    return (finding.grade, finding.rule, finding.inside, finding.why, finding.fix)


def grouped(findings: Iterable[GuardFinding]) -> list[GuardFinding]:
    """The findings to print: warnings with the same reason and fix become one, and failures that
    one git command fixes have that command.

    A workspace of many projects lacks one rule, and not one a project.
    """
    groups: dict[object, list[GuardFinding]] = {}
    for number, finding in enumerate(with_joined_fixes(list(findings))):
        key = shared(finding) if finding.grade == "warn" else number
        groups.setdefault(key, []).append(finding)
    return [_as_one(group) for group in groups.values()]


def with_joined_fixes(findings: Sequence[GuardFinding]) -> list[GuardFinding]:
    """State that is in the index has one fix for all its paths, not one for each key."""
    paths: dict[str, dict[str, None]] = {}
    for finding in findings:
        command, path = _taken_out(finding)
        paths.setdefault(command, {})[path] = None
    return [
        finding._replace(fix=f"{command} -- {' '.join(paths[command])}") if command else finding
        for finding in findings
        for command in [_taken_out(finding)[0]]
    ]


def _taken_out(finding: GuardFinding) -> tuple[str, str]:
    """The command that takes a path out of the index, and the path; empty for another fix."""
    command, _, path = finding.fix.partition(" -- ")
    return (command, path) if finding.rule == "state-in-index" else ("", "")


def _as_one(group: Sequence[GuardFinding]) -> GuardFinding:
    first, *others = group
    if not others:
        return first
    names = ", ".join(finding.where for finding in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return first._replace(what=f"{first.what} The same applies to {names}{more}.")


def joined(*verdicts: GuardVerdict) -> GuardVerdict:
    """Merges verdicts about the same moment; a finding in several is kept once."""
    findings = dict.fromkeys(finding for verdict in verdicts for finding in verdict.findings)
    directories = dict.fromkeys(place for verdict in verdicts for place in verdict.directories)
    return verdicts[0]._replace(findings=tuple(findings), directories=tuple(directories))
