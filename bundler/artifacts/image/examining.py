"""What all images have in common for reading: their labels, and what may hide an intact state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from bundler.artifacts.image import image, image_import_path, image_users
from bundler.artifacts.image.image_import_path import Files
from bundler.artifacts.image.image_program import RunsAs, runs_as
from bundler.artifacts.image.members import state_directories_in
from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.state.artifact import Artifact, Member
from bundler.state.manifest import Claim, Manifest, RunRecord
from bundler.verify_at_start import mode_problem

_MAX_PROBLEMS = 10
_EVERYONE = 0o111  # may enter a directory


class ImageArtifact(Artifact):
    """config: the image's configuration."""

    config: Mapping[str, Any]

    def labels(self) -> Mapping[str, str]:
        return image.labels(self.config)

    def claims(self) -> Sequence[Claim] | None:
        return image.claims_of(self.labels())

    def run_record(self) -> RunRecord | None:
        return image.run_record_of(self.labels())

    def files_below(self) -> str:
        return image.files_below(self.config)


class ImageStateDirectory(msgspec.Struct, frozen=True):
    """See `bundler.state.artifact.StateDirectory`. An image is read as one stream."""

    path: str
    read_manifest: Callable[[], bytes | None]
    members: Callable[[], Iterator[Member]]
    sealed: bool = False
    concurrent: bool = False


def examined(
    tree: RootFilesystem, config: Mapping[str, Any], found: Mapping[str, Manifest]
) -> Iterator[str]:
    """What is wrong with an image that was changed after its state was embedded, as messages.

    Finds another state directory, a path that programs unpack differently, and a package that the
    program would import instead of the one with the state. found: the manifests by path.
    """
    claims = image.claims_of(image.labels(config))
    named = {claim.path for claim in claims or ()} | found.keys()
    for path in state_directories_in(tree):
        if claims is not None and path not in named:
            yield f"The label does not name {path}."
    yield from islice(tree.doubts(found), _MAX_PROBLEMS)
    for path in found:
        yield from _closed(tree, path)
    runs = runs_as(config.get("config") or {})
    known = image.import_paths(config)
    for path in found:
        imported_as = known.get(path) or _import_path(tree, runs, path)
        other = image_import_path.shadowing(tree, runs, imported_as, path) if imported_as else None
        if other is not None:
            yield (
                f"The program would import {other}, but the state is at {path}: "
                "something was added to the image after the state was embedded."
            )


def unreachable(
    config: Mapping[str, Any], found: Mapping[str, Manifest], files: Callable[[], Files]
) -> Iterator[str]:
    """The directories above states that the image's user may not enter, as messages.

    files: the image's, which are read only if the labels do not decide.
    """
    name = runs_as(config.get("config") or {}).user
    known = image.untouched_places(config)
    above = {item.path: item.parents for item in known.places} if known else {}
    for path in found:
        for folder in above.get(path) or image_import_path.parents(files(), path):
            if folder.mode & _EVERYONE == _EVERYONE:
                continue
            user = known.user if known else image_users.user_id(files(), name)
            if not image_users.may_enter(
                folder, user, lambda: image_users.groups_of(files(), name)
            ):
                yield (
                    f"The image runs as {name}, who may not enter {folder.path} (mode "
                    f"{folder.mode:04o}, owner {folder.uid}:{folder.gid}): its program cannot read "
                    f"the state in {path}. Change the directory or USER in the Dockerfile."
                )


def _closed(tree: RootFilesystem, path: str) -> Iterator[str]:
    """Directories on the way to a state directory, or the directory itself, that are closed to
    their owner."""
    parts = (tree.resolve(path) or path).strip("/").split("/")
    for end in range(1, len(parts) + 1):
        folder = "/" + "/".join(parts[:end])
        node = tree.lookup(folder)
        if node is not None and (problem := mode_problem("directory", node.mode)):
            yield f"{folder} {problem}."


def _import_path(tree: RootFilesystem, runs: RunsAs, path: str) -> str | None:
    """The path of a state directory relative to an import root; None if it is not below it."""
    runs = image_import_path.as_started(tree, runs)
    here = runs.code_directory() or runs.working_directory
    for root in (*image_import_path.import_roots(tree, runs), here):
        real = (tree.resolve(root) or root).rstrip("/")
        if path.startswith(f"{real}/"):
            return path[len(real) + 1 :]
    return None
