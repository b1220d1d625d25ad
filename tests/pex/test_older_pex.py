"""An older pex, which writes its JSON, its hashes and its lists in another way. About 20 s."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.pex_matrix import Case, run
from tests.support.environments import python_of


@pytest.mark.parametrize(("source", "layout"), [("-D", "packed"), (".", "zipapp")])
def test_its_files_get_the_state(
    source: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built, run, updated, and run again on the same PEX_ROOT."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.delenv("PEX_ROOT", raising=False)
    options = ("--layout", layout, "--venv")
    case = Case("hatchling", flat=False, ignored=True, source=source, options=options)
    run(case, tmp_path, python_of("pex-older").with_name("pex"))
