"""Which states of an artifact are a project's, if it has those of others, too."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundler.artifacts.baseline import of_place, since
from bundler.artifacts.extract import Extracted
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project, open_project
from bundler.refresh.run import Refreshed, refresh
from bundler.state.bundle import paths_at
from bundler.state.directory import DirectoryArtifact, PublishedDirectories
from bundler.state.manifest import Contents, DirectoryRefresh, KeyRefresh, build
from bundler.state.statedir import StateDir
from bundler.workflows.defer import deferred
from tests.support.recording import RecordingListener
from tests.support.statedirs import publish

A, B, NESTED = (f"{name}/defs/.local_defs_state" for name in ("a", "b", "x/b"))


@pytest.mark.parametrize(
    ("paths", "places", "expected"),
    [
        ([f"/app/{A}", f"/app/{B}"], [A, B], [[f"/app/{A}"], [f"/app/{B}"]]),
        ([f"/app/{A}", f"/app/{B}"], [B], [[f"/app/{B}"]]),
        ([B, NESTED], [B, NESTED], [[B], [NESTED]]),
        ([NESTED], [B, NESTED], [[], [NESTED]]),
        # It may be this project's in the folder x: if it is another's, nothing says so.
        ([NESTED], [B], [[NESTED]]),
        ([f"/app/{B}", f"/lib/{B}"], [B], [[f"/app/{B}", f"/lib/{B}"]]),
        # The only one of a single project may have any name but that of another module.
        (["."], [A], [["."]]),
        ([".local_defs_state"], [A], [[".local_defs_state"]]),
        (["/srv/catalogue"], ["state"], [["/srv/catalogue"]]),
        (["/srv/catalogue"], ["state", "catalogue"], [[], ["/srv/catalogue"]]),
        (["/srv/catalogue"], ["state", "states"], [[], []]),
        ([A], [B], [[]]),
        ([f"/app/{A}"], ["state"], [[]]),
        ([".", A], [B], [[]]),
        ([], [A], [[]]),
    ],
)
def test_the_paths_of_each_project(
    paths: Sequence[str], places: Sequence[str], expected: Sequence[Sequence[str]]
) -> None:
    assert [paths_at(paths, place, places) for place in places] == expected


@pytest.mark.parametrize(
    ("paths", "places", "expected"),
    [
        ([A, B], [A, B], {A: A, B: B}),
        ([A], [B], "contains no states for b/defs"),
        ([A], [A, B], "contains no states for b/defs"),
        ([f"/app/{B}", f"/lib/{B}"], [B], "contains several states for b/defs"),
        (["state"], ["state", "state"], "for state, where several projects have theirs"),
    ],
)
def test_a_baseline_of_another_project_is_refused(
    paths: Sequence[str], places: Sequence[str], expected: Mapping[str, str] | str
) -> None:
    empty = build(Contents(()))
    given = [Extracted(path, Path("/extracted", path.strip("/")), empty) for path in paths]
    if isinstance(expected, str):
        with pytest.raises(ConfigurationError, match=expected):
            [of_place(given, place, places, "oci:app") for place in places]
    else:
        found = {place: of_place(given, place, places, "oci:app").path for place in places}
        assert found == {place: Path("/extracted", path) for place, path in expected.items()}


def test_the_directories_of_a_baseline_are_named_as_they_can_be_passed(tmp_path: Path) -> None:
    empty = build(Contents(()))
    given = [Extracted(path, Path("/extracted", path), empty) for path in (A, f"x/{A}")]
    with pytest.raises(ConfigurationError) as raised:
        of_place(given, A, [A], "oci:my app")
    assert raised.value.hint == (
        f"It contains: {A}, x/{A}. Extract it (`state-bundler extract 'oci:my app' -o states`) and "
        "pass one of the directories with --baseline."
    )
    for path in (A, f"x/{A}"):
        (tmp_path / path).mkdir(parents=True)
    with pytest.raises(ConfigurationError) as raised:
        of_place(given, A, [A], str(tmp_path))
    paths = f"{tmp_path / A}, {tmp_path / 'x' / A}"
    assert (
        raised.value.hint == f"It contains: {paths}. Pass one of these directories with --baseline."
    )


def _baseline(folder: Path, **states: Mapping[str, str]) -> DirectoryArtifact:
    for name, files in states.items():
        place = f"{name}/defs/.local_defs_state"
        publish(
            StateDir(folder / "app" / place, place), {k: {"state": v} for k, v in files.items()}
        )
    return DirectoryArtifact(folder)


@pytest.mark.parametrize(
    ("own", "before", "expected"),
    [
        ({"a": {"K": "1"}}, {"a": {"K": "1"}, "b": {"K": "2", "L": "1"}}, []),
        ({"a": {"K": "1"}}, {"a": {"K": "1", "L": "1"}, "b": {"L": "2"}}, [("L", "removed")]),
        # The same key of another project is neither compared with nor taken for this one.
        ({"a": {"K": "1"}}, {"b": {"K": "2"}}, [("K", "added")]),
        ({"a": {"K": "1"}, "b": {"L": "1"}}, {"b": {"K": "1", "L": "1"}},
         [("K", "added"), (f"K in app/{B}", "removed")]),
        ({"a": {"K": "1"}, "b": {"K": "2"}}, {"b": {"K": "2"}}, [(f"K in {A}", "added")]),
        ({"a": {"K": "1"}, "b": {"K": "3"}}, {"b": {"K": "2"}},
         [(f"K in {A}", "added"), (f"K in {B}", "changed")]),
        ({"b": {"K": "3"}}, {"a": {"K": "3"}, "b": {"K": "2"}}, [("K", "changed")]),
    ],
)  # fmt: skip
def test_what_changed_since_a_baseline_of_several_projects(
    own: Mapping[str, Mapping[str, str]],
    before: Mapping[str, Mapping[str, str]],
    expected: Sequence[tuple[str, str]],
    tmp_path: Path,
) -> None:
    (tmp_path / "old").mkdir()
    new = _baseline(tmp_path / "new", **own)
    places = {
        directory.path.removeprefix("app/"): directory for directory in new.state_directories()
    }
    after = PublishedDirectories("new", {place: tmp_path / "new/app" / place for place in places})
    found = since(_baseline(tmp_path / "old", **before), after, [*places])
    assert [(key.key, key.kind) for key in found.keys] == expected


def _project(root: Path, path: str) -> Project:
    root.mkdir()
    (root / "pyproject.toml").write_text(
        f'[[tool.state-bundler.source]]\nkey = "Feed"\npath = "{path}"\n'
        f'command = ["sh", "-c", "echo {root.name} > $0", "{{state_path}}"]\n'
    )
    return open_project(root, python=Path(sys.executable))


@pytest.mark.slow
def test_projects_with_states_at_one_place_do_not_go_into_one_artifact(tmp_path: Path) -> None:
    one, two = (_project(tmp_path / name, "state") for name in ("one", "two"))
    with ExitStack() as held, pytest.raises(ConfigurationError, match="would both be state in"):
        refresh([one, two], RefreshOptions(), Listener(), held=held)
    with pytest.raises(ConfigurationError, match=r"one/state and .*two/state would both be"):
        refresh([one, two], RefreshOptions(), Listener(), into=tmp_path / "plan")
    assert not (tmp_path / "one/state/@manifest.json").exists()
    assert len(refresh([one, two], RefreshOptions(), Listener()).bundles) == 2
    with pytest.raises(ConfigurationError, match="where several projects have theirs"):
        refresh([one, two], RefreshOptions(baseline=str(tmp_path / "one/state")), Listener())


def test_no_project_keeps_the_state_that_another_one_has_for_its_key(tmp_path: Path) -> None:
    one, two = (_project(tmp_path / name, f"{name}/states") for name in ("one", "two"))
    refresh([one], RefreshOptions(), Listener())
    options = RefreshOptions(mode="never", baseline=str(tmp_path / "one"))
    with pytest.raises(ConfigurationError, match="contains no states for two/states"):
        refresh([one, two], options, Listener())
    assert not (tmp_path / "two/two/states/@manifest.json").exists()


_KEY = "DbtProjectComponent[dbt]"
_PARSED = "project/target/manifest.json"


@pytest.mark.parametrize(
    ("production", "expected"),
    [
        ({"a": "1", "b": "2"}, {A: "1", B: "2"}),
        ({"b": "2"}, {A: None, B: "2"}),
        ({"c": "3"}, None),
    ],
)
def test_each_dbt_project_defers_to_its_own(
    production: Mapping[str, str], expected: Mapping[str, str | None] | None, tmp_path: Path
) -> None:
    """Two projects of a monorepo have the same key: it is made of the folder's name."""

    def published(top: str, name: str, text: str) -> Any:
        place = f"{name}/defs/.local_defs_state"
        parsed = {_PARSED: json.dumps({"of": text}), "project/target/partial_parse.msgpack": text}
        files = {"state": "", **parsed}
        return publish(StateDir(tmp_path / top / place, place), {_KEY: files}).bundle

    for name, text in production.items():
        published("production", name, text)
    component: Any = SimpleNamespace(key=_KEY, defers_in="project/prod", kinds=("dagster_dbt.X",))
    found: Any = tuple(SimpleNamespace(place=place, components=(component,)) for place in (A, B))
    bundles = tuple(published("branch", name, "branch") for name in "ab")
    record = tuple(DirectoryRefresh(place, (KeyRefresh(_KEY),)) for place in (A, B))
    listener = RecordingListener()
    with ExitStack() as held:
        refreshed = Refreshed(bundles, record, found)
        arguments = (refreshed, str(tmp_path / "production"), held, listener)
        if expected is None:
            with pytest.raises(VerificationFailed, match="contains none of the dbt projects"):
                deferred(*arguments)
            return
        made = deferred(*arguments)
        for bundle, entry in zip(made.bundles, made.record, strict=True):
            path = (bundle.held or bundle.root) / bundle.manifest.states[0].path / "project/prod"
            manifest = path / "manifest.json"
            text = json.loads(manifest.read_text())["of"] if manifest.exists() else None
            assert text == expected[bundle.place]
            assert bool(entry.keys[0].deferred_from) is (text is not None)
