"""Components are found as a load of the code location finds them, and shared only if they agree."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.listener import SILENT, Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh import known_components
from bundler.refresh.run import discover, refresh
from bundler.refresh.vendors import kind_of
from bundler.system import home
from tests.support.environments import DAGSTER_ALONE, ROOT, python_of
from tests.support.recording import RecordingListener

_RAISES = "raise RuntimeError('nothing in production imports this')\n"
_DEFS = "src/tiny/defs/listed/defs.yaml"
# What Dagster's documentation lets a component hold.
_RICH = """\
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from tiny.numbers import Numbers


@dataclass
class Rich(Numbers):
    automation: Any = field(default_factory=lambda: dg.AutomationCondition.eager())
    key: Any = field(default_factory=lambda: dg.AssetKey(["a", "b"]))
    partitions: Any = field(
        default_factory=lambda: dg.DailyPartitionsDefinition(start_date="2024-01-01")
    )
    secret: Any = field(default_factory=lambda: dg.EnvVar("TINY_NUMBERS"))
    refuses: Any = field(default_factory=lambda: Refuses())
    itself: Any = None

    def __post_init__(self):
        self.itself = {"self": self, "set": {1, "two"}, "deep": [[[[[[[["x"]]]]]]]]}


class Refuses(tuple):
    def __iter__(self):
        raise TypeError("Iteration is not allowed")

    def __getattr__(self, name):
        raise RuntimeError(name)
"""
_DBT = """\
from dagster_dbt import DbtProjectComponent


class Mixin:
    pass


class Ours(Mixin, DbtProjectComponent):
    pass


class OursAgain(Ours):
    pass
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "tiny"
    shutil.copytree(ROOT / "tests/projects/refresh_dagster", root)
    shutil.rmtree(root / "src/tiny/defs/hidden")
    monkeypatch.setenv("TINY_NAME", "primes")
    monkeypatch.setenv("TINY_NUMBERS", "2 3 5 7")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    return open_project(root, python=python_of(DAGSTER_ALONE))


def write(project: Project, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def numbers(**attributes: object) -> str:
    lines = [f"  {name}: {json.dumps(value)}\n" for name, value in attributes.items()]
    return "type: tiny.numbers.Numbers\nattributes:\n" + "".join(lines)


def keys_of(project: Project) -> list[str]:
    (found,) = discover([project], Listener())
    return sorted(component.key for component in found.components)


def test_unused_components_are_not_imported(project: Project) -> None:
    write(
        project,
        {
            "src/tiny/definitions.py": "import dagster as dg\n"
            "from dagster.components.core.component_tree import ComponentTree\n"
            "import tiny.own\n"
            "from pathlib import Path\n"
            "tree = ComponentTree.from_module(\n"
            "    defs_module=tiny.own, project_root=Path(__file__).parents[2])\n"
            "defs = tree.build_defs()\n",
            "src/tiny/own/__init__.py": "",
            "src/tiny/own/one/defs.yaml": numbers(name="own"),
            "src/tiny/defs/upload.py": _RAISES,
        },
    )
    assert keys_of(project) == ["Numbers[own]"]
    refreshed = refresh([project], RefreshOptions(), Listener())
    (bundle,) = refreshed.bundles
    assert bundle.root == project.root / "src/tiny/defs/.local_defs_state"


def test_a_location_ignores_components_that_it_does_not_use(project: Project) -> None:
    write(project, {"src/tiny/definitions.py": "import dagster as dg\ndefs = dg.Definitions()\n"})
    assert keys_of(project) == []


def test_a_location_that_needs_its_states_is_asked_for_its_tree(project: Project) -> None:
    write(
        project,
        {
            "src/tiny/definitions.py": "import dagster as dg\nfrom pathlib import Path\n"
            "@dg.definitions\n"
            "def defs():\n"
            "    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
            "    assert found.resolve_all_asset_specs(), 'needs its state'\n"
            "    return found\n"
        },
    )
    assert keys_of(project) == ["Numbers[primes]", "Numbers[primes]"]


def test_why_a_location_does_not_load_is_what_is_shown(project: Project) -> None:
    write(project, {"src/tiny/definitions.py": "import not_installed_at_all\n"})
    write(project, {_DEFS: "type: tiny.nowhere.Nothing\n"})
    with pytest.raises(ConfigurationError, match="not_installed_at_all"):
        keys_of(project)


def test_a_component_holds_whatever_dagster_allows(project: Project) -> None:
    write(project, {"src/tiny/rich.py": _RICH})
    write(project, {"src/tiny/defs/rich.py": "import dagster as dg\nfrom tiny.rich import Rich\n\n"
                    "@dg.component_instance\ndef load(context) -> Rich:\n"
                    "    return Rich(name='rich')\n"})  # fmt: skip
    refreshed = refresh([project], RefreshOptions(), Listener())
    assert "Numbers[rich]" in refreshed.changed


def test_a_subclass_is_its_vendors_component(project: Project) -> None:
    dbt = ROOT / "tests/projects/integration_dbt/orders"
    shutil.copytree(dbt, project.root / "orders")
    attributes = '\nattributes:\n  project: "{{ project_root }}/orders"\n'
    write(
        project,
        {
            "src/tiny/ours.py": _DBT,
            "src/tiny/defs/ours/defs.yaml": f"type: tiny.ours.OursAgain{attributes}",
        },
    )
    with_dbt = open_project(project.root, python=python_of("dagster"))
    (found,) = discover([with_dbt], Listener())
    (component,) = (item for item in found.components if item.kind == "tiny.ours.OursAgain")
    kind = kind_of(component)
    assert kind.pattern == "dagster_dbt.*"
    assert kind.writable


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [
        ({"name": "a"}, {"name": "a"}, True),
        ({"name": "a"}, {"name": "b"}, False),
        ({"name": "1"}, {"name": "1.0"}, False),
    ],
)
def test_a_shared_key_is_made_of_the_same_thing(
    first: dict[str, object], second: dict[str, object], agrees: bool, project: Project
) -> None:
    shared = {"defs_state": {"management_type": "LOCAL_FILESYSTEM", "key": "Shared"}}
    text = numbers(**first, **shared)
    write(project, {_DEFS: text, "src/tiny/defs/other/defs.yaml": numbers(**second, **shared)})
    listener = RecordingListener()
    if agrees:
        refresh([project], RefreshOptions(), listener)
        assert any(
            "Multiple components have the same defs state key" in x for x in listener.warnings
        )
    else:
        with pytest.raises(ConfigurationError, match=r"listed/defs\.yaml.*other/defs\.yaml") as no:
            refresh([project], RefreshOptions(), listener)
        assert "key: ANOTHER" in no.value.hint
        assert no.value.key == "Shared"


@pytest.mark.parametrize(
    ("text", "value", "whole"),
    [
        ("{{ env.TINY_NAME }}", None, False),
        ("{{ env.TINY_NAME }}", "", False),
        ("prod/{{ env.TINY_NAME }}", None, False),
        ("{{ env.TINY_NAME }}", "primes", True),
        ("{{ env('TINY_NAME', 'none-of-them') }}", None, True),
        ("", None, True),  # Tableau's default site has no name
    ],
)
def test_a_variable_that_is_not_set_is_not_part_of_a_key(
    text: str, value: str | None, whole: bool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("TINY_NAME")
    else:
        monkeypatch.setenv("TINY_NAME", value)
    write(project, {_DEFS: f'type: tiny.numbers.Numbers\nattributes:\n  name: "{text}"\n'})
    # The key is refused even where another is asked for.
    write(project, {"src/tiny/defs/other/defs.yaml": numbers(name="other")})
    options = RefreshOptions(keys=("Numbers[other]",))
    if whole:
        refresh([project], options, Listener())
        return
    with pytest.raises(ConfigurationError, match=r"TINY_NAME is not set") as refused:
        refresh([project], options, Listener())
    assert "listed/defs.yaml" in refused.value.what


def test_a_code_location_is_loaded_again_once_it_has_changed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "cache", lambda **_: tmp_path)
    time.sleep(2.1)  # a younger file proves nothing
    found = known_components.discover([project], SILENT, is_cached=True)
    assert known_components.recalled([project]) == found
    added = project.root / "src/tiny/defs/more/defs.yaml"
    added.parent.mkdir()
    shutil.copy(project.root / _DEFS, added)
    assert known_components.recalled([project]) is None
    shutil.rmtree(added.parent)
    assert known_components.recalled([project]) == found
    text = (project.root / _DEFS).read_text()
    (project.root / _DEFS).write_text(text.swapcase())
    assert known_components.recalled([project]) is None


def test_settings_without_a_key_and_code_of_another_checkout_are_reported(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(project.root, tmp_path / "other")
    monkeypatch.setenv("PYTHONPATH", str(other / "src"))
    with (project.root / "pyproject.toml").open("a") as file:
        file.write("[tool.state-bundler.keys]\n'Numbers[prime]' = {}\n'Numbers*' = {}\n")
    project = open_project(project.root, python=python_of(DAGSTER_ALONE))
    refresh([project], RefreshOptions(), listener := RecordingListener())
    (elsewhere,) = (text for text in listener.warnings if "imports the package" in text)
    (unused,) = (text for text in listener.warnings if "has no effect" in text)
    assert f"from {other}/src/tiny/defs, which is not in" in elsewhere
    assert '[tool.state-bundler.keys."Numbers[prime]"] has no effect' in unused
    assert unused.endswith("Did you mean 'Numbers[primes]'?")
