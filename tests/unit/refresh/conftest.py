"""Refreshes a project with one command, to which each test gives a script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import Refreshed, refresh
from tests.support.scripts import KEY, Refresh


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def run(root: Path) -> Refresh:
    """Refreshes a project whose one command is a Python script that is given."""

    def run(
        script: str, table: str = "", listener: Listener | None = None, **options: object
    ) -> Refreshed:
        root.mkdir(exist_ok=True)
        (root / "fetch.py").write_text(
            f"import json, os, sys, time\npath = sys.argv[1]\n{script}\n"
        )
        (root / "pyproject.toml").write_text(
            f"[tool.state-bundler]\nattempts = 1\n{table}\n[[tool.state-bundler.source]]\n"
            f'key = "{KEY}"\npath = "state"\n'
            'command = ["python", "fetch.py", "{state_path}", "{previous_path}"]\n'
        )
        project = open_project(root, python=Path(sys.executable))
        given = RefreshOptions(**options)  # type: ignore[arg-type]
        return refresh([project], given, listener or Listener())

    return run
