"""Which engine docker would talk to, where its settings say so plainly.

docker's order: its own ``-H`` or ``--context``, then DOCKER_HOST, then DOCKER_CONTEXT, then the
current context in its configuration, then the local socket. Starting the program to ask takes as
long as all that is asked of an engine afterwards; so it is started for named contexts alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

DEFAULT = "unix:///var/run/docker.sock"
UNIX = "unix://"


class _Configuration(msgspec.Struct, rename="camel"):
    current_context: str = ""


def local_socket(program: str, options: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The address of a local socket that docker would use; None where docker has to be asked."""
    if posixpath.basename(program) != "docker":
        return None
    if options:
        return _named(options)
    if host := environ.get("DOCKER_HOST"):
        return host if host.startswith(UNIX) else None
    return None if _context(environ) not in ("", "default") else DEFAULT


def _named(options: Sequence[str]) -> str | None:
    """``-H unix://…`` by itself; anything else is docker's to understand."""
    words = list(options)
    if words[0] in ("-H", "--host"):
        del words[0]
    host = words[0].removeprefix("--host=").removeprefix("-H").removeprefix("=") if words else ""
    return host if len(words) == 1 and host.startswith(UNIX) else None


def _context(environ: Mapping[str, str]) -> str | None:
    """The name of the current context; None where the configuration cannot be read."""
    if name := environ.get("DOCKER_CONTEXT"):
        return name
    home = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "")) / ".docker")
    try:
        raw = (Path(home) / "config.json").read_bytes()
        return msgspec.json.decode(raw, type=_Configuration).current_context
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.DecodeError):
        return None
