"""A project with versioned keys, an instance of Dagster and a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from bundler.store import Store, open_store
from bundler.store.pushing import NewState
from tests.support import warm
from tests.support.bundles import make_bundle
from tests.support.environments import ROOT, python_of

PROJECT = ROOT / "tests" / "projects" / "versioned_shop"

JOB = ("dagster", "job", "execute", "-m", "versioned_shop.definitions", "-j", "refresh_state")

LOAD = """
import sys
from dagster import DagsterInstance
with DagsterInstance.get():
    from versioned_shop.definitions import defs
    print(*sorted(key.to_user_string() for key in defs().resolve_all_asset_keys()))
"""


@dataclass(frozen=True)
class Deployment:
    """A project, an instance and a store. environment: which of the tests' Dagster runs in.

    port: of the webserver, where one runs.
    """

    root: Path
    home: Path
    url: str
    port: int = 0
    environment: str = "store"

    @property
    def store(self) -> Store:
        return open_store(self.url)

    def env(self, **more: str) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "DG_", "PYTHON"))
        }
        return {
            **kept,
            "PATH": f"{python_of(self.environment).parent}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.root / 'src'}",
            "DAGSTER_HOME": str(self.home),
            "SHOP_TABLES": "unset",
            **more,
        }

    def run(self, *argv: str, **env: str) -> str:
        done = subprocess.run(
            argv,
            cwd=self.root,
            env=self.env(**env),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def script(self, text: str, **env: str) -> str:
        """Runs a script of the tests in the environment."""
        return self.run(str(warm.program(python_of(self.environment))), "-c", text, **env)

    def assets(self) -> list[str]:
        return self.script(LOAD).split()


def make_home(home: Path, url: str, versions: str = "latest") -> Path:
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "defs_state_storage:\n  module: bundler.dagster_storage\n"
        f"  class: StoreDefsStateStorage\n  config:\n    url: {url}\n    versions: {versions}\n"
        "telemetry: {enabled: false}\n"
    )
    return home


def push(deployment: Deployment, root: Path, *tables: str) -> None:
    """Makes a state of these tables current, as a refresh would have."""
    scratch = root / uuid.uuid4().hex
    folder = {f"state/{table}": table.encode() for table in tables}
    files: dict[str, dict[str, bytes]] = {
        "FileComponent[file]": {"state": json.dumps(tables).encode()},
        "FolderComponent[folder]": {**folder, "project/manifest.json": b"{}"},
    }
    bundle = make_bundle(scratch, files)
    deployment.store.push(
        [NewState(state, scratch / state.path) for state in bundle.manifest.states]
    )


def build(deployment: Deployment, kind: str, *arguments: str, **env: str) -> None:
    """Builds for the project in its own environment, with ours as the program."""
    argv = [sys.executable, "-m", "bundler", "build", kind, "--no-guard"]
    python = ["--python", str(python_of(deployment.environment))]
    deployment.run(*argv, *python, *arguments, STATE_BUNDLER_STORE=deployment.url, **env)
