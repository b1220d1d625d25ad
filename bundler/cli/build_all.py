"""``state-bundler build --each``: builds every project of a workspace, with one report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli import documents, main
from bundler.cli.ci import summarise, table
from bundler.cli.console import Console, safe
from bundler.git.runner import gitpython
from bundler.system.atomic import io_errors, save
from bundler.system.wording import counted
from bundler.workflows import build_all as builds

if TYPE_CHECKING:
    from bundler.workflows.build_all import Outcome

_LOGS = Path("build") / "state-bundler"
# What each build of any kind imports only when it gets there.
_SHARED = (
    "ahocorasick_rs",
    "rfc8785",
    "stamina",
    "bundler.cli.store_options",
    "bundler.guard.content",
    "bundler.guard.worktree",
    "bundler.refresh.sources",
    "bundler.workflows.loadcheck",
)
_PROGRAM = (sys.executable, "-m", "bundler", "build")


def build_all(arguments: Sequence[str], workers: int | None, report: Path | None) -> int:
    """Builds them, prints a table, returns the exit code of the most serious failure."""
    if not arguments or arguments[0].startswith("-"):
        raise click.UsageError("Missing artifact kind: docker, bake, pex, oci or wheel.")
    if builds.is_one_of_all():
        raise click.UsageError("--each cannot be used inside a build that --each started.")
    narrative, done, count = Console(sys.stderr), 0, 0

    def begins(projects: int, at_once: int) -> None:
        nonlocal count
        count = projects
        narrative.line(f"{counted(count, 'project')}, {at_once} at a time; logs: {_LOGS}")
        _import_shared(arguments[0])

    def ended(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        sign = narrative.cross() if outcome.exit_code else narrative.tick()
        narrative.line(f"{sign} {done}/{count} {_summary(outcome)}")

    here = Path.cwd()
    outcomes, exit_code = builds.build_all(
        here,
        arguments,
        workers,
        program=_PROGRAM,
        logs=here / _LOGS,
        begins=begins,
        ended=ended,
        build=_build,
    )
    _show(outcomes)
    if report is not None:
        _write(report, outcomes)
    return exit_code


def _import_shared(kind: str) -> None:
    """Imports once what each build imports."""
    gitpython()
    with suppress(ModuleNotFoundError):  # each build says that there is no such kind
        import_module(f"bundler.workflows.build.{kind}")
    for name in (*_SHARED, *(["docker"] if kind in ("bake", "docker") else [])):
        import_module(name)


def _build(arguments: Sequence[str]) -> int:
    """What the program does with these arguments, in a fork of this process."""
    sys.argv[1:] = ["build", *arguments]
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            return ended.code
        raise
    return 0


def _write(report: Path, outcomes: Sequence[Outcome]) -> None:
    found = [
        documents.ReportedBuild.of(
            outcome,
            name=outcome.job.name,
            project=str(outcome.job.root),
            seconds=round(outcome.seconds, 1),
            why=outcome.result.why,
            said=outcome.said.splitlines(),
            log=str(outcome.job.log),
        )
        for outcome in outcomes
    ]
    with io_errors(report):
        save(report, documents.as_text(documents.BuildReport, builds=found).encode())


def _summary(outcome: Outcome) -> str:
    told = f"{outcome.job.name}  {outcome.seconds:.0f} s"
    if not outcome.exit_code:
        return safe(told)
    return safe(f"{told}  {outcome.result.why}") + f"\n  {outcome.job.log}"


def _show(outcomes: Sequence[Outcome]) -> None:
    console = Console(sys.stdout)
    rows = [
        (
            outcome.job.name,
            "built" if not outcome.exit_code else f"failed ({outcome.exit_code})",
            f"{outcome.seconds:.0f} s",
            _artifact(outcome),
        )
        for outcome in outcomes
    ]
    summarise(["### Builds", "", *table(("project", "result", "time", "artifact"), rows)])
    console.table(("PROJECT", "RESULT", "TIME", "ARTIFACT"), rows, "TIME")
    failed = sum(bool(outcome.exit_code) for outcome in outcomes)
    console.line(f"{len(outcomes) - failed} built, {failed} failed.")


def _artifact(outcome: Outcome) -> str:
    """The artifact it built; a quiet build prints nothing else."""
    return outcome.result.artifact or outcome.said.partition("\n")[0] or "-"
