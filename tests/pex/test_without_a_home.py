"""Builds by a user id without a name and without a home, as OpenShift runs containers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.campaigns.fault_campaign import configure, write_inputs

BIN = Path(sys.executable).parent
USER = 54321
# It may read what the tests' own user may: the interpreter can be in somebody's home.
READS = "+dac_read_search"
AS_NOBODY = (
    *("setpriv", "--reuid", str(USER), "--regid", "0", "--clear-groups"),
    *(f"--inh-caps={READS}", f"--ambient-caps={READS}", f"--bounding-set={READS}"),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user can enter: git asks `access`, for which capabilities do not count."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("home", ["HOME=/", "HOME=/nonexistent", "HOME=", "NO=HOME"])
def test_a_pex_is_built(folder: Path, home: str) -> None:
    root = folder / "shop"
    write_inputs(folder / "inputs", {"a": {"state": "some"}})
    configure(root, folder / "inputs", ["a"])
    (root / "src/shop/__init__.py").parent.mkdir(parents=True)
    (root / "src/shop/__init__.py").touch()
    (root / ".gitignore").write_text("state/\n")
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.com")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "All")):
        subprocess.run([*git, *words], cwd=root, check=True)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = AS_NOBODY
        subprocess.run(["chown", "-R", f"{USER}:0", folder], check=True)
    build = [BIN / "state-bundler", "build", "pex", "-o", "app.pex", "--", "-D", "src", "--venv"]
    done = subprocess.run(
        [*prefix, "env", "-i", f"PATH={BIN}:{os.environ['PATH']}", home, *build],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.name for path in root.iterdir()}
    assert made == {"app.pex", "pyproject.toml", "src", ".git", ".gitignore"}
    assert (root / "app.pex").stat().st_mode & 0o777 == 0o755
