"""A project as `init` finds one, with comments that have to stay."""

from __future__ import annotations

from pathlib import Path

PYPROJECT = """\
# the shop's project
[project]
name = "shop"   # ours
version = "1"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["src/shop"]

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
GITIGNORE = "__pycache__/\n# last line\n"


def make_project(root: Path, pyproject: str = PYPROJECT) -> Path:
    (root / ".git").mkdir(parents=True)
    (root / ".github").mkdir()
    (root / "src" / "shop" / "defs").mkdir(parents=True)
    (root / "src" / "shop" / "defs" / "defs.yaml").write_text("type: shop.components.Catalog\n")
    (root / "pyproject.toml").write_text(pyproject)
    (root / ".gitignore").write_text(GITIGNORE)
    (root / "Dockerfile").write_text("FROM scratch\n")
    return root
