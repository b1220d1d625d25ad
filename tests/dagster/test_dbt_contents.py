"""What of a local dbt project ships: what git keeps and what dbt needs, from any folder alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.errors import BundlerError, ConfigurationError
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.state.bundle import Bundle
from tests.support import warm
from tests.support.environments import ROOT, python_of
from tests.support.integrations.running import loaded_assets
from tests.support.recording import RecordingListener

ASSETS = {"raw_orders", "raw_customers", "stg_orders", "stg_customers", "revenue"}
DEFINITION = """\
type: dagster_dbt.DbtProjectComponent
attributes:
  project: "{{ context.project_root }}/orders"
"""
PASSWORD = "canary-of-the-warehouse"
IGNORED = {
    "rsa_key.p8": "-----BEGIN PRIVATE KEY-----\nMIIE" + "canary1" * 20,
    "service-account.json": '{"type": "service_account", "private_key": "canary"}',
    "keys/more.txt": PASSWORD,
    "notes.local.md": PASSWORD,
}


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True)


def prepare(root: Path, *, repository: bool = True, statistics: bool = False) -> Path:
    """The project of the tests, with dbt on the local disk, committed.

    statistics: dbt then keeps a number of this machine's user next to profiles.yml, and sends it.
    """
    shutil.copytree(ROOT / "tests/projects/integration_dbt", root)
    (root / "warehouse/defs/account/defs.yaml").write_text(DEFINITION)
    if statistics:
        declaration = root / "orders/dbt_project.yml"
        declaration.write_text(declaration.read_text().partition("flags:")[0])
    (root / ".gitignore").write_text(
        "\n".join([*IGNORED, "keys/", "profiles.yml", "target/", "out/", "logs/", ".venv/",
                   "node_modules/", "*.duckdb", ".local_defs_state/", ""])
    )  # fmt: skip
    if repository:
        git(root.parent, "init", "-q", root)
        git(root, "add", "-f", "orders/profiles.yml")
        git(root, "add", ".")
        git(root, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    return root


def run(root: Path, **options: object) -> tuple[Bundle, RecordingListener]:
    listener = RecordingListener()
    project = open_project(root, python=python_of("dagster"))
    done = refresh([project], RefreshOptions(**options), listener)  # type: ignore[arg-type]
    return done.bundles[0], listener


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")


def shipped(bundle: Bundle) -> dict[str, bytes]:
    return {
        path.relative_to(bundle.root).as_posix(): path.read_bytes()
        for path in bundle.root.rglob("*")
        if path.is_file() and "@" not in path.as_posix().removeprefix(str(bundle.root))
    }


def test_what_git_ignores_does_not_ship(tmp_path: Path) -> None:
    root = prepare(tmp_path / "project")
    git(root, "rm", "-q", "--cached", "orders/profiles.yml")
    profiles = root / "orders/profiles.yml"
    profiles.write_text(profiles.read_text() + f"      password: {PASSWORD}\n")
    for name, content in IGNORED.items():
        (root / "orders" / name).parent.mkdir(exist_ok=True)
        (root / "orders" / name).write_text(content)
    (root / "orders/.venv/bin").mkdir(parents=True)
    (root / "orders/.venv/bin/python").symlink_to("/nowhere/python")
    (root / "orders/node_modules/.bin").mkdir(parents=True)
    (root / "orders/node_modules/.bin/x").symlink_to("../gone")
    (root / "orders/.idea").mkdir()
    (root / "orders/.idea/dangling").symlink_to("gone")
    (root / "orders/target/run").mkdir(parents=True)
    (root / "orders/target/run/x.sql").write_text(PASSWORD)
    (root / "orders/target/run_results.json").write_text(PASSWORD)

    bundle, listener = run(root)
    files = shipped(bundle)
    names = {path.partition("/project/")[2] for path in files}
    assert not names & {*IGNORED, "profiles.yml", "target/run/x.sql", "target/run_results.json"}
    assert {"dbt_project.yml", "models/revenue.sql", "target/manifest.json"} <= names
    assert not [name for name in names if name.split("/")[0] in (".venv", "node_modules", ".idea")]
    everything = b"\n".join(files.values())
    assert PASSWORD.encode() not in everything
    assert b"canary" not in everything
    assert str(tmp_path).encode() not in everything
    (line,) = [text for text in listener.notes if "because git ignores them" in text]
    assert "project/keys" in line
    assert "more" in line
    (warning,) = listener.warnings
    assert "project/profiles.yml does not ship" in warning
    assert loaded_assets([str(warm.program(python_of("dagster"))), "-"], root, {}) == ASSETS


def test_the_same_commit_in_two_folders_is_the_same_state(tmp_path: Path) -> None:
    one = prepare(tmp_path / "one", statistics=True)
    other = tmp_path / "quite/another folder"
    other.parent.mkdir()
    subprocess.run(["git", "clone", "-q", one, other], check=True)
    first, second = run(one)[0], run(other)[0]
    states = [bundle.manifest.states[0] for bundle in (first, second)]
    assert states[0].digest.semantic == states[1].digest.semantic
    for root, bundle in ((one, first), (other, second)):
        files = shipped(bundle)
        assert not [name for name, raw in files.items() if os.fsencode(root) in raw]
        (manifest,) = [raw for name, raw in files.items() if name.endswith("/manifest.json")]
        nodes = json.loads(manifest)["nodes"].values()
        assert {node["root_path"] for node in nodes if node["resource_type"] == "seed"} == {"."}
    again, _ = run(other, baseline=str(first.root))
    assert again.manifest.content_digest == first.manifest.content_digest


def test_a_target_path_of_another_name_is_kept_and_writable(tmp_path: Path) -> None:
    root = prepare(tmp_path / "project")
    declaration = root / "orders/dbt_project.yml"
    declaration.write_text(declaration.read_text() + "target-path: out/parsed\n")
    definition = root / "warehouse/defs/account/defs.yaml"
    definition.write_text(
        "type: dagster_dbt.DbtProjectComponent\nattributes:\n  project:\n"
        '    project_dir: "{{ context.project_root }}/orders"\n    target_path: out/parsed\n'
    )
    bundle, _ = run(root)
    (state,) = bundle.manifest.states
    assert state.writable == ("project/out/parsed",)
    assert "project/out/parsed/manifest.json" in {file.path for file in state.files}
    assert not [name for name, raw in shipped(bundle).items() if os.fsencode(root) in raw]


def test_a_key_that_is_committed_is_refused_by_file_and_line(tmp_path: Path) -> None:
    root = prepare(tmp_path / "project")
    pem = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ED25519"], capture_output=True, check=True, text=True
    ).stdout
    (root / "orders/seeds/key.csv").write_text(f"a\nb\n{pem}")
    with pytest.raises(BundlerError) as failed:
        run(root)
    assert isinstance(failed.value, ConfigurationError)
    assert "project/seeds/key.csv:3 contains a private key" in failed.value.what
    assert pem.splitlines()[1] not in failed.value.what + failed.value.hint


def test_a_relative_path_in_profiles_is_a_warning_that_names_it(tmp_path: Path) -> None:
    root = prepare(tmp_path / "project")
    profiles = root / "orders/profiles.yml"
    profiles.write_text(
        "orders:\n  target: x\n  outputs:\n    x:\n      type: duckdb\n"
        "      path: ../shop.duckdb # here\n      schema: main\n      search_path: main\n"
    )
    _, listener = run(root)
    (warning,) = listener.warnings
    assert "path: ../shop.duckdb in project/profiles.yml is relative" in warning


@pytest.mark.parametrize("is_stale", [True, False])
def test_a_manifest_that_dbt_does_not_write_is_an_error(
    is_stale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path / "project")
    if is_stale:
        run(root)
        (root / "orders/models/profit.sql").write_text("select 1 as profit")
        declaration = root / "orders/dbt_project.yml"
        declaration.write_text(declaration.read_text() + "  write_json: false\n")
    else:
        monkeypatch.setenv("DBT_WRITE_JSON", "false")
    with pytest.raises(
        ConfigurationError, match=r"did not write .*/target/manifest\.json"
    ) as reported:
        run(root)
    assert "DBT_WRITE_JSON" in reported.value.hint


def test_outside_of_a_repository_only_what_never_ships_is_left_out(tmp_path: Path) -> None:
    root = prepare(tmp_path / "project", repository=False)
    (root / "orders/notes.local.md").write_text("x")
    (root / "orders/.venv").mkdir()
    (root / "orders/.venv/x").symlink_to("gone")
    bundle, listener = run(root)
    names = {path.partition("/project/")[2] for path in shipped(bundle)}
    assert "notes.local.md" in names
    assert not [name for name in names if ".venv" in name]
    assert not [text for text in listener.notes if "git ignores" in text]
