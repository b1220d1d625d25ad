"""Runs the person's ``docker build`` so that it never sees the state, then puts the state on top.

With BuildKit the Dockerfile is given from a temporary folder, with the ignore rules that hold and
the state directories beside it. The classic builder knows no such rules: it gets the context as a
filtered archive on its stdin. Names, files and pushes come last, of the image that was read back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bundler import process
from bundler.artifacts import Artifact
from bundler.artifacts.docker import outputs
from bundler.artifacts.docker.arguments import Arguments
from bundler.artifacts.docker.connection import Docker, Engine
from bundler.artifacts.docker.context import ClassicContext, Withheld, withheld_rules
from bundler.artifacts.docker.contexts import builder_alias, unaliased
from bundler.artifacts.docker.dockerfile import refreshing, refuse_copied_state
from bundler.artifacts.docker.embedding import Embedded, embed, remove_unnamed, tag
from bundler.artifacts.docker.ignore import IGNORE_FILE, effective
from bundler.bundle import Bundle
from bundler.errors import BundlerError, ChildFailed, InputOutputError, ToolFailed, UsageError
from bundler.listener import SILENT, Listener
from bundler.manifest import RunRecord

# The first docker whose own builder is buildx, a plugin; before, BuildKit was built in.
_BUILDX_SINCE = 23
_TRUE = {"1", "t", "true"}


@dataclass(frozen=True)
class Builder:
    """What builds: ``classic``, ``buildkit`` (inside the engine) or ``buildx``."""

    kind: str
    version: str

    @property
    def is_buildkit(self) -> bool:
        return self.kind != "classic"

    def __str__(self) -> str:
        names = {"classic": "the classic builder", "buildkit": "BuildKit", "buildx": "buildx"}
        return f"docker {self.version}, {names[self.kind]}"


@dataclass(frozen=True)
class Built:
    """A finished image. image_id: ``sha256:…``; tags: the names that it got."""

    image_id: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]


def detect(docker: Docker, engine: Engine) -> Builder:
    """Which builder plain ``docker build`` would use here."""
    version = docker.version()
    wanted = docker.environment.get("DOCKER_BUILDKIT", "").lower()
    if wanted and wanted not in _TRUE:
        return Builder("classic", version)
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < _BUILDX_SINCE:
        is_default = engine.headers.get("builder-version") == "2"
        return Builder("buildkit" if wanted or is_default else "classic", version)
    if docker.succeeds("buildx", "version"):
        return Builder("buildx", version)
    if wanted:
        raise ToolFailed(
            "DOCKER_BUILDKIT asks for BuildKit, but this docker has no buildx.",
            hint="Install the docker-buildx plugin, or unset DOCKER_BUILDKIT.",
        )
    return Builder("classic", version)


def preflight(arguments: Arguments, listener: Listener = SILENT) -> None:
    """Finds, before anything is refreshed, what cannot end well.

    Raises `ConfigurationError` for a Dockerfile that copies state, `UsageError` for what cannot
    be carried out with the finished image.
    """
    outputs.check(arguments)
    path = dockerfile_of(arguments)
    if path is None or not path.is_file():
        return
    text = _read(path).decode(errors="replace")
    refuse_copied_state(text, path.name)
    for sentence in refreshing(text, path.name):
        listener.warning(sentence)


def is_local(arguments: Arguments) -> bool:
    """Whether the context is a folder here."""
    return arguments.context != "-" and Path(arguments.context).is_dir()


def dockerfile_of(arguments: Arguments) -> Path | None:
    """The Dockerfile, where it is a file here."""
    if arguments.file == "-":
        return None
    if arguments.file is not None:
        return Path(arguments.file) if is_local(arguments) else None
    return Path(arguments.context) / "Dockerfile" if is_local(arguments) else None


def build(
    arguments: Arguments,
    bundles: Sequence[Bundle],
    record: RunRecord,
    *,
    docker: Docker | None = None,
    command: Sequence[str] = ("build",),
    places: Mapping[str, str] | None = None,
    hints: Sequence[str] = (),
    check: Callable[[Artifact], object] = lambda _: None,
    every_byte: bool = False,
    listener: Listener = SILENT,
) -> Built:
    """Builds, embeds, reads back, and only then names the image.

    command: ``build`` or ``buildx build``. check: is given the image before it has a name.
    places, hints, every_byte: as for `embed`.
    Raises `ChildFailed` with docker's own exit code where the build fails, and as `embed` does.
    """
    docker = docker or Docker.from_environment()
    engine = docker.connect()
    builder = detect(docker, engine)
    listener.note(f"Building with {builder}.")
    base = _run(docker, builder, command, arguments, bundles)
    listener.phase("Putting the state into the image")
    try:
        embedded = embed(
            engine,
            base,
            bundles,
            record,
            places=places,
            hints=hints,
            check=check,
            before=next(iter(arguments.tags), None),
            every_byte=every_byte,
            listener=listener,
        )
    finally:
        # The classic builder's images are its cache; BuildKit keeps one of its own.
        if builder.is_buildkit:
            with suppress(BundlerError):
                remove_unnamed(engine, base)
    return _finish(docker, engine, arguments, embedded, listener)


def _finish(
    docker: Docker, engine: Engine, arguments: Arguments, embedded: Embedded, listener: Listener
) -> Built:
    for name in arguments.tags:
        tag(engine, embedded.image_id, name)
    outputs.carry_out(docker, engine, arguments, embedded.image_id, listener)
    return Built(embedded.image_id, arguments.tags, embedded.paths)


# --- the build itself -----------------------------------------------------------------------


def _run(
    docker: Docker,
    builder: Builder,
    command: Sequence[str],
    arguments: Arguments,
    bundles: Sequence[Bundle],
) -> str:
    """Runs the build and returns the ID of the image, which has no name."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        iidfile = folder / "iid"
        words = [*arguments.forwarded, "--iidfile", str(iidfile)]
        if arguments.quiet:
            words.append("--quiet")
        if builder.kind == "buildx":
            words.append("--load")
        environment = _environment(docker, folder)
        with _context(builder, arguments, bundles, folder) as (more, stdin):
            argv = docker.argv(*command, *words, *more)
            exit_code = _docker(argv, environment, stdin, quiet=arguments.quiet)
        if exit_code:
            raise ChildFailed("docker build", exit_code)
        if not iidfile.exists():
            raise ToolFailed("docker build ended well, but did not say which image it made.")
        return iidfile.read_text().strip()


def _environment(docker: Docker, folder: Path) -> Mapping[str, str]:
    """docker's environment; a take-over of `docker build` would lead back here."""
    if not builder_alias(docker.environment):
        return docker.environment
    home = folder / "docker"
    home.mkdir()
    return unaliased(docker.environment, home)


def plain(arguments: Sequence[str], docker: Docker | None = None) -> int:
    """Lets docker do what is not about state, as it would without us; returns its exit code.

    arguments: of `docker builder`, such as ``build --check .`` or ``prune``.
    """
    import tempfile

    docker = docker or Docker.from_environment()
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        environment = _environment(docker, Path(name))
        has_buildx = docker.succeeds("buildx", "version")
        program = ["buildx"] if has_buildx and arguments[:1] != ["build"] else ["builder"]
        return process.pass_through(docker.argv(*program, *arguments), env=environment)


def _docker(
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdin: ClassicContext | None,
    *,
    quiet: bool,
) -> int:
    """Its progress goes to stderr, since our stdout is for data."""
    sys.stdout.flush()
    with open(os.devnull, "wb") as nowhere:
        stdout = nowhere.fileno() if quiet else 2
        if stdin is None:
            return process.pass_through(argv, env=environment, stdout=stdout)
        return process.feed(argv, stdin.pieces(), env=environment, stdout=stdout)


@contextmanager
def _context(
    builder: Builder, arguments: Arguments, bundles: Sequence[Bundle], folder: Path
) -> Iterator[tuple[list[str], ClassicContext | None]]:
    """The arguments that name the Dockerfile and the context, and what goes to stdin."""
    given = ["--file", arguments.file] if arguments.file is not None else []
    if not is_local(arguments):
        yield [*given, arguments.context], None
        return
    root = Path(arguments.context)
    withheld = withheld_rules(root, bundles)
    if arguments.file == "-":
        path, text = None, sys.stdin.buffer.read()
    else:
        path = dockerfile_of(arguments)
        if path is None or not path.is_file():
            raise UsageError(
                f"There is no Dockerfile at {path}.", hint="Name it with -f, or give the context."
            )
        text = _read(path)
    if builder.is_buildkit:
        yield _buildkit(root, path, text, withheld, folder), None
    else:
        context = ClassicContext(root, effective(root, None), withheld, path, text)
        yield ["--file", context.dockerfile, "-"], context


def _buildkit(
    root: Path, path: Path | None, text: bytes, withheld: Withheld, folder: Path
) -> list[str]:
    copy = folder / (path.name if path is not None else "Dockerfile")
    copy.write_bytes(text)
    rules = [effective(root, path).rstrip("\n"), *withheld.rules]
    copy.with_name(copy.name + IGNORE_FILE).write_text("\n".join(rules).lstrip("\n") + "\n")
    return ["--file", str(copy), str(root)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
