"""What removes, replaces or writes touches nothing that someone else has made."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from bundler.artifacts.image.layout import LayoutFolder as Layout
from bundler.artifacts.image.layout import add_to_folder
from bundler.artifacts.python import replacing
from bundler.errors import (
    BadData,
    ConfigurationError,
    InputOutputError,
    UsageError,
    VerificationFailed,
)
from bundler.project.survey import survey
from bundler.refresh import scratch
from bundler.refresh.inside import _unpack
from bundler.setup.demo.project import prepare_folder, write_dotenv
from bundler.setup.file_edits import apply
from bundler.setup.init import plan
from bundler.state.tree import scan
from bundler.store.folder import Folder as StoreFolder
from bundler.store.prune import PruneRules, prune
from bundler.store.store import open_store
from bundler.system.atomic import write_synced
from bundler.system.folder import OpenDirectory
from bundler.workflows.build_all import jobs_of, run_all
from tests.support.untouched import everything

ESCAPES = ("../x", "/x", "a/../../x", "", ".", "..", "a//b", "a\0b", "a/", "./a")


# --- an open directory ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ESCAPES, "a/b"])
def test_no_name_leads_out_of_an_open_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "x").write_text("mine")
    before = everything(tmp_path)
    with OpenDirectory(tmp_path / "in") as folder:
        for step in (
            lambda: folder.read(name),
            lambda: folder.write(name, b"x"),
            lambda: folder.remove(name),
            lambda: folder.clear(name),
            lambda: folder.remove_tree(name),
            lambda: folder.make_folder(name),
            lambda: folder.move(name, folder, "new"),
            lambda: folder.folder(name),
        ):
            with pytest.raises(InputOutputError, match="not a valid file name"):
                step()
    assert everything(tmp_path) == before


def test_a_tree_is_removed_without_what_its_links_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/file").write_text("mine")
    tree = tmp_path / "in/tree"
    (tree / "locked/below").mkdir(parents=True)
    (tree / "locked/below/link").symlink_to(outside)
    (tree / "link").symlink_to(outside / "deep/file")
    os.link(outside / "deep/file", tree / "hard")
    os.mkfifo(tree / "fifo")
    (tree / "locked").chmod(0)
    before = everything(outside)
    with OpenDirectory(tmp_path / "in") as folder:
        folder.remove_tree("tree")
        assert folder.names() == []
    assert everything(outside) == before


def test_a_file_that_happens_to_have_the_temporary_name_stays(tmp_path: Path) -> None:
    other = tmp_path / f"file.{os.getpid()}.new"
    other.write_text("mine")
    write_synced(tmp_path / "file", b"new")
    with OpenDirectory(tmp_path) as folder, pytest.raises(FileExistsError):
        folder.write("file", b"new")
    assert other.read_text() == "mine"


# --- artifacts --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_directory_that_is_not_a_pex_is_not_replaced(tmp_path: Path, kind: str) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/thesis").write_text("mine")
    made = tmp_path / "made/dist"
    if kind == "folder":
        (made / "x").mkdir(parents=True)
    else:
        made.parent.mkdir()
        made.write_text("pex")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="contains other files"):
        replacing.publish(made, tmp_path / "dist")
    assert everything(tmp_path) == before


def test_a_pex_of_any_layout_is_replaced(tmp_path: Path) -> None:
    for old in ("folder", "empty", "file", "nothing"):
        destination = tmp_path / f"{old}.pex"
        if old in ("folder", "empty"):
            destination.mkdir()
        if old == "folder":
            (destination / "PEX-INFO").write_text("{}")
        if old == "file":
            destination.write_text("old")
        made = tmp_path / f"made-{old}/app.pex"
        made.parent.mkdir()
        made.write_text("new")
        replacing.publish(made, destination)
        assert destination.read_text() == "new"


def _layout(path: Path) -> Layout:
    path.mkdir()
    return Layout.create(path)


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_a_layout_is_not_written_through_a_link(tmp_path: Path, link: str) -> None:
    layout = _layout(tmp_path / "layout")
    outside = tmp_path / "outside"
    shutil.move(layout.path / link, outside)
    (layout.path / link).symlink_to(outside)
    before = everything(outside)
    with pytest.raises(InputOutputError, match="is a link, so nothing was written"):
        layout.add_config({"a": 1})
    assert everything(outside) == before


def test_an_output_folder_keeps_its_other_images(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for tag in ("one", "two", "two"):
        made = _layout(tmp_path / f"made-{time.monotonic_ns()}")
        digest, size = made.add_config({"image": f"{tag}{time.monotonic_ns()}"})
        entry = {"digest": digest, "size": size, "annotations": {"name": tag}}
        made.publish({**made.index(), "manifests": [entry]})
        add_to_folder(made, tmp_path / "out")
    found = Layout(tmp_path / "out")
    assert [entry["annotations"]["name"] for entry in found.index()["manifests"]] == ["one", "two"]
    (tmp_path / "out/index.json").unlink()
    (tmp_path / "out/index.json").symlink_to(outside)
    with pytest.raises(VerificationFailed):
        add_to_folder(made, tmp_path / "out")
    assert outside.read_text() == "mine"


# --- a refresh --------------------------------------------------------------------------------


def _tar(*members: tuple[str, bytes, str]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x") if info.size else None)
    stream.seek(0)
    return stream


def _taken(stream: io.BytesIO, target: Path) -> None:
    """A state as a refresh takes it: copied out, then judged."""
    _unpack(stream, target, "Key")
    scan(target)


@pytest.mark.parametrize(
    "members",
    [
        (("t/a", tarfile.SYMTYPE, "OUTSIDE"), ("t/a", tarfile.DIRTYPE, ""),
         ("t/a/new", tarfile.REGTYPE, "")),
        (("t/a", tarfile.SYMTYPE, "OUTSIDE"), ("t/a/new", tarfile.REGTYPE, "")),
        (("t/../new", tarfile.REGTYPE, ""),),
        (("t/a", tarfile.SYMTYPE, "OUTSIDE/file"), ("t/a", tarfile.REGTYPE, "")),
        (("t/a", tarfile.LNKTYPE, "OUTSIDE/file"),),
    ],
)  # fmt: skip
def test_what_a_container_wrote_stays_in_its_folder(
    tmp_path: Path, members: tuple[tuple[str, bytes, str], ...]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    before = everything(outside)
    reported = [(name, kind, to.replace("OUTSIDE", str(outside))) for name, kind, to in members]
    with pytest.raises((BadData, InputOutputError)):
        _taken(_tar(("t", tarfile.DIRTYPE, ""), *reported), tmp_path / "in")
    assert everything(outside) == before


def test_only_scratch_folders_of_a_refresh_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old = time.time() - 3600

    def make(name: str, lock: bytes | None, mode: int = 0o700) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "notes").write_text("mine")
        if lock is not None:
            (folder / "lock").write_bytes(lock)
        folder.chmod(mode)
        os.utime(folder, (old, old))
        return folder

    with scratch.scratch_folder() as current:
        mark = (current / "lock").read_bytes()
    kept = [
        make("state-bundler-refresh-notes", mark),
        make("state-bundler-refresh-abcdefgh", None),
        make("state-bundler-refresh-abcdefgi", b"something else"),
        make("state-bundler-refresh-abcdefgj", mark, 0o755),
        make("state-bundler-refresh-abcdefgk", mark),
    ]
    (tmp_path / "state-bundler-refresh-abcdefgl").symlink_to(kept[0])
    os.mkfifo(make("state-bundler-refresh-abcdefgm", None) / "lock")
    gone = [
        make("state-bundler-refresh-zbcdefgk", mark),
        tmp_path / "state-bundler-refresh-zbcdefgl",
    ]
    gone[1].mkdir(mode=0o700)
    os.utime(gone[1], (old, old))
    with open(kept[4] / "lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with scratch.scratch_folder():
            assert [path.exists() for path in kept] == [True] * 5
            assert [path.exists() for path in gone] == [False] * 2


# --- the store --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_of_an_object_leads_out_of_a_store(tmp_path: Path, name: str) -> None:
    store = StoreFolder(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "x").write_text("mine")
    before = everything(tmp_path)
    for step in (
        lambda: store.get(name),
        lambda: store.read(name, 0, 1),
        lambda: store.create(name, b"x"),
        lambda: store.replace(name, b"x", "tag"),
        lambda: store.write(name, [b"x"], 1),
        lambda: store.delete([name]),
    ):
        with pytest.raises(VerificationFailed, match="the object name"):
            step()
    assert everything(tmp_path) == before


def test_a_prune_keeps_files_of_others_in_its_folders(tmp_path: Path) -> None:
    from bundler.store import pointer

    store = open_store(f"file://{tmp_path}/store")
    pointer.make(store.objects)
    old = time.time() - 10 * 86400
    mine = {
        *("content/index.md", "content/posts/first.md", "versions/1.0.txt", "shards/a.json"),
        *("probe/x", "sets/1.json", "sets/notes.json", "content/" + "a" * 64),
    }
    ours = {f"content/{'a' * 64}.{'b' * 8}", f"probe/{'0' * 32}", f"versions/{'0' * 24}.json"}
    for name in mine | ours:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (old, old))
    from bundler.state.manifest import state_of
    from bundler.store.pushing import NewState

    (tmp_path / "key").mkdir()
    (tmp_path / "key/state").write_text("1")
    store.push([NewState(state_of("K", "K", scan(tmp_path / "key")), tmp_path / "key")])
    done = prune(store, PruneRules(keep=1))
    assert set(done.leftovers) == ours
    assert all((tmp_path / "store" / name).exists() for name in mine)


# --- a user's files ---------------------------------------------------------------------------


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("place", [".gitignore", "pyproject.toml", ".dockerignore"])
def test_init_does_not_write_through_a_link_to_elsewhere(
    tmp_path: Path, place: str, remove: bool
) -> None:
    root = tmp_path / "project"
    (root / ".git").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    if remove:
        apply(plan(survey(root)))
    text = (root / place).read_text() if (root / place).exists() else "# mine\n"
    (tmp_path / "theirs").write_text(text)
    (root / place).unlink(missing_ok=True)
    (root / place).symlink_to(tmp_path / "theirs")
    before = everything(tmp_path)
    with pytest.raises(ConfigurationError, match="outside "):
        apply(plan(survey(root), remove=remove))
    assert everything(tmp_path) == before


def test_init_makes_no_folder_outside(tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    (root / ".git").mkdir(parents=True)
    outside.mkdir()
    (root / ".github").symlink_to(outside)
    (root / "pyproject.toml").write_text("[tool.dg.project]\nroot_module = 'shop'\n")
    before = everything(tmp_path)
    with pytest.raises(ConfigurationError, match="outside "):
        apply(plan(survey(root)))
    assert everything(tmp_path) == before


def test_a_demonstration_keeps_what_was_changed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    prepare_folder(folder)
    (folder / "README.md").write_text("my notes")
    (folder / "build").mkdir()
    (folder / "build/mine").write_text("mine")
    (folder / "build/shop.pex").write_text("built")
    (tmp_path / "outside").write_text("mine")
    (folder / "requirements.txt").unlink()
    (folder / "requirements.txt").symlink_to(tmp_path / "outside")
    (folder / ".env").write_text("MY_TOKEN=1\n")
    for _ in range(2):
        prepare_folder(folder)
        write_dotenv(folder, {"SHOP_API_URL": "http://127.0.0.1:1"})
    assert (folder / "README.md.before").read_text() == "my notes"
    assert (folder / ".env.before").read_text() == "MY_TOKEN=1\n"
    assert (folder / "build/mine").read_text() == "mine"
    assert not (folder / "build/shop.pex").exists()
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (folder / "README.md.before1").exists()


@pytest.mark.parametrize("link", ["build", "build/state-bundler", "build/state-bundler/a.log"])
def test_logs_are_not_written_through_links(tmp_path: Path, link: str) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "a.log").write_text("mine")
    (outside / "state-bundler").mkdir()
    (here / link).parent.mkdir(parents=True, exist_ok=True)
    (here / link).symlink_to(outside / "a.log" if link.endswith(".log") else outside)
    jobs = jobs_of([here / "a"], ["true"], ["oci"], here, here / "build/state-bundler")
    before = everything(tmp_path)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        run_all(jobs, 1, lambda _: None)
    assert everything(tmp_path) == before


def test_a_projects_name_is_not_a_path(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "../../x"\n')
    with pytest.raises(ConfigurationError, match="is not a valid project name"):
        jobs_of([tmp_path], ["true"], ["-o", "{name}.pex"], tmp_path, tmp_path / "logs")
