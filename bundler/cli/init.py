"""``state-bundler init``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from bundler.cli.console import Console
from bundler.cli.options import Directory, Options, flag, formats, option, takes
from bundler.errors import ConfigurationError
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.project.survey import Survey
    from bundler.setup.file_edits import FileEdit

# The names in `bundler.setup.init.PARTS`; a test compares them.
PART_NAMES = ("table", "backend", "ignore", "dockerignore", "pre-commit", "ci")
_LOCAL = (
    "state-bundler is installed from a folder or file on this machine ({source}), which other "
    "machines do not have: everyone who commits needs state-guard on PATH, and CI needs the "
    "variable STATE_BUNDLER, which says what to install."
)
_FROM_AN_INDEX = (
    "state-bundler was installed from a package index that the installer did not record: check "
    "that {requirement} comes from the same index in CI and in pre-commit."
)
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class InitArguments(Options):
    project: Directory = option(
        "--project", "The project. Default: the current directory.", default=Path()
    )
    yes: bool = flag("--yes", "Write without confirmation.")
    remove: bool = flag("--remove", "Undo what init wrote.")
    without: tuple[str, ...] = option(
        "--without", "Skip a part (repeatable).", type=click.Choice(PART_NAMES)
    )
    registry: str | None = option(
        "--registry", "Where CI pushes images whose name is not declared, such as ghcr.io/acme."
    )
    git_hooks: bool = flag("--git-hooks", "Only install the guard as git hooks in this clone.")
    docker_plugin: bool = flag(
        "--docker-plugin", "Only install the `docker bundle` command for your user."
    )
    style: str = formats("json")


@click.command()
@takes("given", InitArguments)
def init(given: InitArguments) -> None:
    """Configure a project with minimal changes: show them, ask, write.

    Your own text is kept, and a second run changes nothing.
    """
    changes, accepted = list[FileChange](), True
    if given.git_hooks:
        changes += _install_git_hooks(given.project, remove=given.remove)
    if given.docker_plugin:
        changes += _install_docker_plugin(remove=given.remove)
    if not (given.git_hooks or given.docker_plugin):
        found, edits = _planned(given)
        changes += (_change(edit, found[0].outer) for edit in edits)
        if given.style == "text":
            for line in (line for change in changes for line in change.diff.split("\n")):
                click.secho(line, fg=_COLOURS.get(line[:1]))
        accepted = not edits or _applied(found, edits, given)
    if given.style == "json":
        from bundler.cli import documents

        files = [documents.InitFile.of(change, why=list(change.why)) for change in changes]
        documents.print_document(documents.Init, written=accepted and bool(changes), files=files)
    sys.exit(0 if accepted else 1)


Action = Literal["created", "changed", "removed"]


class FileChange(NamedTuple):
    """What happens to a file. why: a message for each reason. diff: empty for a program."""

    path: str
    action: Action
    why: tuple[str, ...] = ()
    diff: str = ""


def _planned(given: InitArguments) -> tuple[Sequence[Survey], Sequence[FileEdit]]:
    """The projects and the edits for them. Says so if there are none."""
    from bundler.project.no_project import way_out
    from bundler.project.projects import project_above
    from bundler.setup.init import chosen, plan

    found = chosen(given.project)
    if not found:
        click.echo("No project here has state-backed components: nothing to configure.", err=True)
        return found, []
    if not given.remove:
        registry = given.registry or _registry(found, ask=not given.yes)
        found = chosen(given.project, registry=registry)
    edits = plan(*found, without=given.without, remove=given.remove)
    is_somewhere = any(each.pyproject or each.dagster or each.classic_dbt for each in found)
    if not is_somewhere and not (given.remove and edits):
        root = found[0].root
        what = f"{root} has neither pyproject.toml nor dg.toml: nothing to configure."
        above = project_above(root)
        hint = f"Its project is {os.path.relpath(above)}: run it there." if above else ""
        raise ConfigurationError(what, hint=hint or way_out(root, ()))
    if not edits:
        click.echo("Nothing to undo." if given.remove else "Nothing to change.", err=True)
    return found, edits


def _change(edit: FileEdit, outer: Path) -> FileChange:
    from bundler.setup.file_edits import diff

    path = edit.path.relative_to(outer).as_posix()
    action: Action = "created" if edit.before is None else "changed"
    if edit.after is None:
        action = "removed"
    return FileChange(path, action, edit.why, "\n".join(diff([edit], outer)))


def _applied(found: Sequence[Survey], edits: Sequence[FileEdit], given: InitArguments) -> bool:
    """Writes the edits, if the user accepts them."""
    from bundler.setup.file_edits import apply

    if not given.remove:
        _say_why(edits, found[0].outer)
    if not given.yes and not _agreed(len(edits)):
        click.echo("Nothing was written.", err=True)
        return False
    apply(edits)
    click.echo(f"Changed {counted(len(edits), 'file')}.", err=True)
    if not given.remove:
        _say_what_is_next(found, edits)
    return True


def _say_what_is_next(found: Sequence[Survey], edits: Sequence[FileEdit]) -> None:
    from bundler.setup.init.precommit import INSTALL

    console = Console(sys.stderr)
    if any(edit.path.name == ".pre-commit-config.yaml" for edit in edits):
        console.line(f"Run once per clone to enable the hook: {INSTALL}")
    if not any(each.state_directories for each in found):
        console.line("Write a source into the table, then run init again.")
    _say_how_to_install(console)


def _registry(found: Sequence[Survey], *, ask: bool) -> str:
    """Where CI pushes images without a declared name: asked for on a terminal."""
    from bundler.setup.init.workflow import default_registry, needs_registry

    default = default_registry(found[0].outer)
    has_workflow = (found[0].outer / ".github").is_dir()
    if not ask or not sys.stdin.isatty() or not has_workflow or not needs_registry(found):
        return default
    answer = click.prompt("Where does CI push the images?", default=default, err=True)
    return str(answer).strip().rstrip("/")


def _say_how_to_install(console: Console) -> None:
    """What other machines need, if the written files cannot express it."""
    from bundler.system.installed import installed

    found = installed()
    if not found.is_portable:
        console.paragraph(_LOCAL.format(source=found.source.removeprefix(" @ ")))
    elif found.source.startswith("==") and not found.index:
        console.paragraph(_FROM_AN_INDEX.format(requirement=found.requirement()))


def _install_git_hooks(project: Path, *, remove: bool) -> list[FileChange]:
    from bundler.guard import git_hooks

    if remove:
        gone = git_hooks.remove(project)
        for path in gone:
            click.echo(f"Removed {path}.", err=True)
        if not gone:
            click.echo("Nothing to undo.", err=True)
        return [FileChange(str(path), "removed") for path in gone]
    hooks = git_hooks.install(project)
    for hook in hooks:
        click.echo(f"{hook.path}: {hook.action}.", err=True)
    return [
        FileChange(str(hook.path), "changed" if hook.action == "updated" else "created")
        for hook in hooks
        if hook.action != "unchanged"
    ]


def _install_docker_plugin(*, remove: bool) -> list[FileChange]:
    from bundler.setup.init import dockerplugin

    path = dockerplugin.remove() if remove else dockerplugin.install()
    if path is None:
        click.echo("Nothing to remove." if remove else "Nothing to change.", err=True)
        return []
    if remove:
        click.echo(f"Removed {path}.", err=True)
        return [FileChange(str(path), "removed")]
    click.echo(f"Wrote {path}. Try it: docker bundle build --help", err=True)
    return [FileChange(str(path), "created")]


def _say_why(edits: Sequence[FileEdit], relative_to: Path) -> None:
    console = Console(sys.stderr)
    console.line()
    for edit in edits:
        for why in edit.why:
            told = f"{edit.path.relative_to(relative_to)}: {why}"
            console.paragraph(told, indent="  ", first="")
    console.line()


def _agreed(count: int) -> bool:
    """Asks the user for confirmation; False if stdin is not a terminal."""
    if not sys.stdin.isatty():
        click.echo("Not a terminal; pass --yes to accept.", err=True)
        return False
    return click.confirm(f"Change {counted(count, 'file')}?", err=True)
