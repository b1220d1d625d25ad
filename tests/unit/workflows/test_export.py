"""`refresh -o`: the states for other jobs, by the real command."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from bundler.errors import UsageError
from bundler.workflows.export import destination_of
from tests.support import forked

_PROJECT = """\
[project]
name = "shop"
version = "1"

[[tool.state-bundler.source]]
key = "Feed[eu]"
command = ["sh", "-c", "cat $FEED > $0", "{state_path}"]
path = "src/shop/state"

[[tool.state-bundler.source]]
key = "Tree"
command = ["sh", "-c", "mkdir $0 && echo 1 > $0/a && echo 2 > $0/b", "{state_path}"]
path = "src/shop/state"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "pyproject.toml").write_text(_PROJECT)
    (tmp_path / "feed.json").write_text("[1, 2, 3]")
    return root


def bundler(
    root: Path, *arguments: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FEED": str(root.parent / "feed.json"), **variables}
    done = forked.said("state-bundler", *arguments, cwd=root, env=environment)
    assert done.returncode == code, done.stderr
    return done


def test_an_archive_is_read_by_every_command_and_replays(project: Path, tmp_path: Path) -> None:
    made = bundler(project, "refresh", "-o", "out/states.tar")
    assert made.stdout.splitlines()[-1].startswith("out/states.tar sha256:")
    archive = str(project / "out/states.tar")
    assert "2 states" in bundler(project, "verify", archive).stdout
    assert "Feed[eu]" in bundler(project, "status", archive).stdout
    bundler(project, "extract", archive, "-o", str(tmp_path / "taken"))
    assert (tmp_path / "taken/shop/state/Feed__eu__/state").read_text() == "[1, 2, 3]"
    (tmp_path / "feed.json").write_text("[1, 2, 4]")
    bundler(project, "refresh", "-o", "oci://out/layout:v2", "--baseline", archive)
    changed = bundler(project, "diff", archive, f"oci:{project}/out/layout:v2", code=1)
    assert "Feed[eu]" in changed.stdout
    built = [*("build", "oci", "--no-guard", "--state-from", archive), "-o", "out/replayed"]
    bundler(project, *built)
    bundler(project, "diff", archive, f"oci:{project}/out/replayed")
    assert (project / "src/shop/state/Feed__eu__/state").read_text() == "[1, 2, 4]"
    assert not [path for path in (project / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_the_same_states_make_the_same_archive_whatever_was_there(project: Path) -> None:
    whole = []
    for text, name in (("[1]", "a.tar"), ("[2, 2]", "b.tar"), ("[1]", "b.tar")):
        (project.parent / "feed.json").write_text(text)
        arguments = ("refresh", "--allow-shrink", "*", "-o", name)
        bundler(project, *arguments, SOURCE_DATE_EPOCH="1")
        whole.append((project / name).read_bytes())
    assert whole[0] == whole[2] != whole[1]
    with tarfile.open(project / "a.tar") as archive:
        assert {member.mtime for member in archive} == {0}


def test_a_failed_refresh_keeps_the_older_archive(project: Path) -> None:
    bundler(project, "refresh", "-o", "states.tar")
    before = (project / "states.tar").read_bytes()
    bundler(project, "refresh", "-o", "states.tar", code=71, FEED="/nowhere")
    assert (project / "states.tar").read_bytes() == before


@pytest.mark.parametrize("name", ["states", "states.zip", "states.tar.gz"])
def test_another_name_is_refused_before_anything_is_asked(project: Path, name: str) -> None:
    done = bundler(project, "refresh", "-o", name, code=2)
    assert "-o states.tar" in done.stderr
    assert not (project / "src").exists()


def test_a_file_that_holds_no_states_is_not_overwritten(project: Path) -> None:
    (project / "photos.tar").write_text("not ours")
    bundler(project, "refresh", "-o", "photos.tar", code=2)
    assert (project / "photos.tar").read_text() == "not ours"


@pytest.mark.parametrize(
    ("name", "path", "tag"),
    [
        ("oci:out", "out", "latest"),
        ("oci:out:v1", "out", "v1"),
        ("oci://out/x:v1", "out/x", "v1"),
        ("oci:///abs/x", "/abs/x", "latest"),
        ("x/states.tar", "x/states.tar", None),
    ],
)
def test_names_of_destinations(name: str, path: str, tag: str | None) -> None:
    found = destination_of(name)
    assert (found.path, found.tag) == (Path(path), tag)


def test_a_folder_is_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(UsageError):
        destination_of(str(tmp_path / "x.tar"))
