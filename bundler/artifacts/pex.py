"""PEX files: state is read out of them without running them, and put in where it is imported from.

Embedding rewrites the file beside itself and renames it into place. What is not ours is copied
byte for byte; the state directory is replaced as a whole; the hashes by which pex's runtime
recognises a file are computed anew, so that a machine that has run the older file notices.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from bundler.artifacts import StateDirectory
from bundler.artifacts.pexfile import PexFile, opened
from bundler.artifacts.trees import Tree
from bundler.artifacts.zipapp import Change, rewrite
from bundler.atomic import io_errors, sync_directory
from bundler.bundle import STATE_DIRECTORY, Bundle
from bundler.errors import UsageError, VerificationFailed
from bundler.manifest import Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self


class PexArtifact:
    """A PEX that is open for reading; nothing of it is run or unpacked."""

    kind = "pex"
    digest: str | None = None  # of a file of hundreds of megabytes: not cheap

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._stack = ExitStack()
        self._pex = self._stack.enter_context(opened(path))

    def claims(self) -> Sequence[Claim] | None:
        return self._pex.info.claims(self.name)

    def run_record(self) -> RunRecord | None:
        return self._pex.info.run_record(self.name)

    def state_directories(self) -> Sequence[StateDirectory]:
        return [found for tree in self._pex.trees for found in tree.state_directories()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def open_pex(path: Path) -> PexArtifact:
    """Opens a PEX for reading, whatever its layout.

    Raises `VerificationFailed` for what is no sound PEX, `InputOutputError` where it cannot be
    read, `UsageError` for a scie.
    """
    return PexArtifact(path)


def embed(source: Path, bundles: Sequence[Bundle], record: RunRecord, destination: Path) -> None:
    """Copies a PEX with the bundles in it; the two may be the same file.

    The destination is the old file or the new one at every moment, and keeps its mode.
    Raises `ConfigurationError` where a package is not importable, `VerificationFailed` where the
    PEX is malformed, holds state that nobody vouches for, or where a state changed meanwhile.
    """
    with opened(source) as pex:
        pex.check_hashes()
        change = _change(pex, bundles, record)
        if pex.zip is None:
            raise UsageError(f"{source} is a folder: only zipapps can be changed so far.")
        with _replacing(source, destination) as stream:
            rewrite(pex, pex.zip, change, stream)


def _change(pex: PexFile, bundles: Sequence[Bundle], record: RunRecord) -> Change:
    places = {bundle.place: pex.importable(bundle.place) for bundle in bundles}
    new = tuple(
        Claim(places[bundle.place].at(bundle.place), *_digests(bundle)) for bundle in bundles
    )
    kept = _kept_claims(pex, {claim.path for claim in new})
    return Change(
        bundles=tuple((places[bundle.place], bundle) for bundle in bundles),
        files=_runtime_files(pex, bundles, places),
        claims=new + kept,
        record=_in_artifact(record, places),
    )


def _digests(bundle: Bundle) -> tuple[str, str]:
    return bundle.manifest.content_digest, bundle.manifest.sha256


def _kept_claims(pex: PexFile, replaced: set[str]) -> tuple[Claim, ...]:
    """The claims on state directories that stay as they are."""
    claims = {claim.path: claim for claim in pex.info.claims(pex.name) or ()}
    there = {found.path for tree in pex.trees for found in tree.state_directories()}
    unknown = sorted(there - replaced - claims.keys())
    if unknown:
        raise VerificationFailed(
            f"{pex.name} holds state that was not refreshed for it: {', '.join(unknown)}.",
            hint="Give pex only the folder from which Python imports the package, or name the "
            "project that this state belongs to with --project.",
        )
    return tuple(claim for path, claim in claims.items() if path in there - replaced)


def _in_artifact(record: RunRecord, places: Mapping[str, Tree]) -> RunRecord:
    """The run record with the paths that the artifact uses."""
    directories = tuple(
        msgspec.structs.replace(directory, path=places[directory.path].at(directory.path))
        if directory.path in places
        else directory
        for directory in record.refresh
    )
    return msgspec.structs.replace(record, refresh=directories)


# --- what Dagster needs beside the package ------------------------------------------------------


def _runtime_files(
    pex: PexFile, bundles: Sequence[Bundle], places: Mapping[str, Tree]
) -> dict[str, bytes]:
    """dg.toml, where Dagster would look for it and finds nothing: without it nothing loads."""
    of_dagster = [bundle for bundle in bundles if bundle.place.endswith(f"/{STATE_DIRECTORY}")]
    if len(of_dagster) != 1 or not any(
        name.startswith("dagster-") for name in pex.info.distributions
    ):
        return {}
    place = of_dagster[0].place
    if any(_configures(tree, place) for tree in (places[place], pex.user)):
        return {}
    return {"dg.toml": _dg_toml(place)}


def _configures(tree: Tree, place: str) -> bool:
    parts = place.split("/")
    folders = ["/".join(parts[:end]) for end in range(len(parts))]
    for folder in folders:
        if (f"{folder}/dg.toml" if folder else "dg.toml") in tree.leaves:
            return True
        leaf = tree.leaves.get(f"{folder}/pyproject.toml" if folder else "pyproject.toml")
        if leaf is not None:
            with leaf.open() as stream:
                if b"tool.dg" in stream.read(1024 * 1024):
                    return True
    return False


def _dg_toml(place: str) -> bytes:
    package = place.removesuffix(f"/{STATE_DIRECTORY}").replace("/", ".")
    root = package.partition(".")[0]
    lines = ['directory_type = "project"', "", "[project]", f'root_module = "{root}"']
    if package != f"{root}.defs":
        lines.append(f'defs_module = "{package}"')
    return ("\n".join(lines) + "\n").encode()


# --- replacing a file -----------------------------------------------------------------------------


@contextmanager
def _replacing(source: Path, destination: Path) -> Iterator[BinaryIO]:
    """A stream beside the destination that takes its place, with the source's mode, at the end."""
    target = destination.resolve()
    with io_errors(destination):
        mode = (target if target.exists() else source).stat().st_mode & 0o777
        descriptor, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".new", dir=target.parent
        )
        beside = Path(name)
        try:
            with open(descriptor, "w+b", buffering=1024 * 1024) as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
