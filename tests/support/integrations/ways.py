"""All the way: the state of an account in a PEX and in an image, loaded there without network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support import warm
from tests.support.integrations.running import PROBE, Account, loaded_assets

_BUNDLER = (sys.executable, "-m", "bundler")
_PACKAGE = "warehouse"


def through_pex(account: Account, folder: Path) -> set[str]:
    """Refreshed by ``build pex``, embedded, and loaded from the PEX elsewhere."""
    environment = account.python.parent.parent
    requirements = ("dagster", account.standin.integration, *account.standin.packages)
    pex = ("--venv-repository", environment, *requirements, "-D", account.root, "--venv")
    made = folder / "app.pex"
    _bundle(account, folder, "build", "pex", "--no-load-check", "-o", made, after=("--", *pex))
    loading = {"PEX_INTERPRETER": "1", "PEX_ROOT": str(folder / "pex root"), "PYTHONPATH": ""}
    return loaded_assets([sys.executable, str(made), "-"], folder, {**account.variables, **loading})


def through_thin_pex(account: Account, folder: Path) -> set[str]:
    """The same with the project's code alone in the PEX: the libraries are the environment's."""
    made = folder / "thin.pex"
    pex = ("--", "-D", account.root, "--inherit-path=fallback")
    _bundle(account, folder, "build", "pex", "--no-load-check", "-o", made, after=pex)
    loading = {"PEX_INTERPRETER": "1", "PEX_ROOT": str(folder / "pex root"), "PYTHONPATH": ""}
    return loaded_assets(
        [str(account.python), str(made), "-"], folder, {**account.variables, **loading}
    )


def through_layout(account: Account, folder: Path) -> set[str]:
    """In an image of the state alone; taken out of it and loaded next to code that had none."""
    layout, states, code = folder / "layout", folder / "states", folder / "code"
    _bundle(account, folder, "build", "oci", "-o", layout)
    _run(account, folder, "verify", f"oci:{layout}")
    _run(account, folder, "extract", f"oci:{layout}", "-o", states)
    shutil.copytree(account.root, code, ignore=shutil.ignore_patterns(".local_defs_state"))
    (found,) = (path.parent for path in states.rglob("@manifest.json"))
    shutil.copytree(found, code / _PACKAGE / "defs" / ".local_defs_state")
    return loaded_assets([str(warm.program(account.python)), "-"], code, account.variables)


def through_engine(account: Account, folder: Path, host: Mapping[str, str], base: str) -> set[str]:
    """Built by ``build docker`` with the vendor's library in the image, loaded in a container.

    host: the environment that reaches the engine. base: an image with Python 3.11.
    """
    packages = account.python.parent.parent / "lib" / "python3.11" / "site-packages"
    subprocess.run(["cp", "-al", packages, account.root / "packages"], check=True)
    (account.root / "Dockerfile").write_text(
        f"FROM {base}\nWORKDIR /app\nENV PYTHONPATH=/packages:/app PYTHONDONTWRITEBYTECODE=1\n"
        f"COPY packages /packages\nCOPY pyproject.toml ./\nCOPY {_PACKAGE} {_PACKAGE}\n"
    )
    image = f"sbt/integration-{account.standin.name}:1"
    try:
        _bundle(
            account,
            folder,
            "build",
            "docker",
            "--no-load-check",
            after=("-t", image, str(account.root)),
            env=host,
        )
    finally:
        shutil.rmtree(account.root / "packages")
    named = {
        name: value for name, value in account.variables.items() if "PROXY" not in name.upper()
    }
    options = [f"--env={name}={value}" for name, value in named.items() if "BUNDLE" not in name]
    options = [option for option in options if "SSL_CERT_FILE" not in option]
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", "--network=none", *options, image, "python", "-"],
        input=PROBE,
        text=True,
        env={**os.environ, **host},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ASSETS ")]
    return set(json.loads(line.removeprefix("ASSETS ")))


WAYS: Mapping[str, Callable[[Account, Path], set[str]]] = {
    "PEX": through_pex,
    "OCI layout": through_layout,
}


def _bundle(
    account: Account,
    folder: Path,
    *arguments: str | Path,
    after: tuple[str | Path, ...] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    project = ("--project", account.root, "--python", account.python, "--no-guard")
    head, rest = arguments[:2], arguments[2:]
    _run(account, folder, *head, *project, *rest, *after, env=env)


def _run(
    account: Account, folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> None:
    done = subprocess.run(
        [*_BUNDLER, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **(env or {}), **account.variables},
        text=True,
        capture_output=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "canary" not in said, said
