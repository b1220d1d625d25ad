"""``state-bundler doctor``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.ci import annotation, system
from bundler.cli.console import Console, as_json
from bundler.cli.options import NO_CACHE, Directory, Options, flag, formats, narrator, option, takes
from bundler.errors import Findings, raise_all
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.setup.doctor import Examined


class DoctorArguments(Options):
    project: Directory = option(
        "--project",
        "The project. Default: the current directory or its whole workspace.",
        default=Path(),
    )
    python: Path | None = option("--python", "The project's interpreter.")
    fix: bool = flag("--fix", "Fix what can be fixed safely, then check again.")
    reach: bool = flag(
        "--reach", "Also check that each external system responds and accepts the credentials."
    )
    no_cache: bool = NO_CACHE
    matrix: bool = flag("--matrix", "Only print the projects as a CI matrix.")
    style: str = formats("json")


@click.command()
@takes("given", DoctorArguments)
def doctor(given: DoctorArguments) -> None:
    """Find every reason why a build would fail or silently lose state.

    Exits with 1 if there is any failure. Warnings do not make a build fail. External
    systems are only contacted with --reach.

    \b
    Examples:
      state-bundler doctor
      state-bundler doctor --fix
      state-bundler doctor --reach
      echo "matrix=$(state-bundler doctor --matrix)" >> "$GITHUB_OUTPUT"
    """
    if given.matrix:
        from bundler.setup.doctor.matrix import matrix as entries

        click.echo(as_json({"include": entries(given.project)}))
        return
    from bundler.setup.doctor import examine
    from bundler.setup.doctor.workspace import roots_of, stateless_of, without_state

    roots = roots_of(given.project)
    is_alone = len(roots) == 1
    listener = narrator()
    ask = partial(
        examine,
        python=given.python,
        reaches=given.reach,
        is_cached=not given.no_cache,
        listener=listener,
    )
    shows = is_alone and given.style == "text"
    stateless = () if is_alone else stateless_of(roots)
    if given.fix:
        _fix(
            given.project, [root for root in roots if root not in stateless], given.python, listener
        )
    reports = {
        root: without_state() if root in stateless else _report(root, ask, shows=shows)
        for root in roots
    }
    if given.style == "text" and not is_alone:
        _show_together(given.project.resolve(), reports)
    if given.style == "json":
        _print_json(reports)
    _conclude(given.project, reports)


def _report(
    root: Path, ask: Callable[..., Iterable[Examined]], *, shows: bool
) -> Sequence[Examined]:
    """Runs all checks. shows: each as soon as it finishes; failures are shown at the end."""
    console = Console(sys.stdout)
    examined: list[Examined] = []
    if shows and root != Path.cwd():
        console.line(console.styled(str(root), "bold", "cyan"))
    for check in ask(root):
        examined.append(check)
        if shows and check.findings:
            _show(console, check)
    return examined


def _show(console: Console, check: Examined) -> None:
    from bundler.cli.doctor_workspace import show_finding, sign

    failed = any(finding.grade == "fail" for finding in check.findings)
    mark = f"{sign(console, 'fail')} " if failed else ""
    console.line(mark + console.styled(check.title, "bold"))
    before = None
    for finding in check.findings:
        # A shared reason is only printed with the first finding.
        show_finding(console, finding, why=finding.why != before)
        before = finding.why


def _show_together(home: Path, reports: Mapping[Path, Sequence[Examined]]) -> None:
    from bundler.cli.doctor_workspace import show
    from bundler.setup.doctor.matrix import unnamed

    show(Console(sys.stdout), home, reports, unnamed(home, list(reports)))


def _conclude(home: Path, reports: Mapping[Path, Sequence[Examined]]) -> None:
    """Says how many findings there are, and raises the failures among them."""
    from bundler.setup.doctor.printed import command
    from bundler.setup.doctor.workspace import distinct

    console, found = Console(sys.stderr), list(distinct(reports))
    failures = [
        Findings(it.what, hint=it.fix, why=it.why, where=it.where)
        for it in found
        if it.grade == "fail"
    ]
    warnings = [it for it in found if it.grade == "warn"]
    for it in warnings:
        if line := annotation(system(), "warning", it.what, it.where):
            console.command(line)
    said = f"{counted(len(failures), 'failure')}, {counted(len(warnings), 'warning')}."
    if any(it.part for it in found):
        said += f" `{command('state-bundler doctor --fix', home)}` fixes some of this."
    console.line()
    raise_all(failures, said)
    console.paragraph(said)


def _fix(home: Path, roots: Sequence[Path], python: Path | None, listener: Listener) -> None:
    from bundler.project.survey import Together, survey
    from bundler.setup.doctor import fixes
    from bundler.setup.file_edits import apply, diff

    edits = fixes(Together(home.resolve(), tuple(roots)), python=python, listener=listener)
    for line in diff(edits, survey(home).outer):
        click.echo(line, err=True)
    apply(edits)
    done = f"Fixed {counted(len(edits), 'file')}." if edits else "There is nothing to fix."
    click.echo(f"{done}\n", err=True)


def _print_json(reports: Mapping[Path, Sequence[Examined]]) -> None:
    from bundler.cli import documents

    found = [
        documents.DoctorProject(
            project=str(root),
            checks=[
                documents.DoctorCheck(
                    check=check.title,
                    findings=[
                        documents.DoctorFinding.of(it, fixable=bool(it.part))
                        for it in check.findings
                    ],
                )
                for check in checks
            ],
        )
        for root, checks in reports.items()
    ]
    if len(found) == 1:  # a single project is at the top level
        documents.print_document(documents.Doctor, project=found[0].project, checks=found[0].checks)
    else:
        documents.print_document(documents.Doctor, projects=found)
