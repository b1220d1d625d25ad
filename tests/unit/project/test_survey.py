"""Where a project's package is, next to other folders of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.project.survey import survey

_PYPROJECT = '[tool.dg.project]\nroot_module = "shop"\n'


@pytest.mark.parametrize(
    ("files", "package"),
    [
        (["python/shop/defs/x.py", "charts/shop/Chart.yaml"], "python/shop"),
        (["python/shop/__init__.py", "charts/shop/Chart.yaml"], "python/shop"),
        (["shop/Dockerfile", "python/shop/defs/x.py", "tests/shop/__init__.py"], "python/shop"),
        (["build/shop/__init__.py", "dist/shop/x", "python/shop/x.py"], "python/shop"),
        (["build/shop/defs/x.py"], "shop"),
        (["src/shop/x.py", "docs/shop/x.md"], "src/shop"),
        (["shop/__init__.py", "src/other/x.py"], "shop"),
    ],
)
def test_the_package_is_the_folder_with_the_defs(
    files: list[str], package: str, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(_PYPROJECT)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (directory,) = survey(tmp_path).state_directories
    assert str(directory) == f"{package}/defs/.local_defs_state"
