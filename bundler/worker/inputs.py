"""What the components that were found depend on, so that the answer can be kept until that changes.

Recorded is every path that was opened, listed or asked about, and every environment variable that
was read, from the moment that the worker is asked. What cannot be compared later (a clock, another
program, the network, a file that is being changed) is a *reason* not to keep the answer.

`digest_of` is for both sides: the worker calls it after the load, and what holds an answer calls
it again. Only the standard library.
"""

from __future__ import annotations

import _thread
import hashlib
import os
import re
import stat
import sys
import sysconfig
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any

# A second change in the same tick of a file system's clock can leave size and times as they were.
# The coarsest clock ticks every two seconds, so a younger file proves nothing.
_RACY_SECONDS = 2.0
# Python and what it starts with read these without `os.environ`.
NATIVE_VARIABLES = ("HOME", "LANG", "LANGUAGE", "PATH", "TZ")
NATIVE_PREFIXES = ("DYLD_", "LC_", "LD_", "PYTHON")
# Written by a load, and not an input of it.
_WRITTEN = ("__pycache__", ".local_defs_state")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate", "unlink")
_REASONS = {
    **dict.fromkeys(
        ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
        "it runs another program",
    ),
    **dict.fromkeys(("pty.spawn", "subprocess.Popen"), "it runs another program"),
    **dict.fromkeys(
        ("connect", "getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostname", "getnameinfo"),
        "it uses the network",
    ),
}
# `scandir`: its entries are asked for sizes and times where no hook sees it.
_CLOCKS = frozenset(
    (
        "choice", "choices", "ctime", "getlogin", "getnode", "getpass", "getpid", "getppid",
        "getrandbits", "getrandom", "getuser", "gmtime", "localtime", "monotonic", "monotonic_ns",
        "node", "now", "perf_counter", "perf_counter_ns", "randbelow", "randbytes", "randint",
        "random", "randrange", "sample", "scandir", "shuffle", "strftime", "time", "time_ns",
        "today", "token_bytes", "token_hex", "token_urlsafe", "uname", "uniform", "urandom",
        "utcnow", "uuid1", "uuid4", "uuid6", "uuid7",
    )
)  # fmt: skip
# They read files and connect in native code, where no hook sees it.
_NATIVE = frozenset(
    (
        "adbc_driver_manager", "connectorx", "cx_Oracle", "daft", "datafusion", "deltalake",
        "duckdb", "_duckdb", "fastparquet", "h5py", "ibm_db", "lance", "lmdb", "lxml", "MySQLdb",
        "netCDF4", "oracledb", "osgeo", "pandas", "polars", "psycopg", "psycopg2", "psycopg_c",
        "pyarrow", "pycurl", "pymssql", "pyodbc", "rasterio", "sqlite3", "_sqlite3", "tables",
    )
)  # fmt: skip

Signature = tuple[object, ...]
# A path, and whether its names count and not only that it is a directory.
Use = tuple[str, bool]


def signature(path: str, *, listed: bool) -> Signature:
    """What says whether a path has changed. Raises `ValueError` for what cannot be compared."""
    target: Signature = ()
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = (os.readlink(path),)
            status = os.stat(path)
        return (*target, *_signature(path, status, listed=listed))
    except OSError as error:
        return (*target, error.errno)


def _signature(path: str, status: os.stat_result, *, listed: bool) -> Signature:
    if stat.S_ISDIR(status.st_mode):
        return ("names", *_names(path)) if listed else ("directory", status.st_mode)
    if not stat.S_ISREG(status.st_mode) or path.startswith(("/proc/", "/sys/")):
        raise ValueError(f"it reads {path}")
    # uv links installed files from its cache, and each further link changes the ctime of all.
    changed = status.st_ctime_ns if status.st_nlink == 1 else 0
    return (
        status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, changed
    )  # fmt: skip


def _names(path: str) -> list[tuple[object, ...]]:
    with os.scandir(path) as entries:
        return sorted(
            (entry.name, entry.is_symlink(), *map(_is, (entry.is_dir, entry.is_file)))
            for entry in entries
            if entry.name not in _WRITTEN
        )


def _is(asked: Callable[[], bool]) -> bool:
    """False for a link that leads to itself."""
    try:
        return asked()
    except OSError:
        return False


def digest_of(uses: Iterable[Use]) -> str:
    """One digest of all signatures. Raises `ValueError` as `signature` does."""
    made = hashlib.sha256()
    for path, listed in uses:
        made.update(repr(signature(path, listed=listed)).encode("utf-8", "surrogateescape"))
    return made.hexdigest()


def _mentions(code: Any, names: frozenset[str]) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, type(code)))
    return not names.isdisjoint(code.co_names) or any(_mentions(one, names) for one in inner)


def passed(source: str) -> set[str]:
    """The imported clocks that a module refers to without calling them: others call them unseen."""
    import ast

    nodes = list(ast.walk(ast.parse(source)))
    imported = {
        (alias.asname or alias.name.partition(".")[0]): alias.name.rpartition(".")[2]
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    if "*" in imported:
        imported.update((name, name) for name in _CLOCKS)
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    called |= {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    found = set()
    for node in nodes:
        root: Any = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if id(node) in called or not isinstance(root, ast.Name) or root.id not in imported:
            continue
        name = node.attr if isinstance(node, ast.Attribute) else imported[root.id]
        if name in _CLOCKS:
            found.add(name)
    return found


def packages_of(command: dict[str, Any]) -> frozenset[str]:
    """The top-level packages and modules of the project that a ``load`` command names."""
    modules = [entry["component"] for entry in command.get("entries", ()) if "component" in entry]
    modules += [command.get("root_module", ""), command.get("target", "")]
    return frozenset(re.split("[.:]", module)[0] for module in modules) - {""}


class Inputs:
    """Records from its creation on; only one in a process: audit hooks cannot be removed."""

    def __init__(self, files: Iterable[str], packages: Iterable[str]) -> None:
        """files: what was read before this process started. packages: see `packages_of`."""
        self._began = time.time()
        self._uses: dict[Use, Signature] = {}
        self._variables: set[str] = set()
        self._reasons: set[str] = set()
        self._reads_all = False
        self._watches = False
        self._busy = threading.local()
        self._owned: dict[str, bool] = {}
        self._packages = frozenset(packages)
        self._in_library = False
        self._foreign = (f"{sysconfig.get_path('stdlib')}/", f"{os.path.dirname(__file__)}/")
        self._start(files)
        self._hook_environment()
        self._hook_questions()
        self._hook_threads()
        self._hook_imports()
        sys.addaudithook(self._audited)

    def report(self) -> dict[str, Any]:
        """The uses, the digest of what they are now, and the variables (None for all of them).

        Or why the answer must not be kept.
        """
        sys.setprofile(None)
        self._busy.is_set = True
        reasons = set(self._reasons)
        if threading.active_count() > 1:
            reasons.add("it starts threads")
        for (path, listed), before in self._uses.items():
            try:
                if signature(path, listed=listed) != before or self._is_young(before):
                    reasons.add(f"{path} has just changed")
            except ValueError as error:
                reasons.add(str(error))
        if reasons:
            return {"reasons": sorted(reasons)}
        return {
            "uses": list(self._uses),
            "digest": digest_of(self._uses),
            "variables": None if self._reads_all else sorted(self._variables),
        }

    def _is_young(self, found: Signature) -> bool:
        times = [value for value in found[-2:] if isinstance(value, int)]
        return len(times) > 1 and max(times) > (self._began - _RACY_SECONDS) * 1e9

    def _start(self, files: Iterable[str]) -> None:
        """What was read before: the interpreter's own files, and the modules that are loaded."""
        for path in files:
            self._use(path)
        for path in (sys.executable, f"{sys.prefix}/pyvenv.cfg", f"{sys.exec_prefix}/pyvenv.cfg"):
            self._use(path)
        self._use(os.path.join(os.path.dirname(sys.executable), "pyvenv.cfg"))
        for folder in sys.path:
            self._use(folder, listed=True)
            if os.path.isdir(folder):
                for name in os.listdir(folder):
                    if name.endswith((".pth", "._pth")):
                        self._use(os.path.join(folder, name))
        site = sys.modules.get("site")
        if site is not None and site.ENABLE_USER_SITE:
            self._use(site.getusersitepackages(), listed=True)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if file:
                self._use(file)
        # Code of others, which ran before anything was recorded.
        self._reads_all = bool({"sitecustomize", "usercustomize"} & sys.modules.keys())
        self._answer_architecture()

    def _answer_architecture(self) -> None:
        """Dagster asks at import; Python then runs ``file`` on its own interpreter."""
        import platform

        original, answer = platform.architecture, platform.architecture()
        platform.architecture = lambda *given, **named: (
            original(*given, **named) if given or named else answer
        )

    # --- what is recorded ---------------------------------------------------------------------

    def _use(self, path: Any, *, listed: bool = False) -> None:
        if isinstance(path, int) or getattr(self._busy, "is_set", False):
            return
        self._busy.is_set = True
        try:
            text = os.path.join(os.getcwd(), os.fsdecode(path))
            # Python compares byte code with its source, which is recorded.
            if text == os.devnull or (text.endswith(".pyc") and "/__pycache__/" in text):
                return
            if (text, listed) not in self._uses:
                self._uses[text, listed] = signature(text, listed=listed)
        except (ValueError, OSError) as error:
            self._reasons.add(str(error))
        finally:
            self._busy.is_set = False

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind, _, name = event.partition(".")
        if event == "open":
            self._opened(*arguments)
        elif event in ("os.listdir", "os.scandir"):
            folder = arguments[0]
            if isinstance(folder, int):
                self._reasons.add("it lists a directory by its descriptor")
            self._use("." if folder is None else folder, listed=True)
        elif reason := _REASONS.get(name if kind == "socket" else event):
            self._reasons.add(reason)
        elif kind == "os" and name in _CHANGES:
            self._changed(arguments[1] if name == "rename" else arguments[0])
        elif event == "sqlite3.connect" and arguments[0] != ":memory:":
            self._reasons.add("it opens a database")

    def _opened(self, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int):
            return
        if flags & _WRITES:
            self._changed(path)
        elif mode is None and not os.path.isabs(path):  # it may be relative to a descriptor
            self._reasons.add("it opens a file relative to a directory")
        else:
            self._use(path)

    def _changed(self, path: Any) -> None:
        if getattr(self._busy, "is_set", False) or isinstance(path, int):
            return
        text = os.fsdecode(path)
        if text != os.devnull and not any(f"/{name}" in f"/{text}" for name in _WRITTEN):
            self._reasons.add(f"it writes {text}")

    def _hook_questions(self) -> None:
        """Whether a path exists is asked without an audit event."""
        import posix

        for name in ("access", "lstat", "readlink", "stat"):
            asked = self._asked(getattr(posix, name))
            for module in (posix, os):
                setattr(module, name, asked)
            # Python 3.10's paths have their own references to these functions.
            accessor = getattr(sys.modules.get("pathlib"), "_NormalAccessor", None)
            if hasattr(accessor, name):
                setattr(accessor, name, staticmethod(asked))

    def _asked(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *given: Any, **named: Any) -> Any:
            if named.get("dir_fd") is not None:
                self._reasons.add("it asks for a file relative to a directory")
            self._use(path)
            return original(path, *given, **named)

        return asked

    def _hook_threads(self) -> None:
        """What runs in another thread is not watched."""
        for owner, name in ((threading.Thread, "start"), (_thread, "start_new_thread")):
            setattr(owner, name, self._starting(getattr(owner, name)))

    def _starting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def starting(*given: Any, **named: Any) -> Any:
            self._reasons.add("it starts threads")
            return original(*given, **named)

        return starting

    def _hook_environment(self) -> None:
        kind: Any = type(os.environ)
        get, iterate = kind.__getitem__, kind.__iter__

        def read(environ: Any, name: Any) -> Any:
            if isinstance(name, (str, bytes)):
                self._variables.add(os.fsdecode(name))
            return get(environ, name)

        def read_all(environ: Any) -> Iterator[Any]:
            self._reads_all = True
            return iterate(environ)  # type: ignore[no-any-return]  # of the class

        kind.__getitem__, kind.__iter__ = read, read_all

    def _hook_imports(self) -> None:
        """Watches the calls of the project's own code, from its first word about a clock on.

        Not those of what it imports: a library reads clocks while it is imported, to no effect.
        """
        from importlib.machinery import SourceFileLoader

        loader: Any = SourceFileLoader
        execute = loader.exec_module

        def exec_module(own: Any, module: Any) -> None:
            outer = self._in_library
            self._in_library = not self._is_own(getattr(module, "__file__", None) or "")
            if not self._in_library:
                self._read(own, module.__name__)
            self._watch()
            try:
                execute(own, module)
            finally:
                self._in_library = outer
                self._watch()

        loader.exec_module = exec_module

    def _read(self, loader: Any, name: str) -> None:
        """Looks for clocks in the code of the project's module."""
        if _mentions(loader.get_code(name), _CLOCKS | _NATIVE):
            self._watches = True
            self._reasons.update(f"it passes {it}" for it in passed(loader.get_source(name)))

    def _watch(self) -> None:
        sys.setprofile(self._called if self._watches and not self._in_library else None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        caller = frame if event == "c_call" else frame.f_back if event == "call" else None
        if caller is None or not self._is_own(caller.f_code.co_filename):
            return
        if event == "c_call":
            name, owner = argument.__name__, getattr(argument, "__self__", None)
            package = argument.__module__ or getattr(owner, "__module__", type(owner).__module__)
        else:
            name, package = frame.f_code.co_name, frame.f_globals.get("__name__")
        if name in _CLOCKS or str(package).partition(".")[0] in _NATIVE:
            self._reasons.add(f"it calls {name}")

    def _is_own(self, file: str) -> bool:
        """Whether a file is the project's: neither Python's, nor ours, nor a library's."""
        known = self._owned.get(file)
        if known is None:
            is_installed = "/site-packages/" in file or "/dist-packages/" in file
            is_foreign = not file or file.startswith(("<frozen", *self._foreign)) or is_installed
            inside = re.split("/(?:site|dist)-packages/", file)[-1]
            is_named = is_installed and re.split(r"[/.]", inside)[0] in self._packages
            known = self._owned[file] = is_named or not is_foreign
        return known
