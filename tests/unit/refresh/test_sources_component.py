"""A web service without Dagster: refreshed by us, and then up while its vendor is down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh.run import discover, refresh
from tests.support.environments import ROOT, python_of
from tests.support.vendor import RecordedVendor

ASK = """\
import json, sys
from fastapi.testclient import TestClient
from catalogue.app import app

with TestClient(app) as client:
    answers = [client.get(f"/products/{name}") for name in ("tea-assam", "nothing")]
print(json.dumps([[answer.status_code, answer.json().get("name")] for answer in answers]))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


pytestmark = pytest.mark.slow  # installs packages from the network


@pytest.fixture
def project(tmp_path: Path, vendor: RecordedVendor, monkeypatch: pytest.MonkeyPatch) -> Project:
    shutil.copytree(ROOT / "tests/projects/catalogue_service", tmp_path / "service")
    for name, value in vendor.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return open_project(tmp_path / "service", python=python_of("service"))


def _ask(project: Project) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(project.root / "src"), str(ROOT)])
    return subprocess.run(
        [python_of("service"), "-W", "ignore", "-c", ASK],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_answers_from_its_state_while_the_vendor_is_down(
    project: Project, vendor: RecordedVendor
) -> None:
    done = refresh([project], RefreshOptions(), Listener())
    assert done.bundles[0].place == "catalogue/state"
    assert done.record[0].keys[0].environment_variables == ("SHOP_API_TOKEN", "SHOP_API_URL")
    vendor.stop()
    answer, modules = _ask(project).stdout.splitlines()
    assert json.loads(answer) == [[200, "Assam tea"], [404, None]]
    assert not {"msgspec", "click", "stamina", "git", "docker"} & set(json.loads(modules))


def test_the_service_does_not_start_without_its_state_or_with_an_altered_one(
    project: Project,
) -> None:
    assert "There is no state for 'Catalogue[products]'" in _ask(project).stderr
    refresh([project], RefreshOptions(), Listener())
    (project.root / "src/catalogue/state/Catalogue__products__/state").write_text("[]")
    assert "does not match the manifest" in _ask(project).stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("catalogue.vendor:Nothing", "has no Nothing"),
        ("catalogue.nowhere:Catalogue", "No module named 'catalogue.nowhere'"),
        ("json:dumps", "missing 1 required positional argument"),
        ("pathlib:Path", "not a state-backed component"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error(name: str, sentence: str, project: Project) -> None:
    file = project.root / "pyproject.toml"
    file.write_text(file.read_text().replace("catalogue.vendor:Catalogue", name))
    with pytest.raises(ConfigurationError, match=sentence) as failed:
        discover([open_project(project.root, python=python_of("service"))], Listener())
    assert name in failed.value.what


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (r"'Shop[\udc80]', local", r"has the key 'Shop\[\\udc80\]', not text"),
        (r"'Shop[\ud83d]', local", r"has the key 'Shop\[\\ud83d\]', not text"),
        ("5, local", "has the key 5, not text"),
        ("None, local", "has the key None, not text"),
        ("b'Shop', local", "has the key b'Shop', not text"),
        ("'Shop', 'ELSEWHERE'", "Invalid enum value 'ELSEWHERE'"),
        ("'Shop', local, 'no'", "Expected `bool`, got `str`"),
    ],
)
def test_a_component_that_describes_itself_wrongly_is_an_error(
    config: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "from bundler.component import DefsStateConfig, StateBackedComponent\n"
        "local = 'LOCAL_FILESYSTEM'\n"
        "class Shop(StateBackedComponent):\n"
        f"    defs_state_config = DefsStateConfig({config})\n"
        "    def write_state_to_path(self, path): pass\n"
        "    def build_defs_from_state(self, context, path): pass\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.state-bundler.source]]\ncomponent = "shop:Shop"\npath = "state"\n'
    )
    with pytest.raises(ConfigurationError, match=sentence):
        discover([open_project(tmp_path, python=Path(sys.executable))], Listener())


@pytest.mark.parametrize(
    ("imports", "files", "says"),
    [
        ("bundler.component", {"poetry.lock": ""}, "Add it: poetry add 'state-bundler"),
        ("bundler.component", {"uv.lock": ""}, "Add it: uv add 'state-bundler"),
        ("no_such_client", {"pixi.toml": ""}, "Install the project (pixi install)"),
        ("no_such_client", {"pyproject.lock": ""}, "Install the project (pip install -e .)"),
    ],
)
def test_a_package_that_is_missing_is_named_with_where_to_install_it(
    imports: str, files: dict[str, str], says: str, tmp_path: Path, without_us: Path
) -> None:
    (tmp_path / "shop.py").write_text(f"import {imports}\n")
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.state-bundler.source]]\ncomponent = "shop:Catalogue"\npath = "state"\n'
    )
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match="ModuleNotFoundError") as failed:
        discover([open_project(tmp_path, python=without_us)], Listener())
    assert says in failed.value.hint
    assert f"not installed in {without_us}" in failed.value.hint


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has nothing installed."""
    home = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(home)
    return home / "bin" / "python"
