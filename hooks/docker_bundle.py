"""The Docker CLI plugin: ``docker bundle build …``.

docker calls ``docker-bundle docker-cli-plugin-metadata`` at every ``docker --help``, and
``docker-bundle [docker's global options] bundle …`` for the command itself. Nothing is imported
before the first of these is answered.
"""

from __future__ import annotations

import os
import sys

_METADATA = (
    '{"SchemaVersion":"0.1.0","Vendor":"state-bundler","Version":"%s",'
    '"ShortDescription":"Build images with the state of external systems baked in"}'
)
# docker build's own arguments have no prefix here; ours do.
_PREFIX = "--bundle-"
_SOCKET = "DOCKER_CLI_PLUGIN_SOCKET"
_DOCKER = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["docker-cli-plugin-metadata"]:
        print(metadata())  # noqa: T201  # docker reads it
        return
    sys.exit(_run(arguments))


def metadata() -> str:
    """What docker wants to know of a plugin, as JSON."""
    from bundler import __version__

    return _METADATA % __version__


def _run(arguments: list[str]) -> int:
    from bundler.artifacts.docker.connection import split_options
    from bundler.cli import cli
    from bundler.cli.run import run

    options, rest = split_options(arguments)
    if rest[:1] == ["bundle"]:
        del rest[0]
    _remember(options)
    _end_with_docker()
    return run(cli, _ours(rest))


def _remember(options: tuple[str, ...]) -> None:
    """The engine that docker's global options name is the one that every step talks to."""
    import shlex

    program = os.environ.get(_DOCKER) or "docker"
    if options or "STATE_BUNDLER_DOCKER" not in os.environ:
        os.environ["STATE_BUNDLER_DOCKER"] = shlex.join([program, *options])


def _ours(rest: list[str]) -> list[str]:
    """``build …`` and ``buildx build …`` as our own command takes them; the rest as it is."""
    command = [word for word in ("buildx", "build") if word in rest[:2]]
    if rest[: len(command)] != command or command[-1:] != ["build"]:
        return rest
    from bundler.artifacts.docker.arguments import split_own
    from bundler.cli.build_docker import build_docker, takes_value

    ours, theirs = split_own(rest[len(command) :], takes_value(build_docker), _PREFIX)
    if "--help" in theirs or "-h" in theirs:
        ours, theirs = ["--help"], []
    return ["build", "docker", *ours, "--", *theirs]


def _end_with_docker() -> None:
    """Newer dockers hold a socket open for as long as they live: at its end this program ends."""
    name = os.environ.pop(_SOCKET, "")
    if not name:
        return
    import signal
    import socket
    import threading
    from contextlib import suppress

    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError):
        line.connect("\0" + name[1:] if name.startswith("@") else name)

        def watch() -> None:
            with suppress(OSError):
                while line.recv(1):
                    pass
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
