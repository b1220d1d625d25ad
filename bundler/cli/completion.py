"""``state-bundler completion``, and what is completed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.errors import BundlerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell, for its start-up file.

    \b
    Examples:
      eval "$(state-bundler completion bash)"
      eval "$(state-bundler completion zsh)"
      state-bundler completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    program = ctx.find_root().command
    if found is not None:  # it is one of `_SHELLS`
        script = found(program, {}, "state-bundler", "_STATE_BUNDLER_COMPLETE").source()
        # fish: a key or a help text may contain commas.
        click.echo(script.replace('string split ","', 'string split -m 1 ","'))


def keys(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """The keys of the projects that ``--project`` names, or of the current one: the published
    ones, and those of the components that are known."""
    from click.shell_completion import CompletionItem

    found: set[str] = set()
    for root in ctx.params.get("directories") or (Path(),):
        for ask in (_published, _known):
            with suppress(BundlerError, OSError, click.ClickException):  # nothing to offer
                found.update(ask(Path(root).resolve()))
    return [CompletionItem(key) for key in sorted(found) if key.startswith(begun)]


def _published(root: Path) -> Iterator[str]:
    from bundler.store.local import published

    return (item.state.key for item in published(root))


def _known(root: Path) -> Iterator[str]:
    """The keys of a project's components, if they are known without loading it."""
    from bundler.project.projects import open_project
    from bundler.refresh.known_components import recalled

    asked = os.environ.get("STATE_BUNDLER_NO_CACHE") or "0"
    if not click.BOOL.convert(asked, None, None):
        for found in recalled([open_project(root)]) or ():
            yield from (component.key for component in found.components)


def artifacts(*_: Any) -> list[CompletionItem]:
    """Files: a PEX, a wheel, an archive, a layout."""
    from click.shell_completion import CompletionItem

    return [CompletionItem("", type="file")]
