"""Python environments that the tests and the demo run user projects in, made once and kept.

An environment is in ``build/environments/<name>-<digest of its requirements>`` of the checkout,
so that a changed list makes a new one. Made with uv, which is a development dependency.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "tests" / "requirements"
# Dagster without dbt: whatever loads a component imports every package that has components, and
# dagster-dbt takes twice as long as all of Dagster.
DAGSTER_ALONE = "store"
# Of these a single process is started.
_SERVERS = ("gcs", "moto", "node")
# As it is before any test plays a proxy or an authority for certificates.
_ENVIRONMENT = dict(os.environ)


def python_of(name: str) -> Path:
    """The interpreter of the environment that ``tests/requirements/<name>.txt`` describes."""
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = ROOT / "build" / "environments" / f"{name}-{digest}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / "complete").exists():
            _make(home, requirements, compiled=name not in _SERVERS)
    return home / "bin" / "python"


def _make(home: Path, requirements: Path, *, compiled: bool) -> None:
    """compiled: immediately, since PYTHONDONTWRITEBYTECODE lets each process do it again."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True
    )
    python = home / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", python, "-r", requirements],
        env=_ENVIRONMENT, check=True,
    )  # fmt: skip
    if compiled:
        for other in home.parent.glob("*/complete"):
            _take_compiled(home / "lib", other.parent / "lib")
        subprocess.run([python, "-m", "compileall", "-q", "-j0", home / "lib"], check=True)
    (home / "complete").touch()


def _take_compiled(here: Path, there: Path) -> None:
    """Links the byte code of what uv has linked into both environments from its cache."""
    for compiled in there.rglob("__pycache__/*.pyc"):
        module = compiled.parent.parent / f"{compiled.name.partition('.')[0]}.py"
        same, target = (here / path.relative_to(there) for path in (module, compiled))
        if same.exists() and module.exists() and same.samefile(module) and not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.hardlink_to(compiled)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(python_of(argument))
