"""``state-bundler store`` as a user uses it, on a folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.cli.commands import cli
from bundler.cli.documents import schemas
from bundler.cli.run import run
from bundler.component import DefsStateStorage, EmbeddedStateWarning, Load, StateError
from bundler.component_storage import StoreStateStorage
from bundler.store import local, open_store
from bundler.store.lease import lease
from bundler.store.prune import referenced_by
from tests.support.bundles import make_bundle

Run = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    table = f'[tool.state-bundler]\nstore = "file://{tmp_path}/store"\n'
    (root / "pyproject.toml").write_text(table)
    monkeypatch.chdir(root)
    monkeypatch.delenv("GITHUB_ACTOR", raising=False)
    return root


@pytest.fixture
def store(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()  # what came before is not this command's
        found = run(cli, ["store", *arguments])
        printed = capsys.readouterr()
        assert found == code, printed.err
        return printed.out if code in (0, 1) else printed.err

    return call


def assert_fits(text: str, schema: str) -> None:
    file = schemas.FOLDER / f"{schema}.schema.json"
    Draft202012Validator(json.loads(file.read_text())).validate(json.loads(text))


def publish(root: Path, states: dict[str, bytes]) -> None:
    make_bundle(root / ".local_defs_state", {key: {"state": v} for key, v in states.items()})


@pytest.mark.parametrize("kind", ["project", "below", "member"])
def test_a_push_takes_the_states_of_the_projects_and_no_copies_below_them(
    kind: str, project: Path, store: Run
) -> None:
    root = project if kind == "project" else project / "orders"
    root.mkdir(exist_ok=True)
    source = '[[tool.state-bundler.source]]\nkey = "{0}"\ncommand = ["true"]\npath = "{0}"\n'
    if kind == "member":  # of a workspace whose root is a project, too
        with (project / "pyproject.toml").open("a") as file:
            file.write(source.format("Z") + '[tool.uv.workspace]\nmembers = ["orders"]\n')
        make_bundle(project / "Z", {"Z": {"state": b"1"}})
    with (root / "pyproject.toml").open("a") as file:
        file.write(source.format("A") + source.format("B"))
    make_bundle(root / "A", {"A": {"state": b"1"}})
    make_bundle(root / "old/B", {"Old": {"state": b"1"}})
    store("push")  # B may be anywhere: it is not where the files say
    above = ["Z"] * (kind == "member")
    assert [it.split()[0] for it in store("list").splitlines()[2:]] == ["A", "Old", *above]
    store("remove", "Old")
    make_bundle(root / "B", {"B": {"state": b"2"}})
    make_bundle(root / "old/A", {"A": {"state": b"0"}})
    store("push")
    assert [it.split()[0] for it in store("list").splitlines()[2:]] == ["A", "B", *above]


@pytest.mark.parametrize("lost", ["content", "versions"])
def test_what_a_bucket_lost_is_pushed_again_as_the_message_says(
    lost: str, project: Path, store: Run, tmp_path: Path
) -> None:
    publish(project, {"A": b"1"})
    store("push")
    shutil.rmtree(tmp_path / "store" / lost)
    assert "state-bundler store remove" in store("pull", "-o", "states", code=76)
    for every in ([], ["--all-versions"]):
        store("list", *every, code=76 if lost == "versions" else 0)
    assert "store remove KEY" in store("verify", code=76)
    store("remove", "A")
    store("push")
    store("pull", "-o", "states")
    # So does a push of the same state, and of one that has a file in common with it.
    shutil.rmtree(project / "states")
    for files in ({"state": b"1"}, {"state": b"2", "other": b"1"}):
        shutil.rmtree(tmp_path / "store" / lost)
        make_bundle(project / ".local_defs_state", {"A": files})
        assert " new" in store("push")
        store("pull", "-o", f"{tmp_path}/{len(files)}")
    assert " unchanged" in store("push")


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("1", None),
        ("#1", None),
        ("2020-01-01T02:00:00+01:00", None),
        ("2020-01-01t01:00:00.5z", None),
        ("2020-01-01T00:59:59Z", "has no set from"),
        ("2020-01-01T01:00:00+01:00", "has no set from"),
        ("0001-01-01T00:00:00+14:00", "has no set from"),
        ("0", "has no set from"),
        ("3", "newest set is number 2"),
        ("yesterday", "neither the number of a set nor a time"),
        ("2020-01-01", "neither"),
        ("2020-01-01T01:00:00", "neither"),
        ("2020-13-01T00:00:00Z", "neither"),
        ("-1", "neither"),
        ("\u00b3", "neither"),
        ("9" * 5000, "neither"),
        ("", "neither"),
        ("00000000-0000-4000-8000-000000000000", "has no version"),
    ],
)
def test_what_is_not_a_set_of_the_store_is_never_the_newest(
    when: str, says: str | None, project: Path, store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, made in enumerate(("2020-01-01T01:00:00Z", "2020-01-02T00:00:00Z"), start=1):
        monkeypatch.setattr("bundler.store.pointer.times.now", lambda made=made: made)
        publish(project, {"A": f"{number}".encode()})
        store("push")
    store("pull", "-o", "states", "--at", when, code=2 if says else 0)
    said = store("rollback", "--at", when, code=2 if says else 0)
    if says:
        assert says in said
    else:
        (state,) = (project / "states").rglob("A/state")
        assert state.read_bytes() == b"1"
        assert "set 3" in said


def test_two_states_with_one_key_are_named(project: Path, store: Run) -> None:
    for folder in ("one", "two"):
        make_bundle(project / folder, {"A": {"state": b"1"}})
    said = store("push", code=2)
    assert f"{project}/one/A and {project}/two/A" in said


@pytest.mark.slow
def test_a_key_of_another_state_directory_is_a_warning(
    project: Path, store: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two projects with one store: both get the state that was pushed last."""
    make_bundle(project / "one", {"A": {"state": b"1"}})
    store("push")
    (project / "one").rename(project / "two")
    capsys.readouterr()

    def warned(*arguments: str) -> list[str]:
        assert run(cli, ["store", *arguments]) == 0
        return [it for it in capsys.readouterr().err.splitlines() if it.startswith("warning: A ")]

    assert not warned("push"), "the same state"
    make_bundle(project / "two", {"A": {"state": b"2"}})
    assert not warned("copy", f"file://{tmp_path}/other")
    (warning,) = warned("push")
    assert "was the state of one and is now that of two" in warning
    assert not warned("push")
    assert warned("copy", f"file://{tmp_path}/other")
    assert warned("copy", f"file://{tmp_path}/third", "--history")
    assert warned(*warning.rpartition("state-bundler store ")[2].replace("'", "").split())
    (project / "two").rename(project / "one")
    make_bundle(project / "one", {"A": {"state": b"3"}})
    assert not warned("push", "--shard", "1/1", "--run", "7")
    assert not warned("join", "1", "--run", "7")


def test_push_look_roll_back(project: Path, store: Run, tmp_path: Path) -> None:
    assert store("list") == ""
    assert_fits(store("list", "--format", "json"), "store-list")
    assert_fits(store("list", "--sets", "--format", "json"), "store-sets")
    publish(project, {"A": b'{"a": 1}', "B": b"b"})
    assert "set 1, 9 B uploaded" in store("push", "--note", "first")
    publish(project, {"A": b'{"a": 2}', "B": b"b"})
    assert "B    " in store("push")
    assert "a: 1 -> 2" in store("diff", "1", code=1)
    sets = json.loads(store("list", "--sets", "--format", "json"))["sets"]
    assert [(item["number"], item.get("note", "")) for item in sets] == [(2, ""), (1, "first")]
    assert "set 3" in store("rollback")
    store("pull", "-o", "out", "--key", "A")
    assert (project / "out/.local_defs_state/A/state").read_bytes() == b'{"a": 1}'
    rows = json.loads(store("list", "--all-versions", "--format", "json"))["keys"]
    assert [(row["key"], row["current"]) for row in rows].count(("A", False)) == 1
    version = next(row["version"] for row in rows if not row["current"])
    assert "{" not in store("show", version)
    store("pin", version, "--note", "release")
    assert "release" in store("list", "--all-versions")
    assert "0 versions" in store("prune", "--keep", "1")
    store("pin", version, "--remove")
    assert "would be removed" in store("prune", "--keep", "1", "--dry-run")
    assert "removed" in store("prune", "--keep", "1")
    assert "2 versions" in store("verify")
    assert "2 new versions" in store("copy", f"file://{tmp_path}/other")
    assert "-> none" in store("remove", "B")
    store("remove", "B", code=2)
    removed = store("remove", "A", "--format", "json")
    assert_fits(removed, "store-set")
    (move,) = json.loads(removed)["moves"]
    assert move["before"]
    assert move["after"] is None


def test_prune_keeps_what_an_artifact_names(project: Path, store: Run) -> None:
    for value in (b"1", b"2"):
        publish(project, {"A": value})
        store("push")
    store("pull", "-o", "old", "--at", "1")
    assert "0 versions" in store("prune", "--keep", "1", "--referenced-by", "old")
    (project / "old/.local_defs_state/@manifest.json").unlink()
    store("prune", "--keep", "1", "--referenced-by", "old", code=76)
    assert len(json.loads(store("list", "--all-versions", "--format", "json"))["keys"]) == 2


def test_shards(project: Path, store: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    publish(project, {"A": b"1", "B": b"2"})
    store("push", "--shard", "1/2", "--key", "A")
    assert "nothing was joined" in store("join", "2", code=2)
    store("push", "--shard", "2/2", "--key", "B")
    assert "set 1" in store("join", "2")
    assert "Run 77 was already joined: set 1" in store("join", "2")
    assert_fits(store("join", "2", "--format", "json"), "store-set")
    assert "2 versions" in store("verify")


def test_bit_rot_is_76(project: Path, store: Run, tmp_path: Path) -> None:
    publish(project, {"A": b"1"})
    store("push")
    next((tmp_path / "store" / "content").iterdir()).write_bytes(b"0")
    assert "altered" in store("verify", code=76)
    assert "altered" in store("pull", "-o", "out", code=76)
    assert not (project / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "reported"),
    [
        (["show", "nonsense"], 2, "no current version of nonsense"),
        (["remove", "Vendr"], 2, "Did you mean 'Vendor'?"),
        (["pin", "nonsense"], 2, "state-bundler store list --all-versions"),
        (["list", "--store", "ftp://x"], 78, "is not a store"),
        (["push", "--key", "Nobody"], 78, "Known: A"),
        (["push", "--shard", "4/3"], 2, "is not a shard"),
    ],
)
def test_what_cannot_be_is_said(
    project: Path, store: Run, arguments: Sequence[str], code: int, reported: str
) -> None:
    publish(project, {"A": b"1", "Vendor": b"2"})
    store("push")
    assert reported in store(*arguments, code=code)


def test_without_a_store_it_says_how_to_name_one(project: Path, store: Run) -> None:
    (project / "pyproject.toml").unlink()
    assert "--store URL" in store("list", code=78)


def test_who_pushed(project: Path, store: Run) -> None:
    assert local.user({"GITHUB_ACTOR": "ada"}) == "ada"
    assert "@" in local.user({})
    publish(project, {"A": b"1"})
    store("push")
    (version,) = open_store(f"file://{project.parent}/store").currents().values()
    assert version.by == local.user()


SERVICE = """
[project]
name = "shop"
version = "1"

[tool.state-bundler]
store = "{store}"

[[tool.state-bundler.source]]
path = "state"
key = "Command"
command = ["sh", "-c", 'echo "$VALUE" > {{state_path}}']

[[tool.state-bundler.source]]
path = "state"
component = "shop_components:Versioned"
"""
COMPONENT = """
import os
from pathlib import Path
from bundler.component import DefsStateConfig, DefsStateManagementType, StateBackedComponent

with Path(__file__).with_name("loads").open("a") as loads:
    print("once", file=loads)

class Versioned(StateBackedComponent):
    defs_state_config = DefsStateConfig(
        "Versioned", DefsStateManagementType.VERSIONED_STATE_STORAGE
    )

    def write_state_to_path(self, path):
        path.write_text(os.environ["VALUE"])

    def build_defs_from_state(self, context, path):
        return path.read_text()
"""


@pytest.fixture
def service(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = SERVICE.format(store=f"file://{project.parent}/store")
    (project / "pyproject.toml").write_text(text)
    (project / "shop_components.py").write_text(COMPONENT)
    monkeypatch.setenv("STATE_BUNDLER_PYTHON", sys.executable)
    return project


@pytest.mark.slow
def test_refresh_pushes_local_and_versioned_keys_as_one_set(
    service: Path, store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("VALUE", value)
        assert run(cli, ["refresh", "--push"]) == 0
    store("pull", "-o", "out", "--at", "1")
    assert (service / "out/state/Versioned/state").read_text() == "one"
    assert (service / "out/state/Command/state").read_text() == "one\n"
    sets = json.loads(store("list", "--sets", "--format", "json"))["sets"]
    assert [sorted(move["key"] for move in item["moves"]) for item in sets] == [
        ["Command", "Versioned"],
        ["Command", "Versioned"],
    ]
    monkeypatch.setenv("VALUE", "three")
    assert run(cli, ["refresh", "--shard", "1/1", "--run", "7"]) == 0
    assert (service / "loads").read_text().split() == ["once"] * 3, "each of them loads them once"
    assert "set 3" in store("join", "1", "--run", "7")
    assert run(cli, ["status", "store:"]) == 0


@pytest.mark.slow
def test_a_shard_that_waits_hears_a_signal(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUE", "one")
    argv = [sys.executable, "-m", "bundler", "refresh", "--shard", "1/1", "--run", "7"]
    store = open_store(f"file://{service.parent}/store")
    with lease(store.objects, ["Versioned"], "another"):
        waiting = subprocess.Popen([*argv, "--wait", "1h"], stderr=subprocess.PIPE)
        while not (service / "loads").exists():
            assert waiting.poll() is None
            time.sleep(0.05)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=120)
        assert waiting.returncode == 130
    with lease(store.objects, [], "the next"):
        assert store.current() is None


def test_a_store_that_is_not_spelled_out_is_shown_with_its_url(
    project: Path, store: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(project, {"A": b"1"})
    store("push")
    publish(project, {"A": b"2"})
    store("push")
    url = f"store:file://{project.parent}/store"
    assert run(cli, ["status", "store:", "--baseline", "store:@1", "--format", "json"]) == 0
    (holder,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (holder["name"], holder["since"]["baseline"]) == (url, f"{url}@1")


@pytest.mark.slow
def test_a_shard_waits_for_who_refreshes_one_of_its_keys(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ["refresh", "--shard", "1/1", "--run", "7"]
    monkeypatch.setenv("VALUE", "one")
    objects = open_store(f"file://{service.parent}/store").objects
    with lease(objects, ["Versioned"], "another"):
        assert run(cli, shard) == 75
        assert run(cli, [*shard, "--wait", "1s"]) == 75
    with lease(objects, ["Another"], "another"):
        assert run(cli, shard) == 0


def build(*arguments: str, code: int = 0) -> None:
    assert run(cli, ["build", "oci", "-o", "layout", "--no-guard", *arguments]) == code


def non_local(name: str = "oci:layout") -> dict[str, str | None]:
    """The keys whose states are not in the artifact, with the versions that it pins."""
    with open_artifact(name) as artifact:
        (manifest,) = artifact.manifests().values()
    return {item.key: item.version for item in manifest.predicate.contents.non_local}


@pytest.fixture
def pushed(service: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service, with both keys in the store; git would look above the test's folder."""
    monkeypatch.setenv("VALUE", "one")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(service.parent))
    assert run(cli, ["refresh", "--push"]) == 0
    return service


@pytest.mark.slow
def test_a_build_pins_versions_which_a_prune_then_keeps(
    pushed: Path, store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    pinned = json.loads(store("show", "Versioned", "--format", "json"))["version"]
    assert non_local() == {"Versioned": pinned}
    with open_artifact("oci:layout") as artifact:
        assert pinned in referenced_by(artifact)
    monkeypatch.setenv("VALUE", "two")
    assert run(cli, ["refresh", "--push"]) == 0
    assert pinned not in store("prune", "--keep", "1", "--referenced-by", "oci:layout")
    assert pinned in store("list", "--all-versions")
    assert pinned in store("prune", "--keep", "1")
    shutil.rmtree(pushed / "layout")
    build("--no-pin-versioned")
    assert non_local() == {"Versioned": None}


@pytest.mark.slow
def test_a_build_embeds_versioned_states_for_when_the_store_is_down(
    pushed: Path, store: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build("--embed-versioned")
    version = json.loads(store("show", "Versioned", "--format", "json"))["version"]
    assert non_local() == {}
    with open_artifact("oci:layout") as artifact:
        assert version in referenced_by(artifact)
        assert not verify(artifact).all_problems
        (manifest,) = artifact.manifests().values()
    state = manifest.state("Versioned")
    assert state is not None
    assert state.version == version
    capsys.readouterr()
    assert run(cli, ["status", "oci:layout"]) == 0
    shown = capsys.readouterr().out
    assert "VERSIONED_STATE_STORAGE" in shown or "versioned" in shown.lower()
    # Nothing is fetched again where the same version is embedded already.
    embedded = pushed / "state" / "Versioned" / "state"
    before = embedded.stat().st_ino
    build("--embed-versioned")
    assert embedded.stat().st_ino == before
    monkeypatch.setenv("VALUE", "two")
    assert run(cli, ["refresh", "--push", "--key", "Versioned"]) == 0
    assert not embedded.exists(), "a refresh for the store leaves nothing of it here"
    build("--embed-versioned")
    assert embedded.read_text() == "two"
    assert store("remove", "Versioned")
    build("--embed-versioned", code=2)
    build("--pin-versioned", code=2)


@pytest.mark.slow
def test_states_from_the_store_are_embedded_with_their_versions(
    pushed: Path, store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refresh, many builds: each finds its versioned states without the store, and a prune
    keeps what it was built from."""
    versions = {
        key: json.loads(store("show", key, "--format", "json"))["version"]
        for key in ("Versioned", "Command")
    }
    build("--state-from", "store:")
    with open_artifact("oci:layout") as artifact:
        (manifest,) = artifact.manifests().values()
        assert referenced_by(artifact) == set(versions.values())
    assert {state.key: state.version for state in manifest.states} == {
        "Versioned": versions["Versioned"],
        "Command": None,
    }
    # So does a build from that build.
    (pushed / "layout").rename(pushed / "first")
    build("--state-from", "oci:first")
    with open_artifact("oci:layout") as artifact:
        (again,) = artifact.manifests().values()
        assert again.content_digest == manifest.content_digest
        assert referenced_by(artifact) == set(versions.values())
    monkeypatch.setenv("VALUE", "two")
    assert run(cli, ["refresh", "--push"]) == 0
    assert "0 versions" in store("prune", "--keep", "1", "--referenced-by", "oci:layout")


@pytest.mark.slow
def test_a_program_uses_what_is_embedded_while_the_store_is_down(
    pushed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("--embed-versioned")
    monkeypatch.syspath_prepend(str(pushed))
    from shop_components import Versioned  # type: ignore[import-not-found]  # made by `service`

    def value(storage: DefsStateStorage | None, **versions: str) -> str:
        with Load(pushed / "state", storage, versions=versions) as load:
            return str(load.build_defs(Versioned()))

    working = StoreStateStorage(f"file://{pushed.parent}/store")
    assert value(None) == "one"
    monkeypatch.setenv("VALUE", "two")
    assert run(cli, ["refresh", "--push"]) == 0
    assert run(cli, ["store", "rollback"]) == 0
    build("--embed-versioned")
    assert run(cli, ["store", "rollback"]) == 0
    assert value(working) == "two", "the newest, while the store answers"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "unused")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    down = StoreStateStorage("s3://bucket/prefix", patience=0.1)
    with pytest.warns(EmbeddedStateWarning, match="did not answer"):
        assert value(down) == "one"
    with pytest.raises(StateError, match="did not answer"):
        value(down, Versioned=str(uuid.uuid4()))
    lost = StoreStateStorage(f"file://{pushed.parent}/not-mounted")
    with pytest.warns(EmbeddedStateWarning, match="has no state"):
        assert value(lost) == "one"
    (pushed / "state" / "Versioned" / "state").write_text("altered")
    with pytest.raises(StateError, match="does not match the manifest"):
        value(None)
