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
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bundler.artifacts.image.engine.arguments import TRUE, Arguments
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
from bundler.errors import ChildFailed, ConfigurationError, ToolFailed, UsageError
from bundler.state.bundle import Bundle
from bundler.system import process
from bundler.system.reading import reading

# The first docker whose own builder is buildx, a plugin; in older ones, BuildKit is built in.
_BUILDX_SINCE = 23
_OURS = "bundle"  # as docker knows this program


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
    is_old = major.isdecimal() and int(major) < _BUILDX_SINCE
    is_disabled = bool(wanted) and wanted not in TRUE
    if _alias(docker) == "buildx" and (is_old or not is_disabled):
        return Builder("buildx", version)
    if is_disabled:
        return Builder("classic", version)
    if is_old:
        is_buildkit = wanted or docker.connect().headers.get("builder-version") == "2"
        return Builder("buildkit" if is_buildkit else "classic", version)
    if docker.succeeds("buildx", "version"):
        return Builder("buildx", version)
    if wanted:
        raise ToolFailed(
            "DOCKER_BUILDKIT enables BuildKit, but this docker has no buildx.",
            hint="Install the docker-buildx plugin, or unset DOCKER_BUILDKIT.",
        )
    return Builder("classic", version)


@dataclass(frozen=True)
class Dockerfile:
    """name: for messages. path: None if it came on stdin."""

    name: str
    raw: bytes
    path: Path | None = None

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace")


@dataclass(frozen=True)
class BuildInput:
    """What a build reads: its arguments, and what came on stdin.

    detected: returns the builder. It is only called if its kind matters; None if that is unknown.
    """

    arguments: Arguments
    piped: Piped | None = None
    detected: Callable[[], Builder] | None = None

    @property
    def root(self) -> Path | None:
        """The context, if it is a folder on this machine."""
        context = self.arguments.context
        return Path(context) if context != STDIN and Path(context).is_dir() else None

    @property
    def dockerfile_path(self) -> Path | None:
        """The Dockerfile, if it is a file on this machine."""
        root, file = self.root, self.arguments.file
        if file == STDIN or root is None:
            return None
        return Path(file) if file else usual_dockerfile(root)

    @property
    def dockerfile(self) -> Dockerfile | None:
        """None if only docker knows it. Raises `UsageError` if it is missing."""
        path, file = self.dockerfile_path, self.arguments.file
        if path is not None:
            return _read_dockerfile(path, str(file))
        if self.piped is None:
            return None
        name = file if self.piped.is_archive and file else "Dockerfile"
        raw = self.piped.dockerfile(name)
        if raw is None:
            raise UsageError(f"The archive on stdin has no {name}.", hint="Pass its name with -f.")
        return Dockerfile(name, raw)

    @property
    def build_args(self) -> dict[str, str]:
        """One without a value has that of the environment; docker ignores it if that has none."""
        given = [word.partition("=") for word in self.arguments.given("--build-arg")]
        values = {name: value if equals else os.environ.get(name) for name, equals, value in given}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def ignore_file(self) -> Path | None:
        """The file with the ignore rules of a context on this machine; None if it is unknown.

        The classic builder does not read one next to the Dockerfile.
        """
        root = Path(self.arguments.context)
        file, usual = ignore_file_of(root, self.dockerfile_path), root / IGNORE_FILE
        if file == usual or self.detected is None:
            return usual if file == usual else None
        return file if self.detected().is_buildkit else usual

    def left_out(self, bundles: Sequence[Bundle]) -> LeftOut:
        """What the context leaves out besides the states."""
        found, root, piped = self.dockerfile, self.root, self.piped
        if found is not None and root is not None:
            file = self.ignore_file or root / IGNORE_FILE
            ignored = rules_in(file)
            names = Names.of(found.text, found.name, ignored, self.build_args)
            states = [bundle.root.resolve() for bundle in bundles]
            return find(root, ignored, names, states, str(file))
        if found is None or piped is None or not piped.is_archive:
            context = self.arguments.context
            return LeftOut(elsewhere=context if context != STDIN else "")
        names = Names.of(found.text, found.name, "", self.build_args)
        return LeftOut(tuple(piped.credentials(names)))


def _read_dockerfile(path: Path, given: str) -> Dockerfile:
    if "://" in given:
        raise UsageError(
            f"The Dockerfile {given} is not a local file.",
            hint="Download it first, and pass the file with -f.",
        )
    if not path.is_file():
        raise UsageError(
            f"There is no {path.name} in {path.resolve().parent}.",
            hint="Pass it with -f, or use another context.",
        )
    with reading(path):
        return Dockerfile(path.name, path.read_bytes(), path)


def usual_dockerfile(folder: Path) -> Path:
    """A context's default Dockerfile; docker accepts a lower-case name, too."""
    usual, lower = folder / "Dockerfile", folder / "dockerfile"
    return lower if not usual.exists() and lower.exists() else usual


@dataclass(frozen=True)
class DockerBuild:
    """A build request for docker; its context lacks the states of these bundles.

    left_out: what else the context lacks.
    """

    docker: Docker
    builder: Builder
    given: BuildInput
    bundles: tuple[Bundle, ...]
    left_out: LeftOut

    @property
    def arguments(self) -> Arguments:
        return self.given.arguments

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
        arguments, piped = self.arguments, self.given.piped
        found, root = self.given.dockerfile, self.given.root
        if found is None or root is None:
            given = ["--file", arguments.file] if arguments.file is not None else []
            places = [bundle.place for bundle in self.bundles]
            more = self.left_out.credentials
            fill = partial(piped.write, places=places, left_out=more) if piped else None
            return [*given, arguments.context], fill
        withheld = withheld_rules(root, self.bundles, self.left_out)
        if self.builder.is_buildkit:
            copy = with_rules(root, found, withheld, folder)
            return ["--file", str(copy), str(root)], None
        context = ClassicContext(root, effective(root, None), withheld, found.path, found.raw)
        return ["--file", context.dockerfile, "-"], context.write


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
