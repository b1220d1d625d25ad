"""``state-bundler verify``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console, age
from bundler.cli.options import (
    ARTIFACTS,
    SIGNATURE_FILE,
    Directory,
    File,
    Options,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.outcome import raise_failures, show_verdict

if TYPE_CHECKING:
    from bundler.workflows.policy import Policy
    from bundler.workflows.verify import VerifyReport

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
    signed_by: File | None = option("--signed-by ALLOWED_SIGNERS", "File of allowed signers.")

    def policy(self) -> Policy:
        from bundler.workflows.policy import Policy

        labels = (label.partition("=") for label in self.require_label)
        return Policy(
            max_age=self.max_age,
            require=(*self.require, *self._keys()),
            commit=_commit(self.commit) if self.commit else None,
            clean=self.clean,
            guarded=self.guarded,
            no_stale=self.no_stale,
            environment=self.environment,
            min_entries=dict(map(_least, self.min_entries)),
            require_labels={name: value if equals else None for name, equals, value in labels},
        )

    def _keys(self) -> list[str]:
        if not self.require_keys_of:
            return []
        from bundler.workflows.verify import local_keys

        return local_keys(self.require_keys_of, narrator())


class VerifyArguments(Options):
    demands: PolicyArguments
    signature: File | None = SIGNATURE_FILE
    style: str = formats("json", "github", "sarif")


@click.command()
@ARTIFACTS
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
    from bundler.cli.verify_formats import formatted
    from bundler.workflows.verify import verify as verify_all

    artifacts = tuple(dict.fromkeys(artifacts))
    if given.signature and (len(artifacts) > 1 or not given.demands.signed_by):
        raise click.UsageError("--signature requires --signed-by and exactly one ARTIFACT.")
    reports = verify_all(
        artifacts,
        given.demands.policy(),
        narrator(),
        signed_by=given.demands.signed_by,
        signature=given.signature,
    )
    if given.style == "text":
        _as_text(reports)
    else:
        click.echo(formatted(reports, given.style), nl=False)
    raise_failures([(report.name, report.failure()) for report in reports])


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


def _as_text(reports: list[VerifyReport]) -> None:
    console = Console(sys.stdout)
    for report in reports:
        if report.verdict is None or report.failure() is not None:
            continue
        show_verdict(report.verdict, report.name)
        refreshes = report.verdict.record.refresh if report.verdict.record else ()
        times = (key.confirmed or key.fetched for it in refreshes for key in it.keys)
        if first := min(filter(None, times), default=None):
            oldest = age(first)
            when = "in the future" if oldest == "future" else f"{oldest} ago"
            console.line(f"  oldest state confirmed {when}")
        if report.signer:
            console.line(f"  signed by {report.signer}")
