"""New state for one of several state directories: the other one stays as it is, and is said to."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.artifacts.image.layout import write_archive
from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import SILENT
from bundler.project.projects import open_project
from bundler.refresh.run import Refreshed
from bundler.state.bundle import Bundle
from bundler.state.manifest import Build, DirectoryRefresh, KeyRefresh, RunRecord
from bundler.state.run_record import TOOL
from bundler.workflows.embed import refresh_and_embed
from bundler.workflows.pipeline import Prepared, StateRequest
from bundler.workflows.update import renewed, update, update_all
from tests.support.bundles import make_bundle
from tests.support.embedding import embed_layout, embed_pex
from tests.support.layouts import LayoutMaker, add_layer, layer
from tests.support.pex_projects import run_pex, write
from tests.support.workdir import WorkDir

ONE, OTHER = "one/defs/.local_defs_state", "other/defs/.local_defs_state"
SOURCE = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["true"]\npath = "state"\n'
# Makes an artifact with bundles and updates it with others; returns its name.
Make = Callable[[Path, list[Bundle], RunRecord, Prepared], str]


def record_of(*bundles: Bundle, fetched: str) -> RunRecord:
    """A record that is bound to its manifests, as a refresh makes it."""
    return RunRecord(
        refresh=tuple(
            DirectoryRefresh(
                bundle.place,
                tuple(KeyRefresh(s.key, 1, fetched=fetched) for s in bundle.manifest.states),
            ).of(bundle.manifest)
            for bundle in bundles
        )
    )


def in_pex(root: Path, bundles: list[Bundle], record: RunRecord, prepared: Prepared) -> str:
    plain, made = root / "plain.pex", root / "app.pex"
    names = [f"{name}{inner}/__init__.py" for name in ("one", "other") for inner in ("", "/defs")]
    write(root / "src", dict.fromkeys(names, ""))
    run_pex("-D", "src", "-o", plain, cwd=root, root=root / "pex-root")
    embed_pex(plain, bundles, record, made)
    name = ArtifactName.parse(str(made))
    assert update(name, None, in_place=False, prepared=prepared, listener=SILENT).changed
    return str(made)


def in_layout(root: Path, bundles: list[Bundle], record: RunRecord, prepared: Prepared) -> str:
    maker = LayoutMaker(root / "base")
    files = {f"app/src/{name}/defs/__init__.py": b"" for name in ("one", "other")}
    maker.tag(maker.manifest([layer(files)], {"WorkingDir": "/app"}))
    embed_layout(maker.path, bundles, record, root / "layout", tag="latest")
    name = ArtifactName.parse(f"oci:{root}/layout:latest")
    updated = update(name, "new", in_place=False, prepared=prepared, listener=SILENT)
    assert updated.changed
    return updated.name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shop-1.0-py3-none-any.whl", "installers expect that a version never changes"),
        ("image.tar", "cannot be updated"),
        ("folder", "cannot be updated"),
        ("venv", "cannot be updated"),
        ("store:file:///states", "cannot be updated"),
    ],
)
def test_what_is_not_updated_is_refused_before_the_refresh(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "venv").mkdir()
    for file in ("venv/PEX-INFO", "venv/pyvenv.cfg", "shop-1.0-py3-none-any.whl", "image.tar"):
        (tmp_path / file).touch()
    with pytest.raises(UsageError, match=says):
        list(update_all([name], StateRequest(), SILENT))


def test_a_pex_gets_no_tag(tmp_path: Path) -> None:
    (tmp_path / "app.pex").touch()
    with pytest.raises(UsageError, match="a PEX, which has no tag"):
        list(update_all([f"{tmp_path}/app.pex"], StateRequest(), SILENT, new_tag="2"))


def test_a_pex_is_not_embedded_into_and_that_is_said_before_the_refresh(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.pex", "w") as file:
        file.writestr("PEX-INFO", "")
    with pytest.raises(UsageError, match="is not an image") as raised:
        refresh_and_embed([f"{tmp_path}/app.pex"], ["x:1"], StateRequest(), SILENT)
    assert raised.value.hint.endswith(f"state-bundler update {tmp_path}/app.pex")


@pytest.mark.parametrize(
    ("sources", "tags", "says"),
    [
        ([], ["docker-daemon:x:{content}"], "Only an image in the engine"),
        (["docker://localhost:1/x:1"], ["docker-daemon:x:1"], "docker pull localhost:1/x:1"),
        (["oci:x"], ["oci:x:1", "localhost:1/x:1"], "cannot be combined"),
        (["oci:x"], [f"localhost:1/x@sha256:{0:064}"], "has no tag"),
        ([], ["{content}"], "is only a tag"),
        (["oci:x"], ["localhost:1/x:{contents}"], "is not"),
    ],
)
def test_tags_that_cannot_be_given_are_refused_before_the_refresh(
    sources: list[str], tags: list[str], says: str
) -> None:
    with pytest.raises(UsageError) as raised:
        refresh_and_embed(sources, tags, StateRequest(), SILENT)
    assert says in f"{raised.value.what} {raised.value.hint}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{}/two", "does not contain one image"),
        ("oci:{}/two.tar", "does not contain one image"),
        ("oci:{}/two:3", "does not contain the tag"),
        ("oci:{}/files.tar", "not an OCI archive"),
        ("oci-archive:{}/two.tar", "not named with oci-archive:"),
        ("docker-archive:{}/two.tar", "not named with docker-archive:"),
        ("containers-storage:shop:1", "not named with containers-storage:"),
    ],
)
def test_what_is_not_one_image_is_refused_before_the_refresh(
    name: str, says: str, tmp_path: Path
) -> None:
    maker = LayoutMaker(tmp_path / "two")
    for tag in ("1", "2"):
        maker.tag(maker.manifest([layer({tag: b""})]), tag)
    write_archive(maker.path, tmp_path / "two.tar")
    (tmp_path / "files.tar").write_bytes(layer({"etc/passwd": b""}))  # as `docker export` does
    with pytest.raises((UsageError, VerificationFailed), match=says) as raised:
        refresh_and_embed([name.format(tmp_path)], ["oci:x:1"], StateRequest(), SILENT)
    assert raised.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("make", [in_pex, in_layout])
def test_one_of_several_directories(tmp_path: Path, make: Make) -> None:
    first = [
        make_bundle(tmp_path / place, {key: {"state": b"old"}}, place=place)
        for key, place in (("A", ONE), ("B", OTHER))
    ]
    newer = make_bundle(tmp_path / "newer", {"A": {"state": b"new"}}, place=ONE)
    record = record_of(*first, fetched="2026-01-01T00:00:00Z")
    renews = record_of(newer, fetched="2026-02-02T00:00:00Z")
    prepared = Prepared((), Refreshed((newer,), renews.refresh, ()))
    name = make(tmp_path, first, record, prepared)
    with open_artifact(name) as artifact:
        assert verify(artifact).all_problems == ()
        found = artifact.run_record()
        paths = [directory.path for directory in artifact.state_directories()]
    assert found is not None
    assert [path.rpartition("src/")[2] for path in paths] == [ONE, OTHER]
    fetched = {key.key: key.fetched for item in found.refresh for key in item.keys}
    assert fetched == {"A": "2026-02-02T00:00:00Z", "B": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    "files",
    [
        {"app/src/one/defs/__init__.py": b""},
        {"real/__init__.py": b"", "app/src/one/defs": "-> /real"},
    ],
)
def test_the_result_is_named_with_its_tag_whether_anything_changed_or_not(
    files: dict[str, bytes | str | tarfile.TarInfo | None], tmp_path: Path
) -> None:
    old, new = (
        make_bundle(tmp_path / content, {"A": {"state": content.encode()}}, place=ONE)
        for content in ("old", "new")
    )
    record = record_of(new, fetched="2026-02-02T00:00:00Z")
    prepared = Prepared((), Refreshed((new,), record.refresh, ()))
    maker = LayoutMaker(tmp_path / "base")
    maker.tag(maker.manifest([layer(files)], {"WorkingDir": "/app"}))
    first = record_of(old, fetched="2026-01-01T00:00:00Z")
    embed_layout(maker.path, [old], first, tmp_path / "layout", tag="1.4")
    name = ArtifactName.parse(f"oci:{tmp_path}/layout")
    made = [update(name, None, in_place=True, prepared=prepared, listener=SILENT) for _ in range(2)]
    assert [(it.name, it.changed) for it in made] == [(f"{name}:1.4", True), (f"{name}:1.4", False)]


@pytest.mark.parametrize("is_linked", [True, False])
def test_the_code_may_have_moved_since_the_state_was_embedded(
    tmp_path: Path, *, is_linked: bool
) -> None:
    old, new = (
        make_bundle(tmp_path / content, {"A": {"state": content.encode()}}, place=ONE)
        for content in ("old", "new")
    )
    maker = LayoutMaker(tmp_path / "layout")
    files = layer({"app/src/one/defs/__init__.py": b""})
    maker.tag(maker.manifest([files], {"WorkingDir": "/app"}), "0")
    embed_layout(
        maker.path,
        [old],
        record_of(old, fetched="2026-01-01T00:00:00Z"),
        maker.path,
        tag="1",
        base_tag="0",
    )
    link: dict[str, bytes | str | tarfile.TarInfo | None] = {"app/src/one": "-> ../one"}
    move = layer(
        {"app/src/.wh.one": b"", "app/one/defs/__init__.py": b"", **(link if is_linked else {})}
    )
    add_layer(maker, "1", move, "2")
    prepared = Prepared(
        (), Refreshed((new,), record_of(new, fetched="2026-01-01T00:00:00Z").refresh, ())
    )
    name = ArtifactName.parse(f"oci:{maker.path}:2")
    assert update(name, "3", in_place=False, prepared=prepared, listener=SILENT).changed
    with open_artifact(f"oci:{maker.path}:3") as artifact:
        assert [it.path for it in artifact.claims() or ()] == [f"/app/{ONE}"]


def test_a_renewed_record_keeps_the_build_and_says_everything_once() -> None:
    def directory(path: str, fetched: str) -> DirectoryRefresh:
        return DirectoryRefresh(path, (KeyRefresh("A", fetched=fetched),))

    build = Build(commit="a" * 40, tree="b" * 40, dirty=False, guarded=True)
    before = RunRecord(build, refresh=(directory(f"/app/src/{ONE}", "2026-01-01T00:00:00Z"),))
    refresh = (directory(ONE, "2026-02-02T00:00:00Z"),)
    prepared = Prepared((), Refreshed((), refresh, ()))  # without a project to ask git about
    assert renewed(before, prepared) == RunRecord(build, refresh=refresh, tool=TOOL)


def test_a_record_of_a_directory_whose_path_only_ends_like_a_new_one_stays() -> None:
    def directory(path: str, fetched: str) -> DirectoryRefresh:
        return DirectoryRefresh(path, (KeyRefresh("A", fetched=fetched),))

    old, new = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
    build = Build(commit="a" * 40, tree="b" * 40, dirty=False, guarded=True)
    before = RunRecord(build, refresh=(directory("one/state", old), directory("state", old)))
    prepared = Prepared((), Refreshed((), (directory("state", new),), ()))
    refresh = (directory("one/state", old), directory("state", new))
    assert renewed(before, prepared).refresh == refresh


def test_an_artifact_without_a_record_gets_that_of_the_code(tmp_path: Path) -> None:
    wd = WorkDir.make(tmp_path / "project")
    wd.write("pyproject.toml", SOURCE)
    wd.commit()
    commit = wd.head()
    project = open_project(wd.path, python=Path(sys.executable))
    build = renewed(None, Prepared((project,), Refreshed((), (), ()), guarded=True)).build
    assert (build.commit, build.dirty, build.guarded) == (commit, False, True)
