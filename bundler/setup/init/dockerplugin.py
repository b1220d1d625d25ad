"""Installs the Docker CLI plugin for the user: a small shell script in docker's own folder.

docker runs every plugin to describe itself at each ``docker --help``. The script answers that by
itself, in a few milliseconds, and starts Python only for a real command.
"""

from __future__ import annotations

import os
import shlex
import sysconfig
from pathlib import Path

from bundler.artifacts.image.plugin_metadata import metadata
from bundler.errors import ConfigurationError
from bundler.system.atomic import io_errors, make_directories, write_synced
from bundler.system.home import docker_home
from bundler.system.installed import installed

PLUGIN = "docker-bundle"
_MARK = "# Written by `state-bundler init --docker-plugin`; `--remove` removes it."


def path() -> Path:
    """Where docker looks for the user's plugins."""
    return docker_home(os.environ) / "cli-plugins" / PLUGIN


def script() -> str:
    """The plugin's text. Raises `ConfigurationError` if our program is not installed."""
    program = Path(sysconfig.get_path("scripts")) / PLUGIN
    if not program.exists():
        raise ConfigurationError(
            f"{program} is missing: state-bundler is not installed as a package.",
            hint=f"Install it: {installed().command()}",
        )
    return (
        f"#!/bin/sh\n{_MARK}\n"
        f'[ "$*" = docker-cli-plugin-metadata ] && echo {shlex.quote(metadata())} && exit\n'
        f'exec {shlex.quote(str(program))} "$@"\n'
    )


def install() -> Path | None:
    """Installs the plugin; None if it is already installed.

    Raises `ConfigurationError` for a file with that name that is not ours.
    """
    target, text = path(), script()
    if _present(target) == text:
        return None
    with io_errors(target):
        make_directories(target.parent)
        write_synced(target, text.encode(), 0o755)
        target.chmod(0o755)
    return target


def remove() -> Path | None:
    """Removes the plugin; None if there is none."""
    target = path()
    if _present(target) is None:
        return None
    with io_errors(target):
        target.unlink()
    return target


def _present(target: Path) -> str | None:
    with io_errors(target):
        if not target.exists() and not target.is_symlink():
            return None
        text = target.read_text(errors="replace")
    if _MARK not in text:
        raise ConfigurationError(
            f"{target} was not created by state-bundler.", hint="Move it away, then run this again."
        )
    return text
