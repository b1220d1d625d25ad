"""Extracts the states from an artifact, verifying every byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.artifacts.verify import (
    manifest_problems,
    refusal,
    unverified,
    verify_directory,
    without_state,
)
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import Artifact, Member, StateDirectory, read_settled
from bundler.state.bundle import MANIFEST_NAME, RUN_RECORD_NAME
from bundler.state.directory import StateDirectoryOnDisk
from bundler.state.manifest import Claim, Manifest, RunRecord, canonical, parse
from bundler.state.tree import name_problem
from bundler.system.atomic import (
    io_errors,
    make_directories,
    remove_leftovers,
    sync_directory,
    sync_tree,
    temporary_folder,
)

_BUFFER_BYTES = 256 * 1024


class Extracted(msgspec.Struct, frozen=True):
    """A state directory that was extracted. path: as the artifact named it."""

    path: str
    target: Path
    manifest: Manifest


def extract(artifact: Artifact, destination: Path) -> tuple[Extracted, ...]:
    """Writes every state directory of the artifact below `destination`, under its path there.

    A new destination appears complete or not at all. An empty directory may be a volume or the
    current one, so it is not replaced: what belongs in it is renamed into it at the end. Raises
    `UsageError` if it is not empty, `VerificationFailed` if a state directory does not match its
    manifest.
    """
    place = Path(os.path.realpath(destination))
    with ExitStack() as stack:
        stack.enter_context(io_errors(destination))
        exists = place.is_dir()
        if exists:
            remove_leftovers(place)
            if any(place.iterdir()):
                hint = "Choose a new directory with -o."
                raise UsageError(f"{destination} is not empty.", hint=hint)
        if not artifact.state_directories():
            raise without_state(artifact.name)
        make_directories(place.parent)
        written = place / "states" if exists else place
        temporary, found = read_settled(artifact, lambda: _extract_all(artifact, written, stack))
        sync_tree(temporary)
        if exists:
            for child in temporary.iterdir():
                child.replace(place / child.name)
        else:
            temporary.chmod(0o755)
            temporary.replace(place)
        sync_directory(written.parent)
    return tuple(
        Extracted(path, destination / target, manifest) for path, target, manifest in found
    )


def _extract_all(
    artifact: Artifact, written: Path, stack: ExitStack
) -> tuple[Path, list[tuple[str, str, Manifest]]]:
    root = stack.enter_context(temporary_folder(written))
    claims, record = artifact.claims(), artifact.run_record()
    return root, [
        _extract_one(item, claims, record, artifact.name, root)
        for item in artifact.state_directories()
    ]


def _extract_one(
    directory: StateDirectory,
    claims: Sequence[Claim] | None,
    record: RunRecord | None,
    name: str,
    root: Path,
) -> tuple[str, str, Manifest]:
    raw = directory.read_manifest()
    if raw is None:
        raise VerificationFailed(f"{name}: {directory.path} has no manifest.")
    manifest = parse(raw, f"{name}: the manifest in {directory.path}")
    relative = directory.path.strip("/")
    if relative != "." and name_problem(relative):
        raise VerificationFailed(f"{name}: {directory.path!r} {name_problem(relative)}.")
    for problem in manifest_problems(directory.path, manifest, claims):
        raise unverified(name, [problem])
    target = root / relative
    _write(directory, manifest, target, name, shipped=claims is not None)
    (target / MANIFEST_NAME).write_bytes(raw)
    if record is not None:
        mine = tuple(item for item in record.refresh if item.path == directory.path)
        (target / RUN_RECORD_NAME).write_bytes(
            canonical(msgspec.structs.replace(record, refresh=mine))
        )
    _check(target, manifest, name)
    return directory.path, relative, manifest


def _write(
    directory: StateDirectory, manifest: Manifest, target: Path, name: str, *, shipped: bool
) -> None:
    known = manifest.known
    with io_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        for member in directory.members():
            if problem := refusal(member, known, shipped=shipped):
                raise unverified(name, [f"{directory.path}/{member.path} {problem}."])
            if member.kind == "file" and member.path in known.files:
                _copy(member, target / member.path)


def _copy(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target, _BUFFER_BYTES)


def _check(target: Path, manifest: Manifest, name: str) -> None:
    """Compares what was written with the manifest: a file that a program changed is not a state."""
    written = StateDirectoryOnDisk(target, target.name)
    if problems := list(verify_directory(written, manifest, shipped=False)):
        raise unverified(name, problems)
