"""dbt from a git repository, and in the classic way without components. About 40 s.

A project on the local disk is in the sample project of `test_whole_way`; every fault at every
endpoint of the git server: ``make integrations``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.checks import semantic_digest
from bundler.refresh.model import Component
from bundler.refresh.run import refresh
from bundler.refresh.vendors import kind_of
from bundler.state.tree import scan
from tests.support.environments import ROOT, python_of
from tests.support.integrations.dbtgit import TOKEN, GitServer, component, url_of
from tests.support.integrations.running import CODES, Account, cases_of, make_account
from tests.support.integrations.shipping import (
    assets_in_image,
    assets_in_pex,
    bytes_of,
    image_of,
    pex_of,
    published,
)
from tests.support.integrations.standin import Case, Fault
from tests.support.recording import RecordingListener

GOOD = Case("good")
FAULTS = [
    Fault("401", "refs"),
    Fault("403", "pack"),
    Fault("404", "refs"),
    Fault("429", "refs"),
    Fault("500", "pack"),
    Fault("503", "refs"),
    Fault("html", "refs"),
    Fault("cut", "pack"),
    Fault("empty", "refs"),
    Fault("refused", "*"),
    Fault("hanging", "pack"),
    Fault("dripping", "refs"),
]
# An empty answer is none of git's.
EXPECTED = {**CODES, "empty": frozenset({69})}
ASSETS = {"raw_orders", "raw_customers", "stg_orders", "stg_customers", "revenue"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """A component whose project comes from a repository, refreshed."""
    with GitServer(GOOD, *cases_of(FAULTS, size=1)) as server:
        account = make_account(server, tmp_path_factory.mktemp("dbt") / "project", timeout=15)
        shutil.rmtree(account.root / "orders")  # it comes from the repository alone
        for case in cases_of(FAULTS, size=1):
            shutil.rmtree(account.root / "warehouse/defs" / case.name.replace("-", "_"))
        assert account.refresh(timeout=300) == {}
        yield account


def test_from_a_repository_all_the_way(account: Account, tmp_path: Path) -> None:
    bundle = published(account.root)
    (state,) = bundle.manifest.states
    assert state.writable == ("project/orders/target",)
    assert not [file.path for file in state.files if ".git/" in file.path]
    pex = pex_of(account.root, bundle, tmp_path)
    assert assets_in_pex(pex, account.python, tmp_path, account.variables) == ASSETS
    image = image_of(account.root, bundle, tmp_path)
    assert assets_in_image(image, account.python, account.variables) == ASSETS
    everything = bytes_of(pex, image)
    assert TOKEN.encode() not in everything
    assert str(account.root).encode() not in everything
    assert TOKEN not in "\n".join(account.listener.texts)


def test_seeds_are_found_where_the_project_is(account: Account) -> None:
    (manifest,) = account.states.rglob("project/orders/target/manifest.json")
    nodes = json.loads(manifest.read_text())["nodes"].values()
    assert {node["root_path"] for node in nodes if node["resource_type"] == "seed"} == {"."}


def test_what_a_git_server_can_do_wrong(account: Account) -> None:
    before = account.digests()
    cases = cases_of(FAULTS, size=1)
    failures = _refresh_also(account, {case.name: component(url_of(case.name)) for case in cases})
    assert account.digests() == before
    for fault, case in zip(FAULTS, cases, strict=True):
        failure = failures[account.standin.key(case)]
        assert failure.exit_code in EXPECTED[fault.fault], failure.what
        assert account.standin.host(case, fault.endpoint) in failure.what
        assert failure.hint
    words = [*account.listener.texts, *(one.what + one.hint for one in failures.values())]
    assert TOKEN not in "\n".join(words)
    assert max(account.listener.took.values()) < account.timeout + 15


def test_what_a_repository_can_lack(account: Account) -> None:
    before = account.digests()
    wrong = "canary-of-somebody-else"
    components = {
        "empty": component(url_of("good", "empty"), "."),
        "headless": component(url_of("good", "headless"), "."),
        "nowhere": component(url_of("good", "nowhere")),
        "elsewhere": component(url_of("elsewhere", "shop"), "another/folder"),
        "refused": component(url_of("good", "plain"), ".", wrong),
    }
    failures = _refresh_also(account, components)
    assert account.digests() == before
    said = {
        "empty": (78, "the default branch is missing or empty"),
        "headless": (78, "the default branch is missing or empty"),
        "nowhere": (78, "has no such repository"),
        "shop": (78, "repo_relative_path names another directory"),
        "plain": (77, "rejected the credentials"),
    }
    for name, (code, sentence) in said.items():
        (failure,) = [one for key, one in failures.items() if f"/{name}.git" in key]
        assert failure.exit_code == code
        assert sentence in failure.what
        assert ".git.example.com:443" in failure.what
    texts = [failure.what + failure.hint for failure in failures.values()]
    assert wrong not in "\n".join([*texts, *account.listener.texts])


def _refresh_also(account: Account, components: dict[str, str]) -> dict[str, Exception]:
    """Refreshes further components, and takes them away again."""
    folder = account.root / "warehouse/defs/also"
    folder.mkdir()
    (folder / "defs.yaml").write_text("---".join(components.values()))
    keys = [
        line.split(": ")[1]
        for text in components.values()
        for line in text.splitlines()
        if "repo_url" in line
    ]
    try:
        return account.refresh(*(f"DbtProjectComponent[{url}]" for url in keys))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("user", ["ada:canary-password", "ghp_canaryofnobody0123456789"])
def test_credentials_in_the_url_are_refused_and_not_shown(account: Account, user: str) -> None:
    url = f"https://{user}@good.git.example.com/shop.git"
    failures = _refresh_also(account, {"with": component(url)})
    (failure,) = failures.values()
    assert failure.exit_code == 77
    assert "https://good.git.example.com/shop.git" in failure.what
    assert "canary" not in failure.what + failure.hint + "\n".join(account.listener.texts)


# --- the classic way ----------------------------------------------------------------------------


def _assert_times_mean_nothing(directory: Path) -> None:
    """What dbt writes anew at each run makes no new state."""
    kind = kind_of(Component("orders", "LOCAL_FILESYSTEM", "command:dbt"))
    before = scan(directory), semantic_digest(directory, scan(directory), kind, KeyOptions())
    manifest = directory / "state" / "manifest.json"
    kept = manifest.read_text()
    document = json.loads(kept)
    document["metadata"] |= {"generated_at": "2030-01-01T00:00:00Z", "invocation_id": "another"}
    manifest.write_text(json.dumps(document))
    after = scan(directory), semantic_digest(directory, scan(directory), kind, KeyOptions())
    manifest.write_text(kept)
    assert before[0].dir_hash != after[0].dir_hash
    assert before[1] == after[1]


def test_the_classic_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "tests/projects/integration_dbt_classic", root)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    python = python_of("dagster")
    project = open_project(root, python=python)
    first = refresh([project], RefreshOptions(), RecordingListener()).bundles[0]
    place = "warehouse/dbt_state"
    bundle = published(root, place)
    assert bundle.manifest.content_digest == first.manifest.content_digest
    on_path = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}  # dbt: the project's
    pex = pex_of(root, bundle, tmp_path)
    assert assets_in_pex(pex, python, tmp_path, on_path) == ASSETS
    assert assets_in_image(image_of(root, bundle, tmp_path), python, on_path) == ASSETS
    _assert_times_mean_nothing(bundle.root / "orders")
    (root / "orders/models/broken.sql").write_text("select {{ nothing(")
    with pytest.raises(ToolFailed, match="dbt failed with exit code 2: Compilation") as failed:
        refresh([project], RefreshOptions(), RecordingListener())
    assert "broken" in failed.value.what
    assert published(root, place).manifest.content_digest == first.manifest.content_digest
