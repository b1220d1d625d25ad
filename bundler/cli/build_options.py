"""The options of commands that embed state in an artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli import completion
from bundler.cli.options import (
    QUIET,
    File,
    Options,
    ProjectArguments,
    RefreshArguments,
    flag,
    nested,
    option,
)
from bundler.cli.store_options import is_named, opened
from bundler.errors import UsageError

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.project.options import RefreshOptions
    from bundler.project.projects import Project
    from bundler.workflows.pipeline import Prepared


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

    def add_to(self, prepared: Prepared, *, by_default: bool) -> Prepared:
        """Adds the load check that the options ask for.

        by_default: also adds one without options, if the module to load is known.
        """
        import msgspec

        named = bool(self.load_module) or self.min_definitions is not None
        if self.load_check is False and named:
            raise click.UsageError("--no-load-check excludes --load-module and --min-definitions.")
        is_required = bool(self.load_check) or named
        if self.load_check is False or not (is_required or by_default):
            said = "--no-load-check was given" if by_default else prepared.not_loaded
            return msgspec.structs.replace(prepared, not_loaded=said)
        try:
            return self._added_to(prepared, is_required=is_required)
        except UsageError:
            if is_required:
                raise
            said = "the module to load is unknown; name it with --load-module"
            return msgspec.structs.replace(prepared, not_loaded=said)

    def _added_to(self, prepared: Prepared, *, is_required: bool) -> Prepared:
        import msgspec

        from bundler.refresh.surroundings import surroundings_of
        from bundler.workflows import loadcheck

        environ: dict[str, str] = {}
        for project in prepared.projects:
            environ.update(surroundings_of(project, named=(), excluded=()).environment)
        check = loadcheck.LoadCheck(
            loadcheck.targets_of(prepared.projects, self.load_module),
            self._least(prepared, is_required=is_required),
            loadcheck.environment_of(prepared.refreshed.record, environ),
            compares=is_required and self.min_definitions is None,
            is_required=is_required,
            may_be_absent=not (is_required or any(it.dagster for it in prepared.projects)),
        )
        return msgspec.structs.replace(prepared, load_check=check)

    def _least(self, prepared: Prepared, *, is_required: bool) -> int:
        """Importing a module of components makes no definitions, and a location needs none."""
        if self.min_definitions is not None:
            return self.min_definitions
        has_dagster = any(project.dagster is not None for project in prepared.projects)
        return int(is_required or (has_dagster and bool(prepared.bundles)))


class EmbedArguments(Options):
    """Options of every command that embeds state in an artifact."""

    projects: ProjectArguments = nested(ProjectArguments)
    refreshing: RefreshArguments = nested(RefreshArguments)
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

    def prepare(
        self,
        listener: Listener,
        start: Path | None = None,
        replaces: Sequence[str] = (),
        check: Callable[[Sequence[Project]], None] = lambda _: None,
    ) -> Prepared:
        """Checks git and refreshes, or uses the states of `state_from` or `plan`.

        replaces: the artifacts that get the new states. check: raises if no build of these projects
        can succeed, before anything is refreshed.
        """
        from bundler.workflows.pipeline import prepare, with_baseline

        projects, options = self.projects.find(listener, start), self.refreshing.options()
        check(projects)
        if replaces and self.state_from is None and self.plan is None:
            options = with_baseline(options, projects, replaces)
        if self.state_from is not None and self.plan is not None:
            raise click.UsageError("--state-from and --plan exclude each other.")
        if self.state_from is None and self.plan is None:
            options = with_stored(
                options, projects, pins=self.pin_versioned, embeds=self.embed_versioned
            )
        elif options.mode or options.keys or self.embed_versioned:
            given = "--state-from" if self.plan is None else "--plan"
            raise click.UsageError(
                f"{given} takes all states and refreshes none: drop --refresh, --key, "
                "--embed-versioned."
            )
        return prepare(
            projects,
            options,
            guarded=not self.no_guard,
            environment=self.environment,
            state_from=self.state_from,
            plan=self.plan,
            targets=replaces,
            defer_from=self.defer_from,
            held=click.get_current_context().with_resource(ExitStack()),
            listener=listener,
        )


class BuildArguments(EmbedArguments):
    """The same, and those for loading the finished artifact."""

    loading: LoadArguments = nested(LoadArguments)

    def prepare_and_load(self, listener: Listener, **more: Any) -> Prepared:
        """Like `prepare`; a load is added unless the options say otherwise."""
        return self.loading.add_to(self.prepare(listener, **more), by_default=True)

    def prepare_to_replace(self, listener: Listener, replaces: Sequence[str] = ()) -> Prepared:
        """Like `prepare`; a load is only added if the options or a plan ask for it."""
        prepared = self.prepare(listener, replaces=replaces)
        return self.loading.add_to(prepared, by_default=bool(prepared.expected))


def with_stored(
    options: RefreshOptions,
    projects: tuple[Project, ...],
    *,
    pins: bool | None = None,
    embeds: bool = False,
) -> RefreshOptions:
    """The options with the projects' stores, which are only used for versioned keys.

    pins: whether the manifest names versions; None if a store is configured. embeds: whether their
    states are embedded. A project without a store has no versions, unless the options require them.
    """
    import msgspec

    needed = embeds or bool(pins)
    stores = {
        store.url: store
        for project in projects
        if needed or (pins is None and is_named(project.config.store))
        for store in (opened(None, project.root),)
    }
    if not stores:
        return options
    from bundler.workflows.store_build import CurrentVersions

    current = CurrentVersions(tuple(stores.values()), embeds, needed)
    return msgspec.structs.replace(options, stored=current)
