"""PEX files: reads state without running them, and embeds it where it is imported from.

Embedding rewrites the file under a temporary name and renames it. Everything that is not ours is
copied byte for byte; the state directory is replaced completely; the hashes by which pex's runtime
recognises a file are recomputed, so that a machine that has run the older file notices the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python import python_import_path
from bundler.artifacts.python.pex.file import PexFile, opened, stamp_of
from bundler.artifacts.python.replacing import named_at_end
from bundler.artifacts.python.trees import Tree
from bundler.state.artifact import OneArtifact, StateDirectory
from bundler.state.bundle import Bundle
from bundler.state.manifest import EVERY_BYTE, Claim, Manifest, RunRecord
from bundler.system.atomic import io_errors


class PexArtifact(OneArtifact):
    """A PEX that is open for reading; nothing in it is run or unpacked."""

    kind = "pex"

    def __init__(self, path: Path, like: PexFile | None = None) -> None:
        self.name = str(path)
        with ExitStack() as stack:  # what is refused is closed again
            self._pex = stack.enter_context(opened(path, like))
            self._stack = stack.pop_all()

    def labels(self) -> Mapping[str, str]:
        return {name: str(value) for name, value in self._pex.info.build_properties.items()}

    def claims(self) -> Sequence[Claim] | None:
        return self._pex.info.claims(self.name)

    def run_record(self) -> RunRecord | None:
        return self._pex.info.run_record(self.name)

    def state_directories(self) -> Sequence[StateDirectory]:
        return list(self._pex.state_directories())

    def problems(self, found: Mapping[str, Manifest]) -> Iterator[str]:
        """Where a run would find something other than what is read here, as messages."""
        yield from self._pex.hash_problems()
        yield from self._pex.info.path_problems()
        for tree in self._pex.distributions:
            if self._pex.info.has_wheel_files and tree.zip is not None and tree.has_state():
                # With csv and configparser, which it imports, 3 ms.
                from bundler.artifacts.python.wheel import zip as wheelzip

                yield from wheelzip.deceptions(tree, tree.zip, found)
        yield from python_import_path.deceptions(self._pex.trees)

    def own_trees(self, bundles: Sequence[Bundle]) -> list[Tree]:
        """The trees with the user's code: the top, and the distributions that get a state."""
        trees = self._pex.trees
        own = [python_import_path.importable(self.name, trees, bundle.place) for bundle in bundles]
        return [trees[0], *(tree for tree in own if tree is not trees[0])]

    def open_successor(self, path: Path) -> PexArtifact:
        """Opens a file that was made from this one; unchanged names are not read again."""
        return PexArtifact(path, self._pex)

    def is_still(self, path: Path) -> bool:
        """Whether the file with this name is still the one that was opened, unmodified."""
        return self._pex.stamp is not None and self._pex.stamp == stamp_of(path)

    def write(self, request: EmbedRequest, path: Path) -> None:
        """Copies the PEX with the bundles in it to a new path."""
        from bundler.artifacts.python.pex.writer import write

        pex = self._pex
        pex.check_hashes()
        made = python_import_path.plan(
            pex.name,
            pex.trees,
            pex.info.claims(pex.name) or (),
            request.bundles,
            request.record,
            dagster=any(name.startswith("dagster-") for name in pex.info.distributions),
        )
        write(pex, made, path)

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def open_pex(path: Path) -> PexArtifact:
    """Opens a PEX for reading, whatever its layout.

    Raises `VerificationFailed` for anything that is not a sound PEX, `InputOutputError` if it
    cannot be read, `UsageError` for a scie.
    """
    return PexArtifact(path)


class PexDestination(msgspec.Struct, frozen=True):
    """The path of a PEX, which is the old or the new file at any time.

    base: the open PEX to add the state to. The new one has its mode.
    """

    base: PexArtifact
    path: Path

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[PexArtifact]:
        """See `bundler.artifacts.embedding.Destination`.

        Raises `ConfigurationError` if a package is not importable, `VerificationFailed` if
        the PEX is malformed or holds state that nobody vouches for.
        """
        with named_at_end(self.path) as path:
            with io_errors(self.path):
                self.base.write(request.read_back_as(EVERY_BYTE), path)
            request.listener.phase("Reading back")
            with self.base.open_successor(path) as made:
                yield made
