"""`bundler.component`: the life cycle, counted by the calls that a component gets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundler.component import (
    DefsStateConfig,
    DefsStateManagementType,
    LegacyStateWarning,
    Load,
    LoadContext,
    StateBackedComponent,
    StateError,
)
from bundler.component_storage import StoreStateStorage
from bundler.state.manifest import state_of
from bundler.state.statedir import StateDir, sanitize_key
from bundler.state.tree import scan
from tests.support.environments import ROOT
from tests.support.statedirs import NOTHING_FETCHED

LOCAL = DefsStateManagementType.LOCAL_FILESYSTEM
VERSIONED = DefsStateManagementType.VERSIONED_STATE_STORAGE
LEGACY = DefsStateManagementType.LEGACY_CODE_SERVER_SNAPSHOTS


class Counter(StateBackedComponent[tuple[str, ...]]):
    """Its state is how often it was written."""

    def __init__(
        self,
        kind: DefsStateManagementType = LOCAL,
        *,
        key: str = "a",
        refresh_if_dev: bool = True,
    ) -> None:
        self.config = DefsStateConfig.of(self, key, kind, refresh_if_dev=refresh_if_dev)
        self.writes = 0
        self.contexts: list[LoadContext] = []

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return self.config

    def write_state_to_path(self, state_path: Path) -> None:
        self.writes += 1
        state_path.write_text(json.dumps([f"write {self.writes}"]))

    def build_defs_from_state(
        self, context: LoadContext, state_path: Path | None
    ) -> tuple[str, ...]:
        self.contexts.append(context)
        return tuple(json.loads(state_path.read_text())) if state_path else ()


class AsyncCounter(Counter):
    async def write_state_to_path(self, state_path: Path) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().write_state_to_path(state_path)


def publish(directory: Path, component: Counter) -> None:
    """What `state-bundler refresh` leaves behind."""
    key = component.defs_state_config.key
    with StateDir(directory, "state").staging() as staging:
        folder = staging.key_directory(key)
        asyncio.run(_written(component, folder / "state"))
        staging.publish([state_of(key, sanitize_key(key), scan(folder))], [], NOTHING_FETCHED)


async def _written(component: Counter, path: Path) -> None:
    result = component.write_state_to_path(path)
    if result is not None:
        await result


def test_in_production_the_built_state_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    component = Counter()
    publish(tmp_path, component)
    with Load(tmp_path) as load:
        assert load.build_defs(component) == ("write 1",)
        assert load.build_defs(component) == ("write 1",)
    assert component.writes == 1


def test_a_missing_state_is_an_error_in_production_and_none_in_development(tmp_path: Path) -> None:
    component = Counter(refresh_if_dev=False)
    with Load(tmp_path) as load, pytest.raises(StateError, match=r"no state for 'Counter\[a\]'"):
        load.build_defs(component)
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(component) == ()
    assert component.writes == 0


def test_an_altered_state_is_refused(tmp_path: Path) -> None:
    component = Counter()
    publish(tmp_path, component)
    (tmp_path / "Counter__a__" / "state").write_text('["write 9"]')
    with Load(tmp_path) as load, pytest.raises(StateError, match="does not match the manifest"):
        load.build_defs(component)


def test_development_writes_once_a_load_and_does_not_touch_the_built_state(tmp_path: Path) -> None:
    component = Counter()
    publish(tmp_path, component)
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(component) == ("write 2",)
        assert load.build_defs(component) == ("write 2",)
    assert component.writes == 2
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(component) == ("write 3",)
    with Load(tmp_path) as load:
        assert load.build_defs(component) == ("write 1",)


def test_refresh_if_dev_off_uses_the_built_state_in_development(tmp_path: Path) -> None:
    component = Counter(refresh_if_dev=False)
    publish(tmp_path, component)
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(component) == ("write 1",)
    assert component.writes == 1


def test_components_with_one_key_share_one_write(tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(first) == load.build_defs(second) == ("write 1",)
    assert (first.writes, second.writes) == (1, 0)


def test_the_environment_says_that_this_is_development(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_BUNDLER_DEVELOPMENT", "1")
    component = Counter()
    with Load(tmp_path) as load:
        assert load.build_defs(component) == ("write 1",)
    assert component.contexts[0].is_development


def test_an_async_component_is_awaited_also_inside_a_running_loop(tmp_path: Path) -> None:
    component = AsyncCounter()

    async def start_of_a_service() -> tuple[str, ...]:
        with Load(tmp_path, is_development=True) as load:
            return load.build_defs(component)

    assert asyncio.run(start_of_a_service()) == ("write 1",)
    with Load(tmp_path, is_development=True) as load:
        assert load.build_defs(component) == ("write 2",)


def test_legacy_state_is_fetched_at_every_load_with_a_warning_and_stays_nowhere(
    tmp_path: Path,
) -> None:
    component = Counter(LEGACY)
    for number in (1, 2):
        with Load(tmp_path) as load:
            with pytest.warns(LegacyStateWarning, match="fetched on every load"):
                first = load.build_defs(component)
            assert first == load.build_defs(component) == (f"write {number}",)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::bundler.component.LegacyStateWarning")
def test_a_fetch_that_writes_nothing_is_an_error_and_not_no_state(tmp_path: Path) -> None:
    class Awaitable:
        def __init__(self, write: Callable[[], object]) -> None:
            self.write = write

        def __await__(self) -> Iterator[None]:
            self.write()
            return iter(())

    class Silent(Counter):
        write: Callable[[Path], object] | None = None

        def write_state_to_path(self, state_path: Path) -> Any:
            return Awaitable(lambda: self.write and self.write(state_path))

    silent = Silent(LEGACY)
    for is_development in (False, True):
        with (
            Load(tmp_path, is_development=is_development) as load,
            pytest.raises(StateError, match=r"of 'Silent\[a\]' wrote nothing"),
        ):
            load.build_defs(silent)
    silent.write = lambda path: path.write_text('["awaited"]')
    with Load(tmp_path) as load:
        assert load.build_defs(silent) == ("awaited",)


def test_versioned_state_is_pinned_for_the_life_of_a_load(tmp_path: Path) -> None:
    component = Counter(VERSIONED)
    storage = StoreStateStorage(f"file://{tmp_path}/storage")
    key = component.defs_state_config.key
    state = tmp_path / "new"
    versions = []
    for number in (1, 2):
        state.write_text(f'["version {number}"]')
        versions.append(storage.store(key, state))
        if number == 1:
            load = Load(tmp_path / "state", storage)
            assert load.build_defs(component) == ("version 1",)
    assert load.build_defs(component) == ("version 1",)
    assert component.contexts[-1].version == versions[0]
    load.close()
    with Load(tmp_path / "state", storage) as again:
        assert again.build_defs(component) == ("version 2",)
    with Load(tmp_path / "state", storage, versions={key: versions[0]}) as replayed:
        assert replayed.build_defs(component) == ("version 1",)
    assert component.writes == 0


def test_versioned_state_that_nobody_stored_is_an_error(tmp_path: Path) -> None:
    storage = StoreStateStorage(f"file://{tmp_path}/storage")
    with Load(tmp_path, storage) as load, pytest.raises(StateError, match="has no state"):
        load.build_defs(Counter(VERSIONED))
    with Load(tmp_path) as load, pytest.raises(StateError, match="no storage was passed"):
        load.build_defs(Counter(VERSIONED))
    with pytest.raises(StateError, match="no version"):
        storage.set_latest_version("Counter[a]", "nonsense")


@pytest.mark.parametrize("key", ["..", ".", ""])
def test_a_key_that_names_no_folder_is_refused(tmp_path: Path, key: str) -> None:
    component = Counter()
    component.config = DefsStateConfig(key)
    with Load(tmp_path) as load, pytest.raises(StateError, match="has no valid folder name"):
        load.build_defs(component)


def test_at_run_time_nothing_but_the_standard_library_is_imported() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "import bundler.component, bundler.verify_at_start\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "foreign = new - set(sys.stdlib_module_names) - {'bundler'}\n"
        "print(sorted(foreign))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
