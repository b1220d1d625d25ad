"""`init` in the root of each kind of repository: the projects with state get their lines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bundler.project.config import read_toml
from bundler.project.no_project import way_out
from bundler.project.projects import find_interpreter
from bundler.project.survey import Together, survey
from bundler.setup.doctor import DoctorContext, fixes
from bundler.setup.doctor.components import how_to_get_state
from bundler.setup.file_edits import apply
from bundler.setup.init import chosen, plan
from bundler.setup.init.workflow import default_registry
from tests.support.shapes import ALL, ON_DEFAULT_BRANCH, SHAPES
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.slow

# Of each shape: what the matrix has for a project; None where nothing is configured.
_SHA = "${{ github.sha }}"
_GHCR = "ghcr.io/acme"
ENTRIES = {
    "workspace_uv": {"locations/orders": (f"{_GHCR}/orders", "locations/orders")},
    "workspace_dg": {"projects/orders": (f"{_GHCR}/orders", "projects/orders")},
    "nested": {"pipeline/scheduler": (f"{_GHCR}/scheduler", "pipeline/scheduler")},
    "classic_dbt": {"dagster_project": (f"{_GHCR}/jaffle", ".")},
    "build_arg": {
        "orders": ("ghcr.io/acme/orders", "--build-arg CODE_LOCATION=orders ."),
        "stock": ("ghcr.io/acme/stock", "--build-arg CODE_LOCATION=stock ."),
    },
    "compose": {
        ".": (
            "registry.example.com/data/warehouse",
            "--file docker/user_code.Dockerfile --target prod --build-arg CHANNEL=stable .",
        )
    },
    "dagster_cloud": {"billing": ("registry.example.com/data/billing", "billing")},
    "poetry": {".": (f"{_GHCR}/poetry", ".")},
    "pixi": {".": (f"{_GHCR}/pixi", ".")},
    "requirements": {".": (f"{_GHCR}/requirements", ".")},
    "no_pyproject": {".": (f"{_GHCR}/no_pyproject", ".")},
}
# What no image ships.
ARTIFACTS = {
    "pants": ("src/python/feeds", "dist/src.python.feeds/feeds.pex"),
    "poetry_wheel": (".", "dist/*.whl"),
}
_BUILT = '[project]\nname = "a"\n[build-system]\nbuild-backend = "hatchling.build"\nrequires = []\n'
# Without a source there is no state yet.
WITHOUT_STATE = ("snapshot", "tool_dagster", "workspace_yaml")


@pytest.fixture
def shape(request: pytest.FixtureRequest, tmp_path: Path) -> WorkDir:
    wd = WorkDir.make(tmp_path / request.param)
    wd(["git", "symbolic-ref", "HEAD", f"refs/heads/{ALL[request.param].branch}"])
    wd("git remote add origin git@github.com:Acme/things.git")
    shutil.copytree(SHAPES / request.param, wd.path, dirs_exist_ok=True)
    wd.write(".github/CODEOWNERS", "* @data\n")
    wd.commit("the shape")
    return wd


def _workflow(wd: WorkDir) -> Path:
    return wd.path / ".github/workflows/state-bundler.yml"


def _jobs(wd: WorkDir) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(_workflow(wd).read_text())["jobs"]
    return jobs


@pytest.mark.parametrize("shape", ALL, indirect=True)
def test_what_is_written_fits_and_goes_again(shape: WorkDir) -> None:
    name = shape.path.name
    found = chosen(shape.path)
    apply(plan(*found))
    assert plan(*chosen(shape.path)) == []

    if name in WITHOUT_STATE:
        assert not _workflow(shape).exists()
        return
    text = _workflow(shape).read_text()
    jobs = yaml.safe_load(text)["jobs"]
    built = {
        entry["project"]: (entry["image"].removesuffix(f":{_SHA}"), entry["build"])
        for entry in jobs.get("image", {}).get("strategy", {}).get("matrix", {}).get("include", ())
    }
    assert built == ENTRIES.get(name, {})
    made = jobs.get("artifact", {}).get("strategy", {}).get("matrix", {}).get("include", ())
    expected = ARTIFACTS.get(name)
    assert [(entry["project"], entry["file"]) for entry in made] == ([expected] if expected else [])
    for job in (jobs[each] for each in ("image", "artifact") if each in jobs):
        assert job["if"] == ON_DEFAULT_BRANCH
    from check_jsonschema import main  # half a second, in every process that collects this

    words = ["--builtin-schema", "vendor.github-workflows", str(_workflow(shape))]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output

    apply(plan(*chosen(shape.path), remove=True))
    assert shape("git status --porcelain") == ""


@pytest.mark.parametrize("shape", ["workspace_uv", "workspace_dg"], indirect=True)
def test_a_workspace_has_its_rules_once_and_its_lines_where_state_is(shape: WorkDir) -> None:
    apply(plan(*chosen(shape.path)))
    changed = [line[3:] for line in shape("git status --porcelain -uall").splitlines()]
    (state,) = ALL[shape.path.name].states
    assert sorted(changed) == sorted(
        [
            ".github/workflows/state-bundler.yml",
            ".gitignore",
            ".pre-commit-config.yaml",
            f"{state}/.dockerignore",
            f"{state}/pyproject.toml",
        ]
    )


@pytest.mark.parametrize("shape", ["build_arg"], indirect=True)
def test_doctor_fixes_a_workspace_as_init_does(shape: WorkDir) -> None:
    states = tuple(shape.path / name for name in ALL["build_arg"].states)
    edits = {
        edit.path.relative_to(shape.path).as_posix() for edit in fixes(Together(shape.path, states))
    }
    assert edits == {".dockerignore", ".gitignore"}
    apply(fixes(Together(shape.path, states)))
    assert shape.path.joinpath(".gitignore").read_text().count(".local_defs_state") == 1
    assert fixes(Together(shape.path, states)) == []


@pytest.mark.parametrize("shape", ["no_pyproject"], indirect=True)
def test_a_project_without_state_gets_no_workflow(shape: WorkDir) -> None:
    shutil.rmtree(shape.path / "loans/defs/warehouse")
    (shape.path / "loans/tables.py").unlink()
    apply(plan(*chosen(shape.path)))
    assert not _workflow(shape).exists()


@pytest.mark.parametrize("shape", ["pixi"], indirect=True)
def test_what_no_image_has_pixi_installs(shape: WorkDir) -> None:
    (shape.path / "Dockerfile").unlink()
    shape.write("pyproject.toml", _BUILT)
    apply(plan(*chosen(shape.path)))
    job = _jobs(shape)["artifact"]
    (entry,) = job["strategy"]["matrix"]["include"]
    assert entry["prepare"].startswith("pixi install --manifest-path ./pixi.toml")
    used = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
    assert "prefix-dev/setup-pixi" in used
    shape.write(".pixi/envs/default/bin/python", "")
    found = find_interpreter(shape.path, shape.path, environ={})
    assert found.path == shape.path / ".pixi/envs/default/bin/python"


@pytest.mark.parametrize("shape", ["pixi"], indirect=True)
@pytest.mark.parametrize(
    ("lines", "python"),
    [
        ("ENV PYTHONPATH=/app/src", ""),
        ("RUN pixi install --locked", ".pixi/envs/default"),
        ("RUN pixi install --locked -e prod && pixi clean", ".pixi/envs/prod"),
        ("COPY --from=build /app/.pixi/envs/prod /app/.pixi/envs/prod", "/app/.pixi/envs/prod"),
    ],
)
def test_the_interpreter_that_pixi_installs_in_the_image_is_named(
    shape: WorkDir, lines: str, python: str
) -> None:
    shape.write("Dockerfile", f"FROM ubuntu:24.04\nWORKDIR /app\nCOPY . .\n{lines}\n")
    apply(plan(*chosen(shape.path)))
    (image,) = _jobs(shape)["image"]["strategy"]["matrix"]["include"]
    option = f" --in-python {python}/bin/python" if python else ""
    assert image["options"] == f"--in state-bundler/code{option}"


@pytest.mark.parametrize("shape", ["workspace_uv"], indirect=True)
def test_without_state_nothing_is_configured(shape: WorkDir) -> None:
    shutil.rmtree(shape.path / "locations/orders")
    assert chosen(shape.path) == []


@pytest.mark.parametrize("shape", ["classic_dbt"], indirect=True)
def test_the_source_of_a_classic_dbt_project_is_written(shape: WorkDir) -> None:
    apply(plan(*chosen(shape.path)))
    (source,) = read_toml(shape.path / "dagster_project/pyproject.toml")["tool"]["state-bundler"][
        "source"
    ]
    assert source["command"][:2] == ["dbt", "parse"]
    assert source["path"] == "jaffle/dbt_state"
    assert "/dagster_project/jaffle/dbt_state" in (shape.path / ".gitignore").read_text()
    assert (shape.path / ".dockerignore").exists()  # in the context, which is the repository
    text = _workflow(shape).read_text()
    assert "run: state-bundler guard dagster_project/jaffle/dbt_state\n" in text


@pytest.mark.parametrize("shape", ["classic_dbt"], indirect=True)
def test_the_program_of_a_source_is_installed(shape: WorkDir) -> None:
    """Also for a project whose dependencies only setup.py has, in an image and without one."""
    shape.write("dagster_project/pyproject.toml", "[tool.dagster]\nmodule_name = 'jaffle'\n")
    shape.write("dagster_project/setup.py", "from setuptools import setup\nsetup()\n")
    apply(plan(*chosen(shape.path)))
    venv = "dagster_project/.venv"
    expected = f"uv venv {venv} && uv pip install --python {venv} -e dagster_project"
    (image,) = _jobs(shape)["image"]["strategy"]["matrix"]["include"]
    assert (image["prepare"], image["options"]) == (expected, "")
    _workflow(shape).unlink()
    (shape.path / "Dockerfile").unlink()
    apply(plan(*chosen(shape.path)))
    (artifact,) = _jobs(shape)["artifact"]["strategy"]["matrix"]["include"]
    assert artifact["prepare"] == expected


@pytest.mark.parametrize("shape", ["classic_dbt"], indirect=True)
def test_a_dg_project_learns_how_its_manifest_becomes_state(shape: WorkDir) -> None:
    root = shape.path / "dagster_project"
    shape.write("dagster_project/dg.toml", '[project]\nroot_module = "jaffle"\n')
    advice = how_to_get_state(DoctorContext(survey(root)))
    assert "jaffle/definitions.py loads dbt's models from a manifest" in advice
    assert 'path = "jaffle/dbt_state"' in advice


@pytest.mark.parametrize("shape", ["tool_dagster"], indirect=True)
@pytest.mark.parametrize(
    ("call", "component"),
    [
        ("load_airbyte_cloud_asset_specs(w)", "dagster_airbyte.AirbyteWorkspaceComponent"),
        ("build_fivetran_assets_definitions(w)", "dagster_fivetran.FivetranAccountComponent"),
        ("load_powerbi_asset_specs(w)", "dagster_powerbi.PowerBIWorkspaceComponent"),
        ("dbt_cloud_assets(w)", "dagster_dbt.DbtCloudComponent"),
    ],
)
def test_what_is_asked_at_every_load_has_a_component(
    shape: WorkDir, call: str, component: str
) -> None:
    name = call.partition("(")[0]
    shape.write("etl/vendor.py", f"from x import {name}\n")
    assert "vendor" not in way_out(shape.path, [])
    use = f"@{call}\n" if name.endswith("_assets") else f"specs = {call}\n"
    shape.write("etl/vendor.py", f"from x import {name}\n{use}")
    for advice in (
        way_out(shape.path, []),
        how_to_get_state(DoctorContext(survey(shape.path))),
    ):
        assert f"etl/vendor.py calls {name}" in advice
        assert f"Replace the call with the component {component}, which keeps" in advice


@pytest.mark.parametrize("shape", ["compose"], indirect=True)
def test_no_wheel_is_tried_where_only_a_declared_image_is_built(shape: WorkDir) -> None:
    assert not DoctorContext(survey(shape.path)).makes_wheels
    shape.write("Makefile", "dist:\n\tuv build\n")
    assert DoctorContext(survey(shape.path)).makes_wheels


@pytest.mark.parametrize(
    ("url", "registry"),
    [
        ("git@github.com:Acme/things.git", "ghcr.io/acme"),
        ("https://github.com/acme-data/things", "ghcr.io/acme-data"),
        ("ssh://git@git.example.com/acme/things", "ghcr.io/${{ github.repository_owner }}"),
        (None, "ghcr.io/${{ github.repository_owner }}"),
    ],
)
def test_the_registry_is_the_owners(wd: WorkDir, url: str | None, registry: str) -> None:
    if url:
        wd(["git", "remote", "add", "upstream", url])
    assert default_registry(wd.path) == registry


@pytest.mark.parametrize("shape", ["nested"], indirect=True)
def test_a_registry_that_is_given_is_used(shape: WorkDir) -> None:
    apply(plan(*chosen(shape.path, registry="registry.example.com/team")))
    text = _workflow(shape).read_text()
    assert f'image: "registry.example.com/team/scheduler:{_SHA}"' in text
    assert 'registry: "registry.example.com"' in text
    apply(plan(*chosen(shape.path), remove=True))
    assert not _workflow(shape).exists()
