"""Where a project's package is, next to other folders of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.setup.init.pyproject import backend_list

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
    (found,) = survey(tmp_path).places.items()
    assert (str(found[0]), found[1]) == (
        f"{package}/defs/.local_defs_state",
        "shop/defs/.local_defs_state",
    )


@pytest.mark.parametrize(
    ("setting", "place"), [("", "lib/shop/state"), ('place = "shop/state"\n', "shop/state")]
)
def test_a_source_says_where_its_program_looks(setting: str, place: str, tmp_path: Path) -> None:
    source = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["x"]\npath = "lib/shop/state"\n'
    build = '[build-system]\nbuild-backend = "setuptools.build_meta"\n'
    (tmp_path / "pyproject.toml").write_text(source + setting + build)
    found = survey(tmp_path)
    assert list(found.places.values()) == [place]
    package, _, below = place.partition("/")
    expected = ("tool", "setuptools", "package-data", package), [f"{below}/**"]
    assert backend_list(found) == expected
