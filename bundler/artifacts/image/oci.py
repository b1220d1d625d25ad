"""Adds states to images in an OCI layout or archive, without any engine.

`LayoutDestination` appends one deterministic layer to every platform of an image, or makes an image
of the state alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts import reference
from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.add_layer import BaseImage, append
from bundler.artifacts.image.archive import Archive
from bundler.artifacts.image.blobs import FULL_NAME, REF_NAME, Descriptor, descriptor
from bundler.artifacts.image.layout import (
    Layout,
    LayoutFolder,
    entries_of,
    is_archive,
    open_store,
    replaced_folder,
)
from bundler.artifacts.image.ociread import OciImage, choose
from bundler.artifacts.names import ArtifactName
from bundler.errors import UsageError
from bundler.state.manifest import EVERY_BYTE


@contextmanager
def source(path: Path, tag: str | None = None) -> Iterator[BaseImage]:
    """An image in a layout's folder or archive, to add state to."""
    with closing(open_store(path)) as store:
        yield BaseImage(store, choose(store, tag))


class LayoutDestination(msgspec.Struct, frozen=True):
    """A tag of a layout's folder or archive, which keeps its other tags.

    sources: images of any stores; several become one index, none makes an image of the state alone.
    """

    path: Path
    tag: str
    sources: tuple[BaseImage, ...] = ()

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[OciImage]:
        """See `bundler.artifacts.embedding.Destination`; raises as `add_layer.append` does."""
        with _destination(self.path) as target:
            made = append(request.read_back_as(EVERY_BYTE), target, self.sources)
            annotations = {**(made.entry.get("annotations") or {}), **self._names()}
            entry = descriptor({**made.entry, "annotations": annotations}, target.name)
            request.listener.phase("Reading back")
            name = ArtifactName("layout", str(self.path), self.tag)
            yield OciImage(target, entry, str(name))
            others = [item.raw for item in entries_of(target) if item.tag != self.tag]
            target.publish({**target.index(), "manifests": [*others, entry.raw]})

    def _names(self) -> dict[str, str]:
        """The annotations that name the new image, in place of its base's."""
        found = {REF_NAME: self.tag}
        for source in self.sources:
            if base := (source.entry.annotations or {}).get(FULL_NAME):
                found[FULL_NAME] = f"{reference.split(base)[0]}:{self.tag}"
        return found

    def digest(self) -> str | None:
        """The digest of the image that has the name now."""
        if not self.path.is_file() and not (self.path / "index.json").exists():
            return None
        with closing(open_store(self.path)) as store:
            there = find(store, self.tag)
        return None if there is None else there.digest


@contextmanager
def _destination(path: Path) -> Iterator[LayoutFolder]:
    """The layout to write to: the existing one, or a new one that is then renamed."""
    if is_archive(path) or not (path / "index.json").exists():
        with replaced_folder(path) as folder:
            if path.is_file():
                with closing(Archive(path)) as archive:
                    if archive.is_docker:
                        raise UsageError(
                            f"{path} is a docker archive, which can only be read.",
                            hint="Use another name for the result: --tag oci:DIR:TAG",
                        )
                    folder.take_all(archive)
            yield folder
    else:
        yield LayoutFolder(path)


def find(store: Layout, tag: str) -> Descriptor | None:
    """The image with a tag; None if there is none."""
    return next((entry for entry in entries_of(store) if entry.tag == tag), None)
