"""Wheels: the state is next to the package, RECORD names it, and our labels are in the metadata.

A wheel's zip contains the files as they will be in site-packages. Our labels are in
``*.dist-info/state-bundler/``: ``states.json`` and ``run-record.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python import python_import_path, replacing, zipfiles
from bundler.artifacts.python.python_import_path import TreePlan, plan
from bundler.artifacts.python.trees import NewFile, zip_tree
from bundler.artifacts.python.wheel import zip as wheelzip
from bundler.artifacts.python.wheel.zip import metadata_of, rewrite
from bundler.state.artifact import Artifact, StateDirectory
from bundler.state.manifest import (
    EVERY_BYTE,
    Claim,
    Manifest,
    RunRecord,
    canonical,
    decode_claims,
    decode_record,
    encode_claims,
)
from bundler.system.atomic import io_errors

_STATES = "state-bundler/states.json"
_RUN_RECORD = "state-bundler/run-record.json"


class WheelArtifact(Artifact):
    """A wheel that is open for reading.

    Raises `VerificationFailed` for anything that is not a sound wheel, `InputOutputError` if it
    cannot be read.
    """

    kind = "wheel"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with ExitStack() as stack:  # what is refused is closed again
            self.file = file = stack.enter_context(zipfiles.opened(path))
            file.require_seamless()
            self.tree = zip_tree(file)
            self.metadata = metadata_of(file)
            self._stack = stack.pop_all()

    def claims(self) -> Sequence[Claim] | None:
        raw = self._read(_STATES)
        return None if raw is None else decode_claims(raw, self.name)

    def run_record(self) -> RunRecord | None:
        raw = self._read(_RUN_RECORD)
        return None if raw is None else decode_record(raw, self.name)

    def _read(self, name: str) -> bytes | None:
        path = f"{self.metadata}/{name}"
        return self.tree.read(path) if path in self.tree.leaves else None

    def state_directories(self) -> Sequence[StateDirectory]:
        return list(self.tree.state_directories())

    def problems(self, found: Mapping[str, Manifest]) -> Iterator[str]:
        """Where an installer could write something other than what is read here, as messages."""
        yield from wheelzip.deceptions(self.tree, self.file, found)
        yield from python_import_path.deceptions((self.tree,))

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


class WheelDestination(msgspec.Struct, frozen=True):
    """The path of a wheel. base: the wheel to add the state to; the two may be the same."""

    base: Path
    path: Path

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[WheelArtifact]:
        """See `bundler.artifacts.embedding.Destination`; raises as `PexDestination.embed` does."""
        with replacing.named_at_end(self.path) as path:
            with io_errors(self.path):
                _write(self.base, request.read_back_as(EVERY_BYTE), path)
            request.listener.phase("Reading back")
            with WheelArtifact(path) as made:
                yield made


def _write(source: Path, request: EmbedRequest, path: Path) -> None:
    with WheelArtifact(source) as wheel:
        tree, metadata = wheel.tree, wheel.metadata
        dagster = b"Requires-Dist: dagster" in tree.read(f"{metadata}/METADATA")
        claims = wheel.claims() or ()
        made = plan(path.name, (tree,), claims, request.bundles, request.record, dagster=dagster)
        change = made.changes[""].and_also(_labels(metadata, made))
        with path.open("x+b") as stream:
            rewrite(wheel.file, change, stream)
    replacing.take_mode(path, source)


def _labels(metadata: str, made: TreePlan) -> dict[str, NewFile]:
    return {
        f"{metadata}/{_STATES}": NewFile.of(encode_claims(made.claims)),
        f"{metadata}/{_RUN_RECORD}": NewFile.of(canonical(made.record)),
    }
