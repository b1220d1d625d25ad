"""What there is to know of every key of a project or an artifact, without judging it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bundler.artifacts import Artifact
from bundler.errors import VerificationFailed
from bundler.manifest import KeyRefresh, ManagementType, Manifest, RunRecord, parse
from bundler.sources import Found
from bundler.statedir import StateDir


@dataclass(frozen=True)
class KeyStatus:
    """One key. directory: the state directory's path, as in the artifact or the project.

    size: in bytes; digest: dirHash; both None where there is no state here. refresh: how the
    state came about, where that is known. version: of a state in versioned storage, if pinned.
    """

    directory: str
    key: str
    management_type: ManagementType
    size: int | None = None
    digest: str | None = None
    version: str | None = None
    refresh: KeyRefresh | None = None


def of_artifact(artifact: Artifact) -> tuple[KeyStatus, ...]:
    """Every key that the artifact's manifests name.

    Raises `VerificationFailed` where there is no manifest, or one is malformed.
    """
    found: list[KeyStatus] = []
    record = artifact.run_record()
    directories = artifact.state_directories()
    for directory in directories:
        raw = directory.read_manifest()
        if raw is None:
            raise VerificationFailed(
                f"{artifact.name}: {directory.path} has no manifest.",
                hint="Its state was not put there by state-bundler: refresh it, then build again.",
            )
        found += _of_manifest(directory.path, parse(raw, f"{artifact.name}: the manifest"), record)
    if not directories:
        raise VerificationFailed(f"{artifact.name} holds no state directory.")
    return tuple(found)


def of_sources(sources: Sequence[Found]) -> tuple[KeyStatus, ...]:
    """Every key that the sources of a project have, with what was last published of it."""
    found = []
    for source in sources:
        published = StateDir(source.directory, source.place).read()
        known = {
            status.key: status
            for status in (
                _of_manifest(source.place, published.manifest, published.record)
                if published
                else ()
            )
        }
        for component in {item.key: item for item in source.components}.values():
            missing = KeyStatus(source.place, component.key, component.management_type)
            found.append(known.get(component.key, missing))
    return tuple(sorted(found, key=lambda status: (status.directory, status.key)))


def _of_manifest(path: str, manifest: Manifest, record: RunRecord | None) -> Iterator[KeyStatus]:
    for state in manifest.states:
        yield KeyStatus(
            directory=path,
            key=state.key,
            management_type="LOCAL_FILESYSTEM",
            size=state.size,
            digest=state.digest.dir_hash,
            refresh=record.key(path, state.key) if record else None,
        )
    for key in manifest.predicate.contents.non_local:
        yield KeyStatus(path, key.key, key.management_type, version=key.version)
