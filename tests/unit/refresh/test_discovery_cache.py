"""A kept answer is used only while nothing that discovery depended on has changed."""

from __future__ import annotations

import os
import shutil
import sys
import time
import venv
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from bundler.cli import completion
from bundler.cli.commands import cli
from bundler.listener import SILENT
from bundler.project.projects import Project, open_project
from bundler.refresh import discovery_cache
from bundler.refresh.known_components import discover, recalled
from bundler.refresh.model import Found
from bundler.system import home
from tests.support.environments import ROOT

pytestmark = pytest.mark.slow  # starts many interpreters

_CODE = """\
import os
from datetime import datetime
from pathlib import Path

import helper
from bundler.component import DefsStateConfig, StateBackedComponent

HERE = Path(__file__).parent


class Thing(StateBackedComponent):
    def __init__(self, *parts):
        self.parts = parts

    @property
    def defs_state_config(self):
        return DefsStateConfig.of(self, "-".join(self.parts))

    def write_state_to_path(self, state_path):
        state_path.write_text(datetime.now().isoformat())

    def build_defs_from_state(self, context, state_path):
        return state_path.read_text()


def things():
    (HERE / ".local_defs_state").mkdir(exist_ok=True)
    return Thing(
        (HERE / "keys.yaml").read_text(),
        *sorted(path.name for path in (HERE / "parts").iterdir() if path.is_file()),
        str((HERE / "flag").exists()),
        (HERE / "link").read_text(),
        (HERE / "folder" / "inner").read_text(),
        (HERE.parent / "outside").read_text(),
        str(os.access(HERE / "asked", os.F_OK)),
        helper.NAME,
        os.environ.get("THING_NAME", "unset"),
        str("THING_FLAG" in os.environ),
        os.environ.get("FROM_FILE", "unset"),
    )
"""
_TABLE = '[[tool.state-bundler.source]]\ncomponent = "thing:things"\npath = "state"\n'
_SAME_SIZE = "two"


def _make(root: Path, code: str = _CODE) -> Path:
    """A project with an environment of its own and a helper in a folder outside of it."""
    root.mkdir()
    files = {
        "pyproject.toml": _TABLE, "thing.py": code, "keys.yaml": "one", "parts/a": "",
        "first": "1", "second": "2", "f1/inner": "i", "f2/inner": "j",
        "../outside": "out", "../lib/helper.py": "NAME = 'helper'\n", "README": "",
    }  # fmt: skip
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (root / "link").symlink_to("first")
    (root / "folder").symlink_to("f1")
    venv.create(root / ".venv", symlinks=True)
    (_packages(root) / "ours.pth").write_text(f"{ROOT}\n{root.parent / 'lib'}\n")
    return root


def _packages(root: Path) -> Path:
    return next((root / ".venv/lib").glob("python*/site-packages"))


Change = Callable[[Path, pytest.MonkeyPatch], object]


def _edit_in_place(path: Path) -> None:
    """Other bytes of the same size, at the same time of modification, in the same file."""
    before = path.stat()
    path.write_text(_SAME_SIZE)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    """Another file with the same size and time of modification."""
    before, new = path.stat(), path.with_name("new")
    new.write_text(_SAME_SIZE)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)


def _relink(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _edit_worker(root: Path, patch: pytest.MonkeyPatch) -> None:
    copy = root.parent / "worker"
    shutil.copytree(discovery_cache._WORKER, copy)
    patch.setattr(discovery_cache, "_WORKER", copy)


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text if path.exists() else text)


_CHANGES: dict[str, Change] = {
    "a file that was read, in place": lambda root, _: _edit_in_place(root / "keys.yaml"),
    "a file that was read, replaced": lambda root, _: _replace(root / "keys.yaml"),
    "a file that was read, removed": lambda root, _: (root / "keys.yaml").unlink(),
    "a file outside": lambda root, _: (root.parent / "outside").write_text("new"),
    "a file in a folder that was listed": lambda root, _: (root / "parts/b").touch(),
    "a removal in it": lambda root, _: (root / "parts/a").unlink(),
    "another type in it": lambda root, _: _become_folder(root / "parts/a"),
    "a file that was missing": lambda root, _: (root / "flag").touch(),
    "a file that was asked for": lambda root, _: (root / "asked").touch(),
    "a link": lambda root, _: _relink(root / "link", "second"),
    "a link on the way": lambda root, _: _relink(root / "folder", "f2"),
    "what a link leads to": lambda root, _: (root / "first").write_text("9"),
    "the code": lambda root, _: _append(root / "thing.py", "\n"),
    "a library's code": lambda root, _: _append(root.parent / "lib/helper.py", "\n"),
    "a module that goes before it": lambda root, _: (_packages(root) / "helper.py").touch(),
    "an installed distribution": lambda root, _: (_packages(root) / "x-1.dist-info").mkdir(),
    "a .pth file": lambda root, _: _append(_packages(root) / "ours.pth", "/elsewhere\n"),
    "a sitecustomize": lambda root, _: (_packages(root) / "sitecustomize.py").touch(),
    "the environment's configuration": lambda root, _: _append(root / ".venv/pyvenv.cfg", "#\n"),
    "a variable that was read": lambda _, patch: patch.setenv("THING_NAME", "other"),
    "a variable that was removed": lambda _, patch: patch.delenv("THING_NAME"),
    "a variable that was not set": lambda _, patch: patch.setenv("THING_FLAG", ""),
    "a variable of Python's": lambda _, patch: patch.setenv("PYTHONUTF8", "1"),
    "the language": lambda _, patch: patch.setenv("LC_TIME", "C"),
    "the path of programs": lambda _, patch: patch.setenv("PATH", f"/x:{os.environ['PATH']}"),
    ".env": lambda root, _: (root / ".env").write_text("FROM_FILE=new\n"),
    "the configuration": lambda root, _: _append(root / "pyproject.toml", 'key = "Other"\n'),
    "our version": lambda _, patch: patch.setattr(discovery_cache, "__version__", "0"),
    "our worker": _edit_worker,
    "a day": lambda _, patch: patch.setattr(time, "time", lambda now=time.time: now() + 86401),
    "a clock that went back": lambda _, patch: patch.setattr(time, "time", lambda: 1.0),
}
_HARMLESS: dict[str, Change] = {
    "nothing": lambda _, __: None,
    "a variable that nobody read": lambda _, patch: patch.setenv("SHLVL", "77"),
    "a file that nobody read": lambda root, _: _append(root / "README", "text"),
    "a state": lambda root, _: (root / ".local_defs_state/new").touch(),
    "byte code": lambda root, _: (root / "parts/__pycache__").mkdir(),
}
# What cannot be compared later, each called while the components are found.
_CALLS = {
    "clock": "datetime.now()",
    "date": "datetime.today()",
    "random": "__import__('random').random()",
    "uuid": "__import__('uuid').uuid4()",
    "kernel": "os.urandom(1)",
    "process id": "os.getpid()",
    "process": "__import__('subprocess').run(['true'])",
    "shell": "os.system('true')",
    "fork": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "name service": "__import__('socket').getaddrinfo('localhost', 80)",
    "network": "__import__('socket').socket().connect_ex(('127.0.0.1', 9))",
    "database": "__import__('sqlite3').connect(HERE / 'some.db')",
    "thread": "__import__('threading').Thread(target=input, daemon=True).start() or "
    "__import__('threading').Timer(60, print).start()",
    "write": "(HERE / 'written').write_text('')",
    "directory": "(HERE / 'made').mkdir()",
    "rename": "os.rename(HERE / 'README', HERE / 'READ')",
    "kernel's file": "Path('/proc/uptime').read_text()",
    "device": "open('/dev/zero', 'rb').read(1)",
    "descriptor": "os.listdir(os.open(HERE, os.O_RDONLY))",
    "relative": "os.stat('README', dir_fd=os.open(HERE, os.O_RDONLY))",
    "change": "os.utime(HERE / 'keys.yaml')",
}


def _calling(call: str) -> str:
    return _CODE.replace("    return Thing(\n", f"    {call}\n    return Thing(\n")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each test, older than the coarsest clock of a file system ticks."""
    folder = tmp_path_factory.mktemp("projects")
    made = {}
    names = [*_CHANGES, *_HARMLESS, *_CALLS, "interpolated", "all", "secret", "damaged", "folder"]
    for number, name in enumerate(names):
        (folder / str(number)).mkdir()
        code = _calling(_CALLS[name]) if name in _CALLS else _CODE
        code = code.replace("os.environ.get", "dict(os.environ).get") if name == "all" else code
        made[name] = _make(folder / str(number) / "project", code)
    (made["interpolated"] / ".env").write_text("FROM_FILE=${ELSEWHERE}\n")
    time.sleep(2.1)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(home, "cache", lambda: tmp_path)
    monkeypatch.setenv("THING_NAME", "thing")
    for name in ("THING_FLAG", "FROM_FILE", "PYTHONUTF8", "LC_TIME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "discovery"


def _open(root: Path) -> Project:
    return open_project(root, environ={"PATH": os.environ["PATH"]})


def _discover(root: Path) -> tuple[Found, ...]:
    return discover([_open(root)], SILENT, is_cached=True)


def _recalled(root: Path) -> tuple[Found, ...] | None:
    return recalled([_open(root)])


@pytest.mark.parametrize("name", _CHANGES)
def test_any_change_asks_again(
    roots: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots[name]
    found = _discover(root)
    assert _recalled(root) == found
    _CHANGES[name](root, monkeypatch)
    assert _recalled(root) is None


@pytest.mark.parametrize("name", _HARMLESS)
def test_what_nobody_read_may_change(
    roots: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots[name]
    found = _discover(root)
    _HARMLESS[name](root, monkeypatch)
    assert _recalled(root) == found


@pytest.mark.parametrize("name", _CALLS)
def test_what_cannot_be_compared_is_not_kept(roots: dict[str, Path], name: str) -> None:
    (found,) = _discover(roots[name])
    assert found.components
    assert _recalled(roots[name]) is None


def test_what_is_being_changed_is_not_kept(tmp_path: Path) -> None:
    root = _make(tmp_path / "project")
    _discover(root)
    assert _recalled(root) is None


def test_a_variable_that_env_refers_to(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "here")
    (found,) = _discover(roots["interpolated"])
    assert found.components[0].key.endswith("-here]")
    assert _recalled(roots["interpolated"]) == (found,)
    monkeypatch.setenv("ELSEWHERE", "there")
    assert _recalled(roots["interpolated"]) is None


def test_whoever_reads_the_whole_environment_depends_on_it(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _discover(roots["all"])
    assert _recalled(roots["all"]) == found
    monkeypatch.setenv("SHLVL", "77")
    assert _recalled(roots["all"]) is None


def test_a_value_that_becomes_secret_is_withheld(
    roots: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THING_NAME", "canary-0123456789")
    _discover(roots["secret"])
    monkeypatch.setenv("OUR_TOKEN", "canary-0123456789")
    known = _recalled(roots["secret"])
    assert known is not None
    assert known[0].components[0].refused is not None
    assert "canary" not in known[0].components[0].key
    for file in cache.iterdir():
        file.unlink()
    _discover(roots["secret"])
    assert list(cache.iterdir()) == []


def test_a_damaged_or_foreign_answer_is_asked_again(roots: dict[str, Path], cache: Path) -> None:
    root = roots["damaged"]
    found = _discover(root)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    assert (file.stat().st_mode & 0o777, cache.stat().st_mode & 0o777) == (0o600, 0o700)
    for at in range(0, len(good), 97):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert _recalled(root) is None
        file.write_bytes(good[:at])
        assert _recalled(root) is None
    for text in (b"", b"{}", b"[1]", b'{"at": 1}'):
        file.write_bytes(zlib.compress(text))
        assert _recalled(root) is None
    file.write_bytes(good)
    file.chmod(0o620)
    assert _recalled(root) is None
    file.chmod(0o600)
    assert _recalled(root) == found
    file.rename(cache / "other")
    file.symlink_to("other")
    assert _recalled(root) is None
    file.unlink()
    file.mkdir()
    assert _recalled(root) is None
    assert _discover(root) == found


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_use_is_left_alone(
    roots: dict[str, Path], cache: Path, mode: int
) -> None:
    cache.mkdir()
    cache.chmod(mode)
    assert _discover(roots["folder"])
    assert list(cache.iterdir()) == []


def test_no_folder_at_all(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "cache", lambda: None)
    assert _discover(roots["folder"])
    assert _recalled(roots["folder"]) is None


def test_the_oldest_answers_go(
    roots: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_cache, "_MOST_ENTRIES", 2)
    cache.mkdir(mode=0o700)
    for number in range(4):
        (cache / f"{number}.json.z").touch()
        os.utime(cache / f"{number}.json.z", (number, number))
    _discover(roots["folder"])
    assert {path.name for path in cache.iterdir()} >= {"3.json.z"}
    assert len(list(cache.iterdir())) == 2


def test_it_is_neither_used_nor_filled_where_that_is_asked_for(
    roots: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    run = import_module("bundler.refresh.run")
    monkeypatch.setattr(run, "discover", lambda *_, **named: asked.append(named))
    discover([_open(roots["folder"])], SILENT, is_cached=False)
    assert asked == [{"keep": None}]
    assert not cache.exists()


def test_keys_that_are_not_published_are_completed(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots["folder"]
    (found,) = _discover(root)
    context = click.Context(cli)
    context.params["directories"] = (root,)

    def completed() -> list[str]:
        return [item.value for item in completion.keys(context, cli.params[0], "Thing")]

    assert completed() == [component.key for component in found.components]
    monkeypatch.setenv("STATE_BUNDLER_NO_CACHE", "1")
    assert completed() == []


def test_an_interpreter_of_its_own_is_a_question_of_its_own(roots: dict[str, Path]) -> None:
    root = roots["folder"]
    _discover(root)
    assert _recalled(root)
    assert recalled([open_project(root, python=Path(sys.executable))]) is None
