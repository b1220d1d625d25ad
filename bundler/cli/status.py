"""``state-bundler status``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.console import Console, age, size
from bundler.cli.options import narrator

if TYPE_CHECKING:
    from bundler.status import KeyStatus

_SHOWN_DIGEST = 12
_NOWHERE = "-"


@click.command()
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT...]")
@click.option(
    "--project",
    "directories",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A project's directory; the current one if nothing is named.",
)
@click.option("--python", type=click.Path(path_type=Path), help="The project's interpreter.")
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def status(
    artifacts: tuple[str, ...], directories: tuple[Path, ...], python: Path | None, style: str
) -> None:
    """Show every key of a project or of each ARTIFACT: age, size, digest, management type.

    \b
    Examples:
      state-bundler status
      state-bundler status app.pex oci:build/image
    """
    names: dict[str, tuple[KeyStatus, ...]] = {}
    if artifacts:
        from bundler.artifacts.opening import open_artifact
        from bundler.status import of_artifact

        for name in artifacts:
            with open_artifact(name) as artifact:
                names[name] = of_artifact(artifact)
    else:
        names = _of_projects(directories, python)
    if style == "json":
        click.echo(json.dumps({"schema": 1, "artifacts": _as_json(names)}))
    else:
        _as_text(names)


def _of_projects(
    directories: tuple[Path, ...], python: Path | None
) -> dict[str, tuple[KeyStatus, ...]]:
    from bundler.project import find
    from bundler.refresh.run import discover
    from bundler.status import of_sources

    listener = narrator()
    projects = find(directories, everything=True, python=python)
    return {str(project.root): of_sources(discover([project], listener)) for project in projects}


def _as_text(names: dict[str, tuple[KeyStatus, ...]]) -> None:
    console = Console(sys.stdout)
    for name, keys in names.items():
        console.line(console.styled(name, "bold"))
        rows = [_row(key) for key in keys]
        console.table(("KEY", "TYPE", "FETCHED", "CONFIRMED", "SIZE", "DIGEST"), rows, "SIZE")


def _row(key: KeyStatus) -> tuple[str, ...]:
    refresh = key.refresh
    return (
        key.key,
        key.management_type,
        age(refresh.fetched if refresh else None),
        age(refresh.confirmed if refresh else None),
        _NOWHERE if key.size is None else size(key.size),
        (key.digest or key.version or _NOWHERE)[:_SHOWN_DIGEST],
    )


def _as_json(names: dict[str, tuple[KeyStatus, ...]]) -> list[dict[str, Any]]:
    import msgspec

    return [
        {
            "name": name,
            "keys": [
                {
                    "directory": key.directory,
                    "key": key.key,
                    "managementType": key.management_type,
                    "size": key.size,
                    "dirHash": key.digest,
                    "version": key.version,
                    "refresh": key.refresh and msgspec.to_builtins(key.refresh),
                }
                for key in keys
            ],
        }
        for name, keys in names.items()
    ]
