"""docker's own build, with the user's own arguments, of a context without the state.

With BuildKit, the Dockerfile is passed from a temporary folder, next to ignore rules that add the
state directories to the effective ones. The classic builder does not support such rules: it gets
the context as a filtered archive on its stdin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.context import ClassicContext, withheld_rules
from bundler.artifacts.image.engine.contexts import builder_alias
from bundler.artifacts.image.engine.ignore import (
    IGNORE_FILE,
    effective,
    ignore_file_of,
    rules_in,
)
from bundler.artifacts.image.engine.left_out import LeftOut, Names, find
from bundler.artifacts.image.engine.stdin_context import STDIN, Piped
from bundler.errors import ChildFailed, ConfigurationError, ToolFailed, UsageError, unreadable
from bundler.state.bundle import Bundle
from bundler.system import process

if TYPE_CHECKING:
    from concurrent.futures import Future

# The first docker whose own builder is buildx, a plugin; in older ones, BuildKit is built in.
_BUILDX_SINCE = 23
_OURS = "bundle"  # as docker knows this program
_TRUE = {"1", "t", "true"}


@dataclass(frozen=True)
class Builder:
    """The builder: ``classic``, ``buildkit`` (inside the engine) or ``buildx``."""

    kind: str
    version: str

    @property
    def is_buildkit(self) -> bool:
        return self.kind != "classic"

    def __str__(self) -> str:
        names = {"classic": "the classic builder", "buildkit": "BuildKit", "buildx": "buildx"}
        return f"docker {self.version}, {names[self.kind]}"


def detect(docker: Docker) -> Builder:
    """The builder that plain ``docker build`` would use here.

    Asks the engine only for a docker older than buildx. Raises `ToolFailed` without docker, and as
    `_alias` does.
    """
    version, wanted = docker.version(), docker.environment.get("DOCKER_BUILDKIT", "").lower()
    major = version.partition(".")[0]
    if _alias(docker) == "buildx":  # whatever DOCKER_BUILDKIT says
        return Builder("buildx", version)
    if wanted and wanted not in _TRUE:
        return Builder("classic", version)
    if major.isdecimal() and int(major) < _BUILDX_SINCE:
        is_buildkit = wanted or docker.connect_late().headers.get("builder-version") == "2"
        return Builder("buildkit" if is_buildkit else "classic", version)
    if docker.succeeds("buildx", "version"):
        return Builder("buildx", version)
    if wanted:
        raise ToolFailed(
            "DOCKER_BUILDKIT enables BuildKit, but this docker has no buildx.",
            hint="Install the docker-buildx plugin, or unset DOCKER_BUILDKIT.",
        )
    return Builder("classic", version)


class Detecting:
    """Detects the builder once, in a thread: starting docker takes as long as all questions to
    git."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    @cached_property
    def _answer(self) -> Future[Builder]:
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(1)
        answer = pool.submit(detect, self._docker)
        pool.shutdown(wait=False)
        return answer

    def start(self) -> None:
        _ = self._answer

    def __call__(self) -> Builder:
        return self._answer.result()


def is_local(arguments: Arguments) -> bool:
    """Whether the context is a folder on this machine."""
    return arguments.context != STDIN and Path(arguments.context).is_dir()


def dockerfile_of(arguments: Arguments) -> Path | None:
    """The Dockerfile, if it is a file on this machine."""
    if arguments.file == STDIN or not is_local(arguments):
        return None
    return Path(arguments.file) if arguments.file else usual_dockerfile(Path(arguments.context))


@dataclass(frozen=True)
class Dockerfile:
    """name: for messages. path: None if it came on stdin."""

    name: str
    raw: bytes
    path: Path | None = None

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace")


def read_dockerfile(arguments: Arguments, piped: Piped | None) -> Dockerfile | None:
    """The Dockerfile; None if only docker knows it. Raises `UsageError` if it is missing."""
    path = dockerfile_of(arguments)
    if path is not None:
        if "://" in str(arguments.file):
            raise UsageError(
                f"The Dockerfile {arguments.file} is not a local file.",
                hint="Download it first, and pass the file with -f.",
            )
        if not path.is_file():
            raise UsageError(
                f"There is no {path.name} in {path.resolve().parent}.",
                hint="Pass it with -f, or use another context; Dockerfile.example has a template.",
            )
        try:
            return Dockerfile(path.name, path.read_bytes(), path)
        except OSError as error:
            raise unreadable(path, error) from error
    if piped is None:
        return None
    name = arguments.file if piped.is_archive and arguments.file else "Dockerfile"
    raw = piped.dockerfile(name)
    if raw is None:
        raise UsageError(f"The archive on stdin has no {name}.", hint="Pass its name with -f.")
    return Dockerfile(name, raw)


def usual_dockerfile(folder: Path) -> Path:
    """A context's default Dockerfile; docker accepts a lower-case name, too."""
    usual, lower = folder / "Dockerfile", folder / "dockerfile"
    return lower if not usual.exists() and lower.exists() else usual


@dataclass(frozen=True)
class DockerBuild:
    """A build request for docker; its context lacks the states of these bundles.

    piped: the user's input on stdin. left_out: what else the context lacks.
    """

    docker: Docker
    builder: Builder
    arguments: Arguments
    bundles: tuple[Bundle, ...]
    piped: Piped | None = None
    left_out: LeftOut | None = None

    def run(self, folder: Path, result: Sequence[str]) -> None:
        """folder: a temporary one for the build. result: the options that say where the image
        goes, without a name. Raises `ChildFailed` with docker's own exit code."""
        words = [*self.arguments.forwarded, *result]
        if self.arguments.quiet:
            words.append("--quiet")
        more, fill = self._context(folder)
        argv = self.docker.argv("build", *words, *more)
        sys.stdout.flush()
        with open(os.devnull, "wb") as nowhere:
            # docker's progress goes to stderr, since our stdout is for data.
            stdout = nowhere.fileno() if self.arguments.quiet else 2
            exit_code = process.pass_through(
                argv, env=self.docker.environment, fill=fill, stdout=stdout
            )
        if exit_code:
            raise ChildFailed("docker build", exit_code)

    def _context(self, folder: Path) -> tuple[list[str], Callable[[BinaryIO], None] | None]:
        """The arguments for the Dockerfile and the context, and what fills docker's stdin."""
        arguments, piped = self.arguments, self.piped
        found = read_dockerfile(arguments, piped)
        if found is None or not is_local(arguments):
            given = ["--file", arguments.file] if arguments.file is not None else []
            places = [bundle.place for bundle in self.bundles]
            more = self.left_out.credentials if self.left_out else ()
            fill = partial(piped.write, places=places, left_out=more) if piped else None
            return [*given, arguments.context], fill
        root = Path(arguments.context)
        withheld = withheld_rules(root, self.bundles, self.left_out)
        if self.builder.is_buildkit:
            copy = with_rules(root, found, withheld, folder)
            return ["--file", str(copy), str(root)], None
        context = ClassicContext(root, effective(root, None), withheld, found.path, found.raw)
        return ["--file", context.dockerfile, "-"], context.write


def build_args_of(arguments: Arguments) -> dict[str, str]:
    """The build arguments. One without a value has that of the environment; docker ignores it if
    that has none.
    """
    given = [word.partition("=") for word in arguments.given("--build-arg")]
    values = {name: value if equals else os.environ.get(name) for name, equals, value in given}
    return {name: value for name, value in values.items() if value is not None}


def left_out_of(
    arguments: Arguments, builder: Builder, bundles: Sequence[Bundle], piped: Piped | None
) -> LeftOut:
    """What the context leaves out besides the states."""
    build_args = build_args_of(arguments)
    found = read_dockerfile(arguments, piped)
    if found is not None and is_local(arguments):
        root = Path(arguments.context)
        file = ignore_file_of(root, found.path if builder.is_buildkit else None)
        ignored = rules_in(file)
        names = Names.of(found.text, found.name, ignored, build_args)
        states = [bundle.root.resolve() for bundle in bundles]
        return find(root, ignored, names, states, str(file))
    if found is None or piped is None or not piped.is_archive:
        return LeftOut(elsewhere=arguments.context if arguments.context != STDIN else "")
    names = Names.of(found.text, found.name, "", build_args)
    return LeftOut(tuple(piped.credentials(names)))


def plain(*arguments: str) -> int:
    """Runs ``build …`` or ``buildx …`` with docker itself, and returns its exit code."""
    docker = Docker.from_environment()
    _alias(docker)
    return process.pass_through(docker.argv(*arguments), env=docker.environment)


def _alias(docker: Docker) -> str:
    """What `docker build` is an alias of. Raises `ConfigurationError` if that would start us, again
    and again."""
    alias = builder_alias(docker.environment)
    if alias == _OURS:
        raise ConfigurationError(
            "docker's configuration makes `docker build` an alias of `docker bundle build`.",
            hint='Remove "builder" from the "aliases" in docker\'s config.json.',
        )
    return alias


def with_rules(root: Path, found: Dockerfile, withheld: Sequence[str], folder: Path) -> Path:
    """A copy of a Dockerfile, next to the effective ignore rules and ours."""
    copy = folder / found.name
    copy.write_bytes(found.raw)
    rules = [effective(root, found.path).rstrip("\n"), *withheld]
    text = "\n".join(rules).lstrip("\n") + "\n"
    copy.with_name(copy.name + IGNORE_FILE).write_bytes(os.fsencode(text))
    return copy
