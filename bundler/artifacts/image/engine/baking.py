"""``docker buildx bake``: several targets from one file; those with the code get the state.

bake itself resolves its files, variables and overrides; what it prints is what is built. The
targets that get state are built without a name, from their Dockerfile with the state's ignore rules
next to it. They get their names when the other targets are built, too.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import building, bypasses_image_store, outputs
from bundler.artifacts.image.engine.arguments import Arguments, output_of, read
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.context import shown, withheld_rules
from bundler.artifacts.image.engine.dockerbuild import (
    Builder,
    BuildInput,
    usual_dockerfile,
    with_rules,
)
from bundler.artifacts.image.engine.dockerfile import final_base
from bundler.artifacts.image.engine.embedding import remove_unnamed
from bundler.artifacts.image.engine.left_out import LeftOut
from bundler.artifacts.image.engine.outputs import ReadyImage
from bundler.artifacts.image.engine.stdin_context import STDIN, Piped
from bundler.artifacts.image.image import Json
from bundler.errors import ChildFailed, ToolFailed, UsageError
from bundler.project.projects import Project
from bundler.state.bundle import Bundle
from bundler.system import process

# bake's options that describe the targets or the resolved file, and must not be given twice.
_RUNNING = ("--allow", "--builder", "--progress")
# The first buildx whose bake asks for permission to read what is outside the current folder.
_ASKS_LEAVE_SINCE = (0, 18)
_LISTING = ("--list", "--list-targets", "--help", "-h")
# What bake's file writes for a path on this machine, wherever the file is, and for another target.
_HERE, _TARGET = "cwd://", "target:"


@dataclass(frozen=True)
class Baking:
    """A resolved command line of bake.

    final: the targets that it makes images of. running: options for every run of bake. asks_leave:
    whether bake reads files outside the current folder only with ``--allow``.
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

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The targets that are meant by names of targets and groups.

        Raises `UsageError` for one that makes no image.
        """
        targets = _targets_of(names, self.resolved)
        for name in targets:
            if name not in self.final:
                raise UsageError(
                    f"bake does not build an image of {name!r}.",
                    hint=f"It builds: {', '.join(self.final)}.",
                )
        return targets

    def built_from(self, names: Sequence[str]) -> tuple[str, ...]:
        """Targets, and those that their contexts refer to."""
        pending, found = list(names), dict[str, None]()
        while pending:
            name = pending.pop(0)
            if name not in found:
                found[name] = None
                contexts = (self.target(name).get("contexts") or {}).values()
                pending += [it.removeprefix(_TARGET) for it in contexts if it.startswith(_TARGET)]
        return tuple(found)

    def context(self, name: str) -> Path:
        return Path(self.target(name).get("context") or ".")

    def folders(self, name: str) -> Iterator[Path]:
        """The folders on this machine that a target is built from: its contexts, and those of the
        target that is its base."""
        contexts = self.target(name).get("contexts") or {}
        yield from map(Path, filter(os.path.isdir, [self.context(name), *contexts.values()]))
        given = self.given(name)
        text = given.dockerfile.text if given.dockerfile else ""
        base = contexts.get(final_base(text, given.arguments.target, given.build_args), "")
        if base.startswith(_TARGET):
            yield from self.folders(base.removeprefix(_TARGET))

    def given(self, name: str) -> BuildInput:
        """What the build of a target reads. bake's file may contain the Dockerfile."""
        text = self.target(name).get("dockerfile-inline")
        inline = Piped(io.BytesIO(text.encode()), is_archive=False) if text else None
        return BuildInput(self.arguments(name), inline, _builder)

    def arguments(self, name: str) -> Arguments:
        """The target's settings for the result, as docker build's arguments."""
        target = self.target(name)
        context = self.context(name)
        file = _dockerfile(context, target)
        written = map(_output, target.get("output") or () if name in self.final else ())
        return Arguments(
            forwarded=(*self.running, *_contexts(target)),
            context=target.get("context") or ".",
            file=STDIN if "dockerfile-inline" in target else str(file),
            target=target.get("target"),
            tags=tuple(target.get("tags") or ()),
            platforms=tuple(target.get("platforms") or ()),
            outputs=tuple(written),
        )


def _dockerfile(context: Path, target: Json) -> Path:
    named = target.get("dockerfile") or "Dockerfile"
    return usual_dockerfile(context) if named == "Dockerfile" else context / str(named)


def _contexts(target: Json) -> Iterator[str]:
    for name, where in (target.get("contexts") or {}).items():
        yield f"--build-context={name}={where}"
    for name, value in (target.get("args") or {}).items():
        yield f"--build-arg={name}={value}"
    if target.get("pull"):
        yield "--pull"


def _output(value: object) -> str:
    """An output in the form of ``--output``; newer versions print an object."""
    return output_of(value) if isinstance(value, dict) else str(value)


def asks(words: Sequence[str]) -> bool:
    """Whether bake would only print something, and build nothing."""
    found = read(words)
    return found.asks() or any(map(found.all, _LISTING))


def resolve(docker: Docker, words: Sequence[str]) -> Baking:
    """Asks bake what it would do. words: after ``bake``.

    Raises `ToolFailed` without buildx, `ChildFailed` with bake's own exit code.
    """
    version = process.run(docker.argv("buildx", "version"), env=docker.environment)
    if version.exit_code:
        raise ToolFailed("bake requires buildx.", hint="Install the docker-buildx plugin.")
    metadata_file, rest = _split(words, "--metadata-file")
    argv = docker.argv("buildx", "bake", *rest, "--print")
    is_piped = f"-f{STDIN}" in words or STDIN in _split(words, "-f", "--file")[0][1::2]
    stdin = sys.stdin.buffer.read() if is_piped else None
    done = process.run(argv, env=docker.environment, stdin=stdin)
    if done.exit_code:
        # Of an unknown option, bake prints the error first, then its help.
        said = done.stderr.decode(errors="replace").partition("\nUsage:")[0]
        raise ToolFailed(f"docker buildx bake: {process.last_word(said)}")
    resolved = msgspec.json.decode(done.stdout)
    for target in resolved["target"].values():
        _use_local_paths(target)
    return Baking(
        docker,
        resolved,
        _targets_of(["default"], resolved),
        tuple(_split(words, *_RUNNING)[0]),
        next(iter(metadata_file[-1:]), None),
        asks_leave=_number(version.stdout) >= _ASKS_LEAVE_SINCE,
    )


def _use_local_paths(target: Json) -> None:
    """Writes paths on this machine without their mark, as in a file on this machine."""
    if (context := target.get("context") or "").startswith(_HERE):
        target["context"] = context.removeprefix(_HERE) or "."
    if (file := target.get("dockerfile") or "").startswith(_HERE):
        target["dockerfile"] = str(Path(file.removeprefix(_HERE)).absolute())
    for name, where in (target.get("contexts") or {}).items():
        if where.startswith(_HERE):
            target["contexts"][name] = where.removeprefix(_HERE) or "."


def _number(said: bytes) -> tuple[int, ...]:
    """buildx's version, from ``github.com/docker/buildx v0.29.1 …``."""
    found = re.search(rb"\bv?(\d+)\.(\d+)\.\d+", said)
    return tuple(map(int, found.groups())) if found else ()


def _targets_of(names: Sequence[str], resolved: Json) -> tuple[str, ...]:
    """Names of targets and groups as targets; a matrix is a group of its own name."""
    groups = {name: group["targets"] for name, group in (resolved.get("group") or {}).items()}
    return tuple(dict.fromkeys(it for name in names for it in _members(name, groups)))


def _members(name: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if name not in groups:
        yield name
        return
    for member in groups[name]:
        yield from _members(member, {key: value for key, value in groups.items() if key != name})


def _split(words: Sequence[str], *options: str) -> tuple[list[str], list[str]]:
    """These options, each with its value as the next word, and the remaining words."""
    found: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        name, equals, value = left[0].partition("=")
        word = left.pop(0)
        if name not in options:
            rest.append(word)
        elif equals or left:
            found += [name, value if equals else left.pop(0)]
    return found, rest


def preflight(baking: Baking, chosen: Sequence[str], projects: Sequence[Project] = ()) -> None:
    """Raises as `building.preflight` and `building.refuse_missing_configuration` do."""
    for name in baking.built_from(chosen):
        given = baking.given(name)
        building.preflight(given)
        for project in projects if name in chosen else ():
            building.refuse_missing_configuration(given, project.root)


def _builder() -> Builder:
    return Builder("buildx", "")


@dataclass(frozen=True)
class BakeTarget:
    """A target that gets state, to be built separately."""

    baking: Baking
    name: str
    bundles: tuple[Bundle, ...]

    @cached_property
    def needed(self) -> tuple[BakeTarget, ...]:
        """This one, and those that it is built from."""
        others = self.baking.built_from([self.name])[1:]
        return (self, *(BakeTarget(self.baking, name, self.bundles) for name in others))

    @cached_property
    def left_out(self) -> LeftOut:
        """What its context leaves out besides the states."""
        return self.baking.given(self.name).left_out(self.bundles)

    @property
    def builder(self) -> Builder:
        return _builder()

    @property
    def arguments(self) -> Arguments:
        return self.baking.arguments(self.name)

    def run(self, folder: Path, result: Sequence[str]) -> None:
        """See `bundler.artifacts.image.engine.bypasses_image_store.BuildRequest`."""
        options = dict(zip(result[::2], result[1::2], strict=True))
        told = _bake(self.baking, [self], folder, options["--output"])
        if "--metadata-file" in options:
            outputs.write(Path(options["--metadata-file"]), msgspec.json.encode(told[self.name]))


@contextmanager
def building_targets(
    baking: Baking, chosen: Sequence[str], request: EmbedRequest
) -> Iterator[list[ReadyImage]]:
    """Builds the chosen targets and embeds the state; at the end of the block the others are
    baked, and then all get their names. Those that stay in the engine come first."""
    engine = baking.docker.connect()
    targets = [BakeTarget(baking, name, request.bundles) for name in chosen]
    needed = {one.name: one for target in targets for one in target.needed}
    for one in needed.values():
        for sentence in shown(one.arguments, request.bundles):
            request.listener.warning(sentence)
    left_out = [one.left_out for one in needed.values()]
    for each in left_out:
        each.tell(request.listener)
    past = [target for target in targets if bypasses_image_store.applies_to(target, engine)]
    near = [target for target in targets if target not in past]
    others = [name for name in baking.final if name not in chosen]
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        metadata = Path(folder) / "metadata.json"
        with ExitStack() as stack:
            for each in left_out:
                stack.enter_context(each.explaining())
            ready = _in_engine(near, engine, request, stack) if near else []
            ready += [
                stack.enter_context(bypasses_image_store.building(target, engine, request))
                for target in past
            ]
            yield ready
            if others:
                _run(baking, baking.resolved, others, ["--metadata-file", str(metadata)])
        if baking.metadata_file is not None:
            told = _read(metadata) if others else {}
            for target, made in zip([*near, *past], ready, strict=True):
                found = {"containerimage.digest": made.image_id}
                found = outputs.digests(engine, made.image_id) if target in near else found
                told[target.name] = {**found, "image.name": target.arguments.image_name}
            outputs.write(Path(baking.metadata_file), msgspec.json.encode(told))


def _read(metadata: Path) -> Json:
    try:
        found: Json = msgspec.json.decode(metadata.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ToolFailed(
            "docker buildx bake succeeded but did not report what it built."
        ) from error
    return found


def _in_engine(
    targets: Sequence[BakeTarget], engine: Engine, request: EmbedRequest, stack: ExitStack
) -> list[ReadyImage]:
    """The images of targets in the engine, with their state."""
    baking = targets[0].baking
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        told = _bake(baking, targets, Path(name), "type=docker")
    bases = [_image_id(engine, target.name, told.get(target.name) or {}) for target in targets]
    for base in bases:
        stack.callback(remove_unnamed, engine, base)
    return [
        stack.enter_context(building.naming(engine, target.arguments, base, request))
        for target, base in zip(targets, bases, strict=True)
    ]


def _bake(baking: Baking, targets: Sequence[BakeTarget], folder: Path, output: str) -> Json:
    """Bakes targets without a name, and without the state in their contexts.

    output: the destination of each, in the form of ``--output``. Returns bake's metadata, by
    target.
    """
    resolved = msgspec.json.decode(msgspec.json.encode(baking.resolved))
    for one in {one.name: one for target in targets for one in target.needed}.values():
        target = resolved["target"][one.name]
        target.pop("tags", None)
        target["output"] = [output if one in targets else "type=cacheonly"]
        context = baking.context(one.name)
        found = baking.given(one.name).dockerfile
        if found is not None and context.is_dir():
            target.pop("dockerfile-inline", None)
            own = folder / one.name
            own.mkdir()
            rules = withheld_rules(context, one.bundles, one.left_out)
            copy = with_rules(context, found, rules, own)
            target["dockerfile"] = str(copy)
    metadata = folder / "bake.json"
    leave = [f"--allow=fs={folder}"] if baking.asks_leave else []
    names = [one.name for one in targets]
    _run(baking, resolved, names, ["--metadata-file", str(metadata), *leave])
    return _read(metadata)


def _image_id(engine: Engine, name: str, told: Mapping[str, str]) -> str:
    """The classic store identifies an image by its configuration, containerd's by its manifest."""
    for key in ("containerimage.config.digest", "containerimage.digest"):
        if key in told and engine.has_image(told[key]):
            return told[key]
    raise ToolFailed(f"bake did not report which image it built for {name}.")


def _run(baking: Baking, resolved: Json, targets: Sequence[str], options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        file = Path(name) / "docker-bake.json"
        file.write_bytes(msgspec.json.encode(resolved))
        words = ["buildx", "bake", *baking.running, "-f", str(file), *options, *targets]
        argv = baking.docker.argv(*words)
        exit_code = process.pass_through(argv, env=baking.docker.environment, stdout=2)
    if exit_code:
        raise ChildFailed("docker buildx bake", exit_code)
