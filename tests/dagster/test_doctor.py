"""`doctor`: each trap is named with its reason and the line that fixes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.refresh.model import Component, Found, Looked
from bundler.setup.doctor import (
    DoctorContext,
    Examined,
    Finding,
    components,
    docker,
    examine,
    packaging,
    state,
)
from bundler.setup.doctor.environment import interpreter
from tests.support import sample as sample_module
from tests.support.bundles import make_bundle
from tests.support.sample import Sample
from tests.support.vendor import RecordedVendor
from tests.support.workdir import WorkDir

PYPROJECT = """\
[project]
name = "shop"
version = "1"

[build-system]
requires = ["{backend}"]
build-backend = "{backend}"

[tool.dg.project]
root_module = "shop"
"""


def _project(root: Path, backend: str = "hatchling.build") -> Path:
    (root / "src" / "shop" / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT.format(backend=backend))
    (root / "src/shop/defs/defs.yaml").write_text("type: vendor.Unknown\n")
    return root


def _grades(findings: Sequence[Finding]) -> list[str]:
    return [finding.grade for finding in findings]


def _by_title(examined: Sequence[Examined]) -> dict[str, tuple[Finding, ...]]:
    return {check.title: check.findings for check in examined}


def _doctor(sample: Sample, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "bundler", "doctor", *arguments)
    return sample.run(*command, check=False)


# --- everything -------------------------------------------------------------------------------


_PLAIN = """\
import os, time
import dagster as dg
with open(os.path.join(os.path.dirname(__file__), "loads.txt"), "a") as stream:
    stream.write(".")
time.sleep(1.1)
class Plain(dg.Component, dg.Model, dg.Resolvable):
    token: str | None
    def build_defs(self, context):
        return dg.Definitions()
"""


def test_the_sample_project_has_no_failure_and_its_legacy_component_is_named(
    sample: Sample, vendor: RecordedVendor
) -> None:
    components = sample.root / "src/shop/components"
    (components / "plain.py").write_text(_PLAIN)
    plain = sample.root / "src/shop/defs/plain/defs.yaml"
    plain.parent.mkdir()
    plain.write_text(
        "type: shop.components.plain.Plain\nattributes:\n  token: '{{ env.NOT_SET_HERE }}'\n"
    )
    done = _doctor(sample, "--format=json")
    assert done.returncode == 0, done.stdout
    # The components are loaded once, that is announced, and nobody is asked.
    assert (components / "loads.txt").read_text() == "."
    assert "Loading the project's components …\n" in done.stderr
    assert vendor.requests == []
    report = json.loads(done.stdout)
    findings = [finding for check in report["checks"] for finding in check["findings"]]
    assert report["schemaVersion"] == 2
    assert [finding["grade"] for finding in findings if finding["grade"] == "fail"] == []
    texts = "\n".join(finding["what"] for finding in findings)
    assert "VendorCatalog[products], DbtProjectComponent[warehouse]" in texts
    assert "ShopCalendar[2026]" in texts
    assert "No external system was contacted" in texts
    assert "NOT_SET_HERE, which is not set. No component there has state" in texts
    (held,) = [finding["what"] for finding in findings if "will contain" in finding["what"]]
    assert "VendorCatalog[suppliers]" not in held


def test_reach_asks_each_system_with_the_same_load(sample: Sample, vendor: RecordedVendor) -> None:
    vendor.token = "another"
    done = _doctor(sample, "--reach")
    assert done.returncode == 1
    assert "VendorCatalog[products]: " in done.stderr
    assert "✗ findings (1): VendorCatalog[suppliers]: " in done.stderr
    assert {request.target.partition("?")[0] for request in vendor.requests} == {
        "/v1/products",
        "/v1/suppliers",
    }


def test_fix_repairs_what_is_safe_and_the_report_says_so(sample: Sample) -> None:
    ignore = sample.root / ".gitignore"
    ignore.write_text(ignore.read_text().replace(".local_defs_state\n", ""))
    pyproject = sample.root / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text().replace('artifacts = ["**/.local_defs_state/**"]\n', "")
    )
    sample.git("commit", "--quiet", "--all", "--message=Take the rules away")
    key_directory = sample.state_directory / "VendorCatalog__products__"
    key_directory.mkdir(parents=True)
    (key_directory / "state").write_text("[]")

    before = _doctor(sample)
    assert before.returncode == 1
    assert "git add -A would add" in before.stderr
    assert "`state-bundler doctor --fix` fixes some of this. Exit code 1." in before.stderr

    after = _doctor(sample, "--fix")
    assert after.returncode == 0, after.stdout
    assert "+.local_defs_state" in after.stderr
    assert 'artifacts = ["**/.local_defs_state/**"]' in pyproject.read_text()


def test_outside_of_a_repository_that_is_a_failure_and_the_rest_is_still_examined(
    tmp_path: Path,
) -> None:
    sample = sample_module.make(tmp_path / "shop")
    report = _by_title(list(examine(sample.root)))
    assert _grades(report["repository"]) == ["fail"]
    assert "not in a git repository" in report["repository"][0].what
    assert _grades(report["interpreter"]) == ["ok"]


def test_in_a_folder_that_is_not_a_project_the_message_says_what_to_do(tmp_path: Path) -> None:
    report = _by_title(list(examine(tmp_path, python=Path(sys.executable))))
    assert _grades(report["configuration"]) == ["ok", "fail"]
    assert "[[tool.state-bundler.source]]" in report["configuration"][1].fix
    assert list(report) == ["configuration"]  # there is nothing else to say


# --- the interpreter --------------------------------------------------------------------------


def test_an_interpreter_without_dagster_is_a_failure(tmp_path: Path) -> None:
    patient = DoctorContext(survey(_project(tmp_path)), python=Path(sys.executable))
    (finding,) = interpreter(patient)
    assert finding.grade == "fail"
    whole = _by_title(list(examine(patient.survey.root, python=patient.python)))
    assert [title for title, found in whole.items() if finding in found] == ["interpreter"]
    assert whole["components"] == whole["external systems"] == ()
    assert finding.fix == (
        "Install the project (pip install -e .), or pass its interpreter with --python."
    )
    assert "Dagster is not installed" in finding.what


def test_a_project_without_state_fails_nothing_where_it_is_not_installed(tmp_path: Path) -> None:
    root = _project(tmp_path)
    (root / "src/shop/defs/defs.yaml").unlink()
    report = _by_title(list(examine(root, python=Path(sys.executable))))
    (finding,) = report["interpreter"]
    assert finding.grade == "warn"
    assert finding.is_stateless
    assert list(report)[-1] == "interpreter"  # the rest would be about a state that is not there


# --- the build backend ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "rule", "grade"),
    [
        ("hatchling.build", ".local_defs_state\n", "fail"),
        ("hatchling.build", "", "warn"),
        ("setuptools.build_meta", "", "fail"),
        ("poetry.core.masonry.api", "", "fail"),
        ("uv_build", ".local_defs_state\n", "ok"),
        ("flit_core.buildapi", ".local_defs_state\n", "ok"),
        ("pdm.backend", ".local_defs_state\n", "ok"),
        ("mesonpy", "", "warn"),
    ],
)
def test_a_backend_that_is_not_installed_is_guessed(
    tmp_path: Path, backend: str, rule: str, grade: str
) -> None:
    root = _project(tmp_path, backend)
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace('requires = ["', 'requires = ["no-'))
    (root / ".gitignore").write_text(rule)
    (finding,) = packaging.backend(DoctorContext(survey(root)))
    assert finding.grade == grade
    assert finding.what.startswith("Could not try: ")
    assert "; guess: " in finding.what
    if backend == "mesonpy":
        assert finding.what.endswith("; guess: mesonpy may exclude the state from a wheel.")
    elif grade != "ok":
        assert finding.fix.startswith("Set this in pyproject.toml:\n[tool.")
        assert finding.part == "backend"


@pytest.mark.parametrize(
    ("files", "grade"),
    [
        ({}, "fail"),  # what else would it make?
        ({"Dockerfile": "FROM x\nRUN uv sync\n"}, "warn"),
        ({"Dockerfile": "FROM x\nRUN uv build\n"}, "fail"),
        ({"Dockerfile": "FROM x\n", "Makefile": "app:\n\tpex . -o app.pex\n"}, "fail"),
        ({"Dockerfile": "FROM x\n", ".github/workflows/a.yml": "run: python -m build"}, "fail"),
        ({"Dockerfile": "FROM x\n", ".github/workflows/a.yml": "run: docker build ."}, "warn"),
        ({"Dockerfile": "FROM x\n", ".gitlab-ci.yml": "- state-bundler build pex -o x"}, "fail"),
        ({"Dockerfile": "FROM x\n", "buildspec.yml": "- uv build"}, "fail"),
        ({"Dockerfile": "FROM x\n", "cloudbuild.yaml": "args: ['-m', 'build']"}, "fail"),
        ({"Dockerfile": "FROM x\n", "bitbucket-pipelines.yml": "- pyproject-build"}, "fail"),
        ({"Dockerfile": "FROM x\n", "scripts/release.sh": "python3.11 -m build"}, "fail"),
        ({"Dockerfile": "FROM x\n", ".github/actions/w/action.yml": "run: uv build"}, "fail"),
        ({"Dockerfile": "FROM x\n", ".gitlab/ci/wheel.yml": "- pip3.12 wheel ."}, "fail"),
        ({"Dockerfile": "FROM x\n", "scripts/run.sh": "docker buildx build ."}, "warn"),
        ({"Dockerfile": "FROM x\n", "BUILD": "pex_binary(name='shop')"}, "fail"),
    ],
)
def test_a_wheel_without_state_fails_only_where_wheels_are_made(
    files: dict[str, str], grade: str, tmp_path: Path
) -> None:
    root = _project(tmp_path)
    (root / ".gitignore").write_text(".local_defs_state\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (finding,) = packaging.backend(DoctorContext(survey(root)))
    assert finding.grade == grade
    assert ("its images are not affected" in finding.why) == (grade == "warn")
    assert finding.what.startswith("No wheel was tried") == (grade == "warn")


# --- what --fix offers ------------------------------------------------------------------------


def test_fix_is_only_offered_where_it_changes_a_file(wd: WorkDir) -> None:
    root = _project(wd.at("shop").path)
    wd.write(".gitignore", ".local_defs_state\n!.local_defs_state\n")
    wd.write("shop/src/shop/defs/.local_defs_state/Foo/state", "[1]")
    wd.write(".pre-commit-config.yaml", "repos: &all []\nothers: *all\n")
    report = _by_title(list(examine(root, python=Path(sys.executable))))
    assert {finding.part for finding in report["repository"]} == {"ignore"}
    assert {finding.part for finding in report["build backend"]} == {"backend"}
    offered = {finding.part for found in report.values() for finding in found} - {""}
    argv = [sys.executable, "-m", "bundler", "doctor", "--fix", f"--python={sys.executable}"]
    first = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    again = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert f"Fixed {len(offered)} file" in first.stderr
    assert "There is nothing to fix." in again.stderr
    assert "fixes some of this" not in again.stderr


# --- components -------------------------------------------------------------------------------


def _found(*found: Component) -> Found:
    return Found(Path("/x"), "shop/defs/.local_defs_state", found)


def test_keys_that_share_a_folder_are_a_failure() -> None:
    one = Component("Foo[a/b]", "LOCAL_FILESYSTEM", "shop.Foo")
    two = Component("Foo[a:b]", "LOCAL_FILESYSTEM", "shop.Foo")
    stored = Component("foo[a/b]", "VERSIONED_STATE_STORAGE", "shop.Foo")
    assert "fail" in _grades(list(components.judge(_found(one, two))))
    assert "fail" not in _grades(list(components.judge(_found(one, one, stored))))


def test_a_key_that_is_made_of_variables_gets_advice() -> None:
    component = Component("Foo[http://x]", "LOCAL_FILESYSTEM", "F", key_variables=("SHOP_URL",))
    warning = list(components.judge(_found(component)))[-1]
    assert warning.grade == "warn"
    assert "SHOP_URL" in warning.what


def test_dbt_is_only_missed_by_a_component_that_runs_it(tmp_path: Path) -> None:
    root = _project(tmp_path)
    (root / "poetry.lock").touch()
    patient = DoctorContext(survey(root), Path(sys.executable))
    dbt = Component("Dbt[a]", "LOCAL_FILESYSTEM", "shop.Dbt", ancestors=("dagster_dbt.DbtProject",))
    for found, fails in (((), []), ((dbt,), ["(cd "])):
        vars(patient)["_looked"] = Looked((_found(*found),))
        findings = list(components.components(patient))
        fixes = [finding.fix for finding in findings if finding.grade == "fail"]
        assert [fix[: len("(cd ")] for fix in fixes] == fails
        assert all("poetry add 'dbt-core<1.12'" in fix for fix in fixes)


def test_no_component_at_all_is_a_warning() -> None:
    assert _grades(list(components.judge(_found()))) == ["warn"]


# --- published state --------------------------------------------------------------------------


def test_a_published_state_is_the_baseline_as_long_as_it_verifies(tmp_path: Path) -> None:
    root = _project(tmp_path)
    patient = DoctorContext(survey(root))
    (fresh,) = state.state(patient)
    assert fresh.grade == "ok"
    assert "no baseline" in fresh.what

    directory = root / "src" / "shop" / "defs" / ".local_defs_state"
    make_bundle(directory, {"Foo": {"state": b"{}"}})
    (published,) = state.state(patient)
    assert published.grade == "ok"
    assert "1 state, verified" in published.what

    (directory / "Foo" / "state").write_text("[]")
    (altered,) = state.state(patient)
    assert altered.grade == "fail"
    assert "Foo/state" in altered.what
    assert altered.fix == f"state-bundler refresh --project {root}/."


# --- Docker -----------------------------------------------------------------------------------


def _docker_findings(
    root: Path, dockerfile: str, ignore: str = "**/.local_defs_state\n.env\n"
) -> list[Finding]:
    _project(root)
    (root / "Dockerfile").write_text(dockerfile)
    (root / ".dockerignore").write_text(ignore)
    (root / ".env").write_text("")
    patient = DoctorContext(survey(root))
    found = [*docker.context(patient), *docker.dockerfiles(patient)]
    return [finding for finding in found if finding.grade != "ok"]


def test_a_sound_dockerfile_has_no_findings(tmp_path: Path) -> None:
    assert _docker_findings(tmp_path, "FROM x\nCOPY . .\nRUN uv sync\n") == []


@pytest.mark.parametrize(
    ("line", "grade"),
    [
        ("COPY src/shop/defs/.local_defs_state /x", "fail"),
        ("RUN dg utils refresh-defs-state", "warn"),
    ],
)
def test_instructions_that_defeat_the_state(tmp_path: Path, line: str, grade: str) -> None:
    (finding,) = _docker_findings(tmp_path, f"FROM x\n{line}\n")
    assert finding.grade == grade
    assert finding.what.startswith("Dockerfile:2 ")
    assert finding.fix


def test_copying_the_state_directory_from_another_stage_is_not_a_finding(tmp_path: Path) -> None:
    line = "COPY --from=state /src/shop/defs/.local_defs_state /x"
    assert _docker_findings(tmp_path, f"FROM x\n{line}\n") == []


@pytest.mark.parametrize(
    ("ignore", "grade", "says"),
    [
        ("**/.local_defs_state\n.env\n*.toml\n", "fail", "pyproject.toml"),
        (".env\n", "warn", "src/shop/defs/.local_defs_state"),
        ("**/.local_defs_state\n", "warn", ".env"),
    ],
)
def test_traps_of_the_context(tmp_path: Path, ignore: str, grade: str, says: str) -> None:
    (finding,) = _docker_findings(tmp_path, "FROM x\n", ignore)
    assert finding.grade == grade
    assert says in finding.what


def test_a_missing_engine_is_a_warning_and_only_where_there_is_a_dockerfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    root = _project(tmp_path)
    assert list(docker.engine(DoctorContext(survey(root)))) == []
    (root / "Dockerfile").write_text("FROM x\n")
    (finding,) = docker.engine(DoctorContext(survey(root)))
    assert finding.grade == "warn"
    assert "no.sock" in finding.what


# --- several sources --------------------------------------------------------------------------


def test_what_several_sources_share_is_reported_once(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'w').write('[1]')"
    command = json.dumps([sys.executable, "-c", code, "{state_path}"])
    source = '[[tool.state-bundler.source]]\nkey = "{}"\ncommand = {}\npath = "src/shop/state"\n'
    tables = ['[tool.state-bundler]\nimage-path = "/app/state"\n']
    tables += (source.format(key, command) for key in "ABC")
    (tmp_path / "pyproject.toml").write_text("".join(tables))
    argv = [sys.executable, "-m", "bundler", "doctor", "--reach", f"--python={sys.executable}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    shown = done.stdout
    assert shown.count(": no request was observed.") == 3
    assert shown.count("A component that uses gRPC") == 1
    assert (
        shown.index("A: no request")
        < shown.index("A component that")
        < shown.index("B: no request")
    )
    assert shown.count("src/shop/state has no published state") == 1
    assert "Path in an image: /app/state" in shown


# --- workspaces -------------------------------------------------------------------------------


def test_a_workspace_is_examined_whole_and_printed_as_a_matrix(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name, text in (
        ("orders", "FROM x\n"),
        ("stock", "FROM x\nCOPY pyproject.toml projects/stock /\n"),
    ):
        root = _project(tmp_path / "projects" / name)
        (root / ("dockerfile" if name == "stock" else "Dockerfile")).write_text(text)
    paths = ["projects/orders", "projects/stock"]
    tables = "".join(f'[[tool.dg.workspace.projects]]\npath = "{path}"\n' for path in paths)
    (tmp_path / "pyproject.toml").write_text(tables)

    def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bundler", "doctor", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    found = json.loads(doctor("--matrix").stdout)["include"]
    assert found == [
        {"name": "shop", "path": paths[0], "dockerfile": "Dockerfile", "context": "."},
        {"name": "shop", "path": paths[1], "dockerfile": "dockerfile", "context": "../.."},
    ]
    report = json.loads(doctor("--format=json", f"--python={sys.executable}").stdout)
    assert [Path(one["project"]).name for one in report["projects"]] == ["orders", "stock"]


def test_a_matrix_of_nothing_is_an_error(tmp_path: Path) -> None:
    from bundler.errors import ConfigurationError
    from bundler.setup.doctor.matrix import matrix

    with pytest.raises(ConfigurationError, match="not a Dagster project"):
        matrix(tmp_path)
