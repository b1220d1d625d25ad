"""What `doctor` prints for several projects fits on a screen."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.cli.console import Console
from bundler.cli.doctor_workspace import show
from bundler.project.projects import projects_in, workspace_members
from bundler.project.stateful import has_state
from bundler.project.survey import survey
from bundler.setup.doctor import Examined, Finding
from bundler.setup.doctor.matrix import unnamed
from bundler.setup.doctor.workspace import distinct, stateless_of
from tests.support.shapes import ALL, SHAPES

_HOME = Path("/w")
_RULE = Finding("warn", "No ignore rule covers the state.", "It would be added.", "add a rule")
_PYTHON = Finding("ok", "Python 3.12, with dagster 1.13.")
_STATELESS = Finding("ok", "Its files have no state-backed component.", is_stateless=True)


def _report(*own: Finding) -> list[Examined]:
    return [
        Examined("repository", (_RULE,), is_shared=True),
        Examined("interpreter", (_PYTHON,)),
        Examined("components", own),
    ]


def _shown(reports: dict[str, list[Examined]], *others: str) -> list[str]:
    stream = io.StringIO()
    roots = {_HOME / name: checks for name, checks in reports.items()}
    show(Console(stream), _HOME, roots, [_HOME / name for name in others])
    return stream.getvalue().splitlines()


def test_ten_healthy_projects_are_a_screen() -> None:
    said = _shown({f"p/{number}": _report(Finding("ok", "x")) for number in range(10)})
    assert len(said) <= 24
    assert sum("No ignore rule" in line for line in said) == 1
    assert sum("Python 3.12" in line for line in said) == 1
    assert [line.split()[-1] for line in said if "p/" in line] == [f"p/{n}" for n in range(10)]


def test_warnings_come_last_below_their_project() -> None:
    broken = Finding("fail", "The component cannot be loaded.", fix="fix it")
    said = _shown(
        {
            "a": _report(Finding("ok", "x")),
            "b": _report(broken, Finding("warn", "old")),
            "c": [Examined("components", (_STATELESS,))],
        },
        "d",
    )
    lines = [line.strip() for line in said]
    assert any(line.endswith("b: 1 failure, 1 warning") for line in lines)
    assert any(line.endswith("c: no state-backed components") for line in lines)
    assert any(line.endswith("d: no workspace names it, so it was not checked.") for line in lines)
    assert lines.index("b") > max(at for at, line in enumerate(lines) if "c: no state" in line)
    assert lines[lines.index("b") + 1] == "warning: old"
    assert not any("cannot be loaded" in line for line in lines)  # a failure is raised instead
    assert sum("No ignore rule" in line for line in lines) == 1


def test_each_failure_is_reported_once_with_its_file(tmp_path: Path) -> None:
    broken = Finding("fail", "It is broken.", where="Dockerfile:3")
    everywhere = Finding("fail", "git is missing.")
    reports = {
        tmp_path / name: [
            Examined("repository", (everywhere,), is_shared=True),
            Examined("Dockerfile", own),
        ]
        for name, own in {"a": (broken,), "b": (Finding("fail", "It has no key."),)}.items()
    }
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "dg.toml").touch()
    assert [(it.what, it.where) for it in distinct(reports)] == [
        ("git is missing.", ""),
        ("It is broken.", "Dockerfile:3"),
        ("It has no key.", os.path.relpath(tmp_path / "b" / "dg.toml")),
    ]
    assert "It is broken." not in "".join(_shown({"a": reports[tmp_path / "a"]}))


def test_a_single_project_with_state_keeps_what_is_its_own() -> None:
    said = _shown(
        {"a": _report(Finding("warn", "old")), "b": [Examined("components", (_STATELESS,))]}
    )
    assert any(line.strip().endswith("old") for line in said[said.index("a") :])


def test_every_warning_of_a_single_project_counts() -> None:
    hook = Finding("warn", "No hook runs the guard.")
    reports = {_HOME: [*_report(hook), Examined("interpreter", (_STATELESS,))]}
    assert list(distinct(reports)) == [_RULE, hook]


@pytest.mark.parametrize("name", ["workspace_uv", "workspace_dg", "build_arg", "dagster_cloud"])
def test_the_files_say_which_projects_have_state(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(SHAPES / name, root)
    (root / ".git").mkdir()
    found = [path for path in projects_in(root) if has_state(survey(path))]
    assert [path.relative_to(root).as_posix() for path in found] == list(ALL[name].states)


_FEED = "class Feed(dg.StateBackedComponent): ...\n"
_API = "import dagster as dg\nclass ApiComponent(dg.StateBackedComponent): ...\n"
_TYPE = "src/shop/defs/x/defs.yaml"


def _project(tmp_path: Path, files: dict[str, str]) -> Path:
    (tmp_path / ".git").mkdir()
    for path, content in {
        "project/pyproject.toml": '[tool.dg.project]\nroot_module = "shop"\n',
        "project/src/shop/parts.py": "class Own: ...\n",
        **files,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path / "project"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("type: dagster_dbt.DbtProjectComponent\n", True),
        ("type: dagster_dbt.DbtCloudComponent\n", True),
        ("type: dagster_fivetran.FivetranAccountComponent\n", True),
        ("type: dagster_airlift.core.components.AirflowInstanceComponent\n", True),
        ("type: dagster_nobody_knows.ThingComponent\n", True),
        ("type: dagster_sling.SlingReplicationCollectionComponent\n", False),
        ("type: dagster_aws.components.S3ResourceComponent\n", False),
        ("type: dagster.PythonScriptComponent\n", False),
        ("type: shared.parts.Feed\n", True),
        ("type: shared.plain.Job\n", True),
        ("type: nobody.knows.Thing\n", True),
        ("type: Thing\n", True),
        ("type:\n", True),
        ("type: 5\n", True),
        ("type: shop.parts.Own\n", False),
        ("type: shop.parts.Nowhere\n", True),
        ("attributes: {}\n", False),
        ("", False),
        ('"type": dagster_dbt.DbtCloudComponent\n', True),
        ("'type' : 'dagster_dbt.DbtCloudComponent'\n", True),
        ("{type: dagster_dbt.DbtCloudComponent, attributes: {}}\n", True),
        ("{attributes: {type: a.b.C}, type: dagster.FunctionComponent}\n", False),
        ("? type\n: >-\n  dagster_dbt.DbtCloudComponent\n", True),
        ("type: &x dagster_dbt.DbtCloudComponent\n", True),
        ("a: &a {type: shared.parts.Feed}\n<<: *a\n", True),
        ("type: dagster.SqlComponent\n---\ntype: shared.parts.Feed\n", True),
        ("type: dagster.SqlComponent\nattributes: [\n", True),
        ("type: dagster.SqlComponent\ntype: shared.parts.Feed\n", True),
        ("- type: shared.parts.Feed\n", True),
        ("#" * 2_000_001 + "\ntype: dagster.SqlComponent\n", True),
    ],
)
def test_the_type_of_a_component_says_whether_it_has_state(
    text: str, has: bool, tmp_path: Path
) -> None:
    root = _project(tmp_path, {"libs/shared/parts.py": _FEED, f"project/{_TYPE}": text})
    assert has_state(survey(root)) is has


@pytest.mark.parametrize(
    ("code", "has"),
    [
        ("from dagster import Component, Model\nclass Own(Component, Model): ...\n", False),
        ("import dagster as dg\nclass Own(dg.Component, dg.Resolvable): ...\n", False),
        ("import dagster as dg\n@dg.scaffold_with(1)\nclass Own(dg.SqlComponent): ...\n", False),
        ("import dagster as dg\nclass A(dg.Component): ...\nclass Own(A): ...\n", False),
        ("from shared.plain import Plain\nclass Own(Plain): ...\n", False),
        ("from .near import Near\nclass Own(Near): ...\n", False),
        ("from shop.near import Near as Own\n", False),
        ("from shared.api import ApiComponent\nclass Own(ApiComponent): ...\n", True),
        ("import shared.api\nclass Own(shared.api.ApiComponent): ...\n", True),
        ("from shared import api as a\nclass Own(a.ApiComponent): ...\n", True),
        ("from shared.api import ApiComponent as Own\n", True),
        ("from shared import Again\nclass Own(Again): ...\n", True),
        ("from shared.api import *\nclass Own(ApiComponent): ...\n", True),
        ("from elsewhere import Base\nclass Own(Base): ...\n", True),
        ("from .nowhere import Base\nclass Own(Base): ...\n", True),
        ("from dagster_dbt import DbtCloudComponent as A\nclass Own(A): ...\n", True),
        ("from dagster_new import Thing\nclass Own(Thing): ...\n", True),
        ("def base(): ...\nclass Own(base()): ...\n", True),
        ("import x\n@x.changed\nclass Own: ...\n", True),
        ("class Own(Own): ...\n", True),
        ("from shared.api import ApiComponent\nOwn = ApiComponent\n", True),
        ("if x:\n  from shared.api import A\nelse:\n  A = object\nclass Own(A): ...\n", True),
        ("class Own(: ...\n", True),
        ("class Own: ...\0\n", True),
        ("#" * 250_000 + "\nfrom shared.api import ApiComponent as Own\n", True),
        ("#" * 2_000_001 + "\nclass Own: ...\n", True),
    ],
)
def test_an_own_class_has_no_state_only_if_all_its_bases_are_known(
    code: str, has: bool, tmp_path: Path
) -> None:
    root = _project(
        tmp_path,
        {
            f"project/{_TYPE}": "type: shop.parts.Own\n",
            "project/src/shop/parts.py": code,
            "project/src/shop/near.py": "import dagster\nclass Near(dagster.Component): ...\n",
            "libs/shared/__init__.py": "from .api import ApiComponent as Again\n",
            "libs/shared/api.py": _API,
            "libs/shared/plain.py": "from dagster import Component\nclass Plain(Component): ...\n",
        },
    )
    assert has_state(survey(root)) is has


@pytest.mark.parametrize(
    "folder", ["logs", "target", "build", "dist", "node_modules", "site-packages", "dbt_packages"]
)
def test_a_component_counts_whatever_its_folder_is_called(folder: str, tmp_path: Path) -> None:
    declared = {f"project/src/shop/defs/{folder}/defs.yaml": "type: nobody.knows.Thing\n"}
    assert has_state(survey(_project(tmp_path, declared)))


def _many_folders(root: Path) -> None:
    for number in range(5001):
        (root / "data" / str(number)).mkdir(parents=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unreadable",
    [
        _many_folders,
        lambda root: shutil.rmtree(root / "src"),
        lambda root: (root / "src/shop/defs.yaml").symlink_to("nowhere"),
        lambda root: (root / "src/shop/elsewhere").symlink_to(root.parent),
        lambda root: os.mkfifo(root / "src/shop/defs.yaml"),
        lambda root: os.mkfifo(root / "src/shop/a.py"),
        lambda root: (root / "a.py").symlink_to("nowhere"),
    ],
)
def test_what_cannot_be_read_may_have_state(
    unreadable: Callable[[Path], None], tmp_path: Path
) -> None:
    root = _project(tmp_path, {f"project/{_TYPE}": "type: shop.parts.Own\n"})
    assert not has_state(survey(root))
    unreadable(root)
    assert has_state(survey(root))


def test_if_no_project_seems_to_have_state_each_is_checked(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    for root in (plain, other):
        (root / "shop").mkdir(parents=True)
        (root / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    assert stateless_of([plain, other]) == []
    (other / "shop/defs.yaml").write_text("type: nobody.knows.Thing\n")
    assert stateless_of([plain, other]) == [plain]


def test_projects_that_no_workspace_names_are_found(tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "workspace_dg", root := tmp_path / "w")
    left = unnamed(root, list(workspace_members(root)))
    assert [path.name for path in left] == ["trial"]
