"""Predicates to attest an artifact with: our own, and SLSA provenance.

``cosign attest --predicate FILE --type TYPE IMAGE`` wants the predicate alone; it makes the
statement around it, whose subject is the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bundler.artifacts.verify import Verdict
from bundler.errors import UsageError
from bundler.state.manifest import RunRecord, canonical

# https://slsa.dev/spec/v1.1/provenance
BUILD_TYPE = "https://state-bundler.io/build/v1"
BUILDER = "https://state-bundler.io/builder/v1"


def predicate(verdict: Verdict, directory: str | None = None) -> bytes:
    """The predicate of a manifest in a verified artifact, canonical.

    directory: the state directory, if there are several.
    """
    manifests = {item.path: item.manifest for item in verdict.directories if item.manifest}
    if directory is None and len(manifests) == 1:
        return canonical(next(iter(manifests.values())).predicate)
    if directory not in manifests:
        what = f"no state directory {directory}" if directory else "several state directories"
        raise UsageError(
            f"{verdict.name} contains {what}.",
            hint=f"Select one with --directory: {', '.join(manifests)}.",
        )
    return canonical(manifests[directory].predicate)


def slsa(verdict: Verdict) -> bytes:
    """SLSA provenance v1: the code and the states are the artifact's resolved dependencies."""
    record = verdict.record or RunRecord()
    definition: dict[str, Any] = {
        "buildType": BUILD_TYPE,
        "externalParameters": _without_none(
            stateDirectories=[item.path for item in verdict.directories],
            environment=record.environment,
        ),
        "internalParameters": _without_none(
            guarded=record.build.guarded, dirty=record.build.dirty, tree=record.build.tree
        ),
        "resolvedDependencies": [*_code(record), *_states(verdict, record)],
    }
    builder: dict[str, Any] = {"id": BUILDER}
    if record.tool is not None:
        builder["version"] = {record.tool.name: record.tool.version}
    metadata = _without_none(invocationId=record.invocation)
    details = {"builder": builder, **({"metadata": metadata} if metadata else {})}
    return canonical({"buildDefinition": definition, "runDetails": details})


def _code(record: RunRecord) -> Iterator[dict[str, Any]]:
    build = record.build
    if build.commit is not None:
        remote = {"uri": f"git+{build.remote}@{build.commit}"} if build.remote else {}
        yield {"name": "code", **remote, "digest": {"gitCommit": build.commit}}


def _states(verdict: Verdict, record: RunRecord) -> Iterator[dict[str, Any]]:
    for directory in verdict.directories:
        for state in directory.manifest.states if directory.manifest else ():
            refresh = record.key(directory.path, state.key)
            known = ("fetched", "confirmed", "stale", "origin") if refresh else ()
            how = _without_none(**{name: getattr(refresh, name) for name in known})
            yield {
                "name": state.key,
                "digest": {"dirHash": state.digest.dir_hash},
                "annotations": {"path": f"{directory.path}/{state.path}", **how},
            }


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
