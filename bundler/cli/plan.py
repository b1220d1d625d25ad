"""``state-bundler plan``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bundler.cli import definitions as shown
from bundler.cli.ci import annotation, summarise
from bundler.cli.console import Console, safe_line
from bundler.cli.diff import MOST_LINES, as_code, as_markdown, as_text, key_documents
from bundler.cli.options import (
    File,
    Options,
    ProjectArguments,
    RefreshArguments,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.outcome import tell_github
from bundler.version import SCHEMA_VERSION

if TYPE_CHECKING:
    from bundler.cli.documents.changes import PlannedBaseline
    from bundler.workflows.plan import Plan, PlannedChange


class PlanArguments(Options):
    out: File | None = option("--out", "Write the plan to this file.")
    every_change: bool = flag("--all-changes", "Show every change, not only the first ones.")
    style: str = formats("json", "markdown", "github")
    projects: ProjectArguments
    refreshing: RefreshArguments


@click.command()
@click.argument("baselines", nargs=-1, metavar="[ARTIFACT]...")
@click.pass_context
@takes("given", PlanArguments)
def plan(ctx: click.Context, baselines: tuple[str, ...], given: PlanArguments) -> None:
    """Show what a refresh would change, in the states and in the definitions they make.

    Nothing is published. The refreshed states are compared with those of each ARTIFACT, or with
    what is published here. Exit code 1 if anything changes, 0 if nothing does.

    \b
    Examples:
      state-bundler plan
      state-bundler plan docker://ghcr.io/acme/shop:1.4 --format markdown
      state-bundler plan app.pex --out plan.bin
      state-bundler update app.pex --plan plan.bin
    """
    from bundler.workflows.plan_file import make_and_save

    listener = narrator()
    selection, options = given.projects.selection(), given.refreshing.options()
    made = make_and_save(selection, options, baselines, given.out, listener)
    listener.working("")
    tell_github({"changed": made.differs})
    _show(made, given.style, sys.maxsize if given.every_change else MOST_LINES)
    ctx.exit(1 if made.differs else 0)


def _show(made: Plan, style: str, most: int) -> None:
    markdown = list(_markdown(made, most))
    summarise(markdown)
    if style == "json":
        click.echo(_as_json(made), nl=False)
    elif style == "markdown":
        click.echo("\n".join(markdown))
    elif style == "github":
        for line in _annotations(made):
            click.echo(line)
    else:
        _text(made, most)


def _text(made: Plan, most: int) -> None:
    console = Console(sys.stdout)
    for line in _not_refreshed(made):
        console.line(console.styled(safe_line(line), "yellow"))
    for change in made.changes:
        console.line(console.styled(f"Compared with {change.baseline.name}:", "bold"))
        as_text(change.states, most)
        if change.definitions is not None:
            shown.show(console, change.definitions, most)
        for refusal in _refusals(change):
            console.line(console.styled(f"Needs approval: {safe_line(refusal)}", "red"))


def _markdown(made: Plan, most: int) -> Iterator[str]:
    from bundler.workflows.plan import PUBLISHED

    for line in _not_refreshed(made):
        yield from (f"- {as_code(line)}", "")
    for change in made.changes:
        name = change.baseline.name
        yield f"### Compared with {name if name == PUBLISHED else as_code(name)}"
        yield ""
        yield from as_markdown(change.states, most)
        if change.definitions is not None:
            yield ""
            yield from shown.markdown(change.definitions, most)
        for refusal in _refusals(change):
            yield from ("", f"**Needs approval:** {as_code(refusal)}")


def _not_refreshed(made: Plan) -> Iterator[str]:
    """A line for each key that a build does not refresh: "no change" would be wrong for it."""
    for item in made.not_refreshed:
        if item.management_type == "VERSIONED_STATE_STORAGE":
            current = f" (current version: {item.version})" if item.version else ""
            yield (
                f"{item.key}: not refreshed by a plan, its state is in versioned storage{current}. "
                "`state-bundler refresh --push` refreshes it."
            )
        else:
            yield (
                f"{item.key}: not refreshed by a plan, its state is fetched on every load of the "
                "code location."
            )


def _annotations(made: Plan) -> Iterator[str]:
    """GitHub's workflow commands: a notice for each baseline, an error for what needs approval."""
    for line in _not_refreshed(made):
        yield annotation("github", "notice", line)
    for change in made.changes:
        words = [f"Compared with {change.baseline.name}:", *_headlines(change)]
        yield annotation("github", "notice", " ".join(words))
        for refusal in _refusals(change):
            yield annotation("github", "error", refusal)


def _headlines(change: PlannedChange) -> Iterator[str]:
    yield from (f"{key.key}: {key.summary or key.kind}." for key in change.states.keys)
    if change.definitions is not None:
        yield shown.conclusion(change.definitions)
    elif not change.states.keys:
        yield "nothing would change."


def _refusals(change: PlannedChange) -> list[str]:
    return [f"{error.what} {error.hint}" for error in change.refusals()]


def _as_json(made: Plan) -> str:
    from bundler.cli.documents import as_text, changes

    return as_text(
        changes.PlanDocument,
        changes=made.differs,
        contents=made.contents,
        not_refreshed=made.not_refreshed,
        baselines=[_baseline_document(change) for change in made.changes],
        markdown="\n".join(_markdown(made, MOST_LINES)),
    )


def _baseline_document(change: PlannedChange) -> PlannedBaseline:
    from bundler.cli.documents import changes

    return changes.PlannedBaseline.of(
        change.baseline,
        changes=change.differs,
        states=changes.Diff.of(
            change.states, schema_version=SCHEMA_VERSION, keys=key_documents(change.states)
        ),
        definitions=change.definitions and shown.document(change.definitions),
        removals=change.removals,
        refused=_refusals(change),
    )
