"""Where a dbt project in the state looks for the manifest that it defers to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundler.worker.dagster_worker import _defers_in


@pytest.mark.parametrize(
    ("state_path", "expected"),
    [
        ("prod", "project/prod"),
        (Path("a/../prod"), "project/prod"),
        *((value, "") for value in ("", None, 1, ["prod"], {"a": 1}, b"prod", object(), True)),
    ],
)
def test_only_a_path_is_one(state_path: Any, expected: str) -> None:
    args = SimpleNamespace(state_path=state_path)
    component = SimpleNamespace(project=SimpleNamespace(args=args))
    assert _defers_in(component) == expected
