"""What a user requires of a verified artifact beyond integrity: age, code, keys, sizes, labels.

Every rule is a small function over frozen values that yields *breaches*, each a message. If the
artifact does not say what a rule asks for, that is a breach, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from bundler.artifacts.verify import Verdict
from bundler.state.age import age_problem
from bundler.state.artifact import Artifact, StateDirectory
from bundler.state.manifest import KeyRefresh, RunRecord, State
from bundler.system.wording import counted, nearest

_SHORTEST_COMMIT = 7


class Policy(msgspec.Struct, frozen=True):
    """The rules to check, except those that are None, False or empty.

    max_age: seconds since each state was last confirmed. require: keys that must be there. commit:
    the code's, full or abbreviated. clean: built from a work tree without changes. min_entries: of
    each local state's JSON, by key; the key "*" is for all others. require_labels: names, with the
    required value or None for any.
    """

    max_age: float | None = None
    require: tuple[str, ...] = ()
    commit: str | None = None
    clean: bool = False
    guarded: bool = False
    no_stale: bool = False
    environment: str | None = None
    min_entries: Mapping[str, int] = msgspec.field(default_factory=dict)
    require_labels: Mapping[str, str | None] = msgspec.field(default_factory=dict)


class Subject(msgspec.Struct, frozen=True):
    """What is judged.

    labels: the artifact's. entries: of each state, by directory and key; None if it is too large to
    count them. now: seconds since the epoch.
    """

    verdict: Verdict
    labels: Mapping[str, str]
    entries: Mapping[tuple[str, str], int | None]
    now: float

    @property
    def record(self) -> RunRecord:
        """The artifact's; one that says nothing if it has none."""
        return self.verdict.record or RunRecord()

    def states(self) -> Iterator[tuple[str, State, KeyRefresh | None]]:
        """Every local state with its directory's path, and how it was made."""
        for directory in self.verdict.directories:
            for state in directory.manifest.states if directory.manifest else ():
                yield directory.path, state, self.record.key(directory.path, state.key)


class Breach(msgspec.Struct, frozen=True):
    """A requirement that is not met.

    rule: its option without dashes. key: if it concerns one. hint: what the user can do now; may be
    empty.
    """

    rule: str
    what: str
    key: str | None = None
    hint: str = ""


def judge(policy: Policy, subject: Subject) -> tuple[Breach, ...]:
    """Every requirement of the policy that the artifact does not meet."""
    return tuple(breach for rule in _RULES for breach in rule(policy, subject))


def subject_of(policy: Policy, artifact: Artifact, verdict: Verdict, now: float) -> Subject:
    """Reads from the artifact what the policy needs and the verdict does not contain."""
    entries = entries_of(artifact, verdict) if policy.min_entries else {}
    labels = artifact.labels() if policy.require_labels else {}
    return Subject(verdict, labels, entries, now)


def entries_of(artifact: Artifact, verdict: Verdict) -> dict[tuple[str, str], int | None]:
    """The entries in each state's JSON, or its files, by directory and key. Reads every state.

    None stands for a state that is too large to count its entries.
    """
    found: dict[tuple[str, str], int | None] = {}
    for directory in artifact.state_directories():
        found.update(_entries(directory, verdict))
    return found


def _entries(
    directory: StateDirectory, verdict: Verdict
) -> Iterator[tuple[tuple[str, str], int | None]]:
    from bundler.state.json_entries import TooLargeToCountError, entries_in

    found = next(item for item in verdict.directories if item.path == directory.path)
    states = {state.path: state for state in found.manifest.states} if found.manifest else {}
    counted: dict[str, int | None] = {path: len(it.files) for path, it in states.items()}
    for member in directory.members():
        path, _, name = member.path.partition("/")
        if name == "state" and path in states and member.size:
            try:
                with member.open() as stream:
                    entries = entries_in(stream)
            except TooLargeToCountError:
                counted[path] = None
            else:
                counted[path] = counted[path] if entries is None else entries
    for path, count in counted.items():
        yield (directory.path, states[path].key), count


# --- the rules ------------------------------------------------------------------------------


def _age(policy: Policy, subject: Subject) -> Iterator[Breach]:
    if policy.max_age is None:
        return
    for path, state, refresh in subject.states():
        if problem := age_problem(refresh, policy.max_age, subject.now):
            yield Breach("max-age", f"{state.key} in {path}: {problem}.", state.key)


def _required(policy: Policy, subject: Subject) -> Iterator[Breach]:
    there = {state.key for _, state, _ in subject.states()}
    for key in policy.require:
        if key not in there:
            near = nearest(key, there)
            hint = f"Did you mean {near!r}?" if near else ""
            yield Breach("require", f"There is no state for {key}.", key, hint)


def _commit(policy: Policy, subject: Subject) -> Iterator[Breach]:
    if policy.commit is None:
        return
    built = subject.record.build.commit
    if built is None:
        yield Breach("commit", "The commit it was built from is not recorded.")
    elif not built.startswith(policy.commit.lower()) or len(policy.commit) < _SHORTEST_COMMIT:
        yield Breach("commit", f"It was built from commit {built}, not from {policy.commit}.")


def _clean(policy: Policy, subject: Subject) -> Iterator[Breach]:
    dirty = subject.record.build.dirty
    if policy.clean and dirty:
        yield Breach("clean", "It was built from a work tree with uncommitted changes.")
    elif policy.clean and dirty is None:
        yield Breach("clean", "It is not recorded whether the work tree was clean.")


def _guarded(policy: Policy, subject: Subject) -> Iterator[Breach]:
    if policy.guarded and not subject.record.build.guarded:
        yield Breach("guarded", "It was built without checking that git ignores the state.")


def _stale(policy: Policy, subject: Subject) -> Iterator[Breach]:
    for path, state, refresh in subject.states() if policy.no_stale else ():
        if refresh is None:
            what = f"{state.key} in {path}: it is not recorded whether the state is stale."
            yield Breach("no-stale", what, state.key)
        elif refresh.stale:
            what = (
                f"{state.key} in {path}: the state is stale: its system was unavailable, and the "
                f"state of {refresh.confirmed or refresh.fetched} was kept."
            )
            yield Breach("no-stale", what, state.key)


def _environment(policy: Policy, subject: Subject) -> Iterator[Breach]:
    named = subject.record.environment
    if policy.environment is not None and named != policy.environment:
        found = f"for {named!r}" if named else "for no recorded environment"
        yield Breach("environment", f"It was built {found}, not for {policy.environment!r}.")


def _entry_counts(policy: Policy, subject: Subject) -> Iterator[Breach]:
    there = {state.key for _, state, _ in subject.states()}
    for key in policy.min_entries:
        if key != "*" and key not in there:
            yield Breach("min-entries", f"There is no state for {key}.", key)
    for (path, key), count in subject.entries.items():
        least = policy.min_entries.get(key, policy.min_entries.get("*", 0))
        if count is None and least:
            what = f"{key} in {path}: its state is too large to count its entries."
            hint = "Use a `json-schema` or `validate` instead of --min-entries for this key."
            yield Breach("min-entries", what, key, hint)
        elif count is not None and count < least:
            entries = counted(count, "entry", "entries")
            what = f"{key} in {path}: its state has {entries}, fewer than {least}."
            yield Breach("min-entries", what, key)


def _labels(policy: Policy, subject: Subject) -> Iterator[Breach]:
    for name, wanted in policy.require_labels.items():
        found = subject.labels.get(name)
        if found is None:
            yield Breach("require-label", f"It has no label {name}.")
        elif wanted is not None and found != wanted:
            yield Breach("require-label", f"Its label {name} is {found!r}, not {wanted!r}.")


_Rule = Callable[[Policy, Subject], Iterator[Breach]]
_RULES: tuple[_Rule, ...] = (
    _required,
    _age,
    _stale,
    _commit,
    _clean,
    _guarded,
    _environment,
    _entry_counts,
    _labels,
)

# What is wrong, and what to do, by rule; "integrity" and "signature" are verify's own.
RULES: Mapping[str, tuple[str, str]] = {
    "integrity": ("The state does not match its manifest.", "Do not ship it. Build it again."),
    "signature": (
        "No allowed signer has signed this artifact.",
        "Sign it with state-bundler sign, or name the signature with --signature.",
    ),
    "require": ("A required key has no state.", "Refresh the key, then build the artifact again."),
    "max-age": (
        "A state is older than allowed.",
        "Refresh the state, then build or update the artifact.",
    ),
    "no-stale": (
        "A stale state was kept because its system was unavailable.",
        "Refresh the state once the system is available.",
    ),
    "commit": ("The artifact was built from another commit.", "Build it from that commit."),
    "clean": (
        "The artifact was built from a work tree with uncommitted changes.",
        "Commit the changes, then build it again.",
    ),
    "guarded": ("The git check was skipped in the build.", "Build it without --no-guard."),
    "environment": (
        "The artifact was built for another environment.",
        "Build it with --environment.",
    ),
    "min-entries": (
        "A state has fewer entries than required.",
        "Check what the API returns, then refresh the state.",
    ),
    "require-label": (
        "A label is missing or has another value.",
        "Build the image with that label.",
    ),
}
