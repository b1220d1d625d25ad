"""Builds whose result goes past the engine's image store: to a registry, or as several platforms.

buildx hands out the code's image without a name: it pushes it by digest alone, or writes an OCI
layout. The state is put on top there, every platform gets it, it is read back, and only then a
tag names it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from bundler.artifacts.image.engine import outputs
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.dockerbuild import Builder
from bundler.artifacts.image.engine.embedding import has_containerd_store, tag
from bundler.artifacts.image.engine.outputs import Built, fields_of
from bundler.errors import ToolFailed, UsageError
from bundler.listener import Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord

if TYPE_CHECKING:
    from bundler.artifacts.image.engine.arguments import Arguments
    from bundler.artifacts.image.layout import Folder
    from bundler.artifacts.image.registry import Pushed

_TAG = "made"


class Asked(Protocol):
    """What is to be built, and with whose arguments: docker's build, or a target of bake's.

    run: builds. folder: for what that needs for a while. result: the options that say where the
    image goes, which has no name yet.
    """

    @property
    def docker(self) -> Docker: ...
    @property
    def builder(self) -> Builder: ...
    @property
    def arguments(self) -> Arguments: ...
    @property
    def bundles(self) -> tuple[Bundle, ...]: ...
    def run(self, folder: Path, result: Sequence[str]) -> None: ...


def is_meant(asked: Asked, engine: Engine) -> bool:
    """Whether this build goes past the engine's store.

    Raises `ToolFailed` for several platforms where there is no buildx, `UsageError` where they
    are to go into a store that cannot hold them.
    """
    arguments = asked.arguments
    is_buildx = asked.builder.kind == "buildx"
    if len(arguments.platforms) > 1:
        if not is_buildx:
            raise ToolFailed(
                f"Several platforms need buildx, and this is {asked.builder}.",
                hint="Install the docker-buildx plugin, or build each platform by itself.",
            )
        _refuse_what_no_store_holds(arguments, engine)
        return True
    if not is_buildx or outputs.stays(arguments) or not outputs.pushes(arguments):
        return False
    return has_containerd_store(engine) or _pushes_by_digest(asked)


def _refuse_what_no_store_holds(arguments: Arguments, engine: Engine) -> None:
    for fields in map(fields_of, arguments.outputs):
        if fields["type"] in ("tar", "local", "docker") and "dest" in fields:
            raise UsageError(
                f"--output type={fields['type']} holds one platform.",
                hint="Several fit into type=oci,dest=PATH, or into a registry: --push.",
            )
    if _is_loaded(arguments) and not has_containerd_store(engine):
        raise UsageError(
            "The engine's image store cannot hold several platforms.",
            hint="Add --push or -o type=oci,dest=PATH, or turn on containerd's image store.",
        )


def _is_loaded(arguments: Arguments) -> bool:
    if arguments.load or any(
        fields.get("type") == "docker" and "dest" not in fields
        for fields in map(fields_of, arguments.outputs)
    ):
        return True
    elsewhere = outputs.pushes(arguments) or any(
        "dest" in fields_of(output) for output in arguments.outputs
    )
    return not elsewhere and bool(arguments.tags)


def _pushes_by_digest(asked: Asked) -> bool:
    """Whether the builder can; the one that is inside docker's engine cannot."""
    named = list(asked.arguments.given("--builder"))[-1:]
    said = asked.docker.ask("buildx", "inspect", *named)
    driver = next((line for line in said.splitlines() if line.startswith("Driver:")), "")
    return driver.split()[-1:] != ["docker"]


@dataclass(frozen=True)
class Put:
    """How the state is put on top: as for `bundler.artifacts.image.engine.embed`."""

    record: RunRecord
    places: Mapping[str, str]
    check: Callable[[Artifact], object]
    listener: Listener
    every_byte: bool = False


@dataclass(frozen=True)
class Made:
    """An image with its state that was read back, and has no name yet.

    publish: carries out its files, pushes and tags.
    """

    digest: str
    paths: tuple[str, ...]
    publish: Callable[[], None]


def build(asked: Asked, engine: Engine, put: Put) -> Built:
    """Builds, embeds and reads back without a name; then files, pushes, tags."""
    with made(asked, engine, put) as found:
        found.publish()
    outputs.write_files(asked.arguments, found.digest, {"containerimage.digest": found.digest})
    return Built(found.digest, asked.arguments, found.paths)


@contextmanager
def made(asked: Asked, engine: Engine, put: Put) -> Iterator[Made]:
    """Builds, embeds and reads back; it can be published for as long as this lasts."""
    arguments = asked.arguments
    only_pushes = outputs.pushes(arguments) and not outputs.stays(arguments)
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        if only_pushes and _pushes_by_digest(asked):
            with ExitStack() as stack:
                yield _to_registry(asked, put, Path(name), stack)
        else:
            yield _to_layout(asked, engine, put, Path(name))


def _to_registry(asked: Asked, put: Put, folder: Path, stack: ExitStack) -> Made:
    """No byte of it passes through this machine but the state's."""
    from bundler.artifacts.image import registry

    first, *others = _repositories(asked.arguments.tags)
    target, reference = stack.enter_context(registry.opened(first, put.listener))
    digest = _pushed_code(asked, reference.name, folder)
    put.listener.phase("Putting the state into the image")
    found = registry.source(reference.at(digest), target.connection, put.listener)
    first_pushed = registry.embed(
        target,
        [found],
        asked.bundles,
        put.record,
        places=put.places,
        before=reference.tag,
        check=put.check,
        every_byte=put.every_byte,
        listener=put.listener,
    )
    pushed = [first_pushed]
    for name in others:
        other, _ = stack.enter_context(registry.opened(name, put.listener))
        pushed.append(registry.push(other, target, first_pushed.entry))
    return Made(
        first_pushed.digest,
        first_pushed.paths,
        lambda: _name(pushed, asked.arguments.tags, put.listener),
    )


def _repositories(tags: Sequence[str]) -> list[str]:
    """A name for each repository, the first one that was given."""
    from bundler.artifacts.image import registry

    first: dict[str, str] = {}
    for name in tags:
        first.setdefault(registry.parse(name).name, name)
    return list(first.values())


def _pushed_code(asked: Asked, repository: str, folder: Path) -> str:
    """Builds the code's image into a repository; returns its digest. No tag names it."""
    metadata = folder / "metadata.json"
    output = f"type=image,name={repository},push-by-digest=true,name-canonical=true,push=true"
    asked.run(folder, ["--output", output, "--metadata-file", str(metadata)])
    try:
        return str(msgspec.json.decode(metadata.read_bytes())["containerimage.digest"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise ToolFailed("docker build ended well, but did not say what it pushed.") from error


def _name(pushed: Sequence[Pushed], tags: Sequence[str], listener: Listener) -> None:
    """Every repository has the image: now the tags."""
    from bundler.artifacts.image import registry

    by_repository = {one.target.reference.name: one for one in pushed}
    for name in tags:
        reference = registry.parse(name)
        listener.phase(f"Naming {name}")
        by_repository[reference.name].name(reference.what)


def _to_layout(asked: Asked, engine: Engine, put: Put, folder: Path) -> Made:
    from bundler.artifacts.image import oci
    from bundler.artifacts.image.engine.full_image_transfer import keep_only
    from bundler.artifacts.image.layout import Folder

    arguments = asked.arguments
    code = folder / "code.tar"
    asked.run(folder, ["--output", f"type=oci,dest={code}"])
    put.listener.phase("Putting the state into the image")
    done = oci.embed(
        code,
        asked.bundles,
        put.record,
        folder / "with-state",
        tag=_TAG,
        places=put.places,
        check=put.check,
        listener=put.listener,
    )
    code.unlink()
    layout = Folder(folder / "with-state")
    keep_only(layout, done.digest, _whole_name(next(iter(arguments.tags), _TAG)))

    def publish() -> None:
        for fields in map(fields_of, arguments.outputs):
            if fields["type"] == "oci":
                outputs.write_layout(layout.path, fields)
        if _is_loaded(arguments):
            _load(engine, layout, arguments.tags, folder)
        if outputs.pushes(arguments):
            _push(layout, arguments.tags, put.listener)

    return Made(done.digest, done.paths, publish)


def _whole_name(name: str) -> str:
    """With its registry and tag: containerd takes no other."""
    from bundler.artifacts.image import registry

    return str(registry.parse(name))


def _load(engine: Engine, layout: Folder, tags: Sequence[str], folder: Path) -> None:
    from bundler.artifacts.image.engine.full_image_transfer import pieces_of
    from bundler.artifacts.image.engine.loading import load
    from bundler.artifacts.image.layout import write_archive

    archive = folder / "image.tar"
    write_archive(layout.path, archive)
    load(engine, pieces_of(archive))
    for name in tags[1:]:
        tag(engine, tags[0], name)


def _push(layout: Folder, tags: Sequence[str], listener: Listener) -> None:
    from bundler.artifacts.image import registry
    from bundler.artifacts.image.blobs import descriptors

    (entry,) = descriptors(layout.index()["manifests"], layout.name)
    with ExitStack() as stack:
        pushed = []
        for name in _repositories(tags):
            target, _ = stack.enter_context(registry.opened(name, listener))
            pushed.append(registry.push(target, layout, entry))
        _name(pushed, tags, listener)
