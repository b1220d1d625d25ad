"""A refresh removes what it published itself, of keys that no component has any more."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.workflows.state_from import replay
from tests.support.recording import RecordingListener
from tests.support.untouched import everything

_COMPONENTS = """\
from bundler.component import DefsStateConfig, StateBackedComponent

class One(StateBackedComponent):
    defs_state_config = None

    def __init__(self, key):
        self.defs_state_config = DefsStateConfig(key)

    def write_state_to_path(self, state_path):
        state_path.write_text("1")

    def build_defs_from_state(self, context, state_path):
        return None

def every():
    return [One(key) for key in KEYS]
"""
_PROJECT = """\
[[tool.state-bundler.source]]
component = "parts:every"
path = "state"
"""
Refresh = Callable[..., RecordingListener]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text(_PROJECT)
    return root


def _refresh(root: Path, *keys: str) -> RecordingListener:
    """A refresh with components for these keys."""
    (root / "parts.py").write_text(f"KEYS = {list(keys)!r}\n{_COMPONENTS}")
    listener = RecordingListener()
    refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), listener)
    return listener


@pytest.mark.slow
def test_a_key_without_a_component_is_removed(project: Path) -> None:
    _refresh(project, "a", "b")
    listener = _refresh(project, "a")
    assert not (project / "state/b").exists()
    assert any("Removed b: no component has that key any more" in word for word in listener.texts)


def test_a_project_without_components_keeps_its_states(project: Path) -> None:
    _refresh(project, "a", "b")
    before = everything(project / "state")
    listener = _refresh(project)
    assert everything(project / "state") == before
    assert any("No component was found for state" in word for word in listener.texts)
    assert any("2 states" in word for word in listener.texts)


def test_a_failed_discovery_keeps_all_states(project: Path) -> None:
    _refresh(project, "a", "b")
    before = everything(project / "state")
    (project / "parts.py").write_text("1/0")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        refresh(
            [open_project(project, python=Path(sys.executable))],
            RefreshOptions(),
            RecordingListener(),
        )
    assert everything(project / "state") == before


@pytest.mark.slow
@pytest.mark.parametrize("are_known", [True, False])
def test_the_states_of_an_artifact_are_embedded_and_the_published_ones_stay(
    project: Path, tmp_path: Path, *, are_known: bool
) -> None:
    _refresh(project, "a")
    shutil.copytree(project / "state", tmp_path / "older")
    _refresh(project, "a", "b")
    code = f"KEYS = ['a']\n{_COMPONENTS}" if are_known else "1/0"
    (project / "parts.py").write_text(code)
    opened = [open_project(project, python=Path(sys.executable))]
    before = everything(project / "state")
    with ExitStack() as held:
        (bundle,) = replay(opened, str(tmp_path / "older"), RecordingListener(), held).bundles
        names = {member.path for member in bundle.members()}
    assert names == {"@manifest.json", "@verify.py", ".gitignore", "a/state"}
    assert everything(project / "state") == before
