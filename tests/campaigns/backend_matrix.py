"""What each build backend makes of a state that git ignores, and what ``doctor`` says of that.

``python -m tests.campaigns.backend_matrix`` builds a wheel by way of an sdist with every backend,
in both layouts, with the state named in the root ignore file and not, before and after the fix
that ``doctor`` prints. ``make pex-matrix`` puts the table into ``docs/evidence/pex-matrix.md``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext
from bundler.setup.doctor.packaging import backend as diagnose
from tests.campaigns.pex_matrix import BACKENDS, STATE, Case, make_project
from tests.support.environments import python_of
from tests.support.pasted import paste_table
from tests.support.pex_projects import set_state

_DAGSTER = '\n[tool.dg.project]\nroot_module = "shop"\n'
ABOUT = """## Wheels built without state-bundler

`uv build` by way of an sdist, of a Dagster project whose state is on disk. The column "doctor" is
the finding of `state-bundler doctor`. The last column says whether the wheel contains the state
after its fix was applied. `build wheel` and the hatchling hook include the state with every
backend.
"""


def table(words: Sequence[str] = ()) -> list[str]:
    """Rows of Markdown, of the cases whose names have all words; what says ``no:`` is not so."""
    rows = ["| case | plain wheel | doctor | with doctor's fix |", "|---|---|---|---|"]
    for case in (case for case in _cases() if all(word in case.name for word in words)):
        with tempfile.TemporaryDirectory(prefix="backend-matrix-") as folder:
            rows.append(_row(case, Path(folder)))
        print(rows[-1], flush=True)
    return rows


def _cases() -> Iterator[Case]:
    for name in BACKENDS:
        for flat in (False, True):
            for ignored in (True, False):
                yield Case(name, flat, ignored, source="", options=())


def _row(case: Case, folder: Path) -> str:
    root = make_project(case, folder / "project")
    pyproject = root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + _DAGSTER)
    set_state(root / ("" if case.flat else "src") / STATE, A="1")
    kept = _is_kept(root, folder / "before")
    (finding,) = diagnose(DoctorContext(survey(root), python_of("backends")))
    mended = kept
    if finding.grade != "ok":
        paste_table(finding.fix, pyproject)
        mended = _is_kept(root, folder / "after")
    right = mended and kept == (finding.grade != "fail")
    words = [
        "has the state" if kept else "lacks it",
        finding.grade,
        "has it" if mended else "lacks it",
    ]
    return f"| {case.name.strip()} | {' | '.join(words)}{'' if right else ' (no: not so)'} |"


def _is_kept(root: Path, out: Path) -> bool:
    uv = (sys.executable, "-m", "uv")
    subprocess.run([*uv, "build", "--quiet", "--out-dir", out, root], check=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return f"{STATE}/A/state" in archive.namelist()


if __name__ == "__main__":
    sys.exit(any("no:" in row for row in table(sys.argv[1:])))
