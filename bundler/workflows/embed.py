"""Puts states on images that any builder made, wherever they are: ``state-bundler embed``.

    sources (registry, layout, archive, engine)  ->  one image or index, under no name
                                                 ->  read back  ->  every tag, last

Several images become one index, a platform each. To a repository beside the first the finished
image goes by mounting its blobs. Nothing that was there before is touched until all is proven.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.image import image
from bundler.artifacts.image.add_layer import Source
from bundler.artifacts.image.blobs import images_of
from bundler.artifacts.image.ociread import LoadedImage
from bundler.artifacts.names import LATEST, ArtifactName
from bundler.artifacts.verify import Verdict
from bundler.errors import UsageError
from bundler.listener import Listener
from bundler.state.manifest import RunRecord
from bundler.workflows.pipeline import Prepared, prove
from bundler.workflows.update import Updated, tag_for

_REVISION = "org.opencontainers.image.revision"
_COMMIT_DIGITS = 12


def target_name(text: str, first: ArtifactName | None) -> ArtifactName:
    """What ``--tag`` names; a word without ``:`` and ``/`` is a tag beside the first source."""
    if ":" not in text and "/" not in text:
        if first is None:
            raise UsageError(f"{text} is only a tag.", hint="Write the whole name: --tag NAME:TAG.")
        return first.tagged(text)
    name = _image(text)
    if name.kind == "image" and (first is None or first.kind != "engine"):
        return msgspec.structs.replace(name, kind="registry")  # Docker Hub's names have no host
    return name.without_asking()


def _image(text: str) -> ArtifactName:
    name = ArtifactName.parse(text)
    if name.kind == "store":
        raise UsageError(f"{name} is no image.", hint="Its states are taken by --state-from.")
    return msgspec.structs.replace(name, kind="layout") if name.kind == "path" else name


def embed(
    sources: Sequence[str],
    tags: Sequence[str],
    prepared: Prepared,
    listener: Listener,
    *,
    places: Mapping[str, str] | None = None,
    every_byte: bool = False,
) -> Updated:
    """Makes one image of the sources with the states in it, and gives it every tag.

    sources: none makes an image of the state alone. tags: names as `target_name` takes them;
    ``{content}`` stands for the content digest, ``{environment}`` for the run's. every_byte: read
    back from an engine or a registry, too, which vouches for the digest of what it took.
    Raises as `add_layer.append` does, and `ToolFailed` where a registry refuses.
    """
    names = [_image(text).without_asking() for text in sources]
    first = names[0] if names else None
    targets = [target_name(_filled(text, prepared), first) for text in tags]
    kinds = {target.kind for target in targets}
    if len(kinds) != 1:
        raise UsageError("The tags must all be in registries, in layouts or in the engine.")
    job = _Job(prepared, listener, places or {}, every_byte)
    listener.phase(f"Putting the state into {', '.join(target.shown for target in targets)}")
    (kind,) = kinds
    if kind == "engine":
        return _in_engine(job, names, targets)
    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(name, listener)) for name in names]
        for source in opened:
            _compare_commits(source, prepared.record, listener)
        return (
            _in_layouts(job, opened, targets) if kind == "layout" else _pushed(job, opened, targets)
        )


class _Job(msgspec.Struct, frozen=True):
    prepared: Prepared
    listener: Listener
    places: Mapping[str, str]
    every_byte: bool


def _filled(text: str, prepared: Prepared) -> str:
    content = tag_for("", prepared.bundles).removeprefix("-s")
    if "{environment}" in text and not prepared.record.environment:
        raise UsageError(f"{text}: the run has no environment.", hint="Name it: --environment prod")
    return text.replace("{content}", content).replace(
        "{environment}", prepared.record.environment or ""
    )


@contextmanager
def _opened(name: ArtifactName, listener: Listener) -> Iterator[Source]:
    if name.kind == "registry":
        from bundler.artifacts.image import registry

        store = registry.RegistryStore(registry.parse(name.image), listener)
        try:
            yield Source(store, store.resolve(store.reference))
        finally:
            store.close()
    elif name.kind == "layout":
        from bundler.artifacts.image.layout import open_store
        from bundler.artifacts.image.ociread import choose

        layout = open_store(name.path)
        try:
            yield Source(layout, choose(layout, name.tag))
        finally:
            layout.close()
    else:
        with _fetched(name.image) as source:
            yield source


@contextmanager
def _fetched(name: str) -> Iterator[Source]:
    """An image of the engine, as a layout: to be put elsewhere it must be sent as a whole."""
    from bundler.artifacts.image.engine.full_image_transfer import fetch
    from bundler.artifacts.image.engine.opening import open_image
    from bundler.artifacts.image.ociread import choose

    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder, open_image(name) as found:
        layout = fetch(found.engine, str(found.digest), Path(folder))
        yield Source(layout, choose(layout, None))


def _compare_commits(source: Source, record: RunRecord, listener: Listener) -> None:
    """The record names the code of this checkout; the image may say that it is of other code."""
    here = record.build.commit
    for entry in images_of(source.store, source.entry)[:1]:
        built = image.labels(LoadedImage(source.store, entry).config).get(_REVISION)
        if here and built and built != here:
            listener.warning(
                f"The image says that it was built of commit {built[:_COMMIT_DIGITS]}, but the "
                f"record will name that of this checkout, {here[:_COMMIT_DIGITS]}."
            )


def _pushed(job: _Job, sources: Sequence[Source], targets: Sequence[ArtifactName]) -> Updated:
    """By digest to each repository, then the tags."""
    from bundler.artifacts.image import registry

    references = [registry.parse(target.image) for target in targets]
    by_name = {reference.name: reference for reference in references}
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(registry.opened(reference, job.listener))[0]
            for reference in by_name.values()
        ]
        before = opened[0].find(references[0])
        first = registry.embed(
            opened[0],
            sources,
            job.prepared.bundles,
            job.prepared.record,
            places=job.places,
            before=references[0].tag,
            check=lambda made: verdicts.append(prove(made, job.prepared, job.listener)),
            every_byte=job.every_byte,
            listener=job.listener,
        )
        pushed = {opened[0].name: first}
        for target in opened[1:]:
            pushed[target.name] = registry.push(target, first.target, first.entry)
        for reference in references:
            if reference.tag is None:
                raise UsageError(f"{reference} has no tag.", hint=f"--tag {reference.name}:TAG")
            job.listener.note(f"Naming {reference}")
            pushed[reference.name].name(reference.tag)
    changed = before is None or before.digest != first.digest
    return Updated(str(references[0]), changed=changed, verdict=verdicts[0])


def _in_layouts(job: _Job, sources: Sequence[Source], targets: Sequence[ArtifactName]) -> Updated:
    from bundler.artifacts.image.oci import embed_sources

    verdicts: list[Verdict] = []
    made = [
        embed_sources(
            sources,
            job.prepared.bundles,
            job.prepared.record,
            target.path,
            tag=target.tag or LATEST,
            places=job.places,
            check=lambda found: verdicts.append(prove(found, job.prepared, job.listener)),
            listener=job.listener,
        )
        for target in targets
    ]
    changed = any(item.changed for item in made)
    return Updated(str(targets[0]), changed=changed, verdict=verdicts[0])


def _in_engine(
    job: _Job, names: Sequence[ArtifactName], targets: Sequence[ArtifactName]
) -> Updated:
    from bundler.artifacts.image.engine import embed as embed_in_engine
    from bundler.artifacts.image.engine import open_image, tag

    if len(names) != 1 or names[0].kind != "engine":
        raise UsageError(
            "Only an image that the engine has can be named there.",
            hint="docker pull it first, or give --tag a registry or an OCI layout.",
        )
    verdicts: list[Verdict] = []
    with open_image(names[0].image) as found:
        made = embed_in_engine(
            found.engine,
            names[0].image,
            job.prepared.bundles,
            job.prepared.record,
            places=job.places,
            check=lambda it: verdicts.append(prove(it, job.prepared, job.listener)),
            every_byte=job.every_byte,
            listener=job.listener,
        )
        for target in targets:
            tag(found.engine, made.image_id, target.image)
    return Updated(targets[0].image, changed=made.changed, verdict=verdicts[0])
