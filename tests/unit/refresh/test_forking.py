"""Workers that are forked from one interpreter write what workers of their own write."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from bundler.errors import BundlerError, Several
from bundler.listener import Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh import discovery
from bundler.refresh.forking import ForkedWorker, ForkServers, Start
from bundler.refresh.run import refresh
from bundler.worker.fork_server import ForkServer

# Its workers are forked by the product alone.
pytestmark = [pytest.mark.usefixtures("own_workers"), pytest.mark.slow]
_ROOT = Path(__file__).parents[3]
_PROJECT = """\
[project]
name = "{name}"
version = "1"

[[tool.state-bundler.source]]
component = "shop.keys:Portrait"
path = "src/shop/state"
"""
# The state is a portrait of the process that wrote it.
_KEYS = """\
import gc, hashlib, json, os, signal, sys, threading, time
from bundler.component import DefsStateConfig, StateBackedComponent

{at_import}

def kind(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{{descriptor}}").partition(":")[0]
    except OSError:  # of the list itself
        return ""


class Portrait(StateBackedComponent):
    @property
    def defs_state_config(self):
        return DefsStateConfig("Portrait[{name}]")

    def write_state_to_path(self, state_path):
        {in_write}
        kinds = [kind(each) for each in os.listdir("/proc/self/fd")]
        state_path.write_text(json.dumps({{
            "argv": sys.argv[:2],
            "collects garbage as usual": gc.isenabled() and gc.get_threshold()[0] < 100_000,
            "environment": hashlib.sha256(repr(sorted(os.environ.items())).encode()).hexdigest(),
            "file": __file__,
            "folder": os.getcwd(),
            "leads its session": os.getsid(0) == os.getpid(),
            "modules": sorted(sys.modules),
            "open": sorted("file" if each.startswith("/") else each for each in kinds if each),
            "path": sys.path,
            "region": os.environ.get("SHOP_REGION"),
            "signals": [str(signal.getsignal(each)) for each in (2, 13, 15, 17)],
            "threads": threading.active_count(),
        }}))

    def build_defs_from_state(self, context, state_path):
        return None
"""
_HANGS = "time.sleep(60)"
_CYCLES = """\
class Cycle:
    alive = most = 0

    def __init__(self):
        self.itself = self
        Cycle.alive += 1
        Cycle.most = max(Cycle.most, Cycle.alive)

    def __del__(self):
        Cycle.alive -= 1

for _ in range(250_000):
    Cycle()
"""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("FORKING_TEST", str(tmp_path))


def _make(root: Path, *, at_import: str = "", in_write: str = "pass") -> Path:
    package = root / "src/shop"
    package.mkdir(parents=True)
    (root / "pyproject.toml").write_text(_PROJECT.format(name=root.name))
    (package / "__init__.py").touch()
    text = _KEYS.format(name=root.name, at_import=at_import, in_write=in_write)
    (package / "keys.py").write_text(text)
    return root


def _files(root: Path) -> Mapping[str, bytes]:
    states = (root / "src/shop/state").rglob("*")
    files = (path for path in states if path.is_file() and path.name != "holder")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def _refreshed(roots: list[Path], options: RefreshOptions) -> tuple[object, ...]:
    """What a refresh returns or raises, and what it leaves on disk."""
    projects = [open_project(root, python=Path(sys.executable)) for root in roots]
    for root in roots:
        shutil.rmtree(root / "src/shop/state", ignore_errors=True)
    try:
        done = refresh(projects, options, Listener())
        said: object = (msgspec.to_builtins(done.record), done.changed, done.found)
    except BundlerError as error:
        failures = error.failures if isinstance(error, Several) else (error,)
        said = [(type(each), each.what, each.hint) for each in failures]
    return (said, *map(_files, roots))


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[object, ...]]:
    """Refreshes with their own workers, then with forked ones, and compares."""

    def compare(
        roots: list[Path], forked: int, options: RefreshOptions | None = None
    ) -> tuple[object, ...]:
        options = options or RefreshOptions()
        with monkeypatch.context() as patched:
            patched.setattr(Start, "is_shareable", False)
            alone = _refreshed(roots, options)
        made: list[ForkedWorker] = []
        fork = ForkServers.fork

        def counted(*arguments: object) -> ForkedWorker | None:
            worker = fork(*arguments)  # type: ignore[arg-type]  # as it was called
            made.extend([worker] if worker else [])
            return worker

        with monkeypatch.context() as patched:
            patched.setattr(ForkServers, "fork", counted)
            together = _refreshed(roots, options)
        assert len(made) == forked
        assert together == alone
        assert _left_over() == []
        return together

    return compare


def _left_over() -> list[str]:
    """What is left after the end: a process that is killed ends a little later."""
    deadline = time.monotonic() + 10
    while (running := _running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def _running() -> list[str]:
    """The processes with this test's mark in their environment, except for this one."""
    found, mark = [], os.environ["FORKING_TEST"]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.name != str(os.getpid()) and mark in (folder / "environ").read_text():
                found.append((folder / "cmdline").read_text())
        except (OSError, UnicodeDecodeError):
            continue
    return found


def test_a_forked_worker_does_what_another_does(
    tmp_path: Path, same: Callable[..., tuple[object, ...]]
) -> None:
    """Packages with one name and different code; one project has a ``.env``."""
    roots = [_make(tmp_path / name) for name in ("north", "south", "west")]
    (roots[2] / ".env").write_text("SHOP_REGION=west\n")
    _, north, south, west = same(roots, forked=2)
    assert isinstance(north, dict)
    assert isinstance(west, dict)
    assert north.keys() != (south if isinstance(south, dict) else {}).keys()
    assert b'"region": null' in north["src/shop/state/Portrait__north__/state"]
    assert b'usual": true' in north["src/shop/state/Portrait__north__/state"]
    assert b'"region": "west"' in west["src/shop/state/Portrait__west__/state"]


def test_a_load_that_makes_many_reference_cycles_does_not_keep_them(
    tmp_path: Path, same: Callable[..., tuple[object, ...]]
) -> None:
    bounded = "assert 1000 < Cycle.most < 150_000, Cycle.most"
    cycles = _make(tmp_path / "north", at_import=_CYCLES, in_write=bounded)
    said, *_ = same([cycles, _make(tmp_path / "south")], forked=2)
    assert isinstance(said, tuple), said


_FATES = (
    ("os._exit(3)", "pass"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "pass"),
    ("", "raise RuntimeError('no catalogue')"),
    ("", "os.kill(os.getpid(), signal.SIGSEGV)"),
    ("", "os.system('sleep 60 &'); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"),
    ("", _HANGS),
    ("threading.Thread(target=time.sleep, args=(0.5,)).start()", "pass"),
)


@pytest.mark.parametrize(
    ("at_import", "in_write"),
    [_FATES[0], *(pytest.param(*fate, marks=pytest.mark.slow) for fate in _FATES[1:])],
)
def test_what_one_project_does_to_its_worker_affects_no_other(
    at_import: str, in_write: str, tmp_path: Path, same: Callable[..., tuple[object, ...]]
) -> None:
    roots = [
        _make(tmp_path / "north"),
        _make(tmp_path / "south", at_import=at_import, in_write=in_write),
        _make(tmp_path / "west"),
    ]
    timeout = 1.5 if in_write == _HANGS else None
    per_key = {"Portrait[south]": KeyOptions(timeout=timeout, attempts=1)}
    same(roots, 3, RefreshOptions(per_key=per_key))


def test_a_load_that_hangs_ends_at_its_deadline(
    tmp_path: Path, same: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_LOAD_SECONDS", 2.0)
    roots = [_make(tmp_path / name, at_import=_HANGS) for name in ("north", "south")]
    said, *_ = same(roots, forked=2)
    assert "took longer than 2 s" in str(said)


@pytest.mark.slow
def test_a_server_whose_start_is_customized_starts_interpreters(
    tmp_path: Path, same: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os, threading, time\n"
        "os.environ['SHOP_REGION'] = os.getcwd()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{_ROOT}")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    _, *states = same([_make(tmp_path / name) for name in ("north", "south")], forked=2)
    assert all(f'"{tmp_path}/site", "{_ROOT}"' in str(state) for state in states)


@pytest.mark.slow
def test_a_path_that_depends_on_the_folder_is_that_of_the_project(
    tmp_path: Path, same: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "here.pth").write_text("import os, sys; sys.path.append(os.getcwd() + '/lib')\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    _, *states = same([_make(tmp_path / name) for name in ("north", "south")], forked=2)
    for name, state in zip(("north", "south"), states, strict=True):
        assert f'"{tmp_path / name}/lib"' in str(state)


@pytest.mark.parametrize(
    ("name", "value", "shared"),
    [
        ("HOME", "home", False),
        ("PYTHONPYCACHEPREFIX", "cache", False),
        ("PYTHONUSERBASE", "~/base", False),
        ("PYTHONPATH", "/src:src", False),
        ("PYTHONPATH", "/src:", False),
        ("PYTHONPATH", "", True),
        ("PYTHONUSERBASE", "/base", True),
        ("PATH", "bin:/bin", True),
    ],
)
def test_only_absolute_paths_are_shared(name: str, value: str, shared: bool) -> None:
    start = Start.of(Path("/bin/python"), "component", {name: value})
    assert start.is_shareable == (shared and sys.platform == "linux")


@pytest.mark.slow
def test_nothing_is_shared_where_the_folder_decides_what_is_imported(
    tmp_path: Path, same: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{_ROOT}{os.pathsep}")
    same([_make(tmp_path / name) for name in ("north", "south")], forked=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_the_workers_and_their_server(number: int, tmp_path: Path) -> None:
    """Even if a worker cannot notice it."""
    starts = "os.system('sleep 60 &'); os.kill(os.getppid(), signal.SIGSTOP)"
    for name in ("north", "south"):
        _make(tmp_path / name, in_write=f"{starts}; open('started', 'w').close(); {_HANGS}")
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", "refresh", "--all", "--python", sys.executable],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not all((tmp_path / name / "started").exists() for name in ("north", "south")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        assert any("start.py" in each for each in _running())
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert _left_over() == []


@pytest.mark.parametrize(("limit", "forked"), [(800, 100), (799, 0)])
def test_few_descriptors_are_left_to_what_needs_them(
    limit: int, forked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(ForkServers, "pass_on", lambda *_: True)
    servers, start = ForkServers(), Start.of(tmp_path / "python", "component", {})
    servers.expect([start] * 100)
    workers = [servers.fork(start, tmp_path, (0, 1, 2)) for _ in range(100)]
    assert sum(worker is not None for worker in workers) == forked
    for worker in filter(None, workers):
        worker.wait()


@pytest.mark.parametrize("given", [3, 4])
def test_a_server_that_cannot_fork_goes_on(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> NoReturn:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fork)
    requests, asked, theirs = socket.socket(), *socket.socketpair()
    server = ForkServer(requests.detach(), [], lambda _: None)
    descriptors = [os.dup(theirs.fileno()) for _ in range(given - 1)] + [theirs.detach()]
    assert not server._fork(descriptors)
    assert ForkedWorker(asked).wait() == -signal.SIGKILL
    server._requests.close()


def test_a_server_that_has_imported_a_thread_does_not_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threads.py").write_text(
        "import threading\nend = threading.Event()\nthreading.Thread(target=end.wait).start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr("gc.freeze", lambda: None)
    server = ForkServer(socket.socket().detach(), [], lambda _: None)
    server.import_shared("threads")
    sys.modules.pop("threads").end.set()
    assert not server._forks
    server._requests.close()


@pytest.mark.parametrize("sent", [b"", b"?", b'?[["/bin/python"'])
def test_a_build_that_ends_while_it_asks_affects_no_other(sent: bytes) -> None:
    ours, build = socket.socketpair()
    with ours:
        with build:
            ours.send(b"n")  # an answer that it did not read
            socket.send_fds(build, [sent], [0] if sent else [])
        before = os.listdir("/proc/self/fd")
        assert not ForkServers().serve(ours)
        assert os.listdir("/proc/self/fd") == before


def test_an_interpreter_that_cannot_start_is_not_shared(tmp_path: Path) -> None:
    servers, start = ForkServers(), Start.of(tmp_path / "python", "component", {})
    servers.expect([start, start])
    assert servers.fork(start, tmp_path, (0, 1, 2)) is None
