"""The Dagster source on the oldest supported Dagster and on the newest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import ConfigurationError, CredentialsRefused
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh.directories import VERSIONED
from bundler.refresh.forking import ForkServers
from bundler.refresh.run import discover, fetch_into, refresh
from tests.support.environments import DAGSTER_ALONE, ROOT, python_of
from tests.support.recording import RecordingListener


def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str) -> Project:
    root = tmp_path / "tiny"
    shutil.copytree(ROOT / "tests/projects/refresh_dagster", root)
    monkeypatch.setenv("TINY_NAME", "primes")
    monkeypatch.setenv("TINY_NUMBERS", "2 3 5 7")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    return open_project(root, python=python_of(environment))


@pytest.mark.parametrize("environment", [DAGSTER_ALONE, "dagster-oldest"])
def test_every_component_is_found_and_refreshed_once(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, environment)
    listener = RecordingListener()
    done = refresh([project], RefreshOptions(), listener)
    (bundle,) = done.bundles
    keys = ["Numbers[by-a-string]", "Numbers[not-at-all]", "Numbers[primes]"]
    assert [state.key for state in bundle.manifest.states] == keys
    assert bundle.place == "tiny/defs/.local_defs_state"
    state = bundle.root / "Numbers__primes__" / "state"
    assert json.loads(state.read_text()) == ["2", "3", "5", "7"]
    for key in keys[:2]:
        assert any(word.startswith(key) and "skips it" in word for word in listener.texts)
    assert any("is not installed" in word for word in listener.texts)
    (found,) = done.found
    shared = [component for component in found.components if component.key == "Numbers[primes]"]
    assert len(shared) == 2
    assert shared[0].key_variables == ("TINY_NAME",)
    refreshed = {item.key: item for item in done.record[0].keys}
    assert refreshed["Numbers[primes]"].environment_variables == ("TINY_NAME", "TINY_NUMBERS")


def test_what_a_project_prints_and_its_environment_file_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    (project.root / ".env").write_text('TINY_NAME="from the file"\n')
    module = project.root / "src/tiny/__init__.py"
    module.write_text('print(\'{"event": "found"}\', flush=True)\n')
    (found,) = discover([project], Listener())
    assert "Numbers[from the file]" in {component.key for component in found.components}


@pytest.mark.usefixtures("own_workers")
def test_projects_that_share_an_import_of_dagster_find_what_each_finds_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have a package ``tiny``; the file ``yaml.py`` of one is no library of Dagster."""
    first = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    shutil.copytree(first.root, tmp_path / "other")
    second = open_project(tmp_path / "other", python=first.interpreter.path)
    for file in (second.root / "src").rglob("*.*"):
        file.write_text(file.read_text().replace("Numbers", "Figures"))
    (second.root / "yaml.py").write_text("raise ImportError('not the library')")
    alone = [discover([project], Listener()) for project in (first, second)]
    passed, pass_on = [], ForkServers.pass_on

    def counted(*arguments: Any) -> bool:
        passed.append(pass_on(*arguments))
        return passed[-1]

    monkeypatch.setattr(ForkServers, "pass_on", counted)
    assert discover([first, second], Listener()) == (*alone[0], *alone[1])
    assert passed == [True, True]
    kinds = {component.kind for found in alone for item in found for component in item.components}
    assert kinds == {"tiny.numbers.Numbers", "tiny.numbers.Figures"}


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("src/tiny/defs/listed/defs.yaml", "type: tiny.nowhere.Nothing\n", "cannot be loaded"),
        ("src/tiny/numbers.py", "import not_installed_anywhere\n", "not_installed_anywhere"),
        ("src/tiny/__init__.py", "raise SystemExit(3)\n", "cannot be loaded"),
    ],
)
def test_a_project_that_does_not_load_is_an_error(
    file: str, content: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    (project.root / file).write_text(content)
    with pytest.raises(ConfigurationError, match=sentence) as failed:
        discover([project], Listener())
    assert "Traceback" not in failed.value.what
    assert failed.value.hint


def test_an_interpreter_without_dagster_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    project = open_project(tmp_path / "tiny", python=python_of("clients"))
    with pytest.raises(ConfigurationError, match="Dagster is not installed in") as failed:
        discover([project], Listener())
    assert "pip install -e ." in failed.value.hint  # the project names no other tool


def test_colliding_keys_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    yaml = project.root / "src/tiny/defs/listed/defs.yaml"
    yaml.write_text(yaml.read_text().replace("{{ env.TINY_NAME }}", "a/b", 1))
    monkeypatch.setenv("TINY_NAME", "a:b")
    with pytest.raises(ConfigurationError, match=r"a/b.*a:b"):
        refresh([project], RefreshOptions(), Listener())


def test_versioned_keys_are_fetched_for_a_storage_and_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    yaml = project.root / "src/tiny/defs/listed/defs.yaml"
    stored = "  defs_state:\n    management_type: VERSIONED_STATE_STORAGE\n"
    yaml.write_text(
        "".join(f"---\n{part.strip()}\n{stored}" for part in yaml.read_text().split("---"))
    )

    async def every(known: frozenset[str]) -> list[str]:
        return sorted(known)

    (fetched,) = fetch_into(
        tmp_path / "into",
        [project],
        RefreshOptions(),
        Listener(),
        types=(VERSIONED,),
        choose=every,
    )
    assert fetched.component.key == "Numbers[primes]"
    assert json.loads((fetched.directory / "state").read_text()) == ["2", "3", "5", "7"]
    assert fetched.refresh.environment_variables == ("TINY_NAME", "TINY_NUMBERS")
    assert not (project.root / "src/tiny/defs/.local_defs_state").exists()


def test_a_key_that_holds_a_secret_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = prepare(tmp_path, monkeypatch, DAGSTER_ALONE)
    monkeypatch.setenv("TINY_NAME", "canary-0123456789")
    monkeypatch.setenv("VENDOR_API_KEY", "canary-0123456789")
    with pytest.raises(CredentialsRefused, match="contains the value of VENDOR_API_KEY") as failed:
        refresh([project], RefreshOptions(), Listener())
    assert "canary" not in failed.value.what + failed.value.hint
