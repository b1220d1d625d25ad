"""Checks the states next to this file against their manifest, before the program starts.

It is put next to the manifest as ``@verify.py`` and needs nothing but Python:

    python .local_defs_state/@verify.py                       # an init container: exit 0 or 76
    python .local_defs_state/@verify.py dagster api grpc …    # an entrypoint: check, then become it
    python .local_defs_state/@verify.py --load shop.definitions --min-definitions 10

With ``--load`` the code location, or the program on `bundler.component`, is loaded too: a component
without its state, an error, or fewer definitions than the least are a failure. Dagster itself loads
a missing state as "no assets" and says that all is well.

Every file that the manifest names must be there and be what it says. Nothing else may be there,
except what the program has added below a path that the manifest declares writable, and the byte
code that Python makes of a file that the manifest names.
"""

# `from __future__ import …` would run a __future__.py of this folder: annotations are quoted here.
import sys
from posix import stat as _identity  # built in, as sys is: no file can shadow it


def _without_own_folder(paths: "list[str]") -> "list[str]":
    """The paths that do not lead to this file's folder: its names must not shadow Python's."""
    try:
        _identity(__file__)
        here = _identity(__file__.rpartition("/")[0] or ".")
    except (NameError, OSError):  # passed on stdin, or in a zip file
        return paths
    return [path for path in paths if not _is_at(path, here)]


def _is_at(path: object, here: object) -> bool:
    try:
        found = _identity(path or ".")  # type: ignore[arg-type]  # anything that is not a path is caught
    except (OSError, TypeError, ValueError):
        return False
    return (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino)  # type: ignore[attr-defined]


_PATH = sys.path
sys.path = _without_own_folder(_PATH)
# Python puts the script's folder first in its path.
_IS_SCRIPT = __name__ == "__main__" and sys.path[:1] != _PATH[:1]
import errno  # noqa: E402  # the standard library, now that nothing here can shadow it
import hashlib  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import stat  # noqa: E402
import threading  # noqa: E402
import unicodedata  # noqa: E402

if __name__ != "__main__":
    sys.path = _PATH

TYPE_CHECKING = False  # typing itself would cost a third of the run
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

MANIFEST = "@manifest.json"
# Our own files, which do not ship; a plain copy into an artifact may include them.
RUN_RECORD = "@run.json"
STAGING = "@staging"
_IGNORE_FILE = ".gitignore"
FAILED = 76
TOOL_FAILED = 71
INPUT_OUTPUT = 74
# A target with the name of a package means a project whose definitions `dg` finds itself.
AUTOLOAD = "defs-of"
# The prefix of the line with the result of a load; programs print, too.
REPORT = "\x1estate-bundler-load "
# Larger than any real manifest (a million files are about 150 MB of states, 120 bytes a file),
# small enough that a hostile one cannot exhaust the memory.
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
# After this many files that the manifest does not name, the search stops.
MAX_UNKNOWN = 100
_MAX_NAME_BYTES = 255
_MAX_SIZE = 2**53 - 1
_MOST_TEXT = 2000
_BUFFER_BYTES = 256 * 1024
_TWO_THREADS_BYTES = 8 * 1024 * 1024
_SHA256 = re.compile("[0-9a-f]{64}")
_UNSAFE = re.compile("[^A-Za-z0-9._-]")
_MANAGEMENT_TYPES = (
    "LOCAL_FILESYSTEM",
    "VERSIONED_STATE_STORAGE",
    "LEGACY_CODE_SERVER_SNAPSHOTS",
)
# Explicit formatting characters that reorder text on a screen: a name must read as it is.
_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_BYTECODE = re.compile(
    r"((?:[^/]+/)*)__pycache__/([^/]+)\.(?:cpython|pypy)-?[0-9]+(?:\.opt-[12])?\.pyc"
)
BYTECODE_HEADER_BYTES = 16


def problems(directory: str) -> "list[str]":
    """Every difference between a state directory and its manifest, as messages."""
    path = os.path.join(directory, MANIFEST)
    try:
        known = known_to(read_regular(path))
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    except (ValueError, RecursionError) as error:
        return [f"{path} is not a valid manifest: {error}."]
    try:
        return _compare(directory, known)
    except OSError as error:
        return [f"{_shown(str(error.filename))} cannot be read: {error.strerror}."]


def read_regular(path: str) -> bytes:
    """The bytes of a manifest or a record. Raises `ValueError` if the file cannot be one."""
    with open(open_regular(path), "rb") as stream:
        if os.fstat(stream.fileno()).st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {MAX_MANIFEST_BYTES} bytes")
        return stream.read(MAX_MANIFEST_BYTES)


def open_regular(path: str) -> int:
    """A descriptor of a regular file. Raises `ValueError` for anything else.

    Follows no link, and does not wait for the other end of a FIFO.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError("it is not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return descriptor


# --- the manifest -----------------------------------------------------------------------------


def known_to(raw: bytes) -> "Known":
    """What a manifest names. Raises `ValueError` unless it is canonical and consistent."""
    statement = json.loads(raw)
    if not _fits(statement, _STATEMENT):
        raise ValueError("its members or their types are not those of a manifest")
    predicate = statement["predicate"]
    contents, support = predicate["contents"], predicate["support"]
    states, others = contents["states"], contents.get("nonLocal", [])
    found = [_contradiction(raw, predicate)]
    found.append(keys_problem([(state["key"], state["path"]) for state in states]))
    found.append(others_problem([item["key"] for item in states], [item["key"] for item in others]))
    for state in states:
        paths = [file["path"] for file in state["files"]]
        deferred = state.get("defer", {}).get("path")
        found.append(state_problem(state["key"], paths, state.get("writable", []), deferred))
    found.append(support_problem([file["path"] for file in support]))
    found.append(None if states or others else "it lists no state")
    for problem in filter(None, found):
        raise ValueError(problem)
    files = {f"{state['path']}/{file['path']}": file for state in states for file in state["files"]}
    files.update((file["path"], file) for file in support)
    return Known(
        {path: (file["sha256"], file["size"]) for path, file in files.items()},
        [f"{state['path']}/{path}" for state in states for path in state.get("writable", [])],
    )


def _contradiction(raw: bytes, predicate: "dict[str, Any]") -> "str | None":
    states = predicate["contents"]["states"]
    expected = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://state-bundler.io/state-bundle/v1",
        "predicate": predicate,
        "subject": [
            {"digest": {"dirHash": state["digest"]["dirHash"]}, "name": state["key"]}
            for state in states
        ],
    }
    if _canonical(expected) != raw:
        return "it is not in canonical form, or its subjects do not match its states"
    if (
        _digest(b"state-bundle-contents/v1", predicate["contents"]) != predicate["contentDigest"]
        or _digest(b"state-bundle-support/v1", predicate["support"]) != predicate["supportDigest"]
        or any(_dir_hash(state["files"]) != state["digest"]["dirHash"] for state in states)
    ):
        return "a digest in it does not match its content"
    return None


def _dir_hash(files: "list[dict[str, str]]") -> str:
    lines = sorted((file["path"].encode(), file["sha256"].encode()) for file in files)
    return hashlib.sha256(b"".join(b"%s  %s\n" % (sha, path) for path, sha in lines)).hexdigest()


def _digest(domain: bytes, value: object) -> str:
    return hashlib.sha256(domain + b"\0" + _canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    # All names in a manifest are ASCII and all numbers integers: there this is RFC 8785.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _fits(value: object, shape: "Any") -> bool:
    """Whether JSON has a shape: a test, a list of one shape, or members; ``name?`` is optional.

    An optional list that is empty must be left out.
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(item, shape[0]) for item in value)
    if not isinstance(shape, dict):
        return bool(shape(value))
    if not isinstance(value, dict):
        return False
    unknown = set(value)
    for name, inner in shape.items():
        plain = name.rstrip("?")
        if plain in value and value[plain] == [] and plain != name:
            return False
        if not (_fits(value[plain], inner) if plain in value else plain != name):
            return False
        unknown.discard(plain)
    return not unknown


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE


_FILE = {"path": _is_text, "sha256": _is_sha256, "size": _is_size}
_STATE = {
    "defer?": {"path": _is_text, "state": _is_sha256},
    "digest": {"dirHash": _is_sha256, "semantic": _is_sha256},
    "files": [_FILE],
    "key": _is_text,
    "path": _is_text,
    "version?": _is_text,
    "writable?": [_is_text],
}
_NON_LOCAL = {
    "key": _is_text,
    "managementType": lambda value: value in _MANAGEMENT_TYPES,
    "version?": _is_text,
}
_STATEMENT = {
    "_type": _is_text,
    "predicate": {
        "contentDigest": _is_sha256,
        "contents": {"nonLocal?": [_NON_LOCAL], "states": [_STATE]},
        "support": [_FILE],
        "supportDigest": _is_sha256,
    },
    "predicateType": _is_text,
    "subject": [{"digest": {"dirHash": _is_sha256}, "name": _is_text}],
}


# --- names ------------------------------------------------------------------------------------
#
# Each says what is wrong, as a message without its full stop, or None.


def sanitize_key(key: str) -> str:
    """The name of a key's directory, as Dagster makes it."""
    return _UNSAFE.sub("__", key)


def keys_problem(states: "Sequence[tuple[str, str]]") -> "str | None":
    """Of keys and their key directories."""
    for key, path in states:
        if path != sanitize_key(key):
            return f"the program looks for {key!r} in {sanitize_key(key)!r}, not in {path!r}"
        if path == _IGNORE_FILE or name_problem(path) or not key.isprintable():
            return f"the key {key!r} is not safe"
    return names_problem(sorted(path for _, path in states), "its key directories")


def others_problem(keys: "Sequence[str]", others: "Sequence[str]") -> "str | None":
    """Of the keys of all states, and those whose state is elsewhere."""
    if list(keys) != sorted(keys) or list(others) != sorted(others):
        return "its keys are not sorted"
    folded = [fold(key) for key in (*keys, *others)]
    if len(set(folded)) != len(folded):
        return "two of its keys are equal, or differ only by case or Unicode form"
    return None


def state_problem(
    key: str, files: "Sequence[str]", writable: "Sequence[str]", deferred: "str | None" = None
) -> "str | None":
    """Of the paths below a key directory. deferred: that of the manifest that dbt defers to."""
    if deferred is not None and deferred not in files:
        return f"{key!r} defers to {deferred!r}, which is not among its files"
    for path in writable:
        if name_problem(path):
            return f"the writable path {path!r} {name_problem(path)}"
    return names_problem(files, f"the files of {key!r}") or (
        None if files else f"{key!r} has no files"
    )


def support_problem(paths: "Sequence[str]") -> "str | None":
    """Of our own files next to the states."""
    for path in paths:
        ours = path == _IGNORE_FILE or path.startswith("@")
        if not ours or "/" in path or path in (MANIFEST, RUN_RECORD, STAGING):
            return f"{path!r} is not a support file"
    return names_problem(paths, "its support files")


def names_problem(paths: "Sequence[str]", what: str) -> "str | None":
    """Of paths that must be sorted, plain, and mean the same on every file system."""
    if list(paths) != sorted(set(paths)):
        return f"{what} are not sorted, or contain one twice"
    for path in paths:
        if name_problem(path):
            return f"the name {path!r} {name_problem(path)}"
    twins = twins_in(paths)
    return f"{twins[0]!r} and {twins[1]!r} differ only by case or Unicode form" if twins else None


def name_problem(path: str) -> "str | None":
    """Why a path cannot are in a state tree, as the end of a message; None if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        return "is not a plain relative path"
    if not path.isprintable() and any(unicodedata.category(char) == "Cc" for char in path):
        return "contains a control character"
    if "\\" in path:
        return "contains a backslash"
    if not path.isascii() and not _BIDIRECTIONAL.isdisjoint(path):
        return "contains a bidirectional control character"
    if len(path) * 4 > _MAX_NAME_BYTES and any(
        len(part.encode()) > _MAX_NAME_BYTES for part in parts
    ):
        return f"has a part longer than {_MAX_NAME_BYTES} bytes"
    return None


def twins_in(paths: "Iterable[str]") -> "tuple[str, str] | None":
    """Two paths, or folders of theirs, that are one where case or Unicode form do not count."""
    seen: dict[str, str] = {}
    for path in paths:
        prefix = path
        while prefix and (twin := seen.setdefault(fold(prefix), prefix)) == prefix:
            prefix = prefix.rpartition("/")[0]
        if prefix:
            return twin, prefix
    return None


def fold(name: str) -> str:
    """The form in which two names are the same to a file system that ignores case or Unicode."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# --- the directory ----------------------------------------------------------------------------


class Known:
    """What a manifest allows in its state directory.

    files: sha256 and size, by path. writable: below these the program may add files.
    """

    def __init__(self, files: "Mapping[str, tuple[str, int]]", writable: "Sequence[str]") -> None:
        self.files = files
        self._writable = frozenset(writable)
        self._code = {path.rpartition("/")[0] for path in files if path.endswith(".py")}
        self._folders: set[str] = set()
        for path in (*files, *writable):
            folder = path.rpartition("/")[0]
            while folder and folder not in self._folders:
                self._folders.add(folder)
                folder = folder.rpartition("/")[0]

    def refuses(self, path: str, kind: str) -> "str | None":
        """Why something may not be there, as the end of a message. Files are still to be read.

        kind: ``file``, ``directory`` or anything else.
        """
        if kind == "directory":
            parent, _, name = path.rpartition("/")
            known = path in self._folders or (name == "__pycache__" and parent in self._code)
        elif kind == "file":
            known = self.covers(path)
        else:
            return "is not a regular file"
        return None if known or self._is_writable(path) else "is not in the manifest"

    def covers(self, path: str) -> bool:
        """Whether a file's bytes are to be looked at: not what the program has added."""
        return path in self.files or self.source_of(path) is not None

    def source_of(self, path: str) -> "str | None":
        """The file that the manifest names and of which this would be the byte code."""
        match = _BYTECODE.fullmatch(path)
        source = f"{match[1]}{match[2]}.py" if match else ""
        known = source in self.files and path not in self.files and not self._is_writable(path)
        return source if known else None

    def _is_writable(self, path: str) -> bool:
        while path and path not in self._writable:
            path = path.rpartition("/")[0]
        return bool(path)


def mode_problem(kind: str, mode: int) -> "str | None":
    """Why permission bits are refused, as the end of a message."""
    if kind == "file" and mode & (stat.S_ISUID | stat.S_ISGID):
        return "is a setuid file"
    needed = stat.S_IRUSR | (stat.S_IXUSR if kind == "directory" else 0)
    return None if mode & needed == needed else "cannot be read by its owner"


def bytecode_problem(header: bytes, source: str, size: int) -> "str | None":
    """Why a file is not byte code of this source, as the end of a message. See PEP 552.

    size: of the source. Its time is left to Python, which compares it too: copying changes it.
    """
    flags = int.from_bytes(header[4:8], "little")
    if len(header) < BYTECODE_HEADER_BYTES or header[2:4] != b"\r\n" or flags not in (0, 1, 3):
        return "is not byte code"
    if flags == 1:
        return "is byte code that Python would run without checking its source"
    if flags == 0 and int.from_bytes(header[12:16], "little") != size & 0xFFFFFFFF:
        return f"is not the byte code of {source}"
    return None


def _compare(directory: str, known: Known) -> "list[str]":
    missing = set(known.files)
    found: list[tuple[str, str]] = []
    judged: list[str] = []
    for path, kind in _walk(directory, known):
        missing.discard(path)
        problem = known.refuses(path, kind)
        if kind == "directory" and problem is None:
            problem = mode_problem(kind, os.lstat(os.path.join(directory, path)).st_mode)
        if problem:
            found.append((path, problem))
        elif kind == "file" and known.covers(path):
            judged.append(path)
        if len(found) > MAX_UNKNOWN:
            missing.clear()
            break
    found += _altered(directory, judged, known)
    found += [(path, "is missing") for path in missing]
    found.sort()
    if len(found) > MAX_UNKNOWN:
        found[MAX_UNKNOWN:] = [("The directory", "contains more problems that are not listed")]
    return [f"{_shown(path)} {problem}." for path, problem in found]


def _walk(directory: str, known: Known) -> "Iterator[tuple[str, str]]":
    """Path and kind of everything below that may ship; what nobody knows is not entered."""
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(directory, below)) as listing:
            for child in listing:
                path = f"{below}/{child.name}" if below else child.name
                kind = "file" if child.is_file(follow_symlinks=False) else "other"
                if child.is_dir(follow_symlinks=False):
                    kind = "directory"
                if (path, kind) in _LOCAL:
                    continue
                if kind == "directory" and known.refuses(path, kind) is None:
                    pending.append(path)
                yield path, kind


_LOCAL = frozenset({(MANIFEST, "file"), (RUN_RECORD, "file"), (STAGING, "directory")})


def _altered(directory: str, paths: "list[str]", known: Known) -> "list[tuple[str, str]]":
    """Those of the files whose bytes are not what they must be, and why."""
    found: list[tuple[str, str]] = []

    def check(some: "list[str]") -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        for path in some:
            problem = _file_problem(os.path.join(directory, path), path, known, buffer)
            if problem:
                found.append((path, problem))

    # Hashing lets another thread run; for little, starting one is not worth it.
    second = None
    if sum(known.files[path][1] for path in paths if path in known.files) > _TWO_THREADS_BYTES:
        second = threading.Thread(target=check, args=(paths[1::2],))
        second.start()
    check(paths[::2] if second else paths)
    if second:
        second.join()
    return found


def _file_problem(where: str, path: str, known: Known, buffer: memoryview) -> "str | None":
    try:
        descriptor = open_regular(where)
        try:
            return mode_problem("file", os.fstat(descriptor).st_mode) or _content_problem(
                descriptor, path, known, buffer
            )
        finally:
            os.close(descriptor)
    except ValueError:
        return "is not a regular file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _content_problem(descriptor: int, path: str, known: Known, buffer: memoryview) -> "str | None":
    source = known.source_of(path)
    if source is not None:
        header = os.read(descriptor, BYTECODE_HEADER_BYTES)
        return bytecode_problem(header, source, known.files[source][1])
    sha256, size = known.files[path]
    is_same = os.fstat(descriptor).st_size == size and _sha256(descriptor, buffer) == sha256
    return None if is_same else "does not match the manifest"


def _sha256(descriptor: int, buffer: memoryview) -> str:
    digest = hashlib.sha256()
    while count := os.readv(descriptor, [buffer]):
        digest.update(buffer[:count])
    return digest.hexdigest()


def _shown(path: str) -> str:
    """A path as a terminal may print it."""
    return path if path.isprintable() else ascii(path)


# --- loading ----------------------------------------------------------------------------------


class LoadReport:
    """What came of loading the program: how many definitions of a kind, and each key's state.

    states: by key, whether its state was there; None for what is not in the artifact.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, int] = {}
        self.states: dict[str, bool | None] = {}
        self.error: str | None = None

    def of(self, target: str) -> "LoadReport":
        """Imports ``MODULE``, or calls ``MODULE:NAME``, and looks at what that makes."""
        try:
            dagster = self._watch_dagster()
            self._watch_components()
            self._load(target, dagster)
        except Exception as error:  # noqa: BLE001  # whatever the program raises is the answer
            self.error = f"{type(error).__name__}: {error}"[:_MOST_TEXT]
        return self

    def problems(self, least: int = 1) -> list[str]:
        found = [
            f"{key} has no state." for key, there in sorted(self.states.items()) if there is False
        ]
        if self.error is not None:
            found.append(f"The program does not load: {self.error}")
        elif sum(self.definitions.values()) < least:
            number = sum(self.definitions.values())
            found.append(f"The program loads {number} definitions, fewer than {least}.")
        return found

    def _watch_dagster(self) -> "Any":
        """Dagster, which from now on reports which component gets its state; None without it."""
        dagster = _imported("dagster")
        base = getattr(dagster, "StateBackedComponent", None)
        if base is not None:
            original = base.build_defs

            def build_defs(component: "Any", context: "Any") -> "Any":
                config = component.defs_state_config
                if config.management_type.value != "LOCAL_FILESYSTEM":
                    embedded = _embedded_state(config.key, context.project_root)
                    if embedded is not None:
                        self.states[config.key] = True
                        return component.build_defs_from_state(context, state_path=embedded)
                    # What is not in the artifact needs the network, which a check does not have.
                    self.states.setdefault(config.key, None)
                    return dagster.Definitions()
                self._watch_class(type(component))
                return original(component, context)

            base.build_defs = build_defs
        return dagster

    def _watch_class(self, kind: "Any") -> None:
        original = kind.build_defs_from_state
        if getattr(original, "watched", False):
            return

        def build_defs_from_state(
            component: "Any", context: "Any", state_path: "Any" = None
        ) -> "Any":
            self.states[component.defs_state_config.key] = state_path is not None
            return original(component, context, state_path)

        build_defs_from_state.watched = True  # type: ignore[attr-defined]  # read above
        kind.build_defs_from_state = build_defs_from_state

    def _watch_components(self) -> None:
        module = _imported("bundler.component")
        if module is None:
            return
        original = module.Load.build_defs

        def build_defs(load: "Any", component: "Any") -> "Any":
            config = component.defs_state_config
            local = config.management_type.value == "LOCAL_FILESYSTEM"
            try:
                made = original(load, component)
            except module.StateError:
                self.states[config.key] = False if local else None
                raise
            self.states[config.key] = True if local else None
            self._add("definitions", len(made) if hasattr(made, "__len__") else 1)
            return made

        module.Load.build_defs = build_defs

    def _load(self, target: str, dagster: "Any") -> None:
        name, _, attribute = target.partition(":")
        if name == AUTOLOAD:
            self._count(_autoloaded(dagster, attribute))
            return
        module = importlib.import_module(name)
        found = [getattr(module, attribute)] if attribute else list(vars(module).values())
        locations = [value for value in found if dagster and _is_location(dagster, value)]
        for location in locations:
            self._count(location() if callable(location) else location)
        if attribute and not locations and callable(found[0]):
            made = found[0]()
            if not self.definitions:
                self._add("definitions", len(made) if hasattr(made, "__len__") else 1)

    def _count(self, location: "Any") -> None:
        repository = location
        if hasattr(location, "get_repository_def"):
            repository = location.get_repository_def()
        graph = repository.asset_graph
        self._add("assets", len(graph.get_all_asset_keys()))
        self._add("asset checks", len(graph.asset_check_keys))
        jobs = [name for name in repository.job_names if not name.startswith("__")]
        self._add("jobs", len(jobs))
        self._add("schedules", len(repository.schedule_defs))
        self._add("sensors", len(repository.sensor_defs))

    def _add(self, kind: str, number: int) -> None:
        self.definitions[kind] = self.definitions.get(kind, 0) + number


def _imported(name: str) -> "Any":
    """A module, or None if it is not installed; any other failure is the program's."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise


def _embedded_state(key: str, project_root: "Any") -> "Any":
    """The path of the state of a versioned key, if a build embedded it; else None."""
    paths = importlib.import_module("dagster.components.utils.project_paths")
    defs = paths.get_defs_module_path_for_project(project_root)
    directory = defs / ".local_defs_state"
    try:
        raw = read_regular(str(directory / MANIFEST))
    except (OSError, ValueError):
        return None
    for state in json.loads(raw)["predicate"]["contents"]["states"]:
        if state["key"] == key and "version" in state:
            return directory / state["path"] / "state"
    return None


def _is_location(dagster: "Any", value: object) -> bool:
    if isinstance(value, (dagster.Definitions, dagster.RepositoryDefinition)):
        return True
    return type(value).__name__ == "LazyDefinitions"  # what @definitions makes


def _autoloaded(dagster: "Any", package: str) -> "Any":
    """What `dg` makes of a project without a module of definitions, from its defs folder."""
    import pathlib

    directory = os.path.dirname(str(importlib.import_module(package).__file__))
    while not any(
        os.path.exists(os.path.join(directory, name)) for name in ("dg.toml", "pyproject.toml")
    ):
        parent = os.path.dirname(directory)
        if parent == directory:
            raise FileNotFoundError(f"There is no dg.toml above {package}.")
        directory = parent
    return dagster.load_from_defs_folder(path_within_project=pathlib.Path(directory))


# --- the program ------------------------------------------------------------------------------


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our options at the front, and the program that follows."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0] in ("--load", "--min-definitions", "--report"):
        name = rest.pop(0)
        options[name] = "" if name == "--report" or not rest else rest.pop(0)
    return options, rest


def _verified() -> list[str]:
    directory = os.path.dirname(os.path.abspath(__file__))
    return [f"{directory}: {problem}" for problem in problems(directory)]


def main(arguments: list[str]) -> int:
    options, program = _options(arguments)
    if "--report" in options:
        load = LoadReport().of(options["--load"])
        return 0 if _print(sys.stdout, REPORT + json.dumps(vars(load))) else INPUT_OUTPUT
    found = _verified()
    if not found and "--load" in options:
        if _IS_SCRIPT and _without_own_folder([""]):
            sys.path.insert(0, "")  # the program imports as from `python -m`
        least = int(options.get("--min-definitions", "1"))
        found = LoadReport().of(options["--load"]).problems(least)
    for problem in found:
        _print(sys.stderr, f"state-bundler: {problem}")
    if found:
        return FAILED
    return _become(program) if program else 0


def _become(program: list[str]) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        os.execvp(program[0], program)  # noqa: S606  # to become the program is the point
    except OSError as error:
        _print(sys.stderr, f"state-bundler: {program[0]} cannot be started: {error.strerror}.")
        return TOOL_FAILED


def _print(stream: "Any", line: str) -> bool:
    """False if nothing takes the line (``2>&-``, a full disk). The exit code reports it too."""
    if stream is None:
        return False
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python's end fails, too
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
