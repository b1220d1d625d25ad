"""What the commands of ``state-bundler store`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bundler.storage import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])

SHOWN = 12
NOWHERE = "-"


def store_options(command: _Command) -> _Command:
    """``--store`` and ``--project``, as the command's first two arguments."""
    for option in (
        click.option(
            "--project",
            "root",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            default=Path(),
            help="The project whose configuration names the store. Default: this directory.",
        ),
        click.option(
            "--store",
            "url",
            metavar="URL",
            envvar="STATE_BUNDLER_STORE",
            help="s3://, gs://, az:// or file://. Default: `store` in [tool.state-bundler].",
        ),
    ):
        command = option(command)
    return command


format_option = click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def url_of(url: str | None, root: Path) -> str:
    """The store's URL. Raises `ConfigurationError` where nothing names one."""
    from bundler.config import load
    from bundler.errors import ConfigurationError

    found = url or load(root).store
    if not found:
        raise ConfigurationError(
            "No store is named.",
            hint='Add store = "s3://bucket/prefix" to [tool.state-bundler], or say --store URL.',
        )
    return found


def opened(url: str | None, root: Path) -> Store:
    """The store that the options or the configuration name."""
    from bundler.storage import open_store

    return open_store(url_of(url, root))


def moment(text: str | None) -> str | int | None:
    """A version, a time, or a set's number, with or without its sign."""
    if text is None:
        return None
    digits = text.removeprefix("#")
    return int(digits) if digits.isdigit() else text
