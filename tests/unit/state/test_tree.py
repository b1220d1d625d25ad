from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import BadData, InputOutputError
from bundler.state.tree import File, check_names, dir_hash, name_problem, scan
from tests.support.examples import scaled

# in-toto's own definition of the digest, as a shell command. sha256sum is asked for ./name, and the
# ./ taken off its answer: a file named - alone would be its standard input.
_DIR_HASH = (
    "find . -type f -print0 | LC_ALL=C sort -z"
    " | xargs -0 -r sha256sum | sed -E 's|^(.{64}  )./|\\1|'"
)


def _by_coreutils(root: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f"{_DIR_HASH} | sha256sum | cut -d' ' -f1"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def _write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\"),
    min_size=1, max_size=20,
)  # fmt: skip
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TREES = st.dictionaries(_PATHS, st.binary(max_size=50), max_size=8)


def _is_possible(files: dict[str, bytes]) -> bool:
    """Whether a tree may be, and can be made: no path is both a file and a directory."""
    try:
        check_names(files, "here")
    except BadData:
        return False
    return not any(other.startswith(f"{path}/") for path in files for other in files)


@pytest.mark.slow
@settings(max_examples=scaled(100))
@given(_TREES.filter(_is_possible))
def test_the_digest_is_what_gos_hash1_is(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root, files)
        tree = scan(root)
        assert tree.dir_hash == _by_coreutils(root)
        assert {entry.path for entry in tree.files} == set(files)
        assert tree.size == sum(map(len, files.values()))


def test_the_digest_of_a_tree_is_what_coreutils_say(tmp_path: Path) -> None:
    _write(tmp_path, {"state": b"[1]", "a/b": b"", "a-b": b"x", "a/ü": b"\0"})
    assert scan(tmp_path).dir_hash == _by_coreutils(tmp_path)


def test_the_digest_of_nothing_is_the_one_in_gos_documentation() -> None:
    # h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= in hexadecimal
    assert dir_hash([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.builds(File, _PATHS, st.just("0" * 64), st.just(1)), max_size=5))
def test_the_digest_does_not_depend_on_the_order(files: list[File]) -> None:
    assert dir_hash(files) == dir_hash(reversed(files))


def test_modes_owners_and_times_do_not_count(tmp_path: Path) -> None:
    _write(tmp_path, {"a": b"1"})
    before = scan(tmp_path)
    os.chmod(tmp_path / "a", 0o600)
    os.utime(tmp_path / "a", (0, 0))
    assert scan(tmp_path) == before


def test_a_large_file_is_hashed_like_a_small_one(tmp_path: Path) -> None:
    _write(tmp_path, {"large": b"x" * 9_000_000, "small": b"y"})
    assert scan(tmp_path).dir_hash == _by_coreutils(tmp_path)


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "setuid", "dangling", "link to folder"])
def test_what_is_not_a_regular_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "link to folder":
        path.symlink_to("/etc")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path.write_text("x")
        os.chmod(path, 0o4755)
    with pytest.raises(BadData, match=r"it\.$"):
        scan(tmp_path)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="empty directory"):
        scan(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputOutputError, match="cannot be read: No such file"):
        scan(tmp_path / "missing")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a//b",
        "../a",
        "a/..",
        "./a",
        "a\nb",
        "a\x00b",
        "a\\b",
        "a\u202eb",
        "x" * 256,
        "\udc80",
    ],
)
def test_names_that_are_not_portable_have_a_problem(path: str) -> None:
    assert name_problem(path) is not None


@pytest.mark.parametrize(
    "path", ["a", "a/b", "a b", "日本/語", ".hidden", "-x", "@x", "a:b", "x" * 255]
)
def test_ordinary_names_have_none(path: str) -> None:
    assert name_problem(path) is None


@pytest.mark.parametrize(
    "pair", [("a", "A"), ("x/a", "X/b"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "strasse")]
)
def test_names_that_are_one_elsewhere_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(BadData, match="differ only by case or Unicode form"):
        check_names(pair, "here")
