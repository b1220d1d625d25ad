"""The Docker CLI plugin: ``docker bundle build …``.

docker calls ``docker-bundle docker-cli-plugin-metadata`` at every ``docker --help``, and
``docker-bundle [docker's global options] bundle …`` for the command itself. Nothing is imported
before the first of these is answered.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # not from `typing`, see above
if TYPE_CHECKING:
    from collections.abc import Iterable

# docker build's own arguments have no prefix here; ours do.
_PREFIX = "--bundle-"
_SOCKET = "DOCKER_CLI_PLUGIN_SOCKET"
_DOCKER = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
# How often an older docker is looked after.
_PARENT_SECONDS = 0.25


def main() -> None:
    from bundler.system.streams import ending

    sys.exit(ending(lambda: _main(sys.argv[1:]), lambda error: error.exit_code))


def _main(arguments: list[str]) -> int:
    if arguments == ["docker-cli-plugin-metadata"]:
        from bundler.artifacts.image.plugin_metadata import metadata

        print(metadata())  # noqa: T201  # docker reads it
        return 0
    from bundler.artifacts.image.engine.arguments import split_options
    from bundler.cli.commands import cli
    from bundler.cli.run import report, run
    from bundler.errors import BundlerError

    options, rest = split_options(arguments)
    if rest[:1] == ["bundle"]:
        del rest[0]
    _remember(options)
    _end_with_docker()
    try:
        words = _ours(rest)
    except BundlerError as error:
        return report(error)
    return run(cli, words)


def _remember(options: tuple[str, ...]) -> None:
    """The engine that docker's global options name is the one that every step talks to."""
    import shlex

    program = os.environ.get(_DOCKER) or "docker"
    if options or "STATE_BUNDLER_DOCKER" not in os.environ:
        os.environ["STATE_BUNDLER_DOCKER"] = shlex.join([program, *options])


def _rename(options: Iterable[str]) -> None:
    """Help and messages show commands and options as they must be typed here."""
    from bundler.cli.help import Renamed

    Renamed.option = _PREFIX
    Renamed.ours = frozenset(options) - {"--help", "--help-all"}
    Renamed.commands = {"docker": "docker bundle build", "bake": "docker bundle bake"}
    Renamed.theirs = {"docker": "docker build", "bake": "docker buildx bake"}


def _ours(rest: list[str]) -> list[str]:
    """``build …``, ``buildx build …`` and ``bake …`` as our own command takes them; the rest as it
    is."""
    words = rest[1:] if rest[:1] == ["buildx"] and rest[1:2] == ["build"] else rest
    if words[:1] not in (["build"], ["bake"]):
        return rest
    from bundler.artifacts.image.engine.arguments import split_own
    from bundler.cli.build_docker import build_bake, build_docker, takes_value

    command = build_bake if words[0] == "bake" else build_docker
    options = takes_value(command)
    _rename(options)
    ours, theirs = split_own(words[1:], options, _PREFIX)
    given = {*ours, *theirs}
    if "--help-all" in given:
        ours, theirs = ["--help-all"], []
    elif given & {"--help", "-h"}:
        ours, theirs = ["--help"], []
    return ["build", str(command.name), *ours, "--", *theirs]


def _end_with_docker() -> None:
    """A signal to docker does not reach its plugin: end when docker does.

    Newer dockers hold a socket open for as long as they live; of older ones we are the child.
    """
    name = os.environ.pop(_SOCKET, "")
    if not name and _DOCKER not in os.environ:  # started by the user
        return
    import signal
    import threading

    def watch() -> None:
        if not (name and _waited_at_socket(name)):
            _wait_for_parent()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _waited_at_socket(name: str) -> bool:
    """Returns at docker's end; False where there is nothing to wait at."""
    import socket
    from contextlib import suppress

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect("\0" + name[1:] if name.startswith("@") else name)
        except OSError:
            return False
        with suppress(OSError):
            while line.recv(1):
                pass
    return True


def _wait_for_parent() -> None:
    import time

    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)


if __name__ == "__main__":
    main()
