from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from bundler.component import StateError
from bundler.component_storage import StoreStateStorage


def test_the_storage_of_a_program_without_dagster(tmp_path: Path) -> None:
    storage = StoreStateStorage(f"file://{tmp_path}/store")
    assert storage.get_latest_version("Catalogue") is None
    state = tmp_path / "mine"
    (state / "below").mkdir(parents=True)
    (state / "below" / "file").write_text("1")
    first = storage.store("Catalogue", state)
    (state / "below" / "file").write_text("2")
    second = storage.store("Catalogue", state)
    assert storage.get_latest_version("Catalogue") == second
    storage.set_latest_version("Catalogue", first)
    fresh = StoreStateStorage(f"file://{tmp_path}/store")
    assert fresh.get_latest_version("Catalogue") == first
    for version, text in ((first, "1"), (second, "2")):
        target = tmp_path / text / "state"
        fresh.download_state_to_path("Catalogue", version, target)
        assert (target / "below" / "file").read_text() == text


@pytest.mark.parametrize("key", ["Catalogue", "Other"])
def test_a_version_that_is_not_the_keys(tmp_path: Path, key: str) -> None:
    storage = StoreStateStorage(f"file://{tmp_path}/store")
    (tmp_path / "state").write_text("1")
    mine = storage.store("Catalogue", tmp_path / "state")
    version = mine if key == "Other" else str(uuid.uuid4())
    with pytest.raises(StateError, match=version):
        storage.download_state_to_path(key, version, tmp_path / "out")
    with pytest.raises(StateError, match=version):
        storage.set_latest_version(key, version)
