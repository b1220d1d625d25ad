"""Sources that share a key must fetch the same thing, or one would replace the other."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh

_PARTS = """\
from bundler.component import DefsStateConfig, StateBackedComponent

class One(StateBackedComponent):
    defs_state_config = DefsStateConfig("A")

    def write_state_to_path(self, state_path):
        state_path.write_text("[1]")

    def build_defs_from_state(self, context, state_path):
        return None

class Other(One):
    pass
"""
_ONE, _OTHER = 'component = "parts:One"', 'component = "parts:Other"'
_SCRIPT = 'import sys; open(sys.argv[1], "w").write("[{}]")'
_COMMAND = f"command = ['python', '-c', '{_SCRIPT}', '{{{{state_path}}}}']"
_FIRST, _SECOND = _COMMAND.format(1), _COMMAND.format(2)

pytestmark = pytest.mark.slow  # each starts a worker


def _source(what: str, path: str) -> str:
    return f'[[tool.state-bundler.source]]\nkey = "A"\n{what}\npath = "{path}"\n'


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [
        (_FIRST, _FIRST, True),
        (_FIRST, _SECOND, False),
        (_ONE, _ONE, True),
        (_ONE, _OTHER, False),
        (_ONE, _FIRST, False),
    ],
)
def test_sources_with_one_key_fetch_the_same(
    first: str, second: str, agrees: bool, tmp_path: Path
) -> None:
    (tmp_path / "parts.py").write_text(_PARTS)
    text = _source(first, "state") + _source(second, "state")
    (tmp_path / "pyproject.toml").write_text(text)
    project = open_project(tmp_path, python=Path(sys.executable))
    refused = pytest.raises(ConfigurationError, match="Two different components have the key 'A'")
    with nullcontext() if agrees else refused:
        refresh([project], RefreshOptions(), Listener())


@pytest.mark.parametrize("what", [_FIRST, _ONE])
def test_the_same_name_in_another_folder_is_another_source(what: str, tmp_path: Path) -> None:
    """In a state directory that two projects share, each would have its own state."""
    for folder, path in ((tmp_path, "inner/state"), (tmp_path / "inner", "state")):
        folder.mkdir(exist_ok=True)
        (folder / "parts.py").write_text(_PARTS.replace("[1]", f"[1, {len(path)}]"))
        (folder / "pyproject.toml").write_text(_source(what, path))
    projects = [
        open_project(it, python=Path(sys.executable)) for it in (tmp_path, tmp_path / "inner")
    ]
    with pytest.raises(ConfigurationError, match="Two different components"):
        refresh(projects, RefreshOptions(), Listener())
