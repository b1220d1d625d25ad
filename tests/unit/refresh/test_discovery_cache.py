"""A kept answer is used only while nothing that discovery depended on has changed."""

from __future__ import annotations

import errno
import json
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
from bundler.errors import io_failure
from bundler.listener import SILENT
from bundler.project.projects import Project, open_project
from bundler.refresh import discovery_cache
from bundler.refresh.known_components import discover, recalled
from bundler.refresh.model import Found
from bundler.system import home
from bundler.worker import inputs
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
        str(os.access(HERE / "parts", os.R_OK)),
        os.readlink(HERE / "dangling"),
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
        "../lib/clock.py": "import time\ndef stamp():\n    return str(time.time())\n",
        "sealed": "",
    }  # fmt: skip
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (root / "link").symlink_to("first")
    (root / "dangling").symlink_to("nowhere")
    (root / "parts/loop").symlink_to("loop")
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
    "a link to nothing": lambda root, _: _relink(root / "dangling", "elsewhere"),
    "a folder's permission": lambda root, _: (root / "parts").chmod(0o705),
    "a file that a variable names": lambda root, _: (root / "sealed").write_text("new"),
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
    "a shell in a shell": lambda _, patch: patch.setenv("SHLVL", "77"),
    "another folder": lambda _, patch: patch.setenv("PWD", "/new"),
    "the folder before": lambda _, patch: patch.setenv("OLDPWD", "/new"),
    "the words to complete": lambda _, patch: patch.setenv("COMP_WORDS", "new"),
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
    "thread that ends": "(it := __import__('threading').Thread(target=int)).start() or it.join()",
    "pool": "__import__('concurrent.futures').futures.ThreadPoolExecutor(1).submit(int).result()",
    "passed on": "__import__('functools').partial(datetime.now)()",
    "entry": "next(os.scandir(HERE)).stat(follow_symlinks=False)",
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


# The module that is named mentions no clock; the one that it imports does.
_ASKS_ANOTHER = (
    _CODE.replace("from datetime import datetime\n", "import clock\n")
    .replace("datetime.now().isoformat()", "''")
    .replace("    return Thing(\n", "    clock.stamp()\n    return Thing(\n")
)
# Other modules of the project, by the name of the file that is installed with it.
_INSTALLED = {"thing": "thing.py", "acme.thing": "acme/thing.py"}


def _install(root: Path, module: str) -> None:
    """Moves the project's module into its environment, with a clock in it."""
    (root / "thing.py").unlink()
    table = _TABLE.replace("thing:things", f"{module}:things")
    (root / "pyproject.toml").write_text(table)
    file = _packages(root) / _INSTALLED[module]
    file.parent.mkdir(exist_ok=True)
    code = _calling(_CALLS["clock"]).replace("Path(__file__).parent", "Path.cwd()")
    file.write_text(code)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each test, older than the coarsest clock of a file system ticks."""
    folder = tmp_path_factory.mktemp("projects")
    made = {}
    others = ["interpolated", "all", "secret", "damaged", "folder", "another", *_INSTALLED]
    names = [*_CHANGES, *_HARMLESS, *_CALLS, *others]
    for number, name in enumerate(names):
        (folder / str(number)).mkdir()
        code = _calling(_CALLS[name]) if name in _CALLS else _CODE
        code = code.replace("os.environ.get", "dict(os.environ).get") if name == "all" else code
        code = _ASKS_ANOTHER if name == "another" else code
        made[name] = _make(folder / str(number) / "project", code)
        if name in _INSTALLED:
            _install(made[name], name)
    (made["interpolated"] / ".env").write_text("FROM_FILE=${ELSEWHERE}\n")
    time.sleep(2.1)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(home, "cache", lambda **_: tmp_path)
    monkeypatch.setenv("THING_NAME", "thing")
    monkeypatch.setenv("THING_FILE", "sealed")
    others = ("DG_PROJECT_PYTHON_EXECUTABLE", "STATE_BUNDLER_NO_CACHE")
    for name in ("THING_FLAG", "FROM_FILE", "PYTHONUTF8", "LC_TIME", *others):
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
    # Nothing is asked about secrets either, which would start an interpreter for a `.env`.
    monkeypatch.setattr(import_module("bundler.refresh.surroundings"), "surroundings_of", None)
    assert _recalled(root) == found


@pytest.mark.parametrize("name", _CALLS)
def test_what_cannot_be_compared_is_not_kept(roots: dict[str, Path], name: str) -> None:
    (found,) = _discover(roots[name])
    assert found.components
    assert _recalled(roots[name]) is None


@pytest.mark.parametrize("name", ["another", *_INSTALLED])
def test_a_clock_in_any_module_of_the_project(roots: dict[str, Path], name: str) -> None:
    (found,) = _discover(roots[name])
    assert found.components
    assert _recalled(roots[name]) is None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from datetime import datetime\nmap(datetime.now, [])", {"now"}),
        ("import datetime as d\nf(d.datetime.now)", {"now"}),
        ("from uuid import uuid4 as new\nField(default_factory=new)", {"uuid4"}),
        ("from time import *\nf(time)", {"time"}),
        ("import time, random\nrandom.random(), time.time(), time.time().hex()", set()),
        ("import event\nnow = self.time\nf(now, event.name)", set()),
    ],
)
def test_a_clock_that_others_may_call(source: str, found: set[str]) -> None:
    assert inputs.passed(source) == found


@pytest.mark.parametrize(
    ("command", "packages"),
    [
        ({"root_module": "acme.shop", "target": "acme.shop.definitions"}, {"acme"}),
        ({"root_module": "shop", "target": "apps.main"}, {"shop", "apps"}),
        ({"entries": [{"component": "a.b:c"}, {"component": "d:e"}]}, {"a", "d"}),
        ({"entries": [{"argv": ["true"]}]}, set()),
    ],
)
def test_the_packages_of_a_project(command: dict[str, Any], packages: set[str]) -> None:
    assert inputs.packages_of(command) == packages


def test_what_a_listing_distinguishes(tmp_path: Path) -> None:
    folder = tmp_path / "listed"
    folder.mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").touch()
    entry, seen = folder / "entry", set()
    for target in ("entry", "../nothing", "../file", "../inner"):
        entry.symlink_to(target)
        seen.add(repr(inputs.signature(str(folder), listed=True)))
        entry.unlink()
    for make in (entry.touch, entry.unlink, entry.mkdir):
        make()
        seen.add(repr(inputs.signature(str(folder), listed=True)))
    assert len(seen) == 3 + 3  # a link to itself and one to nothing answer alike


def test_what_is_being_changed_is_not_kept(tmp_path: Path) -> None:
    root = _make(tmp_path / "project")
    os.utime(root / "keys.yaml", (time.time() + 600,) * 2)  # as if it changed during the load
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


def test_reading_the_whole_environment_depends_on_it(
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
        flipped = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        file.write_bytes(flipped)
        if _recalled(root) is not None:  # a bit that no data is in, before the checksum
            assert zlib.decompress(flipped) == zlib.decompress(good)
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


@pytest.mark.parametrize("key", ["directory", "place", "components"])
@pytest.mark.parametrize("value", [None, 3, {}, [{"key": 3}]])
def test_an_answer_of_another_shape_is_asked_again(
    roots: dict[str, Path], cache: Path, key: str, value: Any
) -> None:
    root = roots["damaged"]
    found = _discover(root)
    (file,) = cache.iterdir()
    answer = json.loads(zlib.decompress(file.read_bytes()))
    answer["found"][key] = value
    file.write_bytes(zlib.compress(json.dumps(answer).encode()))
    assert _recalled(root) is None
    del answer["found"][key]
    file.write_bytes(zlib.compress(json.dumps(answer).encode()))
    assert _recalled(root) is None
    assert _discover(root) == found


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), io_failure(OSError(errno.ENOSPC, "full"), Path("x"))]
)
def test_an_answer_that_cannot_be_written(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(discovery_cache, "write_synced", full)
    assert _discover(roots["folder"])
    assert _recalled(roots["folder"]) is None


def test_looking_makes_no_folder(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert _recalled(roots["folder"]) is None
    assert list(tmp_path.iterdir()) == []
    assert home.cache() == tmp_path / "cache/state-bundler"


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_use_is_left_alone(
    roots: dict[str, Path], cache: Path, mode: int
) -> None:
    cache.mkdir()
    cache.chmod(mode)
    assert _discover(roots["folder"])
    assert list(cache.iterdir()) == []


def test_no_folder_at_all(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "cache", lambda **_: None)
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
    assert asked == [{"keeps": False}]
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
    for value, is_cached in (("0", True), ("1", False), ("", True), ("no", True), ("?", False)):
        monkeypatch.setenv("STATE_BUNDLER_NO_CACHE", value)
        assert bool(completed()) == is_cached


def test_another_interpreter_is_another_question(roots: dict[str, Path]) -> None:
    root = roots["folder"]
    _discover(root)
    assert _recalled(root)
    assert recalled([open_project(root, python=Path(sys.executable))]) is None
