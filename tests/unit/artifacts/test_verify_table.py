"""A table of state directories: `verify` and ``@verify.py`` must give the same verdict on each."""

from __future__ import annotations

import os
import py_compile
import shutil
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundler import component, verify_at_start
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError
from bundler.state.directory import DirectoryArtifact
from bundler.state.manifest import state_of
from bundler.state.statedir import StateDir
from bundler.state.tree import scan
from tests.support.statedirs import NOTHING_FETCHED, file_entry, rewrite_manifest

Change = Callable[[Path], object]
_OUTSIDE = "outside the state directory"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of one file, and one with Python code and a folder that the program may write to."""
    path = tmp_path_factory.mktemp("published") / ".local_defs_state"
    files = {"state": "", "project/models/a.py": "x = 1\n", "project/target/run.json": "{}"}
    with StateDir(path, "x").staging() as staging:
        shop, dbt = staging.key_directory("Shop[eu]"), staging.key_directory("dbt")
        (shop / "state").write_text('{"a": 1}')
        for name, text in files.items():
            (dbt / name).parent.mkdir(parents=True, exist_ok=True)
            (dbt / name).write_text(text)
        states = [
            state_of("Shop[eu]", "Shop__eu__", scan(shop)),
            state_of("dbt", "dbt", scan(dbt), writable=("project/target", "project/logs")),
        ]
        staging.publish(states, (), NOTHING_FETCHED)
    shutil.rmtree(path / "@staging")
    return path


@pytest.fixture
def directory(published: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "app" / ".local_defs_state"
    shutil.copytree(published, copy)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text(_OUTSIDE)
    yield copy
    if (copy / "Shop__eu__").is_dir():
        (copy / "Shop__eu__").chmod(0o755)
    subprocess.run(["rm", "-rf", copy], check=True)  # some are too deep for Python's own way


def verdicts(directory: Path) -> dict[str, bool]:
    """What each of the judges says."""
    try:
        with DirectoryArtifact(directory) as artifact:
            by_verify = not verify(artifact).all_problems
    except BundlerError as error:
        if error.exit_code not in (74, 76):
            raise
        by_verify = False
    return {
        "verify": by_verify,
        "@verify.py": not verify_at_start.problems(str(directory)),
        "component": _loads(directory),
    }


class _Shop(component.StateBackedComponent[str]):
    defs_state_config = component.DefsStateConfig("Shop[eu]")

    def write_state_to_path(self, state_path: Path) -> None:
        raise NotImplementedError

    def build_defs_from_state(self, context: component.LoadContext, state_path: Path | None) -> str:
        return state_path.read_text() if state_path else ""


def _loads(directory: Path) -> bool:
    try:
        with component.Load(directory, is_development=False) as load:
            load.build_defs(_Shop())
    except component.StateError:
        return False
    return True


# --- what changes -------------------------------------------------------------------------------


def write(name: str, data: bytes = b"") -> Change:
    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)

    return change


def make_directory(name: str) -> Change:
    return lambda directory: (directory / name).mkdir(parents=True)


def replace(name: str, make: Callable[[str], object]) -> Change:
    """Puts what is no regular file in the place of this path, which may be free."""

    def change(directory: Path) -> None:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(str(path))

    return change


def mode(name: str, bits: int) -> Change:
    return lambda directory: (directory / name).chmod(bits)


def manifest(edit: Callable[[dict[str, Any]], object]) -> Change:
    return lambda directory: rewrite_manifest(directory, edit)


def states(edit: Callable[[list[dict[str, Any]]], object]) -> Change:
    return manifest(lambda it: edit(it["predicate"]["contents"]["states"]))


def contents(**values: object) -> Change:
    return manifest(lambda it: it["predicate"]["contents"].update(values))


def raw(change: Callable[[bytes], bytes]) -> Change:
    def apply(directory: Path) -> None:
        path = directory / "@manifest.json"
        path.write_bytes(change(path.read_bytes()))

    return apply


def compiled(source: str, name: str, mode: py_compile.PycInvalidationMode | None = None) -> Change:
    """Byte code of a file of the directory, or of this text, at a path of the directory."""

    def change(directory: Path) -> None:
        file = directory / source
        if not file.exists():
            file = directory.parent / "other.py"
            file.write_text(source)
        py_compile.compile(str(file), str(directory / name), doraise=True, invalidation_mode=mode)

    return change


def both(*changes: Change) -> Change:
    def change(directory: Path) -> None:
        for one in changes:
            one(directory)

    return change


def add_key(key: str, path: str, *names: str) -> Change:
    """Another state with these files, by a manifest that agrees with it."""

    def change(directory: Path) -> None:
        for name in names:
            write(f"{path}/{name}", b"x")(directory)
        files = [file_entry(directory / path / name, name) for name in sorted(names)]
        digest = {"dirHash": "", "semantic": "0" * 64}
        state = {"key": key, "path": path, "digest": digest, "files": files}
        rewrite_manifest(
            directory,
            lambda it: (
                it["predicate"]["contents"]["states"].append(state),
                it["predicate"]["contents"]["states"].sort(key=lambda item: item["key"]),
            ),
        )

    return change


def add_support(name: str) -> Change:
    def change(directory: Path) -> None:
        write(name, b"x")(directory)
        entry = file_entry(directory / name, name)
        rewrite_manifest(
            directory,
            lambda it: (
                it["predicate"]["support"].append(entry),
                it["predicate"]["support"].sort(key=lambda item: item["path"]),
            ),
        )

    return change


def socket_at(path: str) -> None:
    here = os.getcwd()
    os.chdir(os.path.dirname(path))  # the whole path is too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.basename(path))
    finally:
        os.chdir(here)


def outside_file(path: str) -> None:
    os.symlink(_outside(path) / "file", path)


def outside_folder(path: str) -> None:
    os.symlink(_outside(path), path)


def _outside(path: str) -> Path:
    return next(up / "outside" for up in Path(path).parents if (up / "outside").is_dir())


def deep(directory: Path) -> None:
    """More folders in one another than a path can name."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        for _ in range(10_000):
            os.mkdir("d", dir_fd=descriptor)
            inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    finally:
        os.close(descriptor)


def sparse(name: str, size: int) -> Change:
    return lambda directory: os.truncate(directory / name, size)


def many(name: str) -> Change:
    def change(directory: Path) -> None:
        folder = directory / name
        folder.mkdir(exist_ok=True)
        for number in range(20_000):
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_WRONLY))

    return change


_STATE = "Shop__eu__/state"
_PYC = "dbt/project/models/__pycache__/a.cpython-311.pyc"
_VERIFY_PYC = "__pycache__/@verify.cpython-313.opt-1.pyc"
_NFD = unicodedata.normalize("NFD", "é")
_UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
_CHECKED = py_compile.PycInvalidationMode.CHECKED_HASH

GOOD: dict[str, Change] = {
    "nothing": lambda _: None,
    "a record and a staging area, as in a project": both(
        write("@staging/run/x"),
        write("@run.json", b'{"_type":"https://state-bundler.io/run-record/v1"}'),
    ),
    "a file that the program has added": write("dbt/project/target/new/log", b"x"),
    "a writable folder that is made later": write("dbt/project/logs/log", b"x"),
    "byte code of a state's file": compiled("dbt/project/models/a.py", _PYC),
    "byte code of @verify.py": compiled("@verify.py", _VERIFY_PYC),
    "byte code with a hash that Python checks": compiled("@verify.py", _VERIFY_PYC, _CHECKED),
    "byte code by PyPy": compiled("@verify.py", "__pycache__/@verify.pypy310.pyc"),
    "an empty folder for byte code": make_directory("__pycache__"),
    "an unreadable bit for others": mode(_STATE, 0o600),
    "a key that is elsewhere": contents(
        nonLocal=[{"key": "Far", "managementType": "VERSIONED_STATE_STORAGE", "version": "1"}]
    ),
    "another key": add_key("a/b", "a__b", "state", "more/é"),
    "a dbt project that defers": states(
        lambda it: it[1].update(defer={"path": "project/target/run.json", "state": "0" * 64})
    ),
}

BAD: dict[str, Change] = {
    # what is there
    "an altered state": write(_STATE, b'{"a": 2}'),
    "a longer state": write(_STATE, b'{"a": 1} '),
    "a missing state": lambda it: (it / _STATE).unlink(),
    "a file in a key directory": write("Shop__eu__/more"),
    "a file at the top": write("more"),
    "a file with a name of ours": write("@more"),
    "an ignore file in a key directory": write("dbt/.gitignore"),
    "another key directory": write("Old/state"),
    "an empty folder": make_directory("Old"),
    "an empty folder in a key directory": make_directory("Shop__eu__/Old"),
    "a folder in the place of a state": both(
        lambda it: (it / _STATE).unlink(), make_directory(_STATE)
    ),
    "a file in the place of a key directory": replace("Shop__eu__", lambda it: Path(it).touch()),
    "the manifest in a folder": both(
        lambda it: shutil.copy(it / "@manifest.json", it / "dbt" / "@manifest.json")
    ),
    "a name that differs by case": write("Shop__eu__/State", b'{"a": 1}'),
    "a file that differs by case from a support file": write(".GitIgnore"),
    # what is neither a file nor a folder
    "a link for a state": replace(_STATE, outside_file),
    "a link for a key directory": replace("dbt", outside_folder),
    "an added link to a folder": replace("extra", outside_folder),
    "an added link in a key directory": replace("dbt/project/extra", outside_folder),
    "a link for a writable folder": replace("dbt/project/logs", outside_folder),
    "a link in a writable folder": replace("dbt/project/target/x", outside_file),
    "a link to a folder in a writable folder": replace("dbt/project/target/x", outside_folder),
    "a link to nothing": replace("extra", lambda it: os.symlink("nowhere", it)),
    "a link for the folder of byte code": replace("__pycache__", outside_folder),
    "a link for the staging area": replace("@staging", outside_folder),
    "a link for the record": replace("@run.json", outside_file),
    "a link for the manifest": both(
        lambda it: shutil.copy(it / "@manifest.json", it.parent / "copy"),
        replace("@manifest.json", lambda it: os.symlink("../copy", it)),
    ),
    "a FIFO for a state": replace(_STATE, os.mkfifo),
    "a FIFO for the manifest": replace("@manifest.json", os.mkfifo),
    "a FIFO for a support file": replace(".gitignore", os.mkfifo),
    "a FIFO for the record": replace("@run.json", os.mkfifo),
    "a FIFO in a writable folder": replace("dbt/project/target/x", os.mkfifo),
    "a FIFO for a writable folder": replace("dbt/project/logs", os.mkfifo),
    "a FIFO for byte code": both(make_directory("__pycache__"), replace(_VERIFY_PYC, os.mkfifo)),
    "an added FIFO": replace("extra", os.mkfifo),
    "a socket": replace("extra", socket_at),
    "a device for a state": replace(_STATE, lambda it: os.symlink("/dev/zero", it)),
    "a device for the manifest": replace("@manifest.json", lambda it: os.symlink("/dev/zero", it)),
    "a folder for the manifest": replace("@manifest.json", os.mkdir),
    # modes
    "a state that nobody can read": mode(_STATE, 0),
    "a state that is setuid": mode(_STATE, 0o4755),
    "a state that is setgid": mode(_STATE, 0o2755),
    "a support file that nobody can read": mode(".gitignore", 0),
    "a key directory that nobody can list": mode("Shop__eu__", 0),
    # byte code
    "byte code of nothing": compiled("x = 2\n", "__pycache__/other.cpython-311.pyc"),
    "byte code of another file": compiled("x = 2222\n", _PYC),
    "byte code without a version": compiled(
        "dbt/project/models/a.py", "dbt/project/models/__pycache__/a.pyc"
    ),
    "byte code next to its source": compiled("dbt/project/models/a.py", "dbt/project/models/a.pyc"),
    "byte code that Python does not check": compiled(
        "dbt/project/models/a.py", _PYC, _UNCHECKED
    ),
    "byte code of a file that is no Python": both(
        make_directory("Shop__eu__/__pycache__"),
        compiled("x = 2\n", "Shop__eu__/__pycache__/state.cpython-311.pyc"),
    ),
    "not byte code": write(_PYC, b"#!/bin/sh\n"),
    "empty byte code": write(_PYC),
    "a folder below that of byte code": write("__pycache__/more/@verify.cpython-311.pyc"),
    "a file next to byte code": write("__pycache__/more"),
    "byte code that is a link": both(
        make_directory("__pycache__"), replace(_VERIFY_PYC, outside_file)
    ),
    "byte code that is setuid": both(
        compiled("@verify.py", _VERIFY_PYC), mode(_VERIFY_PYC, 0o4644)
    ),
    # size and number
    "a sparse state of 10 TB": sparse(_STATE, 10 * 2**40),
    "a sparse manifest of 10 TB": sparse("@manifest.json", 10 * 2**40),
    "a sparse record of 10 TB": both(
        write("@run.json"), sparse("@run.json", 10 * 2**40)
    ),
    "a folder in which there are 10,000 others": deep,
    "20,000 files in a folder": many("Old"),
    "20,000 files in a key directory": many("Shop__eu__"),
    # the manifest's form
    "no manifest": lambda it: (it / "@manifest.json").unlink(),
    "an empty manifest": write("@manifest.json"),
    "a space after the manifest": raw(lambda it: it + b" "),
    "a space in the manifest": raw(lambda it: it.replace(b":", b": ", 1)),
    "a byte order mark": raw(lambda it: b"\xef\xbb\xbf" + it),
    "UTF-16": raw(lambda it: it.decode().encode("utf-16")),
    "an escape that need not be": raw(lambda it: it.replace(b'"Shop', b'"\\u0053hop')),
    "a name twice": raw(lambda it: b'{"_type":"https://in-toto.io/Statement/v1",' + it[1:]),
    "deep nesting": write("@manifest.json", b"[" * 100_000),
    "a list": write("@manifest.json", b"[]"),
    "null": write("@manifest.json", b"null"),
    "another type": raw(lambda it: it.replace(b"Statement/v1", b"Statement/v2")),
    "another version": raw(lambda it: it.replace(b"state-bundle/v1", b"state-bundle/v2")),
    # the manifest's content, all of its digests renewed
    "an unknown member": contents(more=1),
    "an unknown member of a state": states(lambda it: it[0].update(more=1)),
    "an unknown member of a file": states(lambda it: it[0]["files"][0].update(more=1)),
    "an unknown member of the statement": manifest(lambda it: it.update(more=1)),
    "an empty list that is left out": contents(nonLocal=[]),
    "an empty list of writable paths": states(lambda it: it[0].update(writable=[])),
    "no version": states(lambda it: it[0].update(version=None)),
    "a size that is true": states(lambda it: it[0]["files"][0].update(size=True)),
    "a size that is text": states(lambda it: it[0]["files"][0].update(size="8")),
    "a size with a point": states(lambda it: it[0]["files"][0].update(size=8.0)),
    "a size below zero": states(lambda it: it[0]["files"][0].update(size=-1)),
    "a size beyond JSON": states(lambda it: it[0]["files"][0].update(size=2**53)),
    "a digest with a newline": states(lambda it: it[0]["digest"].update(semantic="0" * 64 + "\n")),
    "an invalid digest": states(lambda it: it[0]["digest"].update(semantic="x")),
    "a state without files": both(
        states(lambda it: it[0].update(files=[])), lambda it: shutil.rmtree(it / "Shop__eu__")
    ),
    "no states at all": both(
        states(lambda it: it.clear()),
        lambda it: shutil.rmtree(it / "Shop__eu__"),
        lambda it: shutil.rmtree(it / "dbt"),
    ),
    "states in another order": states(lambda it: it.reverse()),
    "files in another order": states(lambda it: it[1]["files"].reverse()),
    "a file twice": states(lambda it: it[0]["files"].append(it[0]["files"][0])),
    "a key twice": states(lambda it: it.append(it[1])),
    "a key here and elsewhere": contents(
        nonLocal=[{"key": "dbt", "managementType": "VERSIONED_STATE_STORAGE"}]
    ),
    "a key elsewhere that differs by case": contents(
        nonLocal=[{"key": "DBT", "managementType": "VERSIONED_STATE_STORAGE"}]
    ),
    "an unknown management type": contents(nonLocal=[{"key": "Far", "managementType": "HERE"}]),
    "two keys that differ by case": add_key("DBT", "DBT", "state"),
    "two keys that differ by Unicode form": both(
        add_key("é", "__", "state"), add_key(_NFD, "e__", "state")
    ),
    "two files that differ by case": add_key("k", "k", "state", "State"),
    "two files that differ by Unicode form": add_key("k", "k", "é", _NFD, "state"),
    "two folders that differ by case": add_key("k", "k", "a/x", "A/y", "state"),
    "a key in another's directory": both(
        states(lambda it: (it[0].update(path="dbt"), it[1].update(path="Shop__eu__"))),
        lambda it: (it / "dbt").rename(it / "x"),
        lambda it: (it / "Shop__eu__").rename(it / "dbt"),
        lambda it: (it / "x").rename(it / "Shop__eu__"),
    ),
    "a key directory with a slash": add_key("k", "k/l", "state"),
    "a key directory that is ours": add_key("@k", "@k", "state"),
    "a key that leads upwards": states(lambda it: it[0].update(key="..", path="..")),
    "a file that leads upwards": states(lambda it: it[0]["files"][0].update(path="../x")),
    "a file with a control character": add_key("k", "k", "a\nb", "state"),
    "a file with a backslash": add_key("k", "k", "a\\b", "state"),
    "a file that reads backwards": add_key("k", "k", "a\u202eb", "state"),
    "an absolute writable path": states(lambda it: it[1].update(writable=["/tmp"])),
    "a writable path that is everything": states(lambda it: it[1].update(writable=["."])),
    "a writable path that leads upwards": states(lambda it: it[1].update(writable=["a/../.."])),
    "a manifest to defer to that is not there": states(
        lambda it: it[1].update(defer={"path": "project/target", "state": "0" * 64})
    ),
    "what it defers to without a digest": states(
        lambda it: it[1].update(defer={"path": "project/target/run.json", "state": "x"})
    ),
    "no deferral": states(lambda it: it[1].update(defer=None)),
    "a support file with a slash": add_support("Shop__eu__/more"),
    "a support file that is not ours": add_support("json.py"),
    "the record as a support file": add_support("@run.json"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_what_all_accept(case: str, directory: Path) -> None:
    GOOD[case](directory)
    assert verdicts(directory) == dict.fromkeys(("verify", "@verify.py", "component"), True)


_LONG = {
    "a folder in which there are 10,000 others",
    "20,000 files in a folder",
    "20,000 files in a key directory",
}
# A project's run record stays on its machine, and only `verify` reads it.
_ONLY_VERIFY = {"a sparse record of 10 TB"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in _LONG)) for case in BAD]
)
def test_what_all_refuse(case: str, directory: Path) -> None:
    BAD[case](directory)
    others = case in _ONLY_VERIFY
    expected = {"verify": False, "@verify.py": others, "component": others}
    assert verdicts(directory) == expected


def test_a_problem_is_printed_without_what_steers_a_terminal(directory: Path) -> None:
    (directory / "a\x1b[2Jb").touch()
    done = subprocess.run(
        [sys.executable, directory / "@verify.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 76
    assert "'a\\x1b[2Jb' is not in the manifest." in done.stderr


# --- what stands in the folder never runs --------------------------------------------------------

_EVIL = "import os, sys\nos.write(2, b'EVIL RAN')\nos._exit(0)\n"
_IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
sys.exit(76 if importlib.import_module("@verify").problems(sys.argv[1]) else 0)
"""
_WAYS = {
    "a script": ["{}/@verify.py"],
    "isolated": ["-I", "{}/@verify.py"],
    "without site": ["-S", "{}/@verify.py"],
    "through a link": ["{}/../linked/@verify.py"],
    "an import": ["-I", "-c", _IMPORT, "{}"],
}
_SHADOWED = ("__future__", "posix", "errno", "hashlib", "importlib", "json", "os", "re", "stat",
             "threading", "unicodedata", "enum", "functools", "json.decoder", "_json")  # fmt: skip


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("inside", [False, True], ids=["elsewhere", "in the folder"])
def test_no_name_in_the_folder_shadows_the_standard_library(
    way: str, directory: Path, *, inside: bool
) -> None:
    (directory.parent / "linked").symlink_to(directory, target_is_directory=True)
    for name in _SHADOWED:
        write(f"{name}.py", _EVIL.encode())(directory)
    write("re/__init__.py", _EVIL.encode())(directory)
    command = [sys.executable, *(part.format(directory) for part in _WAYS[way])]
    done = subprocess.run(
        command, cwd=directory if inside else "/", capture_output=True, text=True, check=False
    )
    assert "EVIL" not in done.stderr
    assert done.returncode == 76, done.stderr


@pytest.mark.parametrize("way", ["a script", "isolated", "an import"])
def test_each_way_accepts_what_is_good(way: str, directory: Path) -> None:
    command = [sys.executable, *(part.format(directory) for part in _WAYS[way])]
    assert subprocess.run(command, cwd="/", check=False).returncode == 0


def test_a_key_directory_shadows_nothing_when_the_program_is_loaded(directory: Path) -> None:
    """A key may be called as a module is: its state must not be imported in the place of that."""
    write("json/__init__.py", _EVIL.encode())(directory)
    add_key("json", "json", "__init__.py", "state")(directory)
    (directory / "json" / "__init__.py").write_bytes(_EVIL.encode())
    write("json/state", b"x")(directory)
    rewrite_manifest(
        directory,
        lambda it: next(
            state for state in it["predicate"]["contents"]["states"] if state["key"] == "json"
        )["files"].__setitem__(0, file_entry(directory / "json/__init__.py", "__init__.py")),
    )
    command = [sys.executable, directory / "@verify.py", "--load", "colorsys:rgb_to_hsv"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert "EVIL" not in done.stderr
    assert "missing 3 required positional arguments" in done.stderr
