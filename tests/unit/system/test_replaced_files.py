"""What takes the place of a file or a folder: its owner, its mode, what a killed process left."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.artifacts.python import replacing
from bundler.system import atomic
from bundler.system.atomic import replaced_file, save, temporary_folder, write_synced

OTHER = 54321
KILLED = """
import os, signal, sys
from pathlib import Path
from bundler.system.atomic import replaced_file, temporary_folder
with {how}(Path(sys.argv[1])) as made:
    if hasattr(made, "write"):
        made.write(b"half"); made.flush()
    else:
        (made / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def give_away(path: Path) -> tuple[int, int]:
    """Gives a file to another user, if this one may; returns who has it now."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, OTHER)
    return path.stat().st_uid, path.stat().st_gid


def test_a_file_keeps_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "app.pex"
    path.write_text("old")
    path.chmod(0o741)
    owner = give_away(path)
    for write in (save, write_synced):
        write(path, b"new")
        assert path.read_bytes() == b"new"
        assert (path.stat().st_uid, path.stat().st_gid) == owner
        assert path.stat().st_mode & 0o7777 == 0o741


def test_a_folder_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "app"
    (path / "below").mkdir(parents=True)
    (path / "PEX-INFO").touch()
    owner = give_away(path)
    with replacing.named_at_end(path) as made:
        (made / "new").mkdir(parents=True)
        (made / "new/file").touch()
    for made in (path, path / "new", path / "new/file"):
        assert (made.stat().st_uid, made.stat().st_gid) == owner
    assert not (path / "below").exists()
    assert os.listdir(tmp_path) == ["app"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    save(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    device = Path(os.devnull).stat()
    save(Path(os.devnull), b"new")
    assert os.path.samestat(Path(os.devnull).stat(), device)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        save(pipe, b"new")
        assert reader.communicate()[0] == b"new"
    assert pipe.is_fifo()


@pytest.mark.parametrize("how", ["replaced_file", "temporary_folder"])
def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path, how: str) -> None:
    path = tmp_path / "made"
    for name in ("made", "other"):
        argv = [sys.executable, "-c", KILLED.format(how=how), tmp_path / name]
        assert subprocess.run(argv, check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    save(path, b"whole")
    left = sorted(os.listdir(tmp_path))
    assert left[1:] == ["made"]
    assert left[0].startswith(".other.state-bundler-")  # another name's is its own next run's


def test_what_a_process_still_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with replaced_file(path) as slow:
        slow.write(b"slow")
        save(path, b"fast")
        assert path.read_bytes() == b"fast"
        with temporary_folder(path) as folder:
            assert folder.is_dir()
    assert path.read_bytes() == b"slow"
    assert os.listdir(tmp_path) == ["made"]


def test_nothing_of_others_is_taken_for_a_leftover(tmp_path: Path) -> None:
    path = tmp_path / "made"
    names = {
        ".made.state-bundler-UPPER123",
        ".made.state-bundler-12345678.txt",
        ".made.state-bundler-1234",
        "made.state-bundler-12345678",
        ".other.state-bundler-12345678",
    }
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".made.state-bundler-abcdefgh").symlink_to(tmp_path)
    save(path, b"new")
    assert set(os.listdir(tmp_path)) == {*names, "made", ".made.state-bundler-abcdefgh"}


def test_without_an_atomic_exchange_the_old_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without it: the process dies while nothing has the name."""
    path = tmp_path / "app"
    (path / "old").mkdir(parents=True)
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        if Path(target) == path:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, temporary_folder(path) as folder:
        (folder / "app").mkdir()
        patch.setattr(atomic, "_remove", lambda _: None)  # nor can it clean up
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            atomic.exchange(folder / "app", path)
        # Killed: its lock goes with it.
        (left,) = tmp_path.iterdir()
        for descriptor in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{descriptor}") == str(left):
                fcntl.flock(int(descriptor), fcntl.LOCK_UN)
    assert not path.exists()
    atomic.remove_leftovers(tmp_path, "app")
    assert (path / "old").is_dir()
    assert os.listdir(tmp_path) == ["app"]


def test_a_file_in_a_directory_behind_a_link(tmp_path: Path) -> None:
    """It was written, and then reported as a failure."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for write in (write_synced, save):
        write(tmp_path / "link/file", write.__name__.encode())
        assert (tmp_path / "real/file").read_bytes() == write.__name__.encode()
