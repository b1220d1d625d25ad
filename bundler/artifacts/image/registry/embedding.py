"""Adds states to images in a registry. The tags are set last."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial

import msgspec

from bundler.artifacts import reference as references
from bundler.artifacts.embedding import EmbedRequest, moved_meanwhile
from bundler.artifacts.image.add_layer import Appended, BaseImage, append
from bundler.artifacts.image.blobs import BlobStore, Descriptor, copy, descriptor, images_of
from bundler.artifacts.image.ociread import LoadedImage, OciImage
from bundler.artifacts.image.registry.connection import Connection, Connections
from bundler.artifacts.image.registry.store import RegistryStore
from bundler.artifacts.image.registry.target import RegistryTarget
from bundler.artifacts.reference import Reference
from bundler.errors import VerificationFailed
from bundler.listener import SILENT, Listener
from bundler.state.manifest import EVERY_BYTE, LAYER_DIGEST

KIND = "registry"


@contextmanager
def opened(
    name: str | Reference, listener: Listener = SILENT, connections: Connections | None = None
) -> Iterator[tuple[RegistryTarget, Reference]]:
    """Opens a repository for reading and writing. connections: of a command with many images."""
    reference = references.parse(name) if isinstance(name, str) else name
    connection = connections.to(reference.host) if connections else None
    target = RegistryTarget(reference, listener, connection=connection)
    try:
        yield target, reference
    finally:
        target.close()


def open_image(name: str, connections: Connections | None = None) -> OciImage:
    """Opens an image in a registry by its name. connections: of a command that opens many.

    Raises `UsageError` if there is none, `CredentialsRefused`, and `ToolFailed` if the
    registry cannot be asked.
    """
    reference = references.parse(name)
    connection = connections.to(reference.host) if connections else None
    store = RegistryStore(reference, connection=connection)
    try:
        return OciImage(store, store.resolve(reference), reference.artifact, KIND)
    except BaseException:
        store.close()
        raise


def source(reference: Reference, connection: Connection, listener: Listener = SILENT) -> BaseImage:
    """An image in a registry to add state to. connection: of a target, used if it fits."""
    shared = connection if connection.host == reference.host else None
    store = RegistryStore(reference, listener, connection=shared)
    return BaseImage(store, store.resolve(reference))


class RegistryDestination(msgspec.Struct, frozen=True):
    """Tags, of one repository or several. target: the repository of the first of them.

    sources: images of any stores; several become one index, none makes an image of the state alone.
    replaces: the digest that the first tag must still name at the end; None for any.
    """

    target: RegistryTarget
    tags: tuple[Reference, ...]
    sources: tuple[BaseImage, ...] = ()
    replaces: str | None = None

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[OciImage]:
        """See `bundler.artifacts.embedding.Destination`; raises as `add_layer.append` does."""
        target = self.target
        request = request.read_back_as(EVERY_BYTE if request.every_byte else LAYER_DIGEST)
        # Images of this name may have the same files below an earlier state.
        before = cache(partial(_known, target, self.tags[0]))
        made = append(request, target, self.sources, before=before)
        entry = descriptor(made.entry, target.name)
        request.listener.phase("Reading back")
        sealed = () if request.every_byte else _sealed(made, target)
        name = target.reference.at(entry.digest).artifact
        yield OciImage(target, entry, name, KIND, sealed=sealed)
        if self.replaces is not None and self.digest() != self.replaces:
            raise moved_meanwhile(str(self.tags[0]))
        publish(target, entry, self.tags, request.listener)

    def digest(self) -> str | None:
        """The digest of the image that has the first name now."""
        there = self.target.find(self.tags[0])
        return None if there is None else there.digest


def _sealed(made: Appended, target: RegistryTarget) -> Collection[str]:
    """The digests of the layers that were sent and that the registry has confirmed.

    Each was hashed while it was sent, a registry accepts a blob only under its own digest
    (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs), and
    nobody can pull different bytes by it. So it is enough to ask whether the registry has it.
    Raises `VerificationFailed` if it does not, or has one of another size.
    """
    for digest, size in made.layers.items():
        if not target.has_blob(digest, size):
            raise VerificationFailed(
                f"{target.name} accepted the layer {digest} but does not have it.",
                hint="Try again. If this persists, the registry is broken.",
            )
    return made.layers.keys()


def _known(target: RegistryTarget, tag: Reference) -> tuple[LoadedImage, ...]:
    """The platforms of the image that a tag names now, if any."""
    entry = target.find(tag)
    if entry is None:
        return ()
    return tuple(LoadedImage(target, platform) for platform in images_of(target, entry))


def publish(
    store: BlobStore, entry: Descriptor, tags: Sequence[Reference], listener: Listener = SILENT
) -> None:
    """Copies an image to every repository by its digest, and then sets the tags.

    A tag is the only step that others see. See `RegistryTarget.move_tag`.
    """
    targets: dict[str, RegistryTarget] = {}
    with ExitStack() as stack:
        if isinstance(store, RegistryTarget):
            targets[store.name] = store
        for tag in tags:
            if tag.name not in targets:
                targets[tag.name], _ = stack.enter_context(opened(tag, listener))
                copy(store, targets[tag.name], entry)
        for tag in tags:
            listener.note(f"Tagging {tag}")
            targets[tag.name].move_tag(entry.digest, tag.what)
