"""Embeds new state in an existing artifact, without building it again.

The record's `build` stays, since the code is the same; its `refresh` is new. If the artifact
already contains these states, nothing is written, so that nothing is rolled out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.artifacts.embedding import Destination, EmbedResult
from bundler.artifacts.names import (
    ARCHIVES,
    LATEST,
    STATE_DIGITS,
    ArtifactName,
    is_pex_folder,
    without_state,
)
from bundler.artifacts.open import shared_connections
from bundler.artifacts.reference import names_host
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError, ToolFailed, UsageError
from bundler.listener import Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle, is_at
from bundler.state.manifest import RunRecord
from bundler.system.atomic import remove_leftovers
from bundler.system.fast_tuple import NamedTuple
from bundler.workflows.pipeline import Prepared, StateRequest, prepare, verify_and_load

if TYPE_CHECKING:
    from bundler.artifacts.image.registry import Connections


class UpdateOutcome(NamedTuple):
    """The result for one of several artifacts. made: None if it failed."""

    artifact: str
    made: EmbedResult | None
    failure: BundlerError | None = None


def update_all(
    artifacts: Sequence[str],
    request: StateRequest,
    listener: Listener,
    *,
    new_tag: str | None = None,
    in_place: bool = False,
    every_byte: bool = False,
) -> Iterator[UpdateOutcome]:
    """Refreshes once, and updates each artifact; one that fails does not stop the others."""
    names = [ArtifactName.parse(artifact) for artifact in artifacts]
    for name in names:
        if new_tag is not None and _is_pex(name):
            raise UsageError(f"{name} is a PEX, which has no tag.", hint="Remove --tag.")
        refuse_impossible(name)
    with ExitStack() as stack:
        connections = stack.enter_context(shared_connections(names))
        projects = request.selection.find(listener)
        prepared = stack.enter_context(prepare(projects, request, listener, replaces=artifacts))
        for name in names:
            try:
                made = update(
                    name,
                    new_tag,
                    in_place=in_place,
                    prepared=prepared,
                    listener=listener,
                    every_byte=every_byte,
                    connections=connections,
                )
            except BundlerError as error:
                yield UpdateOutcome(str(name), None, error)
                continue
            if not made.changed:
                listener.note(f"The state of {name} is unchanged; nothing to update.")
            yield UpdateOutcome(str(name), made)


def _is_pex(name: ArtifactName) -> bool:
    return name.kind == "path" and (name.path.is_file() or is_pex_folder(name.path))


def refuse_impossible(name: ArtifactName) -> None:
    """Raises for what is never updated, before minutes are spent on a refresh.

    Raises `UsageError` for what is neither a PEX nor an image that can get a new tag, and as
    `require_engine` and `PexArtifact` do, such as for a scie.
    """
    require_engine(name)
    if name.kind == "path" and name.path.suffix == ".whl":
        raise UsageError(
            f"{name} is a wheel: installers expect that a version never changes.",
            hint="Build it again, with a new version.",
        )
    is_archive = name.kind == "path" and name.path.suffix in ARCHIVES
    if name.kind == "store" or is_archive or (name.kind == "path" and not _is_pex(name)):
        raise UsageError(f"{name} cannot be updated.", hint="Pass a PEX or an image.")
    if _is_pex(name):
        from bundler.artifacts.python.pex.file import PexArtifact

        with PexArtifact(name.path):
            pass


def update(
    name: ArtifactName,
    new_tag: str | None,
    *,
    in_place: bool,
    prepared: Prepared,
    listener: Listener,
    every_byte: bool = False,
    connections: Connections | None = None,
) -> EmbedResult:
    """Puts new state into the artifact with this name.

    A PEX is replaced; a program that runs from it is not disturbed. An image gets a new tag, and
    what is new of it is added to the layout, engine or registry that has it. new_tag: that tag, or
    a whole name in the engine; None makes one, see `tag_for`. Where the artifact, or what has the
    new tag, holds this very state on the same code already, nothing is made.
    every_byte: of an image in an engine or a registry; all others are read back as a whole anyway.
    connections: to registries, of a command that updates many.
    """
    new = _NewTag(new_tag, in_place, prepared.bundles)
    with _update_of(name, new, listener, connections) as found:
        current = _current(found.old, found.there, prepared.bundles)
        if current is not None:
            unchanged = found.present if current is found.old else found.name
            verdict = verify(current)  # its support files may be from an older version
            verdict.raise_for_problems()
            return EmbedResult(unchanged, changed=False, verdict=verdict)
        record = renewed(_record_by_place(found.old, prepared.bundles), prepared)
        request = prepared.request(listener, record=record, every_byte=every_byte)
        listener.phase(f"Embedding the state in {found.name}")
        with found.destination.embed(request) as made:
            verdict = verify_and_load(made, prepared, listener, before=found.compared)
    return EmbedResult(found.name, changed=True, verdict=verdict)


class _Update(msgspec.Struct, frozen=True):
    """old: the artifact; present: its name, with its tag. there: what has the new name now, if that
    is another one. name: the new one. compared: what a load is compared with."""

    old: Artifact
    present: str
    there: Artifact | None
    destination: Destination
    name: str
    compared: str | None = None


class _NewTag(msgspec.Struct, frozen=True):
    """The tag of the updated image. given: by the user, if any."""

    given: str | None
    in_place: bool
    bundles: tuple[Bundle, ...]

    def of(self, name: ArtifactName, old: str | None) -> ArtifactName:
        """The name with the new tag. old: the image's present name."""
        if self.given is not None:
            return name.tagged(self.given)
        if old is None:
            raise UsageError(
                "An image that is named only by digest has no tag from which to derive one.",
                hint="Pass the new tag: --tag TAG",
            )
        return name.tagged(old if self.in_place else tag_for(old, self.bundles))


def _update_of(
    name: ArtifactName,
    new: _NewTag,
    listener: Listener,
    connections: Connections | None,
) -> AbstractContextManager[_Update]:
    if _is_pex(name):
        return _of_pex(name.path)
    if name.kind == "layout":
        return _in_layout(name, new)
    if name.kind == "registry":
        return _in_registry(name, new, listener, connections)
    return _in_engine(name, new, listener, connections)


@contextmanager
def _of_pex(path: Path) -> Iterator[_Update]:
    from bundler.artifacts.python.pex import PexDestination
    from bundler.artifacts.python.pex.file import PexArtifact

    target = path.resolve()
    remove_leftovers(target.parent, target.name)
    with PexArtifact(path) as pex:
        yield _Update(pex, str(path), None, PexDestination(pex, target), str(path), str(target))


@contextmanager
def _in_layout(name: ArtifactName, new: _NewTag) -> Iterator[_Update]:
    from bundler.artifacts.image.add_layer import BaseImage
    from bundler.artifacts.image.layout import open_store, remove_leftovers_of
    from bundler.artifacts.image.oci import LayoutDestination, find
    from bundler.artifacts.image.ociread import OciImage, choose

    remove_leftovers_of(name.path)
    with closing(open_store(name.path)) as store:
        entry = choose(store, name.tag)
        target = new.of(name, name.tag or without_state(entry.tag or LATEST))
        old = OciImage(store, entry, str(name))
        found = find(store, str(target.tag))
        there = None if found is None else OciImage(store, found, str(target))
        destination = LayoutDestination(name.path, str(target.tag), (BaseImage(store, entry),))
        present = str(name) if name.tag or not entry.tag else f"{name}:{entry.tag}"
        yield _Update(old, present, there, destination, str(target))


@contextmanager
def _in_engine(
    name: ArtifactName, new: _NewTag, listener: Listener, connections: Connections | None
) -> Iterator[_Update]:
    """A name without a prefix, but with a host, is its registry's if the engine has no such
    image."""
    from bundler.artifacts.image.engine.embedding import EngineDestination
    from bundler.artifacts.image.engine.opening import open_image

    with ExitStack() as stack:
        old = None
        try:
            old = stack.enter_context(open_image(name.image))
        except (UsageError, ToolFailed):
            if name.kind != "image" or not names_host(name.name):
                raise
        if old is None:
            yield stack.enter_context(_in_registry(name, new, listener, connections))
            return
        if new.given is not None and set(":/") & set(new.given):  # a whole name
            target = ArtifactName.parse(new.given).image
        else:
            target = new.of(name, name.tag or (None if name.digest else LATEST)).image
        there = None
        with suppress(UsageError):  # the engine has no image with that name
            there = stack.enter_context(open_image(target, old.engine.docker))
        destination = EngineDestination(old.engine, name.image, (target,))
        present = name.image if name.tag or name.digest else name.tagged(LATEST).image
        yield _Update(old, present, there, destination, target, name.image)


@contextmanager
def _in_registry(
    name: ArtifactName, new: _NewTag, listener: Listener, connections: Connections | None
) -> Iterator[_Update]:
    from bundler.artifacts.image import registry
    from bundler.artifacts.image.add_layer import BaseImage
    from bundler.artifacts.image.ociread import OciImage

    with registry.opened(name.image, listener, connections) as (repository, reference):
        entry = repository.resolve(reference)
        target = reference.tagged(str(new.of(name, reference.tag).tag))
        old = OciImage(repository, entry, str(reference), registry.KIND)
        found = repository.find(target) if target.tag != reference.tag else None
        there = None if found is None else OciImage(repository, found, str(target), registry.KIND)
        base = BaseImage(repository, entry)
        replaces = entry.digest if target.tag == reference.tag and not reference.digest else None
        destination = registry.RegistryDestination(repository, (target,), (base,), replaces)
        yield _Update(old, str(reference), there, destination, str(target))


def require_engine(name: ArtifactName) -> None:
    """Raises `ToolFailed` if only an engine can have the artifact, and it cannot be reached."""
    if name.kind == "engine" or (name.kind == "image" and not names_host(name.name)):
        from bundler.artifacts.image.engine.connection import Docker

        Docker.from_environment().connect()


def _current(old: Artifact, there: Artifact | None, bundles: Sequence[Bundle]) -> Artifact | None:
    """What contains these states already: the artifact itself, or an earlier update of it."""
    if all(is_current(image, bundles) for image in _platforms(old)):
        return old
    if there is None:
        return None
    same = _code(old) == _code(there)
    return there if same and all(is_current(it, bundles) for it in _platforms(there)) else None


def _platforms(artifact: Artifact) -> Iterator[Artifact]:
    yield artifact
    yield from artifact.other_platforms()


def _code(artifact: Artifact) -> list[str]:
    return sorted(str(image.files_below()) for image in _platforms(artifact))


def tag_for(tag: str, bundles: Sequence[Bundle]) -> str:
    """``{tag}-s{content digest}``: new state gets a new tag, so that a roll-out notices it."""
    return f"{without_state(tag)}-s{state_digits(bundles)}"


def state_digits(bundles: Sequence[Bundle]) -> str:
    """The content digest of all the bundles, as a tag has it."""
    digests = sorted(bundle.manifest.content_digest for bundle in bundles)
    whole = (
        digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    )
    return whole[:STATE_DIGITS]


def is_current(artifact: Artifact, bundles: Sequence[Bundle]) -> bool:
    """Whether the artifact contains these states already, by its manifests' content digests."""
    there = {manifest.content_digest for manifest in artifact.manifests().values()}
    return all(bundle.manifest.content_digest in there for bundle in bundles)


def _record_by_place(artifact: Artifact, bundles: Sequence[Bundle]) -> RunRecord | None:
    """The artifact's record, with the places of these states instead of their paths in an image,
    which end differently behind a link and with ``image-path``."""
    from bundler.artifacts.image.examining import ImageArtifact
    from bundler.artifacts.image.image import import_paths

    record = artifact.run_record()
    if record is None or not isinstance(artifact, ImageArtifact):
        return record
    places, known = {bundle.place for bundle in bundles}, import_paths(artifact.config)
    return record.moved({path: place for path, place in known.items() if place in places})


def renewed(before: RunRecord | None, prepared: Prepared) -> RunRecord:
    """The new record, with the parts of the artifact's own that stay: its `build`, and how the
    states of other state directories were made."""
    if before is None:
        return prepared.record
    now = prepared.record_of_refresh
    known = {item.path.strip("/") for item in before.refresh}
    # A path that is exactly a place is meant before one that only ends with it.
    replaced = {
        path
        for item in now.refresh
        for path in known
        if path == item.path or (item.path not in known and is_at(path, item.path))
    }
    others = tuple(item for item in before.refresh if item.path.strip("/") not in replaced)
    refresh = tuple(sorted((*others, *now.refresh), key=lambda item: item.path))
    return msgspec.structs.replace(now, build=before.build, refresh=refresh)
