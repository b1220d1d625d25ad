"""The options of commands that embed state in an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli import completion
from bundler.cli.options import (
    QUIET,
    File,
    Options,
    ProjectArguments,
    RefreshArguments,
    flag,
    option,
)

if TYPE_CHECKING:
    from bundler.workflows.pipeline import LoadRequest, StateRequest


class LoadArguments(Options):
    """Whether and how the code location is loaded inside the finished artifact."""

    load_check: bool | None = option(
        "--load-check/--no-load-check",
        "Load the code location in the finished artifact, without network access. `build` "
        "does so if it can run the artifact here; with --load-check the load is required, "
        "and must find at least as many definitions as in the current artifact of that name.",
        default=None,
    )
    load_module: tuple[str, ...] = option(
        "--load-module MODULE[:NAME]",
        "What --load-check loads. Default: the module a code server would load.",
    )
    min_definitions: int | None = option(
        "--min-definitions",
        "Minimum number of definitions.  [1, or as many as the older artifact has]",
        type=click.IntRange(0),
    )

    def request(self) -> LoadRequest:
        from bundler.workflows.pipeline import LoadRequest

        named = bool(self.load_module) or self.min_definitions is not None
        if self.load_check is False and named:
            raise click.UsageError("--no-load-check excludes --load-module and --min-definitions.")
        wanted = True if named else self.load_check
        return LoadRequest(wanted, self.load_module, self.min_definitions)


class EmbedArguments(Options):
    """Options of every command that embeds state in an artifact."""

    projects: ProjectArguments
    refreshing: RefreshArguments
    state_from: str | None = option(
        "--state-from ARTIFACT",
        "Embed the states of this artifact, or states.tar, instead of refreshing.",
        shell_complete=completion.artifacts,
    )
    plan: File | None = option(
        "--plan", "Ship exactly what this file of `plan --out` describes; nothing is refreshed."
    )
    defer_from: str | None = option(
        "--defer-from ARTIFACT",
        "Let dbt defer to the dbt project in this artifact: its manifest is copied to state_path.",
        shell_complete=completion.artifacts,
    )
    pin_versioned: bool | None = option(
        "--pin-versioned/--no-pin-versioned",
        "Record the store's current versions of versioned keys in the manifest.  [if a store "
        "is configured]",
        default=None,
    )
    embed_versioned: bool = flag(
        "--embed-versioned",
        "Also embed versioned keys, so that the program starts while the store is down.",
    )
    no_guard: bool = flag("--no-guard", "Skip the git check. The run record says so.")
    environment: str | None = option(
        "--environment", "Environment to name in the run record, such as staging."
    )
    quiet: bool = flag("-q, --quiet", QUIET)

    def request(self, load: LoadRequest | None = None) -> StateRequest:
        """Checks what excludes each other. load: None if the command has no options for it."""
        from bundler.workflows.pipeline import LoadRequest, StateRequest

        refresh = self.refreshing.options()
        if self.state_from is not None and self.plan is not None:
            raise click.UsageError("--state-from and --plan exclude each other.")
        reuses = self.state_from is not None or self.plan is not None
        if reuses and (refresh.mode or refresh.keys or self.embed_versioned):
            given = "--state-from" if self.plan is None else "--plan"
            raise click.UsageError(
                f"{given} takes all states and refreshes none: drop --refresh, --key, "
                "--embed-versioned."
            )
        return StateRequest(
            self.projects.selection(),
            refresh,
            guarded=not self.no_guard,
            environment=self.environment,
            state_from=self.state_from,
            plan=self.plan,
            defer_from=self.defer_from,
            pins=self.pin_versioned,
            embeds=self.embed_versioned,
            load=load or LoadRequest(),
        )


class BuildArguments(EmbedArguments):
    """The same, and those for loading the finished artifact."""

    loading: LoadArguments

    def request(self, load: LoadRequest | None = None) -> StateRequest:
        return super().request(load or self.loading.request())
