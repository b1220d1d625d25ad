"""Puts one state layer on every platform of an image, whatever store it comes from and goes to.

`append` makes blobs and manifests in a `BlobTarget`; what it returns has no tag yet. A place in the
image, and what its parents are like, is found in the base's layers, which must then all be read;
where the base, or an image before it with the same files, already has our layer, its label says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import image, image_changes, image_import_path, image_users
from bundler.artifacts.image.blobs import (
    REF_NAME,
    BlobStore,
    BlobTarget,
    Descriptor,
    copy,
    descriptors,
    images_of,
    manifests_of,
    read_manifest,
    take_layer,
)
from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import Json
from bundler.artifacts.image.image_program import runs_as
from bundler.artifacts.image.layer import Layer, Placed, Written
from bundler.artifacts.image.ociread import LoadedImage, architecture
from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.errors import UsageError, VerificationFailed
from bundler.state.bundle import Bundle
from bundler.system.times import reproducible_now

_BASE_DIGEST = "org.opencontainers.image.base.digest"
_CREATED = "org.opencontainers.image.created"
# A copy of the older blob in the entry that points to it.
_DATA = "data"
# What distinguishes the platforms of an index.
_PLATFORM_KEYS = ("os", "architecture", "variant", "os.version")


class BaseImage(msgspec.Struct, frozen=True):
    """An image to add state to: an entry of a store."""

    store: BlobStore
    entry: Descriptor


class Appended(msgspec.Struct, frozen=True):
    """entry: points to the manifest or index that was stored. layers: the size of each new blob, by
    digest."""

    entry: Json
    layers: Mapping[str, int]


class _Job(msgspec.Struct):
    """An `append` in progress. written: the layers that the target has; platforms share one."""

    request: EmbedRequest
    target: BlobTarget
    before: Callable[[], Sequence[LoadedImage]]
    layer: Layer | None
    created: str = msgspec.field(default_factory=reproducible_now)
    written: list[tuple[Layer, Compression, Written]] = msgspec.field(default_factory=list)

    def add(self, layer: Layer, packing: Compression) -> Written:
        for known, packed, written in self.written:
            if known == layer and packed == packing:
                return written
        written = self.target.add_layer(layer, packing)
        self.written.append((layer, packing, written))
        return written

    def done(self, entry: Json) -> Appended:
        layers = {f"sha256:{written.digest}": written.size for _, _, written in self.written}
        return Appended(entry, layers)


def append(
    request: EmbedRequest,
    target: BlobTarget,
    sources: Sequence[BaseImage],
    *,
    before: Callable[[], Sequence[LoadedImage]] = tuple,
    layer: Layer | None = None,
) -> Appended:
    """Adds the states to each image; several images become one index with a platform each.

    sources: none makes an image of the state alone, each state directory at ``/<Bundle.place>``.
    Without bundles the only source is copied unchanged. before: returns images that may have the
    same files below an earlier state. layer: the layer to add, if it is known; then no layer of the
    base is read. Raises `ConfigurationError` if a place cannot be determined, `UsageError` for two
    images of one platform, `VerificationFailed` for a malformed base or a state that changed
    meanwhile.
    """
    if not request.bundles:
        return _copied(target, sources)
    job = _Job(request, target, before, layer)
    if not sources:
        return job.done(_onto_nothing(job))
    index: Json = {"schemaVersion": 2, "mediaType": image.OCI_INDEX}
    if len(sources) == 1:
        (source,) = sources
        if not source.entry.is_index:
            (only,) = images_of(source.store, source.entry)
            return job.done(_onto(job, source.store, only))
        index = read_manifest(source.store, source.entry)
    return job.done(_index(job, sources, index))


def _copied(target: BlobTarget, sources: Sequence[BaseImage]) -> Appended:
    """Copies a source unchanged, if no state is added to it."""
    if len(sources) != 1:
        raise UsageError("There is no state to embed.", hint="Select its project with --project.")
    (source,) = sources
    copy(source.store, target, source.entry)
    return Appended(source.entry.raw, {})


def _index(job: _Job, sources: Sequence[BaseImage], index: Json) -> Json:
    """Adds the layer to every platform; drops attestations, which describe the old images."""
    listed = [
        (item.store, entry) for item in sources for entry in manifests_of(item.store, item.entry)
    ]
    found = [(store, entry) for store, entry in listed if not entry.speaks_of_another]
    if not found:
        raise VerificationFailed("The index contains no image.")
    if len(found) < len(listed):
        job.request.listener.note(
            "Attestations of the base are dropped: they describe the image without its state."
        )
    made = [_onto(job, store, entry, platform=True) for store, entry in found]
    _refuse_twins(made)
    media_type = str(index.get("mediaType") or image.OCI_INDEX)
    return job.target.add_manifest({**index, "manifests": made}, media_type)


def _refuse_twins(entries: Sequence[Json]) -> None:
    seen = set()
    for entry in entries:
        platform = tuple(str(entry["platform"].get(key, "")) for key in _PLATFORM_KEYS)
        if platform in seen:
            raise UsageError(
                f"Two of the images are for {platform[0]}/{platform[1]}.",
                hint="An index has one image per platform: pass only one of them.",
            )
        seen.add(platform)


def _onto(job: _Job, store: BlobStore, entry: Descriptor, *, platform: bool = False) -> Json:
    loaded = LoadedImage(store, entry)
    layer = _layer_for(job, loaded)
    if job.layer is None and image.volumes_of(loaded.config):
        image.refuse_volumes(loaded.config, layer.placed, loaded.tree.resolve)
    manifest = loaded.manifest
    packing = image_changes.packing_of([kept.media_type for kept in loaded.layers])
    if image.replaces(loaded.config, layer):
        manifest = {**manifest, "layers": manifest["layers"][:-1]}
    for kept in descriptors(manifest["layers"], entry.digest):
        take_layer(store, job.target, kept)
    raw = {key: value for key, value in entry.raw.items() if key not in ("annotations", _DATA)}
    annotations = {k: v for k, v in (entry.annotations or {}).items() if k != REF_NAME}
    if annotations:
        raw["annotations"] = annotations
    if platform:
        raw = {**raw, "platform": raw.get("platform") or _platform(loaded.config)}
    bare = _Bare(loaded.config, manifest, packing)
    return _store(job, layer, bare, raw, {_BASE_DIGEST: entry.digest})


def _layer_for(job: _Job, loaded: LoadedImage) -> Layer:
    if job.layer is not None:
        return job.layer
    if not job.request.places:
        known = _remembered(job, loaded)
        if known is not None:
            return known
    runs = runs_as(loaded.config.get("config") or {})
    tree = loaded.tree
    placed = []
    for bundle in job.request.bundles:
        override = job.request.places.get(bundle.place)
        path = image_import_path.find(tree, runs, bundle.place, override=override)
        placed.append(_placed(bundle, path, tree))
    user = image_users.user_id(tree, runs.user)
    left = image.moved_from(loaded.config, placed, tree.resolve)
    chosen = bool(job.request.places)
    return Layer(tuple(placed), user=user, moved_from=left, chosen=chosen)


def _remembered(job: _Job, loaded: LoadedImage) -> Layer | None:
    """The layer that was computed for an image with the same files below its state: for this one,
    or for its predecessors."""
    own = image.files_below(loaded.config)
    for candidates in (lambda: (loaded,), job.before):
        for known in candidates():
            if image.files_below(known.config) == own:
                own_place = known is loaded
                layer = image.remembered(known.config, job.request.bundles, own=own_place)
                if layer is not None:
                    return layer
    return None


def _placed(bundle: Bundle, path: str, tree: RootFilesystem) -> Placed:
    return Placed(bundle, path, image_import_path.parents(tree, path))


def _onto_nothing(job: _Job) -> Json:
    """An image of the state alone, with each state directory at ``/<Bundle.place>``."""
    nothing = RootFilesystem()
    bundles = job.request.bundles
    placed = tuple(_placed(bundle, f"/{bundle.place}", nothing) for bundle in bundles)
    config = image_changes.empty_config(architecture())
    manifest = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": {"mediaType": image.OCI_CONFIG},
        "layers": [],
    }
    entry = {"mediaType": image.OCI_MANIFEST, "platform": _platform(config)}
    # gzip is the only compression that every tool and every registry accepts.
    bare = _Bare(config, manifest, "gzip")
    return _store(job, Layer(placed, opaque=False), bare, entry, {})


def _platform(config: Json) -> Json:
    if not isinstance(config.get("architecture"), str) or not isinstance(config.get("os"), str):
        raise VerificationFailed("The image's configuration does not specify its platform.")
    return {key: config[key] for key in _PLATFORM_KEYS if config.get(key)}


class _Bare(msgspec.Struct, frozen=True):
    """An image that gets the layer, compressed this way. manifest: with the layers that remain."""

    config: Json
    manifest: Json
    packing: Compression


def _store(
    job: _Job, layer: Layer, onto: _Bare, entry: Json, annotations: Mapping[str, str]
) -> Json:
    """Stores the layer, then the configuration, then the manifest that names both."""
    written = job.add(layer, onto.packing)
    record = job.request.record
    config = image_changes.with_states(onto.config, layer, written, record, created=job.created)
    config_digest, config_size = job.target.add_config(config)
    manifest = dict(onto.manifest)
    media_type = str(manifest.get("mediaType") or entry["mediaType"])
    blob = {
        "mediaType": image_changes.layer_media_type(media_type, onto.packing),
        "digest": f"sha256:{written.digest}",
        "size": written.size,
    }
    manifest["layers"] = [*manifest["layers"], blob]
    manifest["config"] = {**manifest["config"], "digest": config_digest, "size": config_size}
    manifest["config"].pop(_DATA, None)
    if media_type == image.OCI_MANIFEST:
        manifest["annotations"] = {
            **annotations,
            **(manifest.get("annotations") or {}),
            **image_changes.annotations_for(config, record),
            _CREATED: job.created,
        }
    return {**entry, **job.target.add_manifest(manifest, media_type)}
