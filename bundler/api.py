"""What a program can call: each function does what the command of its name does.

Nothing heavy is imported until a function is called.
"""

from __future__ import annotations

# `typing` takes longer to import than git takes to answer `state-guard`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.artifacts.diff import Difference
    from bundler.artifacts.embedding import EmbedResult
    from bundler.artifacts.verify import Verdict
    from bundler.guard.verdict import GuardVerdict, Moment
    from bundler.listener import Listener
    from bundler.project.options import RefreshOptions
    from bundler.project.projects import Project
    from bundler.refresh.run import Refreshed
    from bundler.state.artifact import Artifact
    from bundler.workflows.policy import Policy

    Directory = str | os.PathLike[str]


def refresh(
    *projects: Directory,
    options: RefreshOptions | None = None,
    python: Directory | None = None,
    listener: Listener | None = None,
) -> Refreshed:
    """Refreshes and publishes the states of projects: all of them, or none.

    projects: their directories; by default the current directory. options: override the projects'
    own configuration. python: their interpreter; None finds it as dg and uv do. Raises the failure
    of a key (`errors.Unavailable`, `errors.BadData`, `errors.CredentialsRefused`, …), or
    `errors.Several`; the published states are then unchanged.
    """
    from bundler.listener import SILENT
    from bundler.project.options import RefreshOptions
    from bundler.refresh.run import refresh

    return refresh(_found(projects, python), options or RefreshOptions(), listener or SILENT)


def guard(
    directory: Directory = ".",
    moment: Moment = "build",
    *,
    allow: Sequence[str] = (),
    strict: bool = False,
) -> GuardVerdict:
    """Asks git whether state is, or could get, into the repository that contains `directory`.

    moment: ``build`` (index, HEAD and ignore rules), ``staged`` or ``history``. allow: paths or
    patterns that are committed on purpose, in addition to those in the project's configuration.
    strict: treat warnings as failures. Returns the verdict with its warnings. Raises
    `errors.Findings` if it fails, `errors.ToolFailed` if git cannot answer.
    """
    from pathlib import Path

    from bundler.errors import Findings
    from bundler.guard.moments import check
    from bundler.project.config import load

    root = Path(directory)
    config = load(root)
    places = [root / source.path for source in config.sources]
    verdict = check(root, moment, places, (*config.guard_allow, *allow), strict=strict)
    if verdict.failed:
        messages = " ".join(finding.what for finding in verdict.failures)
        raise Findings(messages, hint=verdict.failures[0].fix)
    return verdict


def embed(
    artifact: str,
    *projects: Directory,
    options: RefreshOptions | None = None,
    state_from: str | None = None,
    guarded: bool = True,
    tag: str | None = None,
    in_place: bool = False,
    python: Directory | None = None,
    listener: Listener | None = None,
) -> EmbedResult:
    """Embeds state in a finished artifact, reads it back, and only then gives the result its name.

    artifact: a PEX, which is replaced; or an image (``oci:LAYOUT[:TAG]``, a name in the engine, or
    ``docker://NAME`` in a registry), which gets a new tag: `tag`, or one derived from the old tag
    and the content, or with `in_place` the old one. options: None uses the states that were
    published last; ``RefreshOptions(mode="always")`` asks the external systems first. state_from:
    an artifact whose states are used instead. guarded: False skips git, and the artifact's record
    says so. If the artifact has these states already, nothing is written and `changed` is False.
    Raises `errors.VerificationFailed` if the result does not contain them, and as `refresh` and
    `guard` do.
    """
    from bundler.artifacts.names import ArtifactName
    from bundler.listener import SILENT
    from bundler.project.options import RefreshOptions
    from bundler.workflows.pipeline import StateRequest, prepare
    from bundler.workflows.update import refuse_impossible, update

    listener, name = listener or SILENT, ArtifactName.parse(artifact)
    request = StateRequest(
        refresh=options or RefreshOptions(mode="never"), guarded=guarded, state_from=state_from
    )
    refuse_impossible(name)
    with prepare(_found(projects, python), request, listener) as prepared:
        return update(name, tag, in_place=in_place, prepared=prepared, listener=listener)


def verify(artifact: str, policy: Policy | None = None) -> Verdict:
    """Reads every byte of the state in an artifact and compares it with its manifest.

    Raises `errors.VerificationFailed` if anything differs from the manifest or is not in it, and
    `errors.Findings` if the state is intact but violates the policy.
    """
    from bundler.artifacts.open import open_artifact
    from bundler.artifacts.verify import verify

    with open_artifact(artifact) as opened:
        verdict = verify(opened)
        verdict.raise_for_problems()
        if policy is not None:
            _demand(policy, opened, verdict)
    return verdict


def _demand(policy: Policy, artifact: Artifact, verdict: Verdict) -> None:
    import time

    from bundler.workflows.policy import judge, subject_of
    from bundler.workflows.verify import VerifyReport

    breaches = judge(policy, subject_of(policy, artifact, verdict, time.time()))
    if failure := VerifyReport(verdict.name, verdict, breaches).failure():
        raise failure


def diff(before: str, after: str, volatile: Sequence[str] = ()) -> Difference:
    """What changed between the states of two artifacts or directories, key by key.

    volatile: names of JSON members to ignore, in addition to the known ones. Raises
    `errors.VerificationFailed` if one of the two is malformed.
    """
    from bundler.artifacts.diff import diff
    from bundler.artifacts.open import open_artifact

    with open_artifact(before) as one, open_artifact(after) as other:
        return diff(one, other, volatile)


def _found(directories: Sequence[Directory], python: Directory | None) -> tuple[Project, ...]:
    from pathlib import Path

    from bundler.project.projects import find

    interpreter: Path | None = None if python is None else Path(python)
    return find([Path(directory) for directory in directories], python=interpreter)
