"""What `doctor` prints for several projects fits on a screen."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from bundler.cli.console import Console
from bundler.cli.doctor_workspace import show
from bundler.project.projects import workspace_members
from bundler.project.stateful import has_state
from bundler.project.survey import survey
from bundler.setup.doctor import Examined, Finding
from bundler.setup.doctor.matrix import projects_in, unnamed
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


def test_what_is_wrong_comes_last_below_its_project() -> None:
    broken = Finding("fail", "The component cannot be loaded.", fix="mend it")
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
    assert any(line.endswith("d: no workspace names it, so it was not checked") for line in lines)
    assert lines.index("b") > max(at for at, line in enumerate(lines) if "c: no state" in line)
    assert any("cannot be loaded" in line for line in lines[lines.index("b") :])
    assert sum("No ignore rule" in line for line in lines) == 1


def test_a_single_project_with_state_keeps_what_is_its_own() -> None:
    said = _shown(
        {"a": _report(Finding("warn", "old")), "b": [Examined("components", (_STATELESS,))]}
    )
    assert any(line.strip().endswith("old") for line in said[said.index("a") :])


@pytest.mark.parametrize("name", ["workspace_uv", "workspace_dg", "build_arg", "dagster_cloud"])
def test_the_files_say_which_projects_have_state(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(SHAPES / name, root)
    (root / ".git").mkdir()
    found = [path for path in projects_in(root) if has_state(survey(path))]
    assert [path.relative_to(root).as_posix() for path in found] == list(ALL[name].states)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("type: dagster_dbt.DbtProjectComponent\n", True),
        ("type: dagster_fivetran.FivetranAccountComponent\n", True),
        ("type: dagster_sling.SlingReplicationCollectionComponent\n", False),
        ("type: dagster.PythonScriptComponent\n", False),
        ("type: shared.parts.Feed\n", True),
        ("type: shared.plain.Job\n", True),  # its package has a component with state
        ("type: nobody.knows.Thing\n", True),
        ("type: shop.parts.Own\n", False),
        ("attributes: {}\n", False),
    ],
)
def test_the_type_of_a_component_says_whether_it_has_state(
    text: str, has: bool, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    for path, content in {
        "pyproject.toml": '[tool.dg.project]\nroot_module = "shop"\n',
        "src/shop/defs/x/defs.yaml": text,
        "src/shop/parts.py": "class Own: ...\n",
    }.items():
        file = tmp_path / "project" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    library = tmp_path / "libs/shared/parts.py"
    library.parent.mkdir(parents=True)
    library.write_text("class Feed(dg.StateBackedComponent): ...\n")
    assert has_state(survey(tmp_path / "project")) is has


def test_projects_that_no_workspace_names_are_found(tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "workspace_dg", root := tmp_path / "w")
    left = unnamed(root, list(workspace_members(root)))
    assert [path.name for path in left] == ["trial"]
