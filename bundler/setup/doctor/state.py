"""Checks the published state, the baseline of the next refresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bundler.artifacts.verify import verify
from bundler.errors import BundlerError
from bundler.project.config import load
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import command
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.directory import DirectoryArtifact, refuse_interrupted
from bundler.state.statedir import StateDir
from bundler.system.wording import counted

_NO_BASELINE = (
    "{place} has no published state: the first refresh has no baseline and cannot detect "
    "a shrunk state."
)


def state(patient: DoctorContext) -> Iterator[Finding]:
    """Each state directory on disk, verified like any artifact."""
    root = patient.survey.root
    allowed = load(root).allowed_paths
    for directory in patient.survey.state_directories:
        try:
            StateDir(root / directory, str(directory), allowed).check()
            yield _judge(root, str(directory))
        except BundlerError as error:
            yield Finding("fail", error.what, "A build would fail with this error.", error.hint)


def _judge(root: Path, place: str) -> Finding:
    directory = root / place
    refuse_interrupted(directory)
    if not (directory / MANIFEST_NAME).exists():
        return Finding("ok", _NO_BASELINE.format(place=place))
    with DirectoryArtifact(directory) as artifact:
        verdict = verify(artifact)
    if verdict.all_problems:
        return Finding(
            "fail",
            f"{place} does not match its manifest: {' '.join(verdict.all_problems)}",
            "It was changed after it was published: it cannot be a baseline and must not be "
            "shipped.",
            command("state-bundler refresh", root),
        )
    states = [
        item for found in verdict.directories if found.manifest for item in found.manifest.states
    ]
    return Finding(
        "ok",
        f"{place}: {counted(len(states), 'state')}, verified; the baseline of the next refresh.",
    )
