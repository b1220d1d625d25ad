"""`bundler.refresh.run` on the sample project: a real Dagster, a real dbt, HTTP on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.errors import Unavailable
from bundler.listener import KeyProgress
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh.run import Refreshed, discover, refresh
from tests.support.recording import RecordingListener
from tests.support.sample import Sample
from tests.support.vendor import RecordedVendor

CATALOG = "VendorCatalog[products]"


@pytest.fixture
def project(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name, value in sample.env.items():
        monkeypatch.setenv(name, value)
    return open_project(sample.root)


def digests(directory: Path) -> dict[str, str]:
    """Every file's digest, but for what stays on this machine."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "@staging" not in path.parts and path.name != "@run.json"
    }


def run(project: Project, *keys: str, **options: object) -> tuple[Refreshed, RecordingListener]:
    listener = RecordingListener()
    done = refresh([project], RefreshOptions(keys=keys, **options), listener)  # type: ignore[arg-type]
    return done, listener


def test_discovery_reports_every_component_without_fetching(
    project: Project, vendor: RecordedVendor
) -> None:
    (found,) = discover([project], RecordingListener())
    assert {c.key: c.management_type for c in found.components} == {
        "VendorCatalog[products]": "LOCAL_FILESYSTEM",
        "DbtProjectComponent[warehouse]": "LOCAL_FILESYSTEM",
        "VendorCatalog[suppliers]": "VERSIONED_STATE_STORAGE",
        "ShopCalendar[2026]": "LEGACY_CODE_SERVER_SNAPSHOTS",
    }
    assert found.place == "shop/defs/.local_defs_state"
    assert not vendor.requests


def test_a_stopped_api_is_reported_by_key_host_and_event_and_nothing_is_lost(
    project: Project, sample: Sample, vendor: RecordedVendor
) -> None:
    run(project, CATALOG)
    before = digests(sample.state_directory)
    address = vendor.url.removeprefix("http://")
    vendor.stop()
    with pytest.raises(Unavailable) as failed:
        run(project, CATALOG)
    assert failed.value.exit_code == 69
    assert failed.value.key == CATALOG
    assert f"{address} refused the connection" in failed.value.what
    assert "Traceback" not in failed.value.what
    assert digests(sample.state_directory) == before


def test_a_temporary_failure_is_retried(project: Project, vendor: RecordedVendor) -> None:
    vendor.faults["/v1/products"] = 503

    class Recovering(RecordingListener):
        def key(self, progress: KeyProgress) -> None:
            super().key(progress)
            if progress.phase == "retrying":
                vendor.faults.clear()

    listener = Recovering()
    done = refresh([project], RefreshOptions(keys=(CATALOG,)), listener)
    assert done.record[0].keys[0].attempts == 2
    phases = [item.phase for item in listener.progress]
    assert phases == ["fetching", "retrying", "fetching", "done"]
