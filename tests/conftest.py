"""Fixtures that more than one module uses."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from bundler import listener
from tests.support import examples, forked, stores, warm
from tests.support import sample as sample_module
from tests.support.dockerprojects import plugged, project, tcp, transcript  # noqa: F401  # likewise fixtures
from tests.support.engine import engine, engines, is_given, is_offline  # noqa: F401  # with fixtures
from tests.support.layouts import base  # noqa: F401  # likewise a fixture
from tests.support.left_out import (  # noqa: F401  # hooks
    pytest_deselected,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from tests.support.planned import loads_once  # noqa: F401  # likewise
from tests.support.pushing import bundle, debian, maker, ours  # noqa: F401  # likewise
from tests.support.sample import Sample
from tests.support.storefixtures import faulty, new_url, states, store, url  # noqa: F401  # likewise
from tests.support.vendor import RecordedVendor
from tests.support.workdir import WorkDir

settings.load_profile(examples.PROFILE)


@pytest.fixture(autouse=True, scope="session")
def _nothing_must_last() -> Iterator[None]:
    """Flushes take a third of the time of tests that publish. Only a power cut needs them: `make
    faults` has these, in their own processes. What is not a descriptor fails here, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True, scope="session")
def _warm_workers() -> Iterator[None]:
    """In this process, and in the forks of our programs."""
    with warm.warm_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(forked, "warm_folder", folder)
        warm.use(folder)
        yield


@pytest.fixture
def own_workers() -> Iterator[None]:
    """For a test of how workers are started: they are, as for a user."""
    with warm.off():
        yield


@pytest.fixture(autouse=True)
def _silent_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ran in this process must not report to the stream that it had."""
    monkeypatch.setattr(listener, "of_process", listener.SILENT)


@pytest.fixture
def vendor() -> Iterator[RecordedVendor]:
    """A running vendor's API with its standard catalogues."""
    with RecordedVendor() as api:
        yield api


@pytest.fixture(scope="session")
def s3_server() -> Iterator[stores.Server]:
    with stores.s3() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[stores.Server]:
    with stores.gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[stores.Server]:
    with stores.azure() as server:
        yield server


@pytest.fixture
def sample(tmp_path: Path, vendor: RecordedVendor) -> Sample:
    """The sample project in a git repository with one commit, its environment, a running API."""
    return sample_module.make_repository(tmp_path / "shop", vendor.environment)


@pytest.fixture
def wd(tmp_path: Path) -> WorkDir:
    """A new git repository, with commands that run in it and an empty home."""
    return WorkDir.make(tmp_path / "repository")


def pytest_collection_finish() -> None:
    """From here on no byte code is written next to a program that a test looks at."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_unconfigure() -> None:
    forked.close()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """With several workers, a module stays whole, and so do those that share an engine."""
    return ByModule(config, log)


class ByModule(LoadScopeScheduling):
    """Gives a worker whole modules, and all that use an engine to one worker, in our order."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        path = self.config.rootpath / module
        if not is_marked(path):
            return module
        return "offline engine" if is_offline(path) and not is_given() else "engine"


@functools.cache
def is_marked(module: Path) -> bool:
    """Whether a test module says that it uses the engine: the scheduler knows only its text."""
    return "pytest.mark.engine" in module.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first; a test that uses the engine must say so."""
    items.sort(key=lambda item: _turn(item.path))
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "engine" in names and item.get_closest_marker("engine") is None:
            raise pytest.UsageError(f"{item.nodeid} uses the engine: mark it pytest.mark.engine")


# By their seconds: one that starts at the end leaves the other workers idle.
_LONGEST = (
    *("dagster/test_plan", "store/test_storage_faults", "dagster/test_diff_definitions"),
    *("dagster/test_dbt_contents", "dagster/test_dbt_deployments"),
    *("unit/guard/test_guard_printed_fixes", "registry/test_registry_faults"),
    *("dagster/test_whole_way", "pex/test_laws", "unit/state/test_publishing"),
    *("campaigns/test_faults", "dagster/test_removals"),
)


@functools.cache
def _turn(module: Path) -> tuple[int, int]:
    """What uses the engine, which is one worker's, then the longest, and unit tests at the end."""
    name = module.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    if name in _LONGEST:
        return 1, _LONGEST.index(name)
    if name.startswith("unit/"):
        return 3, 0
    return (0 if is_marked(module) else 2), 0
