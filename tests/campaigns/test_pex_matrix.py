"""One of the ways to make a PEX of a project; ``make pex-matrix`` tries them all. About 15 s."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.pex_matrix import BACKENDS, Case, run, whole


def test_the_state_is_where_the_runtime_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend that loses most: the state, and what belongs to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.delenv("PEX_ROOT", raising=False)
    run(Case("setuptools", flat=False, ignored=True, source=".", options=()), tmp_path)


def test_the_matrix_has_every_backend_in_both_layouts_ignored_and_not() -> None:
    cases = {(case.backend, case.flat, case.ignored) for case in whole()}
    assert len(cases) == 4 * len(BACKENDS)
