"""Which embedded states a program takes for its own."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from bundler.errors import ConfigurationError
from bundler.state.manifest import Contents, NonLocalKey, build
from bundler.store.embedded import VARIABLE, find
from tests.support.bundles import make_bundle

NEW, OLD = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "12")


def embed(directory: Path, version: str) -> None:
    """A state directory of a versioned key, as `--embed-versioned` makes it."""
    bundle = make_bundle(directory, {"A": {"state": version.encode()}})
    states = tuple(msgspec.structs.replace(it, version=version) for it in bundle.manifest.states)
    (directory / "@manifest.json").write_bytes(build(Contents(states)).raw)
    (directory.parent / "__init__.py").touch()


def pin(directory: Path, version: str) -> None:
    """A state directory that names the version of a key whose state is in a store."""
    directory.mkdir(parents=True, exist_ok=True)
    elsewhere = NonLocalKey("A", "VERSIONED_STATE_STORAGE", version)
    (directory / "@manifest.json").write_bytes(build(Contents((), (elsewhere,))).raw)
    (directory.parent / "__init__.py").touch()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("app", "site", "missing")])
    return tmp_path


def test_the_copy_of_a_package_that_is_not_imported_does_not_count(path: Path) -> None:
    embed(path / "site/shop/.local_defs_state", OLD)
    assert find().pins == {"A": OLD}
    embed(path / "app/shop/.local_defs_state", NEW)
    assert find().pins == {"A": NEW}
    assert find().find("A", NEW) is not None
    (path / "app/shop/.local_defs_state/@manifest.json").unlink()
    assert not find().pins, "the package that is imported has none"


def test_two_packages_with_versions_of_one_key_are_distinguished(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(path / "site/shop/.local_defs_state", NEW)
    embed(path / "site/till/.local_defs_state", NEW)
    assert find().pins == {"A": NEW}
    embed(path / "site/till/.local_defs_state", OLD)
    with pytest.raises(ConfigurationError, match="different versions of A") as error:
        find()
    assert VARIABLE in error.value.hint
    monkeypatch.setenv(VARIABLE, str(path / "site/shop"))
    assert find().pins == {"A": NEW}


def test_only_a_program_that_uses_pins_needs_them_to_agree(path: Path) -> None:
    embed(path / "site/shop/.local_defs_state", NEW)
    pin(path / "site/till/.local_defs_state", OLD)
    found = find()
    assert (found.pins, found.states.keys()) == ({"A": NEW}, {"A"})
    with pytest.raises(ConfigurationError, match="different versions of A"):
        find(pinned=True)
    pin(path / "site/till/.local_defs_state", NEW)
    assert find(pinned=True).pins == found.pins
