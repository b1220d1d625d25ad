"""The verdict against what a real ``git add -A && git commit`` takes, over random repositories."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bundler.system.index_file import RawIndex
from tests.support.examples import scaled
from tests.support.workdir import STATE, WorkDir

PLACES = ("", "a/", "a/b/", "c d/", "a/*/", "-x/", ":y/")
RULES = (
    f"{STATE}/",
    STATE,
    f"{STATE}/*",
    f"**/{STATE}/**",
    f"/{STATE}/",
    f"/a/{STATE}/",
    f"a/b/{STATE}",
    "!state",
    f"!{STATE}/",
    f"!{STATE}/K/",
    "K/",
    "*",
    "!*/",
    "a/",
    "state",
    f"{STATE}/ ",
    f"#{STATE}/",
)
FILES = ("K/state", "K/project/x", "L/state", ".gitignore", "@manifest.json", "K/a\nb")

rules = st.lists(st.sampled_from(RULES), max_size=3).map("\n".join)
states = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(FILES)), max_size=4)


@pytest.mark.slow
@given(
    ignore_files=st.dictionaries(
        st.sampled_from([*PLACES, *(f"{place}{STATE}/" for place in PLACES)]), rules, max_size=3
    ),
    exclude=rules,
    on_disk=states,
    forced=states,
    committed=states,
)
@settings(
    max_examples=int(os.environ.get("GUARD_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_verdict_is_what_git_takes(
    ignore_files: dict[str, str],
    exclude: str,
    on_disk: list[tuple[str, str]],
    forced: list[tuple[str, str]],
    committed: list[tuple[str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        wd = WorkDir.make(Path(directory) / "r")
        wd.write("code.py")
        add(wd, committed)
        wd.commit("code", add=False)
        if committed:
            wd("git rm -rq --cached --ignore-unmatch .")
        wd("git add -f code.py")
        add(wd, forced)
        for place, file in on_disk:
            write(wd, place, file)
        for place, text in ignore_files.items():
            wd.write(f"{place}.gitignore", text)
        wd.write(".git/info/exclude", exclude)

        staged, now = wd.guard("--staged"), wd.guard()
        before = state_in(wd("git ls-files -z"))
        head = state_in(wd("git ls-tree -r -z --name-only HEAD"))
        wd("git add -A")
        after = state_in(wd("git ls-files -z"))

        assert staged.code == bool(before), staged
        assert now.code == bool(before | head | after), (now, before, head, after)
        assert wd.guard("--staged").code == bool(after)
        wd("git commit -q --allow-empty -m all")
        assert wd.guard("--history").code == bool(head | after)


def add(wd: WorkDir, files: list[tuple[str, str]]) -> None:
    for place, file in files:
        path = write(wd, place, file)
        wd(["git", "--literal-pathspecs", "add", "-f", "--", path])


def write(wd: WorkDir, place: str, file: str) -> str:
    path = f"{place}{STATE}/{file}"
    wd.write(path, "*\n" if file == ".gitignore" else f"the content of {path}\n")
    return path


def state_in(listing: str) -> set[str]:
    """State files by their definition: below the name, but for its own ignore file."""
    found = set()
    for path in listing.split("\0"):
        inside = f"/{path}"
        if f"/{STATE}/" in inside and inside.rpartition(f"/{STATE}/")[2] != ".gitignore":
            found.add(path)
    return found


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 0x2F} & set(name) and name.lower() not in (b".", b"..", b".git")
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


@given(
    found=st.sets(paths, max_size=12),
    version=st.sampled_from([2, 3]),
    algorithm=st.sampled_from(["sha1", "sha256"]),
    cut=st.integers(min_value=1, max_value=400),
)
@example(
    found={b"\x01" * 10 + b"\x10\x17/\x01\x01/" + b"\x01" * 6}, version=2, algorithm="sha1", cut=1
)
@settings(max_examples=scaled(25), suppress_health_check=[HealthCheck.too_slow])
def test_the_index_as_bytes(found: set[bytes], version: int, algorithm: str, cut: int) -> None:
    """Every path that git lists stands in the bytes; a cut index is not taken for a whole one."""
    with tempfile.TemporaryDirectory() as directory:
        wd = WorkDir.make(Path(directory) / "r", options=[f"--object-format={algorithm}"])
        blob = wd("git hash-object -w --stdin", stdin=b"x").encode()
        projects = {path + b"/pyproject.toml" for path in found} | {b"pyproject.toml"}
        wd(
            ["git", "update-index", "-z", "--index-info"],
            stdin=b"".join(b"100644 %s\t%s\0" % (blob, path) for path in sorted(projects)),
        )
        wd(["git", "update-index", "--index-version", str(version), "--force-write-index"])
        listed = set(map(os.fsencode, wd("git ls-files -z").split("\0")[:-1]))
        index = os.fsencode(wd.path / ".git/index")
        with RawIndex(index) as raw:
            assert raw.is_whole()
            assert raw.is_plain()
            try:
                assert raw.entries_ending_in(b"pyproject.toml").keys() == listed
            except ValueError:  # a path contains what looks like the beginning of an entry
                assert any(set(path) & {*range(0x20)} for path in listed)
            assert all(raw.holds(path) for path in listed)
            assert raw.entries == len(listed)
        whole = Path(os.fsdecode(index)).read_bytes()
        Path(os.fsdecode(index)).write_bytes(whole[: max(0, len(whole) - cut)])
        with RawIndex(index) as raw:
            assert not raw.is_whole()
