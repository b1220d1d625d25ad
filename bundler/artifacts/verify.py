"""Judges an artifact: the state is what the manifest says, and nothing more.

What is checked, from the outside in: the artifact's labels name exactly the state directories that
are there; each manifest has the digest that its label gives, is canonical and agrees with itself;
every file of every state has its digest; nothing lies there that the manifest does not name,
except what the program has added below a path that the manifest declares writable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from bundler.errors import BundlerError, VerificationFailed
from bundler.state.artifact import Artifact, Member, StateDirectory
from bundler.state.bundle import MANIFEST_NAME, RUN_RECORD_NAME, STAGING_NAME
from bundler.state.manifest import Claim, File, Manifest, RunRecord, parse
from bundler.state.tree import hash_stream
from bundler.system.parallel import in_parallel

# Kinds that say of themselves what is in them, and how it got there; never one without the other.
_LABELLED = ("docker", "oci", "pex", "registry", "wheel")


class VerifiedDirectory(msgspec.Struct, frozen=True):
    """A state directory and what is wrong with it, as sentences; nothing if it verifies."""

    path: str
    manifest: Manifest | None
    problems: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What was found in one artifact. problems: what concerns the artifact as a whole."""

    name: str
    kind: str
    digest: str | None
    directories: tuple[VerifiedDirectory, ...]
    record: RunRecord | None
    problems: tuple[str, ...]

    @property
    def all_problems(self) -> tuple[str, ...]:
        return (
            *self.problems,
            *(problem for item in self.directories for problem in item.problems),
        )

    def raise_for_problems(self) -> None:
        """Raises `VerificationFailed` naming every problem, if there is one."""
        if self.all_problems:
            raise VerificationFailed(
                f"{self.name} does not verify: " + " ".join(self.all_problems),
                hint="Do not ship it. Build it again.",
            )


def verify(artifact: Artifact) -> Verdict:
    """Reads everything that the artifact's manifests cover, and judges it.

    Never raises for what is wrong with the state; raises where the artifact cannot be read.
    """
    claims = artifact.claims()
    problems: list[str] = []
    directories = [_judge(directory, claims) for directory in artifact.state_directories()]
    if not directories:
        problems.append(f"{artifact.name} holds no state directory.")
    problems += _unmet(claims or (), {directory.path for directory in directories})
    found = {item.path: item.manifest for item in directories if item.manifest}
    try:
        for problem in artifact.problems(found):
            problems.append(problem)  # what was found before a failure stays
    except VerificationFailed as error:
        problems.append(error.what)
    record = None
    try:
        record = artifact.run_record()
    except VerificationFailed as error:
        problems.append(error.what)
    else:
        problems += _of_others(record, directories)
        if (claims is None) != (record is None) and artifact.kind in _LABELLED:
            lost = "what it says of its states" if claims is None else "its run record"
            problems.append(f"{artifact.name} has lost {lost}: whoever embeds writes both.")
    # An index has one image for each platform, and whoever runs it gets any of them.
    for other in artifact.other_platforms():
        problems += [f"{other.name}: {problem}" for problem in verify(other).all_problems]
    return Verdict(
        artifact.name, artifact.kind, artifact.digest, tuple(directories), record, tuple(problems)
    )


def _unmet(claims: Sequence[Claim], found: set[str]) -> list[str]:
    return [
        f"The label names {claim.path}, which is not there."
        for claim in claims
        if claim.path not in found
    ]


def _of_others(record: RunRecord | None, found: Sequence[VerifiedDirectory]) -> Iterator[str]:
    """Where the run record belongs to other states than are here: it was taken from elsewhere."""
    here = {item.path: item.manifest.content_digest for item in found if item.manifest}
    for refresh in record.refresh if record else ():
        digest = refresh.content_digest
        other = (
            here[refresh.path] != digest if refresh.path in here else digest not in here.values()
        )
        if digest is not None and other:
            yield (
                f"The run record speaks of other states ({digest[:12]}) in {refresh.path}: it "
                "belongs to another artifact, or to an older one."
            )


def _judge(directory: StateDirectory, claims: Sequence[Claim] | None) -> VerifiedDirectory:
    raw = directory.read_manifest()
    where = f"{directory.path}/{MANIFEST_NAME}"
    if raw is None:
        return VerifiedDirectory(directory.path, None, (f"{where} is missing.",))
    try:
        manifest = parse(raw, where)
    except BundlerError as error:
        return VerifiedDirectory(directory.path, None, (error.what,))
    problems = list(_against_claims(directory.path, manifest, claims))
    if directory.sealed:
        return VerifiedDirectory(directory.path, manifest, tuple(problems))
    try:
        for problem in verify_directory(directory, manifest, shipped=claims is not None):
            problems.append(problem)  # noqa: PERF402  # what was found before a failure stays
    except VerificationFailed as error:
        problems.append(error.what)
    return VerifiedDirectory(directory.path, manifest, tuple(problems))


def _against_claims(path: str, manifest: Manifest, claims: Sequence[Claim] | None) -> Iterator[str]:
    if claims is None:
        return
    mine = [claim for claim in claims if claim.path == path]
    if not mine:
        yield f"The label does not name {path}."
    for claim in mine:
        if claim.manifest != manifest.sha256:
            yield f"{path}/{MANIFEST_NAME} is not the manifest that the label names."
        if claim.content_digest != manifest.content_digest:
            yield f"{path}/{MANIFEST_NAME} has not the content digest that the label names."


def verify_directory(
    directory: StateDirectory, manifest: Manifest, *, shipped: bool
) -> Iterator[str]:
    """What is wrong with the files of a state directory, as sentences.

    shipped: nothing may lie there that only a project's own directory holds.
    """
    expected = dict(_expected(manifest))
    writable = tuple(f"{state.path}/{path}" for state in manifest.states for path in state.writable)
    missing = set(expected)

    def is_judged(member: Member) -> bool:
        if member.kind == "directory":
            return False
        if member.path not in expected and _is_below(member.path, writable):
            return False
        return member.path != MANIFEST_NAME and (shipped or not _stays_local(member.path))

    def judge(member: Member) -> tuple[str, str | None]:
        return member.path, _member_problem(member, expected.get(member.path))

    judged = filter(is_judged, directory.members())
    for path, problem in (
        in_parallel(judge, list(judged), lambda member: member.size)
        if directory.concurrent
        else map(judge, judged)
    ):
        missing.discard(path)
        if problem:
            yield f"{directory.path}/{path} {problem}."
    for path in sorted(missing):
        yield f"{directory.path}/{path} is missing."


def _member_problem(member: Member, expected: File | None) -> str | None:
    """What is wrong with a file, as the end of a sentence."""
    if expected is None:
        return "is not in the manifest"
    if member.kind != "file":
        return "is no regular file"
    if member.size != expected.size:
        return f"has {member.size} bytes instead of {expected.size}"
    with member.open() as stream:
        digest, size = hash_stream(stream, expected.size)  # type: ignore[arg-type]  # BinaryIO hides readinto
    return None if (digest, size) == (expected.sha256, expected.size) else "was altered"


def _expected(manifest: Manifest) -> Iterator[tuple[str, File]]:
    for file in manifest.support:
        yield file.path, file
    for state in manifest.states:
        for file in state.files:
            yield f"{state.path}/{file.path}", file


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(f"{parent}/") for parent in parents)


def _stays_local(path: str) -> bool:
    """What a project's own state directory holds besides what ships."""
    return path == RUN_RECORD_NAME or _is_below(path, (STAGING_NAME,))
