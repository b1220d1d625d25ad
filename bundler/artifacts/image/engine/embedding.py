"""Adds states to an image in an engine, by sending only the new layer.

The classic image store accepts an archive that names missing layers if the store has them already.
So the archive contains the new layer, the new configuration and a list. If a store does not accept
that, the whole image is fetched, changed as an OCI layout, and sent back.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bundler.artifacts import reference
from bundler.artifacts.embedding import EmbedRequest, moved_meanwhile
from bundler.artifacts.image import image, image_changes, image_import_path, image_users
from bundler.artifacts.image.engine.config import config_of, settings_of
from bundler.artifacts.image.engine.connection import Engine, NotInEngine
from bundler.artifacts.image.engine.files import ContainerFiles, reading
from bundler.artifacts.image.engine.full_image_transfer import send_whole
from bundler.artifacts.image.engine.loading import archive_of, load
from bundler.artifacts.image.engine.opening import EngineImage
from bundler.artifacts.image.engine.running import imported_from
from bundler.artifacts.image.image import Json
from bundler.artifacts.image.image_program import RunsAs, runs_as
from bundler.artifacts.image.layer import Layer, Placed, Written
from bundler.errors import BundlerError, ConfigurationError, ToolFailed, VerificationFailed
from bundler.state.bundle import Bundle, is_at
from bundler.state.manifest import EVERY_BYTE, LAYER_DIGEST, RunRecord
from bundler.system.times import reproducible_now

# A temporary name, for stores that drop images without one.
TEMPORARY = "state-bundler.invalid/embed:"
# Storage drivers of the classic image store; for others, the engine is asked.
_CLASSIC_DRIVERS = ("overlay2", "vfs", "aufs")
# An engine with containerd's image store reports it in its driver's status.
_CONTAINERD = "io.containerd.snapshotter.v1"
# At most this many images with the same files are considered.
_MAX_ALIKE = 3


@dataclass(frozen=True)
class _BaseInEngine:
    """An image in the engine. as_a_whole: whether its store does not accept a single layer."""

    identity: str
    config: Json
    as_a_whole: bool


def _load_image(engine: Engine, name: str) -> _BaseInEngine:
    """Raises `NotInEngine` if the engine does not have the image."""
    inspected = engine.image(name)
    config = config_of(inspected, engine.history(inspected["Id"]))
    driver = (inspected.get("GraphDriver") or {}).get("Name")
    is_whole = engine.is_podman or (driver not in _CLASSIC_DRIVERS and has_containerd_store(engine))
    return _BaseInEngine(inspected["Id"], config, is_whole)


def has_containerd_store(engine: Engine) -> bool:
    """Whether the engine keeps its images in containerd, which supports several platforms."""
    status = engine.info().get("DriverStatus") or []
    return ["driver-type", _CONTAINERD] in status


@dataclass(frozen=True)
class EngineDestination:
    """Names in an engine, for an image with the state on top of one that the engine has.

    base: its name or ID. names: may be empty; then the image stays without a name.
    """

    engine: Engine
    base: str
    names: tuple[str, ...] = ()

    @contextmanager
    def embed(self, request: EmbedRequest) -> Iterator[EngineImage]:
        """See `bundler.artifacts.embedding.Destination`. Without bundles the base gets the names.

        Raises `ToolFailed` if the engine refuses.
        """
        base = _load_image(self.engine, self.base)
        if not request.bundles:
            with EngineImage(self.engine, base.identity) as found:
                yield found
            self._name(base.identity, base.identity)
            return
        layer = self._layer(base, request)
        if image.volumes_of(base.config):
            with reading(self.engine, base.identity) as container:
                image.refuse_volumes(base.config, layer.placed, container.resolve)
        # Podman does not check a layer's digest; Docker computes it.
        is_sealed = not (request.every_byte or self.engine.is_podman)
        request = request.read_back_as(LAYER_DIGEST if is_sealed else EVERY_BYTE)
        sent = _send(self.engine, base, layer, request.record)
        try:
            with _made(self.engine, sent, is_sealed=is_sealed) as made:
                yield made
            self._name(str(made.digest), base.identity)
        except BaseException:
            discard(self.engine, sent.name)
            raise

    def _name(self, identity: str, base: str) -> None:
        parsed = reference.parse(self.base)
        for name in self.names:
            in_place = reference.parse(name) == parsed
            if in_place and self.engine.image(self.base)["Id"] != base:
                raise moved_meanwhile(name)
        for name in self.names:
            tag(self.engine, identity, name)

    def _layer(self, base: _BaseInEngine, request: EmbedRequest) -> Layer:
        layer = None
        if not request.places:
            layer = _remembered(self.engine, base, self.names[:1], request.bundles)
        if layer is None:
            with reading(self.engine, base.identity) as container:
                layer = plan(container, base, request)
        paths = sorted(item.path for item in layer.placed)
        request.listener.note(f"Path of the state in the image: {', '.join(paths)}.")
        return layer

    def digest(self) -> str | None:
        """The digest of the image that has the first name now."""
        with suppress(NotInEngine):
            return str(self.engine.image(self.names[0])["Id"])
        return None


def _made(engine: Engine, made: _Sent, *, is_sealed: bool) -> EngineImage:
    """The finished image in the engine. Raises `ToolFailed` if it is not the expected one."""
    try:
        inspected = engine.image(made.name)
    except NotInEngine as error:
        raise ToolFailed(
            "The engine reported that it loaded the image, but does not have it.",
            hint="Check the engine's log.",
        ) from error
    if inspected["RootFS"]["Layers"] != made.diff_ids:
        raise ToolFailed("The engine's layers differ from those that were sent.")
    return EngineImage(engine, made.name, inspected=inspected, is_sealed=is_sealed)


def _remembered(
    engine: Engine, base: _BaseInEngine, before: Sequence[str], bundles: Sequence[Bundle]
) -> Layer | None:
    """The layer that was computed for an image with the same files below its state."""
    own = image.files_below(base.config)
    alike = _alike(engine, base.config, before, own)
    layers = (
        image.remembered(it, bundles, own=it is base.config)
        for it in alike
        if image.files_below(it) == own
    )
    return next((layer for layer in layers if layer is not None), None)


def _alike(engine: Engine, config: Json, before: Sequence[str], files: str) -> Iterator[Json]:
    """Images that may have the same files: this one, those named, any whose label says so."""
    yield config
    for name in before:
        with suppress(NotInEngine, VerificationFailed):
            yield settings_of(engine.image(name))
    for found in engine.images_with(f"{image.LABEL_BASE}={files}")[:_MAX_ALIKE]:
        with suppress(NotInEngine, VerificationFailed):
            yield settings_of(engine.image(found["Id"]))


def plan(container: ContainerFiles, base: _BaseInEngine, request: EmbedRequest) -> Layer:
    """The layer for an image, at the places that its files or its interpreter determine."""
    config = base.config
    runs = runs_as(config.get("config") or {})
    known: list[str] = []
    if image.own_layer_is_last(config):  # a label may also come from the base image
        known = [claim.path for claim in image.claims_of(image.labels(config)) or ()]
    finder = PlaceFinder(container, base.identity)
    placed = []
    for bundle in request.bundles:
        override = request.places.get(bundle.place)
        before = [path for path in known if override is None and is_at(path, bundle.place)]
        if len(before) == 1:
            path = before[0]
        else:
            path = finder.find(runs, bundle.place, override, request.hints)
        placed.append(Placed(bundle, path, image_import_path.parents(container, path)))
    user = image_users.user_id(container, runs.user)
    left = image.moved_from(config, placed, container.resolve)
    return Layer(tuple(placed), user=user, moved_from=left, chosen=bool(request.places))


class PlaceFinder:
    """Finds places: by a few lookups, then the whole listing, then the image's interpreter."""

    def __init__(self, container: ContainerFiles, image_id: str) -> None:
        self._container = container
        self._image = image_id
        self._tree: image_import_path.Files | None = None

    def find(
        self,
        runs: RunsAs,
        wanted: str,
        override: str | None,
        hints: Sequence[str],
    ) -> str:
        def by_files(files: image_import_path.Files) -> str:
            return image_import_path.find(files, runs, wanted, override=override, hints=hints)

        if self._tree is None:
            try:
                return by_files(self._container)
            except image_import_path.Unlisted:  # a lookup takes less time than a listing
                if found := self._by_interpreter(runs, wanted):
                    return found
            except image_import_path.Nowhere:
                pass
            self._tree = self._container.tree()
        try:
            return by_files(self._tree)
        except ConfigurationError:
            if override is None and (found := self._by_interpreter(runs, wanted)):
                return found
            raise

    def _by_interpreter(self, runs: RunsAs, wanted: str) -> str | None:
        runs = image_import_path.as_started(self._container, runs)
        first = image_import_path.first_roots(self._container, runs, wanted)
        package = posixpath.dirname(wanted)
        here = posixpath.join(runs.working_directory, package)
        if not (package and runs.is_clear) or (first is None and self._container.resolve(here)):
            return None  # the start of the program would decide
        folder = imported_from(
            self._container.engine.docker, self._image, runs, "".join(first or ()), package
        )
        if not folder:
            return None
        if not self._container.is_directory(folder):
            raise ConfigurationError(
                f"The image's Python imports {package} from {folder}, which is not a directory.",
                hint="Install the project as files: state cannot be added to an archive. If its "
                "program imports another copy, set image-path in [tool.state-bundler].",
            )
        return posixpath.join(folder, posixpath.basename(wanted))


def remove_unnamed(engine: Engine, image_id: str) -> None:
    """Removes an unnamed image, if possible; layers that another image uses stay."""
    with suppress(BundlerError):
        if not engine.image(image_id).get("RepoTags"):
            engine.remove_image(image_id)


def tag(engine: Engine, image_id: str, name: str) -> None:
    """Gives an image a name, ``repository`` or ``repository:tag``."""
    repository, tag_name, _ = reference.split(name)
    engine.tag(image_id, repository, tag_name or reference.LATEST)
    for known in engine.image(image_id).get("RepoTags") or ():
        if known.startswith(TEMPORARY):
            engine.remove_image(known)


def discard(engine: Engine, made: str) -> None:
    """Removes an image that was made and never named, if possible, by ID or temporary name."""
    with suppress(BundlerError):
        names = engine.image(made).get("RepoTags") or ()
        for name in names:
            if name.startswith(TEMPORARY):
                engine.remove_image(name, noprune=False)
        if not names:
            remove_unnamed(engine, made)


# --- sending --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sent:
    """An image that was sent. name: its ID, or the temporary name that its store needs."""

    name: str
    diff_ids: list[str]


def _send(engine: Engine, base: _BaseInEngine, layer: Layer, record: RunRecord) -> _Sent:
    if not base.as_a_whole:
        return _send_layer(engine, base.config, layer, record)
    return _Sent(*send_whole(engine, base.identity, layer, record, TEMPORARY))


def _send_layer(
    engine: Engine, config: Mapping[str, Any], layer: Layer, record: RunRecord
) -> _Sent:
    """Loads an archive with only the new layer."""
    sent: list[_Sent] = []

    def finish(written: Written) -> bytes:
        changed = image_changes.with_states(
            config, layer, written, record, created=reproducible_now()
        )
        raw = image.dump(changed)
        sent.append(_Sent(image.digest_of(raw), image.diff_ids(changed)))
        return raw

    below = len(image.diff_ids(config)) - image.replaces(config, layer)
    load(engine, archive_of(layer, below, finish))
    return sent[0]
