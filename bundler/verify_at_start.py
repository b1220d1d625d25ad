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
import importlib  # noqa: E402, F401  # for the second part, as it is safe here
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import stat  # noqa: E402
import unicodedata  # noqa: E402

if __name__ != "__main__":
    sys.path = _PATH

TYPE_CHECKING = False  # typing itself would cost a third of the run
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from io import FileIO
    from typing import Any

MANIFEST = "@manifest.json"
# Our own files, which do not ship; a plain copy into an artifact may include them.
RUN_RECORD = "@run.json"
STAGING = "@staging"
_IGNORE_FILE = ".gitignore"
# Larger than any real manifest (a million files are about 150 MB of states, 120 bytes a file),
# small enough that a hostile one cannot exhaust the memory.
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
# After this many files that the manifest does not name, the search stops.
MAX_UNKNOWN = 100
_MAX_NAME_BYTES = 255
_MAX_SIZE = 2**53 - 1
_BUFFER_BYTES = 256 * 1024
_SHA256 = re.compile("[0-9a-f]{64}")
_UNSAFE = re.compile("[^A-Za-z0-9._-]")
_MANAGEMENT_TYPES = ("LOCAL_FILESYSTEM", "VERSIONED_STATE_STORAGE", "LEGACY_CODE_SERVER_SNAPSHOTS")
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
            {"digest": {"dirHash": it["digest"]["dirHash"]}, "name": it["key"]} for it in states
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
    """Whether JSON has a shape: `str`, a test, a list of one shape, or members (optional with a ?).

    An optional list that is empty must be left out.
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(item, shape[0]) for item in value)
    if not isinstance(shape, dict):
        return isinstance(value, str) if shape is str else bool(shape(value))
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


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE


_FILE = {"path": str, "sha256": _is_sha256, "size": _is_size}
_STATE = {
    "defer?": {"path": str, "state": _is_sha256},
    "digest": {"dirHash": _is_sha256, "semantic": _is_sha256},
    "files": [_FILE],
    "key": str,
    "path": str,
    "version?": str,
    "writable?": [str],
}
_NON_LOCAL = {
    "key": str,
    "managementType": lambda value: value in _MANAGEMENT_TYPES,
    "version?": str,
}
_STATEMENT = {
    "_type": str,
    "predicate": {
        "contentDigest": _is_sha256,
        "contents": {"nonLocal?": [_NON_LOCAL], "states": [_STATE]},
        "support": [_FILE],
        "supportDigest": _is_sha256,
    },
    "predicateType": str,
    "subject": [{"digest": {"dirHash": _is_sha256}, "name": str}],
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
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
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
        self._folders = {above for path in (*files, *writable) for above in _above(path)}

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
        return path in self._writable or not self._writable.isdisjoint(_above(path))


def _above(path: str) -> "Iterator[str]":
    """The folders above a path, from the nearest one on."""
    while path := path.rpartition("/")[0]:
        yield path


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
    for path, kind in _walk(directory, known):
        missing.discard(path)
        problem = known.refuses(path, kind)
        if problem is None and kind == "directory":
            problem = mode_problem(kind, os.lstat(os.path.join(directory, path)).st_mode)
        elif problem is None and known.covers(path):
            problem = _file_problem(os.path.join(directory, path), path, known)
        if problem:
            found.append((path, problem))
        if len(found) > MAX_UNKNOWN:
            missing.clear()
            break
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


def _file_problem(where: str, path: str, known: Known) -> "str | None":
    try:
        with open(open_regular(where), "rb", buffering=0) as stream:
            refused = mode_problem("file", os.fstat(stream.fileno()).st_mode)
            return refused or _content_problem(stream, path, known)
    except ValueError:
        return "is not a regular file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _content_problem(stream: "FileIO", path: str, known: Known) -> "str | None":
    source = known.source_of(path)
    if source is not None:
        header = stream.read(BYTECODE_HEADER_BYTES)
        return bytecode_problem(header, source, known.files[source][1])
    digest = hashlib.sha256()
    left = known.files[path][1]
    while left >= 0 and (data := stream.read(_BUFFER_BYTES)):
        digest.update(data)
        left -= len(data)
    is_same = left == 0 and digest.hexdigest() == known.files[path][0]
    return None if is_same else "does not match the manifest"


def _shown(path: str) -> str:
    """A path as a terminal may print it."""
    return path if path.isprintable() else ascii(path)
