"""A few of the ways to make a PEX of a project; ``make pex-matrix`` tries them all. About 60 s."""

from __future__ import annotations

from pathlib import Path

import pytest
from pex_matrix import BACKENDS, Case, run, whole

CASES = [
    Case("setuptools", flat=False, ignored=True, source="."),
    Case("poetry-core", flat=True, ignored=False, source="--project"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_state_is_where_the_runtime_looks(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.delenv("PEX_ROOT", raising=False)
    run(case, tmp_path)


def test_the_matrix_has_every_backend_in_both_layouts_ignored_and_not() -> None:
    cases = {(case.backend, case.flat, case.ignored) for case in whole()}
    assert len(cases) == 4 * len(BACKENDS)
