"""Fixtures that more than one module uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sample as sample_module
from engine import engine  # noqa: F401  # a fixture: session-wide only if it has one home
from sample import Sample
from workdir import WorkDir

from bundler.demo.vendor import VendorApi


@pytest.fixture
def vendor() -> Iterator[VendorApi]:
    """A running vendor's API with its standard catalogues."""
    with VendorApi() as api:
        yield api


@pytest.fixture
def sample(tmp_path: Path, vendor: VendorApi) -> Sample:
    """The sample project in a git repository with one commit, its environment, a running API."""
    return sample_module.make_repository(tmp_path / "shop", vendor.environment)


@pytest.fixture
def wd(tmp_path: Path) -> WorkDir:
    """A new git repository, with commands that run in it and an empty home."""
    return WorkDir.make(tmp_path / "repository")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers a module stays whole, and all that needs the engine is together.

    So what a module has made once serves all its tests, and there is one engine.
    """
    for item in items:
        needs_engine = "engine" in getattr(item, "fixturenames", ())
        group = "engine" if needs_engine else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
