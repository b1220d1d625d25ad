"""What a build backend's hook includes: the published state.

Nothing is refreshed here: a wheel is often built where the external systems are out of reach, and
from an unpacked source distribution. The published states are used, after every byte of them was
compared with their manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import BundlerError, VerificationFailed
from bundler.project.survey import survey
from bundler.state.bundle import RUN_RECORD_NAME, Bundle
from bundler.state.manifest import DirectoryRefresh, RunRecord
from bundler.state.statedir import StateDir


@dataclass(frozen=True)
class PublishedFiles:
    """The states of a project. missing: state directories without any state."""

    root: Path
    bundles: tuple[Bundle, ...]
    record: RunRecord
    missing: tuple[Path, ...]

    def files(self) -> Iterator[tuple[Path, str]]:
        """What a source distribution needs, each with its path in the project."""
        for bundle in self.bundles:
            names = [member.path for member in bundle.members()]
            names += [RUN_RECORD_NAME] * (bundle.root / RUN_RECORD_NAME).is_file()
            for name in names:
                path = bundle.root / name
                yield path, path.relative_to(self.root).as_posix()


def published(root: Path) -> PublishedFiles:
    """Reads and verifies the states of the project in `root`.

    Raises `VerificationFailed` if a state does not match its manifest.
    """
    root = root.resolve()
    bundles: list[Bundle] = []
    refreshes: list[DirectoryRefresh] = []
    missing: list[Path] = []
    first = RunRecord()
    for relative, place in survey(root).places.items():
        directory = StateDir(root / relative, place)
        found = directory.read()
        if found is None:
            missing.append(directory.path)
            continue
        bundle = Bundle(directory.path, found.manifest, directory.place)
        _check(bundle)
        bundles.append(bundle)
        if found.record is not None:
            first = found.record
            refreshes += [it for it in found.record.refresh if it.path == directory.place]
    record = RunRecord(first.build, tuple(refreshes), first.tool, first.environment)
    return PublishedFiles(root, tuple(bundles), record, tuple(missing))


def _check(bundle: Bundle) -> None:
    for member in bundle.members():
        try:
            with member.open() as stream:
                while stream.read(1024 * 1024):
                    pass
        except BundlerError as error:
            raise VerificationFailed(
                f"{os.path.join(bundle.root, member.path)} does not match the manifest.",
                hint="Run: state-bundler refresh",
                key=error.key,
            ) from error
