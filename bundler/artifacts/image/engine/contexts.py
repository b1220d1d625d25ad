"""Determines from docker's settings which engine it would use, if they are simple.

docker's order: its own ``-H`` or ``--context``, then DOCKER_HOST, then DOCKER_CONTEXT, then the
current context in its configuration, then the local socket. Starting docker to ask takes as long as
all later requests to an engine, so it is only started for named contexts.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bundler.system.home import docker_configuration

DEFAULT = "unix:///var/run/docker.sock"
UNIX = "unix://"
# The name in docker's configuration that replaces `docker build` with another command.
_BUILDER = "builder"


class _ClientConfiguration(msgspec.Struct, rename="camel"):
    current_context: str = ""
    aliases: dict[str, str] = {}


def local_socket(environ: Mapping[str, str]) -> str | None:
    """The address of a local socket that plain docker would use; None if it has to be asked."""
    if host := environ.get("DOCKER_HOST"):
        return host if host.startswith(UNIX) else None
    return None if _context(environ) not in ("", "default") else DEFAULT


def _context(environ: Mapping[str, str]) -> str | None:
    """The name of the current context; None if the configuration cannot be read."""
    if name := environ.get("DOCKER_CONTEXT"):
        return name
    try:
        return _configuration(environ).current_context
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.DecodeError):
        return None


def _configuration(environ: Mapping[str, str]) -> _ClientConfiguration:
    raw = docker_configuration(environ).read_bytes()
    return msgspec.json.decode(raw, type=_ClientConfiguration)


def builder_alias(environ: Mapping[str, str]) -> str:
    """The command that `docker build` is an alias of, such as ``buildx``; empty if there is
    none."""
    try:
        return _configuration(environ).aliases.get(_BUILDER, "")
    except (OSError, msgspec.DecodeError):
        return ""


# Before threads do it: see `bundler.state.manifest`.
msgspec.json.Decoder(_ClientConfiguration)
