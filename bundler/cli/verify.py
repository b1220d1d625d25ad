"""``state-bundler verify``."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli import completion
from bundler.cli.console import Console, age
from bundler.cli.options import (
    Directory,
    File,
    Options,
    flag,
    formats,
    narrator,
    nested,
    option,
    signature_file,
    takes,
)
from bundler.cli.outcome import raise_failures, show_verdict
from bundler.errors import BundlerError
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.artifacts.image.registry import Connections
    from bundler.cli.verify_formats import VerifyReport
    from bundler.workflows.policy import Policy

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")


class PolicyArguments(Options):
    """The policy for an artifact that is intact."""

    max_age: float | None = option(
        "--max-age", "Maximum time since a state was last confirmed, such as 24h."
    )
    require: tuple[str, ...] = option("--require KEY", "A key that must have a state.")
    require_keys_of: tuple[Directory, ...] = option(
        "--require-keys-of PROJECT", "Require every local key of this project's components."
    )
    commit: str | None = option("--commit REV", "The commit it must be built from.")
    clean: bool = flag("--clean", "Require a build from a clean work tree.")
    guarded: bool = flag("--guarded", "Require a build that checked git for state.")
    no_stale: bool = flag("--no-stale", "Reject states that --allow-stale kept.")
    environment: str | None = option("--environment NAME", "The environment it must be built for.")
    min_entries: tuple[str, ...] = option(
        "--min-entries [KEY=]N",
        "Minimum entries in a state's JSON, or files in other states; without KEY: in every "
        "state. Counts volatile members, too.",
    )
    require_label: tuple[str, ...] = option(
        "--require-label NAME[=VALUE]", "A label it must have (repeatable)."
    )

    def policy(self) -> Policy:
        from bundler.workflows.policy import Policy

        labels = (label.partition("=") for label in self.require_label)
        return Policy(
            max_age=self.max_age,
            require=(*self.require, *_keys_of(self.require_keys_of)),
            commit=_commit(self.commit) if self.commit else None,
            clean=self.clean,
            guarded=self.guarded,
            no_stale=self.no_stale,
            environment=self.environment,
            min_entries=dict(map(_least, self.min_entries)),
            require_labels={name: value if equals else None for name, equals, value in labels},
        )


class VerifyArguments(Options):
    demands: PolicyArguments = nested(PolicyArguments)
    signed_by: File | None = option("--signed-by ALLOWED_SIGNERS", "File of allowed signers.")
    signature: File | None = signature_file()
    style: str = formats("json", "github", "sarif")


@click.command()
@click.argument(
    "artifacts", shell_complete=completion.artifacts, nargs=-1, required=True, metavar="ARTIFACT..."
)
@takes("given", VerifyArguments)
def verify(artifacts: tuple[str, ...], given: VerifyArguments) -> None:
    """Verify that the state in each ARTIFACT is exactly what its manifest describes.

    ARTIFACT is a PEX, a wheel, a directory, an OCI layout (oci:DIR[:TAG]) or an image. Several
    in registries are verified concurrently. Exits with 76 if one is not intact, 1 if one violates
    the policy that the options set.

    \b
    Examples:
      state-bundler verify app.pex
      state-bundler verify shop:1.4 --max-age 24h --commit HEAD --clean --guarded
      state-bundler verify oci:build/image --signed-by allowed_signers
    """
    from bundler.artifacts.open import is_in_registry, shared_connections
    from bundler.cli.verify_formats import formatted
    from bundler.system.parallel import while_waiting

    artifacts = tuple(dict.fromkeys(artifacts))
    if given.signature and (len(artifacts) > 1 or not given.signed_by):
        raise click.UsageError("--signature requires --signed-by and exactly one ARTIFACT.")
    policy = given.demands.policy()
    listener = narrator()
    named = artifacts[0] if len(artifacts) == 1 else counted(len(artifacts), "artifact")
    listener.working(f"Verifying {named}")
    with shared_connections(artifacts) as connections:
        report = partial(_report, connections, policy, given.signed_by, given.signature)
        reports = list(while_waiting(report, artifacts, is_in_registry))
    listener.working("")
    if given.style == "text":
        _as_text(reports)
    else:
        click.echo(formatted(reports, given.style), nl=False)
    raise_failures([(report.name, report.failure()) for report in reports])


def _keys_of(directories: tuple[Path, ...]) -> list[str]:
    if not directories:
        return []
    from bundler.project.projects import find
    from bundler.refresh.run import discover

    found = discover(find(directories), narrator())
    return sorted(
        {
            component.key
            for source in found
            for component in source.components
            if component.management_type == "LOCAL_FILESYSTEM"
        }
    )


def _commit(revision: str) -> str:
    """A full commit ID, or the commit that a revision in this repository resolves to."""
    if _COMMIT.fullmatch(revision):
        return revision
    from bundler.git import commit_of

    found = commit_of(Path.cwd(), revision)
    if found is None:
        raise click.BadParameter(
            f"{revision} is not a commit in this repository.", param_hint="--commit"
        )
    return found


def _least(given: str) -> tuple[str, int]:
    key, _, count = given.rpartition("=")
    if not count.isdecimal():
        raise click.BadParameter(f"{given!r} is not [KEY=]N.", param_hint="--min-entries")
    return key or "*", int(count)


def _report(
    connections: Connections | None,
    policy: Policy,
    signed_by: Path | None,
    signature: Path | None,
    name: str,
) -> VerifyReport:
    from bundler.artifacts.open import open_artifact
    from bundler.artifacts.verify import verify as check
    from bundler.cli.verify_formats import VerifyReport
    from bundler.workflows.signature import judged

    verdict = None
    try:
        with open_artifact(name, connections) as artifact:
            verdict = check(artifact)
            verdict.raise_for_problems()
            breaches, signer = judged(
                artifact, verdict, policy, allowed=signed_by, signature=signature, name=name
            )
    except BundlerError as error:
        return VerifyReport(name, verdict, error=error)
    return VerifyReport(name, verdict, breaches, signer)


def _as_text(reports: list[VerifyReport]) -> None:
    console = Console(sys.stdout)
    for report in reports:
        if report.verdict is None or report.failure() is not None:
            continue
        show_verdict(report.verdict, report.name)
        record = report.verdict.record
        keys = [key for refresh in (record.refresh if record else ()) for key in refresh.keys]
        times = [key.confirmed or key.fetched for key in keys if key.confirmed or key.fetched]
        if times:
            console.line(f"  oldest state confirmed {age(min(filter(None, times)))} ago")
        if report.signer:
            console.line(f"  signed by {report.signer}")
