"""Images in an OCI layout or archive: read them, and put states into them, without any engine.

`embed` appends one deterministic layer to every platform of an image, or makes an image of the
state alone. `open_layout` opens an image to be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.image import add_layer
from bundler.artifacts.image.add_layer import Job, Source
from bundler.artifacts.image.archive import Archive
from bundler.artifacts.image.blobs import (
    REF_NAME,
    Descriptor,
    Store,
    copy,
    descriptor,
    descriptors,
    images_of,
)
from bundler.artifacts.image.image import Json, refuse_volumes
from bundler.artifacts.image.layer import Written
from bundler.artifacts.image.layout import Folder, Layout, is_archive, open_store, replaced_folder
from bundler.artifacts.image.ociread import OciImage, choose, open_layout
from bundler.errors import UsageError
from bundler.listener import SILENT, Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord

__all__ = ["Embedded", "OciImage", "embed", "embed_sources", "open_layout", "refuse_volumes"]


class Embedded(msgspec.Struct, frozen=True):
    """An image that now has its state. digest: of its manifest or index.

    config_digest: the engine's image ID; of the first platform where there are several. changed:
    false where the layout held the very same image. paths: of the state directories in the image.
    """

    digest: str
    config_digest: str
    layer: Written
    changed: bool
    paths: tuple[str, ...]


def embed(
    base: Path | None,
    bundles: Sequence[Bundle],
    record: RunRecord,
    destination: Path,
    *,
    tag: str = "latest",
    base_tag: str | None = None,
    places: Mapping[str, str] | None = None,
    check: Callable[[Artifact], object] = lambda _: None,
    listener: Listener = SILENT,
) -> Embedded:
    """Makes an image with the bundles in it, under a tag of the destination.

    base: a layout's folder or archive; None makes an image of the state alone, with each state
    directory at ``/<Bundle.place>``. places: the person's paths in the image, by `Bundle.place`.
    A destination that exists keeps its other tags; it may be the base itself. check: is given the
    finished image before it gets its tag, and raises to keep it from it.
    Raises `ConfigurationError` where a place cannot be decided, `VerificationFailed` for a
    malformed base or a state that changed meanwhile, `InputOutputError`.
    """
    with ExitStack() as stack:
        sources = []
        if base is not None:
            store = open_store(base)
            stack.callback(store.close)
            sources.append(Source(store, choose(store, base_tag)))
        return embed_sources(
            sources,
            bundles,
            record,
            destination,
            tag=tag,
            places=places,
            check=check,
            listener=listener,
        )


def embed_sources(
    sources: Sequence[Source],
    bundles: Sequence[Bundle],
    record: RunRecord,
    destination: Path,
    *,
    tag: str,
    places: Mapping[str, str] | None = None,
    check: Callable[[Artifact], object] = lambda _: None,
    listener: Listener = SILENT,
) -> Embedded:
    """Like `embed`, with images of any stores. Several images become one index."""
    if not bundles:
        raise UsageError("There is no state to embed.")
    with _destination(destination) as target:
        job = Job(tuple(bundles), record, target, places or {}, listener=listener)
        before = find(target, tag)
        made = add_layer.append(job, sources) if sources else add_layer.onto_nothing(job)
        entry = _entry(made.entry, tag)
        changed = before is None or before.digest != entry["digest"]
        listener.phase("Reading back")
        check_platforms(target, descriptor(entry, target.name), f"oci:{destination}:{tag}", check)
        target.publish(_with_entry(target.index(), entry, tag))
    return Embedded(
        entry["digest"], made.config_digest, made.layer, changed, tuple(sorted(made.paths))
    )


def check_platforms(
    store: Store,
    entry: Descriptor,
    name: str,
    check: Callable[[Artifact], object],
    *,
    kind: str = "oci",
    sealed: Mapping[str, Mapping[str, Bundle]] | None = None,
) -> None:
    """Hands over an image once for each state layer in it; platforms mostly share one.

    sealed: the bundles in a layer, by path, of those layers that need not be read again, by digest.
    """
    seen = set()
    for platform in images_of(store, entry):
        artifact = OciImage(store, entry, name, kind, platform, sealed=sealed)
        if artifact.image.layers[-1].digest not in seen:
            seen.add(artifact.image.layers[-1].digest)
            check(artifact)


@contextmanager
def _destination(path: Path) -> Iterator[Folder]:
    """The layout to write to: the one that is there, or a new one beside that is then renamed."""
    if is_archive(path) or not (path / "index.json").exists():
        with replaced_folder(path) as folder:
            if path.is_file():
                _copy_all(_changeable(path), folder)
            yield folder
    else:
        yield Folder(path)


def _changeable(path: Path) -> Archive:
    found = Archive(path)
    if found.is_docker:
        found.close()
        raise UsageError(
            f"{path} is an archive of docker's own kind, which is only read here.",
            hint="Give the result another name: --tag oci:DIR:TAG",
        )
    return found


def _copy_all(source: Archive, target: Folder) -> None:
    index = source.index()
    for entry in descriptors(index.get("manifests"), source.name):
        copy(source, target, entry)
    target.publish(index)
    source.close()


def _entry(made: Json, tag: str) -> Json:
    annotations = {**(made.get("annotations") or {}), REF_NAME: tag}
    return {**made, "annotations": annotations}


def _with_entry(index: Json, entry: Json, tag: str) -> Json:
    others = [
        other.raw for other in descriptors(index.get("manifests"), "The index") if other.tag != tag
    ]
    return {**index, "manifests": [*others, entry]}


def find(store: Layout, tag: str) -> Descriptor | None:
    """The image of a tag; None if nothing has it."""
    entries = descriptors(store.index().get("manifests"), store.name)
    return next((entry for entry in entries if entry.tag == tag), None)
