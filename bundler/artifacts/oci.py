"""Images in an OCI layout or archive: read them, and put states into them, without any engine.

`embed` appends one deterministic layer to every platform of an image, or makes an image of the
state alone. `open_layout` opens an image to be judged: all its layers are read, since what counts
is what they add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bundler.artifacts import Artifact, image, place
from bundler.artifacts.compression import Compression
from bundler.artifacts.image import Json
from bundler.artifacts.layer import Layer, Placed, Written
from bundler.artifacts.layout import (
    REF_NAME,
    Archive,
    Descriptor,
    Folder,
    Store,
    descriptor,
    descriptors,
    is_archive,
    open_store,
    read_json,
    replaced_folder,
)
from bundler.artifacts.ociread import (
    LayoutImage,
    LoadedImage,
    architecture,
    choose,
    is_attestation,
    open_layout,
)
from bundler.artifacts.rootfs import Tree
from bundler.bundle import Bundle
from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.listener import SILENT, Listener
from bundler.manifest import Claim, RunRecord

__all__ = ["Embedded", "LayoutImage", "embed", "open_layout", "refuse_volumes"]

_BASE_DIGEST = "org.opencontainers.image.base.digest"
_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True)
class Embedded:
    """An image that now has its state. digest: of its manifest or index.

    config_digest: the engine's image ID; of the first platform where there are several. changed:
    false where the layout held the very same image. paths: of the state directories in the image.
    """

    digest: str
    config_digest: str
    layer: Written
    changed: bool
    paths: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """What `embed` was asked for. source: where the base's blobs are."""

    bundles: tuple[Bundle, ...]
    record: RunRecord
    places: Mapping[str, str]
    created: str
    target: Folder
    source: Store | None
    listener: Listener


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
    if not bundles:
        raise UsageError("There is no state to embed.")
    with ExitStack() as stack:
        source = open_store(base) if base is not None else None
        if source is not None:
            stack.callback(source.close)
        target = stack.enter_context(_destination(destination))
        job = _Job(
            tuple(bundles), record, places or {}, image.created_now(), target, source, listener
        )
        before = _tagged(target.index(), tag, target.name)
        made = _onto_nothing(job) if source is None else _onto(job, choose(source, base_tag))
        entry = _entry(made.entry, tag)
        changed = before is None or before.digest != entry["digest"]
        listener.phase("Reading back")
        check(LayoutImage(target, descriptor(entry, target.name), f"oci:{destination}:{tag}"))
        target.publish(_with_entry(target.index(), entry, tag))
    return Embedded(
        entry["digest"], made.config_digest, made.layer, changed, tuple(sorted(made.paths))
    )


@contextmanager
def _destination(path: Path) -> Iterator[Folder]:
    """The layout to write to: the one that is there, or a new one beside that is then renamed."""
    if is_archive(path) or not (path / "index.json").exists():
        with replaced_folder(path) as folder:
            if path.is_file():
                _copy_all(Archive(path), folder)
            yield folder
    else:
        yield Folder(path)


def _copy_all(source: Store, target: Folder) -> None:
    index = source.index()
    for entry in descriptors(index.get("manifests"), source.name):
        _copy_image(source, target, entry)
    target.publish(index)
    source.close()


def _copy_image(source: Store, target: Folder, entry: Descriptor) -> None:
    target.copy_blob(source, entry)
    if entry.media_type in image.INDEX_TYPES:
        for child in descriptors(read_json(source, entry).get("manifests"), entry.digest):
            _copy_image(source, target, child)
    elif entry.media_type in image.MANIFEST_TYPES:
        manifest = read_json(source, entry)
        target.copy_blob(source, descriptor(manifest.get("config"), entry.digest))
        for layer in descriptors(manifest.get("layers"), entry.digest):
            target.copy_blob(source, layer)


@dataclass(frozen=True)
class _Made:
    """A manifest or an index that was stored, and the entry that points at it."""

    entry: Json
    config_digest: str
    layer: Written
    paths: frozenset[str]


def _entry(made: Json, tag: str) -> Json:
    annotations = {**(made.get("annotations") or {}), REF_NAME: tag}
    return {**made, "annotations": annotations}


def _with_entry(index: Json, entry: Json, tag: str) -> Json:
    others = [
        other.raw for other in descriptors(index.get("manifests"), "The index") if other.tag != tag
    ]
    return {**index, "manifests": [*others, entry]}


def _tagged(index: Json, tag: str, where: str) -> Descriptor | None:
    entries = descriptors(index.get("manifests"), where)
    return next((entry for entry in entries if entry.tag == tag), None)


# --- embedding ------------------------------------------------------------------------------


def _onto_nothing(job: _Job) -> _Made:
    placed = tuple(
        Placed(bundle, f"/{bundle.place}", place.parents(Tree(), f"/{bundle.place}"))
        for bundle in job.bundles
    )
    config = image.empty_config(architecture())
    manifest = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": {"mediaType": image.OCI_CONFIG},
        "layers": [],
    }
    # gzip: the one packing that every tool and every registry takes.
    added = _append(job, Layer(placed, opaque=False), "gzip", _Bare(config, manifest))
    return _stored(job, added, {"mediaType": image.OCI_MANIFEST, **_platform(config)}, {})


def _platform(config: Json) -> Json:
    return {"platform": {"architecture": config["architecture"], "os": config["os"]}}


def _onto(job: _Job, entry: Descriptor) -> _Made:
    if entry.media_type in image.INDEX_TYPES:
        return _onto_index(job, entry)
    if entry.media_type in image.MANIFEST_TYPES:
        return _onto_manifest(job, entry)
    raise VerificationFailed(
        f"{entry.digest} in {_source(job).name} is no image but {entry.media_type}."
    )


def _onto_index(job: _Job, entry: Descriptor) -> _Made:
    """Every platform gets the layer; attestations spoke of the old images and are dropped."""
    index = read_json(_source(job), entry)
    children = descriptors(index.get("manifests"), entry.digest)
    made = [_onto(job, child) for child in children if not is_attestation(child)]
    if not made:
        raise VerificationFailed(f"{entry.digest} in {_source(job).name} holds no image.")
    changed = {**index, "manifests": [item.entry for item in made]}
    digest, size = job.target.add_json(changed)
    paths = frozenset().union(*(item.paths for item in made))
    return _Made(entry.to(digest, size), made[0].config_digest, made[0].layer, paths)


def _onto_manifest(job: _Job, entry: Descriptor) -> _Made:
    source = _source(job)
    loaded = LoadedImage(source, entry)
    runs = place.runs_as(loaded.config.get("config") or {})
    tree = loaded.tree
    placed = tuple(_placed(job, tree, runs, bundle) for bundle in job.bundles)
    refuse_volumes(loaded.config, placed)
    config, manifest = loaded.config, loaded.manifest
    claims = image.claims_of(image.labels(config)) or ()
    if image.replaceable(config, [item.path for item in placed]):
        config = image.without_last_layer(config)
        manifest = {**manifest, "layers": manifest["layers"][:-1]}
        claims = ()
    for kept in descriptors(manifest["layers"], entry.digest):
        job.target.copy_blob(source, kept)
    packing = image.packing_of(loaded.layer_types)
    layer = Layer(placed, user=place.user_id(tree, runs.user))
    added = _append(job, layer, packing, _Bare(config, manifest, claims))
    return _stored(job, added, entry.raw, {_BASE_DIGEST: entry.digest})


def _placed(job: _Job, tree: Tree, runs: place.RunsAs, bundle: Bundle) -> Placed:
    path = place.find(tree, runs, bundle.place, override=job.places.get(bundle.place))
    return Placed(bundle, path, place.parents(tree, path))


def refuse_volumes(config: Mapping[str, Any], placed: Sequence[Placed]) -> None:
    """Raises `ConfigurationError` where a volume would hide a state at run time."""
    for item in placed:
        volume = image.volume_over(config, item.path)
        if volume is not None:
            raise ConfigurationError(
                f"The Dockerfile declares VOLUME {volume}, which hides the state at {item.path}.",
                hint="Take the line out, or install the project elsewhere.",
            )


@dataclass(frozen=True)
class _Added:
    """An image with the new layer, before it is stored."""

    config: Json
    manifest: Json
    layer: Written
    claims: tuple[Claim, ...]
    record: RunRecord
    paths: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Bare:
    """An image that gets the layer. claims: of states in it that stay."""

    config: Json
    manifest: Json
    claims: tuple[Claim, ...] = ()


def _append(job: _Job, layer: Layer, packing: Compression, onto: _Bare) -> _Added:
    written: list[Written] = []

    def write(stream: BinaryIO) -> None:
        written.append(layer.write(stream.write, packing))

    job.target.add(write, lambda: f"sha256:{written[0].digest}")
    new = image.new_claims(layer.placed, onto.claims)
    record = image.placed_record(
        job.record, {item.bundle.place: item.path for item in layer.placed}
    )
    entry = {
        "mediaType": image.layer_media_type(onto.manifest.get("mediaType", ""), packing),
        "digest": f"sha256:{written[0].digest}",
        "size": written[0].size,
    }
    return _Added(
        image.with_layer(onto.config, layer, written[0], new, record, created=job.created),
        {**onto.manifest, "layers": [*onto.manifest["layers"], entry]},
        written[0],
        tuple(new),
        record,
        frozenset(item.path for item in layer.placed),
    )


def _stored(job: _Job, added: _Added, entry: Json, annotations: Mapping[str, str]) -> _Made:
    config_digest, config_size = job.target.add_json(added.config)
    manifest = dict(added.manifest)
    manifest["config"] = {**manifest["config"], "digest": config_digest, "size": config_size}
    if manifest.get("mediaType", image.OCI_MANIFEST) == image.OCI_MANIFEST:
        manifest["annotations"] = {
            **annotations,
            **(manifest.get("annotations") or {}),
            **image.annotations_for(added.claims, added.record),
            _CREATED: job.created,
        }
    digest, size = job.target.add_json(manifest)
    return _Made({**entry, "digest": digest, "size": size}, config_digest, added.layer, added.paths)


def _source(job: _Job) -> Store:
    if job.source is None:
        raise VerificationFailed("There is no base image.")
    return job.source
