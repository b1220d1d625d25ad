"""``state-bundler plan`` with a real Dagster, and what ships from its file. About a minute."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.state.statedir import StateDir
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.planned import AFTER, BEFORE, KEY, SMALL_PEX, feed, make, python
from tests.support.pushing import config
from tests.support.statedirs import publish, snapshot

pytestmark = pytest.mark.usefixtures("loads_once")
_STATES = "src/planned/defs/.local_defs_state"


class _Project:
    """A project in its own repository, refreshed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = make(folder)

    def run(self, *arguments: str | Path, code: int = 0, built: Sequence[str | Path] = ()) -> None:
        """built: what comes after ``--``."""
        here = ("--project", self.root, "--python", python())
        command, *rest = arguments
        words = ["build", command[6:], *rest] if str(command).startswith("build ") else arguments
        assert run(cli, [str(word) for word in (*words, *here, *built)]) == code

    def feed(self, state: Mapping[str, Any]) -> None:
        feed(self.folder, state)

    def published(self) -> dict[str, bytes]:
        return snapshot(self.root / _STATES)

    def state_in(self, artifact: str) -> Any:
        """The state that an artifact has."""
        with open_artifact(artifact) as opened, tempfile.TemporaryDirectory() as folder:
            (found,) = extract(opened, Path(folder) / "states")
            return json.loads((found.target / "Feed__main__/state").read_text())


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> _Project:
    folder = tmp_path_factory.mktemp("plan")
    project = _Project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEED", str(folder / "feed"))
        project.run("refresh")
    return project


@pytest.fixture
def project(refreshed: _Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Project:
    monkeypatch.setenv("FEED", str(tmp_path / "feed"))
    shutil.copytree(refreshed.folder, tmp_path, dirs_exist_ok=True)
    copied = object.__new__(_Project)
    copied.folder, copied.root = tmp_path, tmp_path / "planned"
    return copied


def _plan(project: _Project, capsys: pytest.CaptureFixture[str], *more: str | Path) -> Any:
    capsys.readouterr()
    project.run("plan", *more, "--format", "json", code=1)
    return json.loads(capsys.readouterr().out)


def test_nothing_changes(project: _Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = project.published()
    project.run("plan")
    assert "Keys: 1 unchanged." in capsys.readouterr().out
    assert project.published() == before


def test_what_would_change_is_said_twice_and_nothing_is_published(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.published()
    project.feed(AFTER)
    found = _plan(project, capsys)
    assert project.published() == before
    assert found["changes"] is True
    (baseline,) = found["baselines"]
    assert baseline["name"] == "what is published"
    assert baseline["states"]["keys"][0]["key"] == KEY
    changes = {(it["kind"], it["name"]): it["change"] for it in baseline["definitions"]["changes"]}
    assert changes["assets", "returns"] == "removed"
    assert changes["schedules", "hourly_schedule"] == "added"
    assert changes["jobs", "nightly"] == "changed"
    removed = {it["kind"]: it["names"] for it in baseline["removals"]}
    assert removed["assets"] == ["returns"]
    assert removed["schedules"] == ["weekly_schedule"]
    assert "<details><summary>assets (+1, -1, ~2)</summary>" in found["markdown"]
    project.run("plan", code=1)
    said = capsys.readouterr().out
    assert "Compared with what is published:" in said
    assert "  - returns\n" in said
    project.run("plan", "--format", "github", code=1)
    (notice,) = capsys.readouterr().out.splitlines()
    assert notice.startswith("::notice title=state-bundler::Compared with what is published: ")


def test_several_baselines(project: _Project, capsys: pytest.CaptureFixture[str]) -> None:
    old = project.folder / "old"
    shutil.copytree(project.root / _STATES, old / "planned/defs/.local_defs_state")
    project.feed(AFTER)
    project.run("refresh")
    found = _plan(project, capsys, old, project.root / _STATES)
    assert [it["changes"] for it in found["baselines"]] == [True, False]
    shutil.rmtree(project.root / _STATES)
    found = _plan(project, capsys)
    (baseline,) = found["baselines"]
    assert baseline["states"]["keys"][0]["kind"] == "added"
    assert not project.published()


def test_a_plan_ships_exactly_what_it_says(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.feed(AFTER)
    file, layout = project.folder / "plan.bin", project.folder / "layout"
    project.run("plan", "--out", file, code=1)
    project.feed(BEFORE)  # what a refresh would fetch now
    project.run("build oci", "-o", layout, "--no-guard", "--plan", file)
    assert project.state_in(f"oci:{layout}") == AFTER
    with open_artifact(f"oci:{layout}") as artifact:
        record = artifact.run_record()
    assert record is not None
    assert record.refresh[0].keys[0].origin == "source"
    # Carried out once more: for several artifacts.
    project.run("embed", "-t", f"oci:{project.folder / 'other'}:1", "--no-guard", "--plan", file)
    project.feed({**BEFORE, "resources": []})
    project.run("refresh")
    capsys.readouterr()
    project.run("build oci", "-o", layout, "--no-guard", "--plan", file, code=76)
    said = capsys.readouterr().err
    assert "The plan is stale: what is published has changed since it was made" in said


def test_a_plan_for_an_artifact_is_stale_once_that_has_moved(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = project.folder / "layout"
    project.run("build oci", "-o", layout, "--no-guard")
    project.feed(AFTER)
    file = project.folder / "plan.bin"
    name = f"oci:{layout}:latest"
    project.run("plan", name, "--out", file, code=1)
    project.run("update", name, "--in-place", "--no-guard", "--plan", file)
    project.run("plan", name)
    project.run("plan", name, "--out", file)
    project.feed(BEFORE)
    project.run("update", name, "--in-place", "--no-guard")
    capsys.readouterr()
    project.feed({**BEFORE, "resources": []})
    project.run("plan", name, "--out", project.folder / "other.bin", code=1)
    project.feed(AFTER)
    project.run("update", name, "--in-place", "--no-guard")
    project.run("update", name, "--no-guard", "--plan", project.folder / "other.bin", code=76)
    assert f"The plan is stale: {name} has changed" in capsys.readouterr().err


def test_a_plan_has_to_name_every_artifact_that_it_is_for(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts = [project.folder / name for name in ("first", "second")]
    names = [f"oci:{layout}:latest" for layout in layouts]
    for layout, state in zip(layouts, (BEFORE, {**BEFORE, "resources": []}), strict=True):
        project.feed(state)
        project.run("build oci", "-o", layout, "--no-guard")
    project.feed(AFTER)
    file = project.folder / "plan.bin"
    project.run("plan", names[0], "--out", file, code=1)
    before = [snapshot(layout) for layout in layouts]
    capsys.readouterr()
    project.run("update", *names, "--in-place", "--no-guard", "--plan", file, code=76)
    assert f"does not show what would change in {names[1]}" in capsys.readouterr().err
    assert [snapshot(layout) for layout in layouts] == before
    project.run("plan", *names, "--out", file, code=1)
    project.run("update", *names, "--in-place", "--no-guard", "--plan", file)
    assert [project.state_in(name) for name in names] == [AFTER] * 2


_STORED = """

class Stored(Feed):
    @property
    def defs_state_config(self) -> DefsStateConfig:
        stored = DefsStateConfigArgs.versioned_state_storage()
        return DefsStateConfig.from_args(stored, default_key=f"Stored[{self.name}]")
"""


def test_a_store_and_an_image_without_state_as_baselines(
    project: _Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"store:file://{project.folder / 'store'}"
    monkeypatch.setenv("STATE_BUNDLER_STORE", store.removeprefix("store:"))
    # The store also has the states of another project, and of a versioned key.
    other = StateDir(project.folder / "more/other/defs/.local_defs_state", "other")
    publish(other, {"Other": {"state": "[1]"}})
    assert run(cli, ["store", "push", str(project.folder / "more")]) == 0
    (project.root / "src/planned/defs/far").mkdir()
    far = project.root / "src/planned/defs/far/defs.yaml"
    far.write_text("type: planned.feed.Stored\nattributes:\n  name: far\n")
    with (project.root / "src/planned/feed.py").open("a") as stream:
        stream.write(_STORED)
    feed(project.folder, {"assets": {"far": {"group": "g"}}}, "far")
    project.run("refresh", "--push")
    plan = project.folder / "plan.bin"
    project.run("plan", "store:", "--out", plan)
    assert "Stored[far]: not refreshed by a plan, its state is in versioned storage (current" in (
        capsys.readouterr().out
    )
    project.feed(AFTER)
    found = _plan(project, capsys, store)
    assert [item["key"] for item in found["notRefreshed"]] == ["Stored[far]"]
    assert found["notRefreshed"][0]["version"]
    assert "- `Stored[far]: not refreshed by a plan" in found["markdown"]
    (baseline,) = found["baselines"]
    changes = {(it["kind"], it["name"]): it["change"] for it in baseline["definitions"]["changes"]}
    assert changes["assets", "returns"] == "removed"
    assert baseline["states"]["keys"][0]["kind"] == "changed"
    # What was deployed first had no state, and is no baseline for the check of shrunk states.
    maker = LayoutMaker(project.folder / "code")
    maker.tag(maker.manifest([code_layer()], config()), "1")
    (baseline,) = _plan(project, capsys, f"oci:{project.folder / 'code'}:1")["baselines"]
    assert {it["change"] for it in baseline["definitions"]["changes"]} == {"added"}
    assert baseline["removals"] == []
    # The store moves on.
    project.run("refresh", "--push")
    layout = ("-o", project.folder / "layout", "--no-guard")
    project.run("build oci", *layout, "--plan", plan, code=76)
    assert "The plan is stale: store: has changed" in capsys.readouterr().err


def test_a_finished_artifact_defines_what_the_plan_says(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    source = project.root / "src"
    (source / "dg.toml").write_text('[project]\nroot_module = "planned"\n')
    built = ("--", "-D", source, *SMALL_PEX)
    pex = project.folder / "app.pex"
    build = ("build pex", "-o", pex, "--no-guard")
    feed = source / "planned/feed.py"
    text = feed.read_text()
    feed.write_text(text.replace("blocking=True", "blocking=False"))
    project.run(*build, "--refresh", "never", "--no-load-check", built=built)
    feed.write_text(text)
    project.feed(AFTER)
    plan = project.folder / "plan.bin"
    project.run("plan", "--out", plan, code=1)
    # The planned states on other code are not what the plan says.
    capsys.readouterr()
    project.run("update", pex, "--no-guard", "--plan", plan, code=76)
    said = capsys.readouterr().err
    assert "does not define what the plan says: " in said
    assert "asset check orders:fresh has a different blocking" in said
    assert project.state_in(str(pex)) == BEFORE
    project.run(*build, "--plan", plan, built=built)
    assert "), as planned" in capsys.readouterr().out
    assert project.state_in(str(pex)) == AFTER


def test_removals_in_a_plan_need_approval(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with (project.root / "pyproject.toml").open("a") as stream:
        stream.write('\n[tool.state-bundler]\nmax-removed = "20%"\n')
    project.feed(AFTER)
    file, layout = project.folder / "plan.bin", project.folder / "layout"
    found = _plan(project, capsys, "--out", file)
    (refusal,) = found["baselines"][0]["refused"]
    assert refusal.startswith("Feed[main]: 1 of 4 assets would be removed, more than max-removed")
    build = ("build oci", "-o", layout, "--no-guard", "--plan", file)
    project.run(*build, code=65)
    assert not layout.exists()
    project.run(*build, "--allow-removed", KEY)
    assert project.state_in(f"oci:{layout}") == AFTER
    with open_artifact(f"oci:{layout}") as artifact:
        record = artifact.run_record()
    assert record is not None
    assert record.refresh[0].keys[0].removed == ("returns",)


def test_a_state_that_has_shrunk_needs_approval_for_each_baseline(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small state, as staging has it, would replace the large one of prod."""
    staging, prod = (project.folder / name for name in ("staging", "prod"))
    small, other = (
        {"assets": {name: {"group": "g"} for name in names}} for names in ("abc", "abd")
    )
    large = {"assets": {f"asset_{n}": {"group": "g"} for n in range(30)}}
    for layout, state in ((prod, large), (staging, small)):
        project.feed(state)
        project.run("refresh", "--allow-shrink", KEY)
        project.run("build oci", "-o", layout, "--no-guard", "--refresh", "never")
    project.feed(other)
    names = [f"oci:{layout}:latest" for layout in (staging, prod)]
    file = project.folder / "plan.bin"
    found = _plan(project, capsys, *names, "--out", file)
    first, second = (baseline["refused"] for baseline in found["baselines"])
    assert first == []
    (refusal,) = second
    assert refusal.startswith("Feed[main]: the state has shrunk from 30 to 3 entries.")
    update = ("update", names[1], "--in-place", "--no-guard", "--plan", file)
    project.run(*update, code=65)
    assert project.state_in(names[1]) == large
    project.run(*update, "--allow-shrink", KEY)
    assert project.state_in(names[1]) == other


def test_what_is_not_a_plan_is_refused(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file, layout = project.folder / "plan.bin", project.folder / "layout"
    build = ("build oci", "-o", layout, "--no-guard", "--plan", file)
    file.write_bytes(b"not a plan")
    project.run(*build, code=76)
    project.feed(AFTER)
    project.run("plan", "--out", file, code=1)
    with tarfile.open(file) as archive:
        archive.extractall(project.folder / "plan", filter="data")
    with (project.folder / "plan/states.tar").open("ab") as stream:
        stream.write(b"\0" * 512)
    subprocess.run(
        ["tar", "-C", project.folder / "plan", "-cf", file, "plan.json", "states.tar"], check=True
    )
    capsys.readouterr()
    project.run(*build, code=76)
    assert "was altered" in capsys.readouterr().err
    assert not layout.exists()
    project.run(*build, "--state-from", layout, code=2)


def _rewritten(file: Path, change: Mapping[str, Any]) -> None:
    """The plan with other fields, as another version or a hand might write it."""
    with tarfile.open(file) as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]  # both are files
    members["plan.json"] = json.dumps({**json.loads(members["plan.json"]), **change}).encode()
    with tarfile.open(file, "w") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def test_a_plan_of_something_else_is_refused(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts = [project.folder / name for name in ("one", "other")]
    for layout, resources in zip(layouts, ([], ["lake"]), strict=True):
        project.feed({**BEFORE, "resources": resources})
        project.run("build oci", "-o", layout, "--no-guard")
    file = project.folder / "plan.bin"
    project.feed(AFTER)
    project.run("plan", f"oci:{layouts[0]}:latest", "--out", file, code=1)
    update = ("update", f"oci:{layouts[1]}:latest", "--in-place", "--no-guard", "--plan", file)
    capsys.readouterr()
    project.run(*update, code=76)
    said = capsys.readouterr().err
    assert f"does not show what would change in oci:{layouts[1]}:latest" in said
    assert project.state_in(f"oci:{layouts[1]}:latest")["resources"] == ["lake"]
    # Of a project with the same keys: of another name, then only with another module.
    text = (project.root / "pyproject.toml").read_text()
    (project.root / "src/planned").rename(project.root / "src/another")
    (project.root / "pyproject.toml").write_text(text.replace("planned", "another"))
    declared = project.root / "src/another/defs/feed/defs.yaml"
    declared.write_text(declared.read_text().replace("planned", "another"))
    third = ("build oci", "-o", project.folder / "third", "--no-guard", "--plan", file)
    project.run(*third, code=76)
    assert "is a plan for planned, not for another." in capsys.readouterr().err
    _rewritten(file, {"projects": ["another"]})
    project.run(*third, code=76)
    assert "is a plan for planned/defs/.local_defs_state, not for another/" in (
        capsys.readouterr().err
    )
    assert not (project.folder / "third").exists()


def test_a_plan_of_another_version_or_other_code(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file, layout = project.folder / "plan.bin", project.folder / "layout"
    build = ("build oci", "-o", layout, "--no-guard", "--plan", file)
    project.feed(AFTER)
    project.run("plan", "--out", file, code=1)
    made = file.read_bytes()
    for change, reported in (
        ({"format": 99, "changes": "another shape"}, "is a plan of format 99"),
        ({"contents": {"elsewhere/.local_defs_state": "0" * 64}}, "is a plan for elsewhere/"),
        ({"changes": None}, "is not a plan"),
    ):
        _rewritten(file, change)
        capsys.readouterr()
        project.run(*build, code=76)
        assert reported in capsys.readouterr().err
        file.write_bytes(made)
    file.write_bytes(made[: len(made) // 2])
    project.run(*build, code=76)
    assert not layout.exists()
    file.write_bytes(made)
    (project.root / "uv.lock").write_text("version = 1\n")
    capsys.readouterr()
    project.run(*build)
    said = capsys.readouterr().err
    assert "The plan was made with other requirements or another lock file." in said
    _rewritten(file, {"commit": "0123456789abcdef"})
    project.run(*build)
    assert "The plan was made from commit 0123456789ab, but this is " in capsys.readouterr().err
