"""Puts states into images in a registry. What is made has no tag until `name` gives it one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from bundler.artifacts.image import add_layer
from bundler.artifacts.image import reference as references
from bundler.artifacts.image.add_layer import Job, Source
from bundler.artifacts.image.blobs import Descriptor, Store, copy, images_of
from bundler.artifacts.image.oci import check_platforms
from bundler.artifacts.image.ociread import LoadedImage, OciImage
from bundler.artifacts.image.reference import Reference
from bundler.artifacts.image.registry.connection import Connection
from bundler.artifacts.image.registry.store import RegistryStore
from bundler.artifacts.image.registry.target import RegistryTarget
from bundler.errors import VerificationFailed
from bundler.listener import SILENT, Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord

KIND = "registry"


class Pushed(msgspec.Struct, frozen=True):
    """An image that a registry has, under no tag yet. changed: false where it had it already.

    paths: of the state directories in the image.
    """

    target: RegistryTarget
    entry: Descriptor
    paths: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return self.entry.digest

    def name(self, tag: str) -> None:
        """Lets a tag name it: the one step that anybody sees. See `RegistryTarget.move_tag`."""
        self.target.move_tag(self.digest, tag)


@contextmanager
def opened(
    name: str | Reference, listener: Listener = SILENT
) -> Iterator[tuple[RegistryTarget, Reference]]:
    """The repository of a name, to read and to write."""
    reference = references.parse(name) if isinstance(name, str) else name
    target = RegistryTarget(reference, listener)
    try:
        yield target, reference
    finally:
        target.close()


def open_image(name: str, listener: Listener = SILENT) -> OciImage:
    """Opens an image in a registry by its name.

    Raises `UsageError` where there is none, `CredentialsRefused`, and `ToolFailed` where the
    registry cannot be asked.
    """
    reference = references.parse(name)
    store = RegistryStore(reference, listener)
    try:
        return OciImage(store, store.resolve(reference), reference.artifact, KIND)
    except BaseException:
        store.close()
        raise


def source(reference: Reference, connection: Connection, listener: Listener = SILENT) -> Source:
    """An image in a registry to put state on. connection: of a target, used if it fits."""
    shared = connection if connection.host == reference.host else None
    store = RegistryStore(reference, listener, connection=shared)
    return Source(store, store.resolve(reference))


def embed(
    target: RegistryTarget,
    sources: Sequence[Source],
    bundles: Sequence[Bundle],
    record: RunRecord,
    *,
    places: Mapping[str, str] | None = None,
    before: str | None = None,
    check: Callable[[Artifact], object] = lambda _: None,
    every_byte: bool = False,
    listener: Listener = SILENT,
) -> Pushed:
    """Makes an image, or an index of several, with the bundles in it, under no tag.

    sources: none makes an image of the state alone. places: the person's paths in the image, by
    `Bundle.place`. before: a tag that may name the same files below an earlier state. check: is
    given the finished image, and raises to keep it from ever getting a tag. every_byte: have it
    fetch the layer again, where the digest under which the registry keeps it would do.
    Raises as `bundler.artifacts.image.add_layer.append` does.
    """
    job = Job(
        tuple(bundles),
        record,
        target,
        places or {},
        before=_known(target, before) if before is not None else (),
        listener=listener,
    )
    made = add_layer.append(job, sources) if sources else add_layer.onto_nothing(job)
    entry = target.stored(made.entry["digest"])
    listener.phase("Reading back")
    sealed = {} if every_byte else _sealed(job, target)
    name = target.reference.at(entry.digest).artifact
    check_platforms(target, entry, name, check, kind=KIND, sealed=sealed)
    return Pushed(target, entry, tuple(sorted(made.paths)))


def _sealed(job: Job, target: RegistryTarget) -> Mapping[str, Mapping[str, Bundle]]:
    """The bundles in each layer that was sent, by its digest.

    It was hashed on its way, a registry takes a blob under no other digest than its own
    (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs), and
    nobody can pull another one by it: what is left to ask is whether the registry has it.
    Raises `VerificationFailed` where it has not, or one of another size.
    """
    for digest, size in job.added():
        if not target.has_blob(digest, size):
            raise VerificationFailed(
                f"{target.name} took the layer {digest} and does not have it.",
                hint="Try again. If it stays so, the registry is broken.",
            )
    return {digest: bundles for (digest, _), bundles in job.added().items()}


def _known(target: RegistryTarget, tag: str) -> tuple[LoadedImage, ...]:
    """The platforms of the image that a tag names now, where it names one."""
    entry = target.find(target.reference.tagged(tag))
    if entry is None:
        return ()
    return tuple(LoadedImage(target, platform) for platform in images_of(target, entry))


def push(target: RegistryTarget, store: Store, entry: Descriptor) -> Pushed:
    """Copies an image of any store into a registry as it is, under no tag."""
    copy(store, target, entry)
    return Pushed(target, target.stored(entry.digest))
