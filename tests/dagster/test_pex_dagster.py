"""A real Dagster in a PEX: its code location has the assets of the new state. About 40 s."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.running import in_pex
from bundler.artifacts.verify import verify
from bundler.listener import Listener
from bundler.workflows.loadcheck import LoadCheck, check
from tests.support.embedding import embed_pex, embed_wheel
from tests.support.environments import DAGSTER_ALONE, python_of
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    output_of,
    run_pex,
    set_state,
    wheel,
    write,
)

COMPONENTS = """
import json
import dagster as dg
from dagster.components.utils.defs_state import DefsStateConfig, DefsStateConfigArgs
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType


class Catalog(dg.StateBackedComponent, dg.Component, dg.Model, dg.Resolvable):
    @property
    def defs_state_config(self):
        return DefsStateConfig.from_args(
            DefsStateConfigArgs.local_filesystem(), default_key="Catalog"
        )

    def write_state_to_path(self, state_path):
        raise SystemExit("a finished artifact asks nobody")

    def build_defs_from_state(self, context, state_path):
        names = json.loads(state_path.read_text()) if state_path else []
        return dg.Definitions(assets=[dg.AssetSpec(name) for name in names])
"""

MAIN = """
from pathlib import Path
import dagster as dg

defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
print(" ".join(sorted(key.to_user_string() for key in defs.resolve_all_asset_keys())) or "nothing")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(
        tmp_path / "src",
        {
            "shop/__init__.py": "",
            "shop/__main__.py": MAIN,
            "shop/components.py": COMPONENTS,
            "shop/defs/__init__.py": "",
            "shop/defs/catalog/defs.yaml": "type: shop.components.Catalog\n",
        },
    )


def test_the_new_assets_are_served_where_the_older_pex_has_run(
    project: Path, tmp_path: Path
) -> None:
    environment = python_of(DAGSTER_ALONE).parent.parent
    set_state(project / PLACE, Catalog='["old"]')
    build = ["--venv-repository", environment, "dagster", "-D", "src", "-m", "shop", "--venv"]
    run_pex(*build, "-o", "app.pex", cwd=tmp_path, root=tmp_path / "build-root")
    bundle = bundle_of(set_state(tmp_path / "state", Catalog='["old"]'))
    embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "app.pex")
    assert output_of(tmp_path / "app.pex", tmp_path / "root", **ENVIRONMENT) == "old"
    bundle = bundle_of(set_state(tmp_path / "state", Catalog='["newer", "newest"]'))
    embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "app.pex")
    assert output_of(tmp_path / "app.pex", tmp_path / "root", **ENVIRONMENT) == NEWER
    with PexArtifact(tmp_path / "app.pex") as artifact:
        assert verify(artifact).all_problems == ()
    runs = in_pex(tmp_path / "app.pex", Path(sys.executable), tmp_path / "root", Listener())
    assert loads_where_nothing_can_be_written(tmp_path / "app.pex", tmp_path / "root") == NEWER
    (loaded,) = check(runs, LoadCheck(("shop.__main__",)), "app.pex", Listener())
    assert (loaded.total, loaded.states) == (2, {"Catalog": True})


def test_two_wheels_in_one_environment_load_their_own_state(project: Path, tmp_path: Path) -> None:
    """Which each finds by the configuration in its own package. No requirement names Dagster."""
    site = tmp_path / "site"
    for name, state in (("one", '["a"]'), ("two", '["b", "c"]')):
        files = {
            f"{name}/{path.relative_to(project / 'shop')}": path.read_text().replace("shop", name)
            for path in (project / "shop").rglob("*.*")
        }
        made = wheel(tmp_path / name, files)
        bundle = bundle_of(
            set_state(tmp_path / "state", Catalog=state), PLACE.replace("shop", name)
        )
        embed_wheel(made, [bundle], RECORD, made)
        with zipfile.ZipFile(made) as file:
            file.extractall(site)
    loads = "import one.__main__, two.__main__"
    argv = [python_of(DAGSTER_ALONE), "-c", loads]
    environ = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(site)}
    assert subprocess.check_output(argv, env=environ, text=True).split("\n")[:2] == ["a", "b c"]


# Bind mounts a folder to itself, read-only, and runs a command in it.
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 70
! touch "$1/anything" 2>/dev/null || exit 71
shift; exec "$@"
"""


def loads_where_nothing_can_be_written(pex: Path, root: Path) -> str:
    """What the venv that the PEX has made for itself prints on a read-only file system.

    Its interpreter is run: pex's own start notes in the venv when it was last used.
    """
    environ = {**os.environ, **ENVIRONMENT, "PEX_ROOT": str(root)}
    asks = ["-c", "import sys; print(sys.prefix)"]
    interpreter = {**environ, "PEX_INTERPRETER": "1"}
    venv = subprocess.run([pex, *asks], env=interpreter, check=True, capture_output=True, text=True)
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    program = [Path(venv.stdout.strip()) / "bin" / "python", "-m", "shop"]
    command = [*unshare, "sh", "-c", READ_ONLY, "sh", root.parent, *program]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


NEWER = "newer newest"
ENVIRONMENT = {"DAGSTER_DISABLE_TELEMETRY": "true"}
