"""Puts states on images that any builder made, wherever they are: ``state-bundler embed``.

    sources (registry, layout, archive, engine)  ->  one image or index, under no name
                                                 ->  read back  ->  every tag, last

Several images become one index, a platform each. To a repository next to the first the finished
image goes by mounting its blobs. Nothing that was there before is touched until all is proven.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import msgspec

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.image import image, oci, registry
from bundler.artifacts.image.add_layer import BaseImage
from bundler.artifacts.image.blobs import images_of
from bundler.artifacts.image.engine.embedding import EngineDestination
from bundler.artifacts.image.engine.full_image_transfer import saved
from bundler.artifacts.image.engine.opening import open_image
from bundler.artifacts.image.oci import LayoutDestination
from bundler.artifacts.image.ociread import LoadedImage
from bundler.artifacts.names import ARCHIVES, LATEST, ArtifactName
from bundler.artifacts.open import ends_as_zip
from bundler.errors import UsageError
from bundler.listener import Listener
from bundler.state.manifest import RunRecord
from bundler.workflows.image_places import places_of
from bundler.workflows.pipeline import Prepared, StateRequest, prepare, verify_and_load
from bundler.workflows.update import require_engine, state_digits

if TYPE_CHECKING:
    from bundler.artifacts.image.registry import RegistryDestination

_REVISION = "org.opencontainers.image.revision"
_COMMIT_DIGITS = 12
_SUBSTITUTED = re.compile(r"\{(content|environment)\}")  # in a tag, after the refresh


def target_name(text: str, first: ArtifactName | None) -> ArtifactName:
    """The name that ``--tag`` means; a word without ``:`` and ``/`` is another tag of the first
    source."""
    if ":" not in text and "/" not in text:
        if first is None:
            raise UsageError(f"{text} is only a tag.", hint="Write the full name: --tag NAME:TAG.")
        return first.tagged(text)
    name = _image(text)
    if name.kind == "image" and (first is None or first.kind != "engine"):
        return msgspec.structs.replace(name, kind="registry")  # Docker Hub's names have no host
    return name.without_asking()


def _image(text: str) -> ArtifactName:
    name = ArtifactName.parse(text)
    if name.kind == "store":
        raise UsageError(f"{name} is not an image.", hint="To use its states, pass --state-from.")
    is_file = name.kind == "path" and name.path.suffix not in ARCHIVES and name.path.is_file()
    if is_file and ends_as_zip(name.path):
        raise UsageError(
            f"{name} is not an image.",
            hint=f"For a PEX: state-bundler update {shlex.quote(str(name))}",
        )
    return msgspec.structs.replace(name, kind="layout") if name.kind == "path" else name


def refresh_and_embed(
    sources: Sequence[str],
    tags: Sequence[str],
    request: StateRequest,
    listener: Listener,
    *,
    image_path: str | None = None,
    every_byte: bool = False,
) -> EmbedResult:
    """Raises `UsageError` if there is no state, and as `prepare` and `embed` do."""
    names, _ = _named(sources, [_SUBSTITUTED.sub("0", tag) for tag in tags])
    for name in names:
        require_engine(name)
        if name.kind == "layout":
            with oci.source(name.path, name.tag):  # such as one of several images
                pass
    projects = request.selection.find(listener)
    with prepare(projects, request, listener) as prepared:
        if not prepared.bundles:
            raise UsageError(
                "There is no state to embed.", hint="Select its project with --project."
            )
        return embed(
            sources, tags, prepared, listener, image_path=image_path, every_byte=every_byte
        )


def embed(
    sources: Sequence[str],
    tags: Sequence[str],
    prepared: Prepared,
    listener: Listener,
    *,
    image_path: str | None = None,
    every_byte: bool = False,
) -> EmbedResult:
    """Makes one image of the sources with the states in it, and gives it every tag.

    sources: none makes an image of the state alone; without any state the only source is copied
    unchanged. tags: names as `target_name` takes them; ``{content}`` is the content digest,
    ``{environment}`` the run's. every_byte: whether to read back from an engine or a registry, too,
    although it vouches for the digest. Raises as `add_layer.append` does, and `ToolFailed` if a
    registry refuses.
    """
    names, targets = _named(sources, [_filled(text, prepared) for text in tags])
    places = places_of(prepared, image_path)
    request = prepared.request(listener, places=places, every_byte=every_byte)
    results = []
    with ExitStack() as stack:
        destinations = _destinations(names, targets, prepared.record, listener, stack)
        listener.phase(f"Embedding the state in {', '.join(target.shown for target in targets)}")
        for destination in destinations:
            before = destination.digest()
            with destination.embed(request) as made:
                verdict = verify_and_load(made, prepared, listener)
            results.append(EmbedResult(targets[0].shown, made.digest != before, verdict))
    changed = any(result.changed for result in results)
    return msgspec.structs.replace(results[0], changed=changed)


def _named(
    sources: Sequence[str], tags: Sequence[str]
) -> tuple[Sequence[ArtifactName], Sequence[ArtifactName]]:
    """The sources and the tags. Raises `UsageError` for what cannot be combined."""
    names = [_image(text).without_asking() for text in sources]
    targets = [target_name(text, names[0] if names else None) for text in tags]
    kinds = {target.kind for target in targets}
    if len(kinds) != 1:
        raise UsageError(
            "Tags in registries, in layouts and in the engine cannot be combined.",
            hint="Run it once for each of them.",
        )
    if kinds == {"engine"} and (len(names) != 1 or names[0].kind != "engine"):
        pull = next((f"docker pull {it.image}" for it in names if it.kind == "registry"), "")
        first = f"Run `{pull}` and embed into that, or use" if pull else "Use"
        raise UsageError(
            "Only an image in the engine can be tagged in the engine.",
            hint=f"{first} a registry or an OCI layout in --tag.",
        )
    for tag in (registry.parse(it.image) for it in targets if it.kind == "registry"):
        if tag.tag is None:
            raise UsageError(f"{tag} has no tag.", hint=f"Add one: --tag {tag.name}:TAG")
    return names, targets


def _destinations(
    names: Sequence[ArtifactName],
    targets: Sequence[ArtifactName],
    record: RunRecord,
    listener: Listener,
    stack: ExitStack,
) -> Sequence[LayoutDestination | EngineDestination | RegistryDestination]:
    """stack: closes what is opened."""
    kinds = {target.kind for target in targets}
    if kinds == {"engine"}:
        return [_in_engine(names, targets, stack)]
    sources = tuple(stack.enter_context(_opened(name, listener)) for name in names)
    for source in sources:
        _compare_commits(source, record, listener)
    if kinds == {"layout"}:
        return [LayoutDestination(it.path, it.tag or LATEST, sources) for it in targets]
    return [_in_registry(targets, sources, listener, stack)]


def _in_engine(
    names: Sequence[ArtifactName], targets: Sequence[ArtifactName], stack: ExitStack
) -> EngineDestination:
    found = stack.enter_context(open_image(names[0].image))
    return EngineDestination(found.engine, names[0].image, tuple(it.image for it in targets))


def _in_registry(
    targets: Sequence[ArtifactName],
    sources: tuple[BaseImage, ...],
    listener: Listener,
    stack: ExitStack,
) -> RegistryDestination:
    tags = tuple(registry.parse(target.image) for target in targets)
    target, _ = stack.enter_context(registry.opened(tags[0], listener))
    return registry.RegistryDestination(target, tags, sources)


def _filled(text: str, prepared: Prepared) -> str:
    if "{environment}" in text and not prepared.record.environment:
        raise UsageError(
            f"{text} contains {{environment}}, but no environment is set.",
            hint="Pass one: --environment prod",
        )
    return text.replace("{content}", state_digits(prepared.bundles)).replace(
        "{environment}", prepared.record.environment or ""
    )


@contextmanager
def _opened(name: ArtifactName, listener: Listener) -> Iterator[BaseImage]:
    if name.kind == "registry":
        with closing(registry.RegistryStore(registry.parse(name.image), listener)) as store:
            yield BaseImage(store, store.resolve(store.reference))
    elif name.kind == "layout":
        with oci.source(name.path, name.tag) as source:
            yield source
    else:
        # It has to be fetched completely to go elsewhere.
        with open_image(name.image) as found, saved(found.engine, str(found.digest)) as source:
            yield source


def _compare_commits(source: BaseImage, record: RunRecord, listener: Listener) -> None:
    """The record names the code of this checkout; warns if the image says that it is of other
    code."""
    here = record.build.commit
    for entry in images_of(source.store, source.entry)[:1]:
        built = image.labels(LoadedImage(source.store, entry).config).get(_REVISION)
        if here and built and built != here:
            listener.warning(
                f"The image says it was built from commit {built[:_COMMIT_DIGITS]}, but the "
                f"run record will name this checkout's commit, {here[:_COMMIT_DIGITS]}."
            )
