"""``docker buildx bake``: several targets by one file, those with the code get the state.

bake itself resolves its files, variables and overrides; what it prints is what is built. The
targets that get state are built without a name, by their Dockerfile with the state's ignore rules
beside it; they get their names once the others are baked, too.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundler import process
from bundler.artifacts.docker import building, outputs
from bundler.artifacts.docker.arguments import Arguments
from bundler.artifacts.docker.connection import Docker, Engine
from bundler.artifacts.docker.context import withheld_rules
from bundler.artifacts.docker.dockerbuild import read, with_rules
from bundler.artifacts.docker.embedding import Embedded, discard, remove_unnamed
from bundler.artifacts.docker.outputs import Built
from bundler.artifacts.image import Json
from bundler.bundle import Bundle
from bundler.errors import BundlerError, ChildFailed, ToolFailed, UsageError

# Options of bake that tell of targets, or of the resolved file, and so are not given twice.
_RUNNING = ("--allow", "--builder", "--progress")
# The first buildx whose bake asks for leave to read what lies outside the current folder.
_ASKS_LEAVE_SINCE = (0, 18)
_ASKING = ("--print", "--list", "--check", "--call", "--help", "-h", "--list-targets")


@dataclass(frozen=True)
class Baking:
    """What one command line of bake comes down to.

    final: the targets that it makes images of. running: options that every run of bake gets.
    asks_leave: bake reads files outside the current folder only where ``--allow`` names them.
    """

    docker: Docker
    resolved: Json
    final: tuple[str, ...]
    running: tuple[str, ...]
    metadata_file: str | None = None
    asks_leave: bool = True

    def target(self, name: str) -> Json:
        found: Json = self.resolved["target"][name]
        return found

    def context(self, name: str) -> Path:
        return Path(self.target(name).get("context") or ".")

    def arguments(self, name: str) -> Arguments:
        """What the target says of its result, as docker build's arguments."""
        target = self.target(name)
        context = self.context(name)
        file = None if "dockerfile-inline" in target else target.get("dockerfile") or "Dockerfile"
        return Arguments(
            context=str(context),
            file=str(context / file) if file and context.is_dir() else None,
            tags=tuple(target.get("tags") or ()),
            platforms=tuple(target.get("platforms") or ()),
            outputs=tuple(map(_output, target.get("output") or ())),
        )


def _output(value: object) -> str:
    """An output as ``--output`` has it; newer versions print an object."""
    if isinstance(value, dict):
        return ",".join(f"{name}={text}" for name, text in value.items())
    return str(value)


def asks(words: Sequence[str]) -> bool:
    """Whether bake would only tell something, and build nothing."""
    return any(word.partition("=")[0] in _ASKING for word in words)


def resolve(docker: Docker, words: Sequence[str]) -> Baking:
    """Has bake say what it would do. words: after ``bake``.

    Raises `ToolFailed` without buildx, `ChildFailed` with bake's own exit code.
    """
    version = process.run(docker.argv("buildx", "version"), env=docker.environment)
    if version.exit_code:
        raise ToolFailed("bake needs buildx.", hint="Install the docker-buildx plugin.")
    metadata_file, rest = _taken(words, "--metadata-file")
    argv = docker.argv("buildx", "bake", *rest, "--print")
    done = process.run(argv, env=docker.environment)
    if done.exit_code:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        raise ToolFailed(f"docker buildx bake: {said[-1]}")
    resolved = msgspec.json.decode(done.stdout)
    running = [word for name in _RUNNING for word in _given(words, name)]
    groups = {name: group["targets"] for name, group in (resolved.get("group") or {}).items()}
    final = dict.fromkeys(_final("default", groups))
    return Baking(
        docker,
        resolved,
        tuple(final),
        tuple(running),
        metadata_file,
        asks_leave=_number(version.stdout) >= _ASKS_LEAVE_SINCE,
    )


def _number(said: bytes) -> tuple[int, ...]:
    """buildx's version: ``github.com/docker/buildx v0.29.1 …``."""
    found = re.search(rb"\bv?(\d+)\.(\d+)\.\d+", said)
    return tuple(map(int, found.groups())) if found else ()


def _final(name: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if name not in groups:
        yield name
        return
    for member in groups[name]:
        yield from _final(member, {key: value for key, value in groups.items() if key != name})


def _taken(words: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """An option's value, and the words without it."""
    rest, value = [], None
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, text = word.partition("=")
        if name != option:
            rest.append(word)
        else:
            value = text if equals else (left.pop(0) if left else None)
    return value, rest


def _given(words: Sequence[str], option: str) -> list[str]:
    """Every occurrence of an option, with its value."""
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        if word.partition("=")[0] == option:
            found += [word] if "=" in word or not left else [word, left.pop(0)]
    return found


def preflight(baking: Baking, chosen: Sequence[str]) -> None:
    """Raises `UsageError` for a target that cannot get its state, and as `building.preflight`."""
    for name in chosen:
        if name not in baking.final:
            raise UsageError(
                f"bake makes no image of {name!r}.", hint=f"It makes: {', '.join(baking.final)}."
            )
        if len(baking.target(name).get("platforms") or ()) > 1:
            raise UsageError(
                f"{name} has several platforms, which bake would put into the engine.",
                hint="docker bundle build --platform a,b --push builds them.",
            )
        building.preflight(baking.arguments(name))


def build(
    baking: Baking,
    chosen: Sequence[str],
    bundles: Sequence[Bundle],
    embed_one: Callable[[Engine, str], Embedded],
) -> list[Built]:
    """Builds the chosen targets, has each embedded and read back, bakes the others, names them."""
    engine = baking.docker.connect()
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        bases = _baked(baking, chosen, bundles, engine, Path(name))
    try:
        embedded = {target: embed_one(engine, base) for target, base in bases.items()}
    finally:
        for base in bases.values():
            with suppress(BundlerError):
                remove_unnamed(engine, base)
    others = [target for target in baking.final if target not in chosen]
    try:
        if others:
            _run(baking, baking.resolved, others, [])
    except BaseException:
        for made in embedded.values():
            with suppress(BundlerError):
                discard(engine, made.image_id)
        raise
    built = [
        building.finish(baking.docker, engine, baking.arguments(target), made)
        for target, made in embedded.items()
    ]
    if baking.metadata_file is not None:
        told = {
            target: {"containerimage.config.digest": one.image_id, "image.name": ",".join(one.tags)}
            for target, one in zip(embedded, built, strict=True)
        }
        outputs.write(Path(baking.metadata_file), msgspec.json.encode(told))
    return built


def _baked(
    baking: Baking, chosen: Sequence[str], bundles: Sequence[Bundle], engine: Engine, folder: Path
) -> dict[str, str]:
    """The images of the chosen targets in the engine, without a name: by target, their IDs."""
    resolved = msgspec.json.decode(msgspec.json.encode(baking.resolved))
    for name in chosen:
        target = resolved["target"][name]
        for result in ("tags", "output"):
            target.pop(result, None)
        context = baking.context(name)
        if context.is_dir() and "dockerfile-inline" not in target:
            path = context / (target.get("dockerfile") or "Dockerfile")
            own = folder / name
            own.mkdir()
            copy = with_rules(context, path, read(path), withheld_rules(context, bundles), own)
            target["dockerfile"] = str(copy)
    metadata = folder / "metadata.json"
    leave = [f"--allow=fs.read={folder}"] if baking.asks_leave else []
    _run(baking, resolved, chosen, ["--load", "--metadata-file", str(metadata), *leave])
    told = msgspec.json.decode(metadata.read_bytes())
    return {name: _image_id(engine, name, told.get(name) or {}) for name in chosen}


def _image_id(engine: Engine, name: str, told: Mapping[str, str]) -> str:
    """The classic store knows an image by its configuration, containerd's by its manifest."""
    for key in ("containerimage.config.digest", "containerimage.digest"):
        if key in told and engine.has_image(told[key]):
            return told[key]
    raise ToolFailed(f"bake did not say which image it made of {name}.")


def _run(baking: Baking, resolved: Json, targets: Sequence[str], options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        file = Path(name) / "docker-bake.json"
        file.write_bytes(msgspec.json.encode(resolved))
        words = ["buildx", "bake", *baking.running, "-f", str(file), *options, *targets]
        argv = baking.docker.argv(*words)
        exit_code = process.pass_through(argv, env=baking.docker.environment, stdout=2)
    if exit_code:
        raise ChildFailed("docker buildx bake", exit_code)
