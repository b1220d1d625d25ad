"""A Dagster job that refreshes the versioned keys of a project, then reloads the code location.

In a project's definitions::

    from bundler.dagster_job import refresh_definitions

    defs = refresh_definitions(Path(__file__), location="shop", cron_schedule="0 * * * *")

Each key is refreshed by its own step, on whatever executor the deployment has. A step checks what
it fetched, and uploads it; only when every step has succeeded, the last one makes everything
current atomically. The deployment's ``dagster.yaml`` names `bundler.dagster_storage`.

Imports dagster, as `bundler.dagster_storage` does. Dagster reads the annotations of steps as
values, so they must not become strings: no ``from __future__ import annotations`` here.
"""

import asyncio
import inspect
import os
import re
import tempfile
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterInstance

from bundler.dagster_storage import StoreDefsStateStorage
from bundler.errors import ConfigurationError
from bundler.project.config import load
from bundler.refresh.checks import Baseline, check
from bundler.refresh.model import Component
from bundler.refresh.secret_values import collect
from bundler.state.manifest import KeyRefresh, ManagementType, State, state_of
from bundler.state.statedir import check_keys, sanitize_key
from bundler.state.tree import scan
from bundler.store import Store, local
from bundler.store.handover import download
from bundler.store.pointer import Author
from bundler.store.pushing import NewState, Push, confirm
from bundler.system import times

_VERSIONED: ManagementType = "VERSIONED_STATE_STORAGE"
_NO_STEP_NAME = re.compile(r"[^A-Za-z0-9_]")
# A step is retried after about 10, 20 and 40 seconds.
_RETRY = dg.RetryPolicy(
    max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)


def refresh_definitions(
    project: Path,
    *,
    keys: Sequence[str] = (),
    name: str = "refresh_state",
    cron_schedule: str | None = None,
    location: str | None = None,
    webserver: str = "localhost:3000",
    retry_policy: dg.RetryPolicy = _RETRY,
    executor: dg.ExecutorDefinition | None = None,
    tags: dict[str, str] | None = None,
) -> dg.Definitions:
    """The job, and a schedule for it if `cron_schedule` is given.

    project: the project's root, or any file in it. keys: only these; all versioned ones if none
    is named. location: the code location to reload; None reloads nothing. webserver: the host and
    port that the last step asks to reload it. executor: None is the deployment's own.
    """

    @dg.op(name=f"{name}_find_keys", out=dg.DynamicOut(str))
    def find_keys() -> Iterator[dg.DynamicOutput[str]]:
        for number, key in enumerate(_keys(project, keys)):
            step = _NO_STEP_NAME.sub("_", key)
            yield dg.DynamicOutput(key, mapping_key=f"{step}_{number}")

    @dg.op(name=f"{name}_refresh_key", retry_policy=retry_policy)
    def refresh_key(context: dg.OpExecutionContext, key: str) -> str:
        version = _refresh(context.instance, project, key)
        context.log.info("%s is version %s, current when all keys are refreshed.", key, version)
        return version

    @dg.op(name=f"{name}_publish")
    def publish(context: dg.OpExecutionContext, versions: list[str]) -> None:
        number = _publish(context.instance, versions)
        context.log.info("Set %d is current.", number)
        if location is not None:
            _reload(location, webserver)
            context.log.info("%s reloaded %s.", webserver, location)

    @dg.graph(name=f"{name}_graph")
    def refresh() -> None:
        publish(find_keys().map(refresh_key).collect())

    job = refresh.to_job(name=name, executor_def=executor, tags=tags)
    if cron_schedule is None:
        return dg.Definitions(jobs=[job])
    schedule = dg.ScheduleDefinition(name=f"{name}_schedule", job=job, cron_schedule=cron_schedule)
    return dg.Definitions(jobs=[job], schedules=[schedule])


def _storage(instance: DagsterInstance) -> StoreDefsStateStorage:
    storage = instance.defs_state_storage
    if not isinstance(storage, StoreDefsStateStorage):
        raise ConfigurationError(
            "The instance does not keep its defs state in a store.",
            hint="Set bundler.dagster_storage as defs_state_storage in dagster.yaml.",
        )
    return storage


def _components(project: Path) -> dict[str, Any]:
    """The versioned components by key; one of them for a shared key."""
    found = _tree(project).get_all_components(of_type=dg.StateBackedComponent)
    return {
        component.defs_state_config.key: component
        for component in found
        if component.defs_state_config.management_type.value == _VERSIONED
    }


def _tree(project: Path) -> Any:
    return dg.ComponentTree.for_project(project)


def _keys(project: Path, wanted: Sequence[str]) -> list[str]:
    known = _components(project)
    check_keys(known)
    for key in wanted:
        if key not in known:
            raise ConfigurationError(f"No component has the versioned key {key!r}.", key=key)
    return sorted(wanted or known)


def _refresh(instance: DagsterInstance, project: Path, key: str) -> str:
    """Fetches one key's state and uploads it, without making it current."""
    component = _components(project)[key]
    store = _storage(instance).store
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        directory = Path(scratch)
        result = component.write_state_to_path(directory / "state")
        if inspect.isawaitable(result):
            asyncio.run(_wait_for(result))
        state = _checked(project, component, directory, store)
        now = times.now()
        new = NewState(state, directory, refresh=KeyRefresh(key, 1, fetched=now, confirmed=now))
        attempt = Push(store.known, [new], Author(local.user())).attempt(share=False)
    if attempt.unchanged:
        confirm(store.objects, [new], store.require_current())
        return attempt.before[key].version
    return attempt.versions[0].version


async def _wait_for(awaitable: Awaitable[Any]) -> None:
    await awaitable


def _checked(project: Path, component: Any, directory: Path, store: Store) -> State:
    """The state, with the checks and settings of a refresh; its baseline is the current version.

    Raises `BadData`, `CredentialsRefused` or `ConfigurationError`.
    """
    key = component.defs_state_config.key
    root = Path(_tree(project).project_root)
    settings = load(root).refresh
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(component).__mro__]
    described = Component(key, _VERSIONED, names[0], ancestors=tuple(names[1:]))
    secrets = collect(os.environ, named=settings.secrets, excluded=settings.not_secrets, root=root)
    options = settings.of_key(key)
    current = store.current()
    version = current.keys[key].version if current and key in current.keys else None
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        baseline = None
        if version is not None:
            before = Path(scratch)
            download(store, key, version, before / "state")
            baseline = Baseline(state_of(key, sanitize_key(key), scan(before)), before)
        return check(described, directory, options, secrets=secrets, baseline=baseline).state


def _publish(instance: DagsterInstance, versions: Sequence[str]) -> int:
    """Makes the versions current atomically; returns the set's number."""
    store = _storage(instance).store
    found = [store.version(version) for version in versions]
    return store.adopt(found, "join", Author(local.user(), note="refreshed by Dagster")).number


def _reload(location: str, webserver: str) -> None:
    from dagster_graphql import DagsterGraphQLClient, ReloadRepositoryLocationStatus

    host, _, port = webserver.partition(":")
    client = DagsterGraphQLClient(host, port_number=int(port) if port else None)
    answer = client.reload_repository_location(location)
    if answer.status != ReloadRepositoryLocationStatus.SUCCESS:
        raise dg.Failure(f"{webserver} could not reload {location}: {answer.message}")
