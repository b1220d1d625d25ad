"""What a project says whose components cannot be loaded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bundler.project.projects import open_project
from bundler.refresh.outcome.exchanges import Link
from bundler.refresh.secrets import Secrets
from bundler.refresh.sources import load_error, sources_of
from tests.support.shapes import SHAPES


@pytest.mark.parametrize("has_state", [True, False])
def test_a_project_without_state_may_need_no_dagster(has_state: bool, tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "no_pyproject", root := tmp_path / "shop")
    if not has_state:
        shutil.rmtree(root / "loans/defs/warehouse")
        (root / "loans/tables.py").unlink()
    (source,) = sources_of(open_project(root, python=Path(sys.executable)))
    assert source.kind == "dagster"
    missing = Link("builtins.ModuleNotFoundError", text="No module named 'dagster'")
    error = load_error(source, [missing], Secrets({}), None)
    assert "Dagster is not installed" in error.what
    assert ("no state-backed component" in error.why) != has_state


def test_an_invalid_setting_is_reported_with_its_file(tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "no_pyproject", root := tmp_path / "shop")
    (source,) = sources_of(open_project(root, python=Path(sys.executable)))
    of_pydantic = "{}\n  Field required\n    For further information visit https://errors.x/missing"
    kind = "pydantic_core._pydantic_core.ValidationError"
    chain = [
        Link("dagster.ComponentTreeException", text="Error while loading component"),
        Link(kind, text=of_pydantic.format("`attributes.url at defs.yaml:2`")),
        Link(kind, text=of_pydantic.format("url")),
    ]
    error = load_error(source, chain, Secrets({}), None)
    assert error.what.endswith(": ValidationError: `attributes.url at defs.yaml:2` Field required.")
    texts = ("the catalogue cannot be loaded", "SHOP_URL is not set")
    error = load_error(source, [Link("shop.Error", text=it) for it in texts], Secrets({}), None)
    assert error.what.endswith("SHOP_URL is not set.")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("'{{ env.SHOP_A }}'", "SHOP_A, which the declarations reference, is not set. For the"),
        ("\"{{ env('SHOP_B') }} {{ env.SHOP_A }}\"", "SHOP_A, SHOP_B, which the declarations"),
        ("'{{ env.SHOP_A }}' # in .env", "For the full error"),
        ("\"{{ env('SHOP_A', 'default') }}\"", "For the full error"),
    ],
)
def test_variables_that_are_not_set_are_named(text: str, hint: str, tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "no_pyproject", root := tmp_path / "shop")
    declared = f"type: x.Y\nattributes: {{a: {text}\n}}\n"
    (root / "loans/defs/warehouse/defs.yaml").write_text(declared)
    if ".env" in text:
        (root / ".env").write_text("SHOP_A=a\n")
    (source,) = sources_of(open_project(root, python=Path(sys.executable)))
    chain = [Link("pydantic_core.ValidationError", text="Input should be a valid string")]
    assert load_error(source, chain, Secrets({})).hint.startswith(hint)
    assert load_error(source, chain, Secrets({}), "image").hint.startswith("For the full error")


def test_only_a_dagster_project_can_have_too_old_a_dagster(tmp_path: Path) -> None:
    source = '[[tool.state-bundler.source]]\ncomponent = "shop:Shop"\npath = "state"\n'
    (tmp_path / "pyproject.toml").write_text(source)
    (source_of_shop,) = sources_of(open_project(tmp_path, python=Path(sys.executable)))
    own = Link("shop.TooOldError", text="the API is version 1")
    error = load_error(source_of_shop, [own], Secrets({}))
    assert "cannot be loaded: TooOldError: the API is version 1" in error.what
