"""``--state-from``: another artifact's states with today's code."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bundler.artifacts.image import ociread
from bundler.artifacts.verify import verify
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import SILENT
from bundler.project.projects import Project, open_project
from bundler.state.bundle import Bundle
from bundler.state.manifest import Build, DirectoryRefresh, KeyRefresh, RunRecord
from bundler.state.statedir import StateDir
from bundler.workflows.pipeline import StateRequest, prepare
from bundler.workflows.state_from import replay
from tests.support.bundles import make_bundle
from tests.support.embedding import embed_layout
from tests.support.recording import RecordingListener
from tests.support.sample import Sample
from tests.support.statedirs import publish
from tests.support.untouched import everything
from tests.support.vendor import RecordedVendor

_PLACE = "shop/state"
_FETCHED = "2026-01-02T03:04:05Z"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _project(root: Path, *keys: str) -> Project:
    """A program without Dagster whose states come from a command that nobody can run."""
    (root / "src/shop").mkdir(parents=True)
    sources = "".join(
        f'[[tool.state-bundler.source]]\nkey = "{key}"\ncommand = ["false"]\n'
        f'path = "src/{_PLACE}"\nplace = "{_PLACE}"\n'
        for key in keys
    )
    (root / "pyproject.toml").write_text(f'[project]\nname = "shop"\n{sources}')
    return open_project(root)


def _archive(path: Path, place: str = _PLACE, **states: bytes) -> Bundle:
    """An OCI archive of the states alone, as ``build oci -o states.tar`` makes it."""
    bundle = make_bundle(
        path.parent / f"{path.name}.states" / "state",
        {key: {"state": text, "more/file": b"x"} for key, text in states.items()},
        place=place,
    )
    keys = tuple(KeyRefresh(key, 2, fetched=_FETCHED, confirmed=_FETCHED) for key in states)
    refresh = DirectoryRefresh(place, keys).of(bundle.manifest)
    record = RunRecord(build=Build(commit="a" * 40), refresh=(refresh,), environment="prod")
    embed_layout(None, [bundle], record, path)
    return bundle


def test_the_states_are_the_sources_and_the_record_says_where_from(
    tmp_path: Path, held: ExitStack
) -> None:
    source = _archive(tmp_path / "states.tar", A=b"[1]", B=b"[2]")
    project = _project(tmp_path / "p", "A", "B")
    taken = replay([project], str(tmp_path / "states.tar"), SILENT, held)
    (bundle,), (refresh,) = taken.bundles, taken.record
    assert bundle.manifest.content_digest == source.manifest.content_digest
    assert bundle.place == _PLACE
    assert {key.key: (key.fetched, key.confirmed, key.attempts) for key in refresh.keys} == {
        "A": (_FETCHED, _FETCHED, 2),
        "B": (_FETCHED, _FETCHED, 2),
    }
    assert all(key.origin.startswith("oci:states.tar@sha256:") for key in refresh.keys)
    assert str(tmp_path) not in "".join(key.origin for key in refresh.keys)
    states = {item.path: item.open().read() for item in bundle.members() if item.path[0] != "@"}
    assert states["A/state"] == b"[1]"
    assert states["B/state"] == b"[2]"


def test_a_build_takes_them_offline_and_records_todays_code(
    tmp_path: Path, held: ExitStack
) -> None:
    source = _archive(tmp_path / "states.tar", A=b"[1]")
    project = _project(tmp_path / "p", "A")
    git = ["git", "-C", str(project.root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (project.root / ".gitignore").write_text("/src/shop/state/\n")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    request = StateRequest(state_from=str(tmp_path / "states.tar"))
    made = held.enter_context(prepare([project], request))
    assert made.record.build.commit not in (None, "a" * 40)
    assert made.record.environment is None
    embed_layout(None, made.bundles, made.record, tmp_path / "built")
    with ociread.open_layout(tmp_path / "built") as image:
        verdict = verify(image)
    assert verdict.all_problems == ()
    (directory,) = verdict.directories
    assert directory.manifest is not None
    assert directory.manifest.content_digest == source.manifest.content_digest


def test_a_key_that_the_code_needs_and_the_artifact_lacks_is_an_error(
    tmp_path: Path, held: ExitStack
) -> None:
    _archive(tmp_path / "states.tar", A=b"[1]")
    project = _project(tmp_path / "p", "A", "B")
    with pytest.raises(VerificationFailed, match="does not contain the state of B"):
        replay([project], str(tmp_path / "states.tar"), SILENT, held)


def test_a_key_that_the_code_has_no_longer_is_named(tmp_path: Path, held: ExitStack) -> None:
    _archive(tmp_path / "states.tar", A=b"[1]", B=b"[2]")
    listener = RecordingListener()
    replay([_project(tmp_path / "p", "A")], str(tmp_path / "states.tar"), listener, held)
    assert [note for note in listener.notes if note.endswith("embedded: B.")]


def test_an_altered_artifact_is_refused_and_nothing_is_published(
    tmp_path: Path, held: ExitStack
) -> None:
    bundle = _archive(tmp_path / "states.tar", A=b"[1]")
    (bundle.root / "A" / "state").write_bytes(b"[2]")
    project = _project(tmp_path / "p", "A")
    with pytest.raises(VerificationFailed, match="altered"):
        replay([project], str(bundle.root), SILENT, held)
    assert not (project.root / "src" / _PLACE).exists()


@pytest.mark.parametrize("published", ["nothing", "newer", "altered", "an interrupted publish"])
def test_the_projects_own_state_directory_is_neither_read_nor_changed(
    tmp_path: Path, held: ExitStack, published: str
) -> None:
    source = _archive(tmp_path / "states.tar", A=b"[1]")
    project = _project(tmp_path / "p", "A")
    directory = project.root / "src" / _PLACE
    if published != "nothing":
        publish(StateDir(directory, _PLACE), {"A": {"state": "[2]"}, "Gone": {"state": "[3]"}})
    if published == "altered":
        (directory / "A/state").write_text("[4]")
    if published == "an interrupted publish":
        (directory / "@staging/journal.json").write_text("{}")
    before = everything(project.root)
    (bundle,) = replay([project], str(tmp_path / "states.tar"), SILENT, held).bundles
    assert bundle.manifest.content_digest == source.manifest.content_digest
    embed_layout(None, [bundle], RunRecord(), tmp_path / "built")
    with ociread.open_layout(tmp_path / "built") as image:
        assert verify(image).all_problems == ()
    assert everything(project.root) == before
    assert bundle.root == directory, "what a build context leaves out"


def test_the_extracted_states_are_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _archive(tmp_path / "states.tar", A=b"[1]")
    project = _project(tmp_path / "p", "A")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with ExitStack() as held:
        replay([project], str(tmp_path / "states.tar"), SILENT, held)
        assert list(temporary.iterdir())
    assert not list(temporary.iterdir())


def test_several_state_directories_are_matched_by_their_paths(
    tmp_path: Path, held: ExitStack
) -> None:
    one = make_bundle(tmp_path / "in/app/a/state", {"A": {"state": b"1"}}, place="a/state")
    other = make_bundle(tmp_path / "in/app/b/state", {"A": {"state": b"2"}}, place="b/state")
    root = tmp_path / "p"
    root.mkdir()
    (root / "pyproject.toml").write_text(
        "".join(
            f'[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["false"]\n'
            f'path = "{name}/state"\nplace = "{name}/state"\n'
            for name in ("b", "a")
        )
    )
    taken = replay([open_project(root)], str(tmp_path / "in"), SILENT, held)
    found = {bundle.place: bundle.manifest.content_digest for bundle in taken.bundles}
    assert found == {item.place: item.manifest.content_digest for item in (one, other)}
    make_bundle(tmp_path / "half/b/state", {"A": {"state": b"2"}}, place="b/state")
    with pytest.raises(VerificationFailed, match="contains no state for a/state"):
        replay([open_project(root)], str(tmp_path / "half"), SILENT, held)
    _archive(tmp_path / "s.tar", "elsewhere/state", A=b"1")
    with pytest.raises(UsageError, match="not a state directory of any selected project"):
        replay([open_project(root)], str(tmp_path / "s.tar"), SILENT, held)


def test_a_fork_without_credentials_builds_from_the_last_image(
    sample: Sample,
    vendor: RecordedVendor,
    tmp_path: Path,
    held: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = "shop/defs/.local_defs_state"
    states = {"VendorCatalog__products__": b"[]", "DbtProjectComponent__warehouse__": b""}
    root = tmp_path / "image/app/shop/defs/.local_defs_state"
    bundle = _dagster_bundle(root, place)
    assert {state.path for state in bundle.manifest.states} == states.keys()
    for name in sample.env.keys() & {"SHOP_API_URL", "SHOP_API_TOKEN"}:
        monkeypatch.delenv(name, raising=False)
    vendor.stop()
    listener = RecordingListener()
    taken = replay([open_project(sample.root)], str(tmp_path / "image"), listener, held)
    assert taken.bundles[0].manifest.content_digest == bundle.manifest.content_digest
    states = {item.path: item for item in taken.bundles[0].members()}
    assert states["VendorCatalog__products__/state"].open().read() == b"[]"
    assert not sample.state_directory.exists()


def _dagster_bundle(root: Path, place: str) -> Bundle:
    keys = ("VendorCatalog[products]", "DbtProjectComponent[warehouse]")
    texts = {"VendorCatalog[products]": "[]", "DbtProjectComponent[warehouse]": ""}
    return publish(StateDir(root, place), {key: {"state": texts[key]} for key in keys}).bundle
