"""Puts new state into an artifact that exists, without building it again.

The record's `build` stays: it is the same code. Its `refresh` is new. Where the artifact already
holds these very states nothing is made, so that nothing is rolled out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bundler.artifacts.image.reference import names_host
from bundler.artifacts.names import LATEST, STATE_DIGITS, ArtifactName, without_state
from bundler.artifacts.verify import Verdict, verify
from bundler.errors import ToolFailed, UsageError
from bundler.listener import Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import Manifest, RunRecord, parse
from bundler.system.atomic import remove_leftovers, temporary_folder
from bundler.workflows.pipeline import Prepared, prove

if TYPE_CHECKING:
    from bundler.artifacts.image.blobs import Descriptor, Store
    from bundler.artifacts.image.engine import EngineImage
    from bundler.artifacts.image.ociread import OciImage
    from bundler.artifacts.python.pex import PexArtifact


class Updated(msgspec.Struct, frozen=True):
    """name: of the artifact that has the states now; the old one's where nothing changed."""

    name: str
    changed: bool
    verdict: Verdict

    @property
    def digest(self) -> str | None:
        return self.verdict.digest


@contextmanager
def looked_at(name: ArtifactName) -> Iterator[PexArtifact | None]:
    """Refuses what is never updated, such as a scie, before anything is refreshed for it.

    Gives the PEX, open: its tens of thousands of names need not be read again after the refresh.
    None for what is no PEX. Raises as `bundler.artifacts.python.pex.open_pex` does.
    """
    if _is_pex(name):
        from bundler.artifacts.python.pex import open_pex

        with open_pex(name.path) as pex:
            yield pex
    else:
        yield None


def _is_pex(name: ArtifactName) -> bool:
    return name.kind == "path" and (name.path.is_file() or (name.path / "PEX-INFO").exists())


def update(
    name: ArtifactName,
    new_tag: str | None,
    *,
    in_place: bool,
    prepared: Prepared,
    listener: Listener,
    every_byte: bool = False,
    before: PexArtifact | None = None,
) -> Updated:
    """Puts new state into the artifact with this name, whatever it is; see the functions below.

    before: the PEX of this name, where `looked_at` has opened it.
    every_byte: of an image in an engine or a registry; all others are read back as a whole anyway.
    """
    if _is_pex(name):
        return update_pex(name.path, prepared, listener, before)
    if name.kind == "layout":
        return update_layout(name, new_tag, prepared, listener, in_place=in_place)
    if name.kind in ("path", "store"):
        raise UsageError(f"{name} cannot be updated.", hint="Name a PEX, or an image.")
    way = update_registry if _is_in_registry(name) else update_image
    return way(
        name,
        new_tag,
        in_place=in_place,
        prepared=prepared,
        listener=listener,
        every_byte=every_byte,
    )


def _is_in_registry(name: ArtifactName) -> bool:
    """A name without a prefix is one in the engine if that has it, else in its registry."""
    if name.kind != "image" or not names_host(name.name):
        return name.kind == "registry"
    from bundler.artifacts.image.engine import open_image

    try:
        with open_image(name.image):
            return False
    except (UsageError, ToolFailed):
        return True


def update_pex(
    path: Path, prepared: Prepared, listener: Listener, before: PexArtifact | None = None
) -> Updated:
    """Replaces a PEX by one with the new states; a program that runs from it is not disturbed.

    before: the PEX as it was opened earlier; it serves if it is still what has that name.
    """
    from bundler.artifacts.python.pex import open_pex

    if before is None or not before.is_still(path):
        with open_pex(path) as pex:
            return _update_pex(path, pex, prepared, listener)
    return _update_pex(path, before, prepared, listener)


def _update_pex(path: Path, old: PexArtifact, prepared: Prepared, listener: Listener) -> Updated:
    from bundler.artifacts.python.replacing import publish

    remove_leftovers(path.resolve().parent, path.resolve().name)
    if is_current(old, prepared.bundles):
        return Updated(str(path), changed=False, verdict=_intact(old))
    record = renewed(old.run_record(), prepared)
    target = path.resolve()
    with temporary_folder(target) as folder:
        made = folder / target.name
        listener.phase(f"Putting the state into {path}")
        old.embed(prepared.bundles, record, made)
        listener.phase("Reading back")
        with old.open_successor(made) as pex:
            verdict = prove(pex, prepared, listener, before=str(target))
        publish(made, target)
    return Updated(str(path), changed=True, verdict=verdict)


def update_layout(
    name: ArtifactName,
    new_tag: str | None,
    prepared: Prepared,
    listener: Listener,
    *,
    in_place: bool = False,
) -> Updated:
    """Adds an image with the new states to an OCI layout, under its own tag.

    new_tag: where it goes; None makes one of the old tag and the content, see `tag_for`. Where that
    tag has this very state on the same files already, nothing is made.
    """
    from bundler.artifacts.image.layout import open_store, remove_leftovers_of
    from bundler.artifacts.image.oci import embed, find
    from bundler.artifacts.image.ociread import choose

    remove_leftovers_of(name.path)
    with closing(open_store(name.path)) as store:
        entry = choose(store, name.tag)
        own = name.tag or without_state(entry.tag or LATEST)
        target = name.tagged(own if in_place else new_tag or tag_for(own, prepared.bundles))
        old = _platforms(store, entry, str(name), "oci")
        there = find(store, str(target.tag))
        made = [] if there is None else _platforms(store, there, str(target), "oci")
        current = _current(old, made, prepared.bundles)
        if current is not None:
            return _unchanged(current)
        record = renewed(old[0].run_record(), prepared)
    verdicts: list[Verdict] = []
    listener.phase(f"Putting the state into {target}")
    embed(
        name.path,
        prepared.bundles,
        record,
        name.path,
        tag=str(target.tag),
        base_tag=entry.tag or entry.digest,
        check=lambda made: verdicts.append(prove(made, prepared, listener)),
        listener=listener,
    )
    return Updated(str(target), changed=True, verdict=verdicts[0])


def update_image(
    name: ArtifactName,
    new_tag: str | None,
    *,
    in_place: bool,
    prepared: Prepared,
    listener: Listener,
    every_byte: bool = False,
) -> Updated:
    """Adds an image with the new states to the engine that has the old one: one layer is sent.

    new_tag: a whole name, or a tag of the same repository; None makes one, see `tag_for`. Where
    that name has this very state on the same files already, nothing is made.
    """
    from bundler.artifacts.image import engine as docker

    with ExitStack() as stack:
        image = stack.enter_context(docker.open_image(name.image))
        target = name.image if in_place else _image_name(name, new_tag, prepared.bundles)
        there = []
        with suppress(UsageError):  # the engine has no image of that name
            there.append(stack.enter_context(docker.open_image(target)))
        current = _current([image], there, prepared.bundles)
        if current is not None:
            return _unchanged(current)
        record = renewed(image.run_record(), prepared)
        listener.phase(f"Putting the state into {target}")
        verdicts: list[Verdict] = []
        made = docker.embed(
            image.engine,
            name.image,
            prepared.bundles,
            record,
            check=lambda it: verdicts.append(prove(it, prepared, listener, before=name.image)),
            every_byte=every_byte,
            listener=listener,
        )
        docker.tag(image.engine, made.image_id, target)
    return Updated(target, changed=True, verdict=verdicts[0])


def update_registry(
    name: ArtifactName,
    new_tag: str | None,
    *,
    in_place: bool,
    prepared: Prepared,
    listener: Listener,
    every_byte: bool = False,
) -> Updated:
    """Adds an image with the new states to the registry that has the old one, by its blobs.

    new_tag: a tag of the same repository; None makes one, see `tag_for`. Where that tag has this
    very state on the same files already, as after an earlier update, nothing is made either.
    """
    from bundler.artifacts.image import registry

    with registry.opened(name.image, listener) as (target, reference):
        entry = target.resolve(reference)
        tag = _registry_tag(reference.tag, new_tag, in_place=in_place, bundles=prepared.bundles)
        wanted = reference.tagged(tag)
        old = _platforms(target, entry, str(reference), "registry")
        there = target.find(wanted) if wanted.tag != reference.tag else None
        made = [] if there is None else _platforms(target, there, str(wanted), "registry")
        current = _current(old, made, prepared.bundles)
        if current is not None:
            return _unchanged(current)
        listener.phase(f"Putting the state into {wanted}")
        verdicts: list[Verdict] = []
        pushed = registry.embed(
            target,
            [registry.Source(target, entry)],
            prepared.bundles,
            renewed(old[0].run_record(), prepared),
            check=lambda found: verdicts.append(prove(found, prepared, listener)),
            every_byte=every_byte,
            listener=listener,
        )
        pushed.name(tag)
    return Updated(str(wanted), changed=True, verdict=verdicts[0])


def _registry_tag(
    old: str | None, new: str | None, *, in_place: bool, bundles: Sequence[Bundle]
) -> str:
    if new is not None:
        return new
    if old is None:
        raise UsageError(
            "An image that is named by its digest alone has no tag to go by.",
            hint="Name the new one: --tag TAG",
        )
    return old if in_place else tag_for(old, bundles)


def _platforms(store: Store, entry: Descriptor, name: str, kind: str) -> list[OciImage]:
    from bundler.artifacts.image.blobs import images_of
    from bundler.artifacts.image.ociread import OciImage

    return [OciImage(store, entry, name, kind, item) for item in images_of(store, entry)]


_Image = TypeVar("_Image", "OciImage", "EngineImage")


def _current(
    old: Sequence[_Image], made: Sequence[_Image], bundles: Sequence[Bundle]
) -> _Image | None:
    """What has these states already: the image itself, or what an earlier update made of it.

    old, made: the platforms of the two; none of the latter where its name is not taken.
    """
    if all(is_current(image, bundles) for image in old):
        return old[0]
    code = sorted(image.files_below() for image in old)
    if code == sorted(image.files_below() for image in made) and all(
        is_current(image, bundles) for image in made
    ):
        return made[0]
    return None


def _unchanged(current: OciImage | EngineImage) -> Updated:
    """current: of several platforms, any."""
    from bundler.artifacts.image.ociread import OciImage

    whole: Artifact = current
    if isinstance(current, OciImage):
        whole = OciImage(current.store, current.entry, current.name, current.kind)
    return Updated(current.name, changed=False, verdict=_intact(whole))


def _intact(artifact: Artifact) -> Verdict:
    """That what is there already verifies; its support files may be those of an older version."""
    verdict = verify(artifact)
    verdict.raise_for_problems()
    return verdict


def _image_name(name: ArtifactName, new_tag: str | None, bundles: Sequence[Bundle]) -> str:
    """The name of the updated image."""
    if new_tag is not None and (":" in new_tag or "/" in new_tag):
        return ArtifactName.parse(new_tag).image
    return name.tagged(new_tag or tag_for(name.tag or LATEST, bundles)).image


def tag_for(tag: str, bundles: Sequence[Bundle]) -> str:
    """``{tag}-s{content digest}``: new state gets a new tag, so that a roll-out notices it."""
    import hashlib

    digests = [bundle.manifest.content_digest for bundle in bundles]
    joined = digests[0] if len(digests) == 1 else "\n".join(sorted(digests))
    whole = joined if len(digests) == 1 else hashlib.sha256(joined.encode()).hexdigest()
    return f"{without_state(tag)}-s{whole[:STATE_DIGITS]}"


def is_current(artifact: Artifact, bundles: Sequence[Bundle]) -> bool:
    """Whether the artifact holds these states already, by its manifests' content digests."""
    there = {manifest.content_digest for manifest in manifests(artifact)}
    return all(bundle.manifest.content_digest in there for bundle in bundles)


def manifests(artifact: Artifact) -> list[Manifest]:
    """The manifests in an artifact. Raises `VerificationFailed` for a malformed one."""
    found = []
    for directory in artifact.state_directories():
        raw = directory.read_manifest()
        if raw is not None:
            found.append(parse(raw, f"{artifact.name}: the manifest in {directory.path}"))
    return found


def renewed(before: RunRecord | None, prepared: Prepared) -> RunRecord:
    """The new record, with what the artifact's own says that is not renewed.

    That is its `build`, and how the states of other state directories came about.
    """
    if before is None:
        return prepared.record
    now = prepared.record_of_refresh
    places = [item.path for item in now.refresh]
    others = tuple(item for item in before.refresh if not _is_one_of(item.path, places))
    refresh = tuple(sorted((*others, *now.refresh), key=lambda item: item.path))
    return msgspec.structs.replace(now, build=before.build, refresh=refresh)


def _is_one_of(path: str, places: Sequence[str]) -> bool:
    """Whether a state directory, as an artifact may name it, is that of a project's place."""
    return any(f"/{path.strip('/')}".endswith(f"/{place.strip('/')}") for place in places)
