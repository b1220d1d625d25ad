"""A PEX that runs while it is updated. About 6 s of CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.embedding import embed_pex
from tests.support.pex_projects import RECORD, bundle_of, run_pex, set_state, write

# Reads its state, waits, then imports code and reads state that it has not looked at before.
WAITS = """
from pathlib import Path

state = Path(__file__).parent / "defs" / ".local_defs_state"
print((state / "A" / "state").read_text(), flush=True)
input()
from shop import late
print(late.WORD, (state / "B" / "state").read_text())
"""


@pytest.mark.parametrize("options", [["--layout", "zipapp"], ["--layout", "loose"]], ids=" ".join)
def test_a_running_program_goes_on_and_the_next_one_has_the_new_state(
    options: list[str], tmp_path: Path
) -> None:
    files = {"__init__.py": "", "__main__.py": WAITS, "late.py": 'WORD = "late"\n'}
    write(tmp_path / "src" / "shop", {**files, "defs/__init__.py": ""})
    run_pex(
        "-D", "src", "-m", "shop", *options, "-o", "app.pex", cwd=tmp_path, root=tmp_path / "build"
    )
    app = tmp_path / "app.pex"
    embed_pex(app, [bundle_of(set_state(tmp_path / "s", A="old", B="old"))], RECORD, app)
    with started(app, tmp_path / "root") as older:
        assert line_of(older) == "old"
        embed_pex(app, [bundle_of(set_state(tmp_path / "s", A="new", B="new"))], RECORD, app)
        with started(app, tmp_path / "root") as newer:
            assert line_of(newer) == "new"
            assert newer.communicate("\n")[0].strip() == "late new"
        said = older.communicate("\n")[0].strip()
    assert older.returncode == 0
    # A loose PEX is run where it is: what it reads late is whole, but it is the new state.
    assert said == ("late new" if "loose" in options else "late old")


def started(app: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, app / "__main__.py" if app.is_dir() else app],
        env={**os.environ, "PEX_ROOT": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()
