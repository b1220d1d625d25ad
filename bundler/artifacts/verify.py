"""Judges an artifact: the state is what the manifest says, and nothing more.

What is checked, from the outside in: the artifact's labels name exactly the state directories that
are there; each manifest has the digest that its label gives, is canonical and agrees with itself;
every file of every state has its digest; nothing is there that the manifest does not name,
except what the program has added below a path that the manifest declares writable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from bundler.errors import VerificationFailed
from bundler.state.artifact import Artifact, Member, StateDirectory, read_settled
from bundler.state.bundle import MANIFEST_NAME, RUN_RECORD_NAME, STAGING_NAME, Bundle
from bundler.state.manifest import Claim, Manifest, RunRecord, parse
from bundler.state.tree import hash_stream
from bundler.system.parallel import in_parallel
from bundler.verify_at_start import (
    BYTECODE_HEADER_BYTES,
    MAX_UNKNOWN,
    Known,
    bytecode_problem,
    mode_problem,
)

# What a project's own state directory contains besides what ships.
_OF_PROJECTS = {RUN_RECORD_NAME: "file", STAGING_NAME: "directory"}
# Kinds whose labels describe their contents and their origin; never one without the other.
_LABELLED = ("docker", "oci", "pex", "registry", "wheel")


class VerifiedDirectory(msgspec.Struct, frozen=True):
    """A state directory and its problems, as messages; none if it is valid."""

    path: str
    manifest: Manifest | None
    problems: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """The result of verifying one artifact.

    problems: of the artifact as a whole. loaded: the result of loading it, or why that was not
    tried; empty if it was not asked for. proof: what was compared, for the last lines of output;
    empty if there are no states.
    """

    name: str
    kind: str
    digest: str | None
    directories: tuple[VerifiedDirectory, ...]
    record: RunRecord | None
    problems: tuple[str, ...]
    loaded: str = ""
    proof: str = ""

    @property
    def all_problems(self) -> tuple[str, ...]:
        return (
            *self.problems,
            *(problem for item in self.directories for problem in item.problems),
        )

    def raise_for_problems(self) -> None:
        """Raises `VerificationFailed` naming every problem, if there is any."""
        if self.all_problems == (_no_state(self.name),):
            raise without_state(self.name)
        if self.all_problems:
            raise unverified(self.name, self.all_problems)


def without_state(name: str) -> VerificationFailed:
    """The error for an artifact that no state was embedded in."""
    return VerificationFailed(
        _no_state(name),
        hint="Build it with state-bundler build; state-bundler embed adds the state to an image.",
    )


def _no_state(name: str) -> str:
    return f"{name} contains no state directory."


def unverified(name: str, problems: Sequence[str]) -> VerificationFailed:
    differs = f"{name} does not match its manifest:"
    error = VerificationFailed(
        f"{differs} {' '.join(problems)}", hint="Do not ship it. Build it again."
    )
    if len(problems) > 1:
        error.headline = f"{differs} {len(problems)} problems."
        error.details = (("integrity", tuple(problems)),)
    return error


def verify(artifact: Artifact) -> Verdict:
    """Reads everything that the artifact's manifests cover, and judges it.

    Never raises for a problem of the state; raises if the artifact cannot be read.
    """
    return read_settled(artifact, lambda: _verified(artifact))


def _verified(artifact: Artifact) -> Verdict:
    claims = artifact.claims()
    problems: list[str] = []
    directories = [_judge(directory, claims) for directory in artifact.state_directories()]
    if not directories:
        problems.append(_no_state(artifact.name))
    paths = {directory.path for directory in directories}
    problems += [
        f"The label lists {claim.path}, which does not exist."
        for claim in claims or ()
        if claim.path not in paths
    ]
    found = {item.path: item.manifest for item in directories if item.manifest}
    problems += _first(artifact.problems(found), artifact.name)
    record = None
    try:
        record = artifact.run_record()
    except VerificationFailed as error:
        problems.append(error.what)
    else:
        problems += _of_others(record, directories)
        if (claims is None) != (record is None) and artifact.kind in _LABELLED:
            lost = "its state label" if claims is None else "its run record"
            problems.append(f"{artifact.name} has no {lost}, which every embedded artifact has.")
    # An index has one image for each platform, and a user may get any of them.
    for other in artifact.other_platforms():
        problems += [f"{other.name}: {problem}" for problem in verify(other).all_problems]
    return Verdict(
        artifact.name,
        artifact.kind,
        artifact.digest,
        tuple(directories),
        record,
        tuple(problems),
        proof=artifact.proof if directories else "",
    )


def read_back(artifact: Artifact, bundles: Sequence[Bundle]) -> Verdict:
    """Verifies a finished artifact, and that it contains exactly these states.

    Without any states, the artifact is what its builder made, and must contain no state at all.
    Raises `VerificationFailed` for anything else.
    """
    if not bundles:
        found = [directory.path for directory in artifact.state_directories()]
        if found:
            raise VerificationFailed(
                f"{artifact.name} contains state that was not refreshed for it: "
                f"{', '.join(found)}.",
                hint="Select the project that this state belongs to with --project.",
            )
        return Verdict(artifact.name, artifact.kind, artifact.digest, (), None, ())
    verdict = verify(artifact)
    verdict.raise_for_problems()
    # Each platform's labels name the manifests that are there: that has been verified.
    held = [
        {directory.manifest.sha256 for directory in verdict.directories if directory.manifest},
        *({claim.manifest for claim in it.claims() or ()} for it in artifact.other_platforms()),
    ]
    for bundle in bundles:
        if not all(bundle.manifest.sha256 in there for there in held):
            raise VerificationFailed(
                f"{artifact.name} does not contain the state of {bundle.place} that was embedded.",
                hint="This is a bug in state-bundler, or another program wrote to the artifact.",
            )
    return verdict


def _first(problems: Iterable[str], where: str) -> Iterator[str]:
    """At most as many problems as anybody reads; then a line that says so."""
    try:
        for count, problem in enumerate(problems):
            if count == MAX_UNKNOWN:
                yield f"{where} contains more problems that are not listed."
                return
            yield problem
    except VerificationFailed as error:
        yield error.what


def _of_others(record: RunRecord | None, found: Sequence[VerifiedDirectory]) -> Iterator[str]:
    """Whether the run record belongs to other states than these, copied from another artifact."""
    here = {item.path: item.manifest.content_digest for item in found if item.manifest}
    for refresh in record.refresh if record else ():
        digest = refresh.content_digest
        if digest is None:
            if refresh.keys:
                yield f"The run record does not say which states in {refresh.path} it describes."
            continue
        if here.get(refresh.path, digest) != digest or digest not in here.values():
            yield (
                f"The run record describes other states ({digest[:12]}) in {refresh.path}: it "
                "belongs to another or an older artifact."
            )


def _judge(directory: StateDirectory, claims: Sequence[Claim] | None) -> VerifiedDirectory:
    where = f"{directory.path}/{MANIFEST_NAME}"
    try:
        raw = directory.read_manifest()
        if raw is None:
            return VerifiedDirectory(directory.path, None, (f"{where} is missing.",))
        manifest = parse(raw, where)
    except VerificationFailed as error:
        return VerifiedDirectory(directory.path, None, (error.what,))
    problems = list(manifest_problems(directory.path, manifest, claims))
    if directory.sealed:
        return VerifiedDirectory(directory.path, manifest, tuple(problems))
    problems += verify_directory(directory, manifest, shipped=claims is not None)
    return VerifiedDirectory(directory.path, manifest, tuple(problems))


def manifest_problems(
    path: str, manifest: Manifest, claims: Sequence[Claim] | None
) -> Iterator[str]:
    """The problems of a manifest compared with the artifact's label."""
    if not manifest.states and not manifest.predicate.contents.non_local:
        yield f"{path}/{MANIFEST_NAME} lists no state."
    if claims is None:
        return
    mine = [claim for claim in claims if claim.path == path]
    if not mine:
        yield f"The label does not list {path}."
    for claim in mine:
        if claim.manifest != manifest.sha256:
            yield f"{path}/{MANIFEST_NAME} is not the manifest in the label."
        if claim.content_digest != manifest.content_digest:
            yield f"The content digest of {path}/{MANIFEST_NAME} differs from the label."


def verify_directory(
    directory: StateDirectory, manifest: Manifest, *, shipped: bool
) -> Iterator[str]:
    """The problems of a state directory's files, as messages.

    shipped: whether it must not contain what only a project's own directory has.
    """
    return _first(_directory_problems(directory, manifest, shipped=shipped), directory.path)


def _directory_problems(
    directory: StateDirectory, manifest: Manifest, *, shipped: bool
) -> Iterator[str]:
    known = manifest.known
    missing = set(known.files)
    waiting: list[Member] = []
    for member in directory.members():
        missing.discard(member.path)
        if problem := refusal(member, known, shipped=shipped):
            yield f"{directory.path}/{member.path} {problem}."
        elif member.kind == "file" and known.covers(member.path):
            waiting.append(member)
        if not directory.concurrent:
            yield from _altered(directory.path, waiting, known)
            waiting.clear()
    yield from _altered(directory.path, waiting, known)
    for path in sorted(missing):
        yield f"{directory.path}/{path} is missing."


def refusal(member: Member, known: Known, *, shipped: bool) -> str | None:
    """Why something may not be in a state directory, as the end of a message.

    The bytes of a file are checked later.
    """
    if _is_apart(member, shipped=shipped):
        return None
    return known.refuses(member.path, member.kind) or _mode_problem(member)


def _altered(where: str, members: Sequence[Member], known: Known) -> Iterator[str]:
    judged = in_parallel(
        lambda member: (member.path, _content_problem(member, known)),
        members,
        lambda member: member.size,
    )
    return (f"{where}/{path} {problem}." for path, problem in judged if problem)


def _is_apart(member: Member, *, shipped: bool) -> bool:
    """The manifest, and what only a project's own state directory contains."""
    if member.path == MANIFEST_NAME:
        return member.kind == "file"
    top, below, _ = member.path.partition("/")
    if shipped or top not in _OF_PROJECTS:
        return False
    return bool(below) or member.kind == _OF_PROJECTS[top]


def _mode_problem(member: Member) -> str | None:
    return None if member.mode is None else mode_problem(member.kind, member.mode)


def _content_problem(member: Member, known: Known) -> str | None:
    """What is wrong with the bytes of a file, as the end of a message."""
    source = known.source_of(member.path)
    if source is not None:
        with member.open() as stream:
            header = stream.read(BYTECODE_HEADER_BYTES)
        return bytecode_problem(header, source, known.files[source][1])
    expected, size = known.files[member.path]
    if member.size != size:
        return f"has {member.size} bytes instead of {size}"
    found = member.sha256()
    if found is None:
        with member.open() as stream:
            found, size = hash_stream(stream)
    return None if (found, size) == (expected, member.size) else "was altered"
