"""Where in an image a state directory belongs: next to the defs module that Python would import.

An image may hold the same package twice, once as source that was copied in and once installed.
Dagster looks next to the module that is imported. So the *import roots* are asked first, in the
order of the interpreter's ``sys.path``: the working directory or the script's folder, what
``PYTHONPATH`` names, the user's and the global site-packages of every Python on ``PATH`` with the
folders to which their ``.pth`` files and editable finders point. Only where none of them has the
module is the whole image searched. Two places or none are an error that lists the candidates.
"""

from __future__ import annotations

import ast
import io
import posixpath
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

import msgspec

from bundler.artifacts.image.image_program import (
    RunsAs,
    command_words,
    followed,
    is_script,
)
from bundler.artifacts.image.image_users import Lookup, passwd
from bundler.artifacts.image.layer import Owned, parents_of
from bundler.artifacts.image.rootfs import Node
from bundler.artifacts.image.tarstream import TarMember
from bundler.errors import ConfigurationError
from bundler.state.bundle import STATE_DIRECTORY

INIT = "__init__.py"


_SELECT = (
    "image-path in [tool.state-bundler], or --image-path. Both count for `build docker` and "
    "`embed`, but not for `update`."
)


class Nowhere(ConfigurationError):
    """The defs module was not found."""


class Unlisted(Nowhere):
    """Only a listing of a site-packages folder, or the program itself, could decide."""


# Password files and lists of import paths are shorter; a longer file is something else.
_MAX_LIST_BYTES = 256 * 1024
_MAX_SCRIPT_BYTES = 16 * 1024
_MAX_ARCHIVE_BYTES = 8 * 1024 * 1024  # of Spark, for example
_INTERPRETER = re.compile(r"^python(\d+\.\d+)$")
_FINDER_MAPPING = re.compile(r"^MAPPING\b[^=]*= *(\{.*?\})$", re.MULTILINE)
# hatchling's, by the package `editables`.
_MAPPED_MODULE = re.compile(r"\.map_module\(['\"][^'\"]+['\"], *['\"](/[^'\"]+)['\"]\)")
_PYTHON = re.compile(r"^(python|pypy)[0-9.]*$")
# Servers that prepend the working directory themselves.
_FROM_HERE = re.compile(r"^(gunicorn|uvicorn|hypercorn|celery|flask|dagster(-[a-z]+)?)$")
# Python's options that determine the front of sys.path, and those with a value.
_DECIDING = re.compile(r"[mcPIWX]")
_WITH_VALUE = ("W", "X", "--check-hash-based-pycs")
# Copies that no program imports: caches, build folders, the layers of other file systems.
_NOISE = re.compile(r"/(\.cache(?!/pypoetry/virtualenvs)|\.git|node_modules|build/lib|proc|sys)/")
# The names of site-packages in Debian's and other distributions' layouts.
_PACKAGE_FOLDERS = ("dist-packages", "site-packages")
_INSTALLED = re.compile(r"/lib(64)?/python[^/]*/(dist|site)-packages/")
_FINDERS = ("__editable__", "_editable_impl_")


class Files(Lookup, Protocol):
    """The file system of an image, however it is accessed. lists: whether nodes have their
    children."""

    lists: bool

    def resolve(self, path: str) -> str | None:
        """The path without symbolic links; None if it does not exist."""

    def is_directory(self, path: str) -> bool:
        """Whether a directory has exactly this path."""

    def fetch(self, paths: Sequence[str]) -> None:
        """Looks up nested directories with few requests, before they are needed."""

    def walk(self, top: str = "/") -> Iterator[tuple[str, Node]]:
        """Everything below a directory."""


def captured(path: str, member: TarMember) -> bytes | None:
    """What is needed of a file to find a place: import paths, the names of users, scripts, and the
    top-level names in an archive, a line each."""
    folder, name = posixpath.split(path)
    if name.endswith((".zip", ".egg", ".whl")):
        return _top_names(member) if member.size <= _MAX_ARCHIVE_BYTES else None
    is_pointer = name.endswith(".pth") or (name.startswith(_FINDERS) and name.endswith(".py"))
    is_list = is_pointer and posixpath.basename(folder) in _PACKAGE_FOLDERS
    is_list = is_list or path in ("/etc/passwd", "/etc/group")
    limit = _MAX_LIST_BYTES if is_list else _MAX_SCRIPT_BYTES if is_script(path) else 0
    if not limit or member.size > limit:
        return None
    content = member.open().read()
    # Most files without an extension are no scripts.
    return content if is_list or "." in name or content.startswith(b"#!") else None


def _top_names(member: TarMember) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(member.open().read())) as archive:
            names = {name.partition("/")[0] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return None
    return "\n".join(sorted(names)).encode(errors="replace")


def find(
    files: Files,
    runs: RunsAs,
    place: str,
    *,
    override: str | None = None,
    hints: Sequence[str] = (),
) -> str:
    """The absolute path of a state directory in an image, without symbolic links.

    place: relative to the import root, such as ``shop/defs/.local_defs_state``. override: the
    user's ``image_path``: that directory, or the one above it. hints: import roots to try first,
    such as the project's folder below the working directory. Raises `ConfigurationError` for none
    and for more than one.
    """
    if override is not None:
        return _overridden(files, place, override)
    runs = as_started(files, runs)
    package, _, name = place.rpartition("/")
    if not runs.is_clear and not files.lists:
        raise Unlisted(f"The program may import any copy of {package}.")
    if not runs.is_clear and (found := _anywhere(files, package)):
        return _only(found, package, name, runs)
    first = first_roots(files, runs, place)
    installed = import_roots(files, runs)
    known = _imported(files, installed if first is None else chain(first, installed), package)
    found = [] if known is None else [known]
    if first is None or not found:  # it may come first, last, or not at all
        here = _in_roots(files, [runs.working_directory], package)
        found = list(dict.fromkeys([*found, *here]))
    if not found:
        if not files.lists:
            raise Unlisted(f"The places of {package} are unknown.")
        roots = [posixpath.join(runs.working_directory, folder) for folder in (*hints, "src")]
        every = _anywhere(files, package)
        # One in an environment that only the program knows may be the one that is imported.
        copies = [path for path in every if _INSTALLED.search(path)]
        sources = _in_roots(files, roots, package)
        found = list(dict.fromkeys([*sources, *copies])) if sources else every
    return _only(found, package, name, runs)


def as_started(files: Files, runs: RunsAs) -> RunsAs:
    """How the program starts, also if a script in the image does that."""

    def read(path: str) -> tuple[str, bytes] | None:
        real = files.resolve(path)
        if real is None or files.is_directory(real):
            return None
        node = files.lookup(real)
        return (real, node.content or b"") if node is not None else None

    home = () if runs.variable("HOME") else (("HOME", _home(files, runs.user)),)
    return followed(msgspec.structs.replace(runs, environment=runs.environment + home), read)


def first_roots(files: Files, runs: RunsAs, place: str) -> list[str] | None:
    """The front of the program's ``sys.path``; None if that is not known.

    Dagster imports code from its working directory, however it is started.
    """
    if posixpath.basename(place) == STATE_DIRECTORY:
        directory = runs.code_directory()
        return [] if directory is None else [directory]
    words = command_words(runs.program)
    names = [posixpath.basename(word) for word in words]
    if any(map(_FROM_HERE.match, names)):
        return [runs.working_directory]
    at = [i for i, name in enumerate(names) if _PYTHON.match(name)]
    if not at:
        return [] if any(_is_console_script(files, runs, word) for word in words) else None
    if runs.variable("PYTHONSAFEPATH"):
        return []
    rest = words[at[-1] + 1 :]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        found = _DECIDING.search(option) if option[:2] != "--" else None
        if found is not None and found[0] not in _WITH_VALUE:
            return [] if found[0] in "PI" else [runs.working_directory]
        if option.endswith(_WITH_VALUE):
            del rest[:1]
    script = posixpath.join(runs.working_directory, *rest[:1])
    real = files.resolve(script) or script
    return [real if files.is_directory(real) else posixpath.dirname(real)]


def _is_console_script(files: Files, runs: RunsAs, word: str) -> bool:
    """Whether a word is a program of a virtual environment; then its folder comes first."""
    folders = [""] if "/" in word else runs.variable("PATH").split(":")
    paths = [posixpath.join(runs.working_directory, folder, word) for folder in folders]
    return not word.startswith("-") and any(
        files.resolve(posixpath.join(posixpath.dirname(path), "../pyvenv.cfg")) is not None
        and files.resolve(path) is not None
        for path in paths
    )


def _imported(files: Files, roots: Iterable[str], package: str) -> str | None:
    """The package that Python imports: the first with an ``__init__.py``, else the first folder
    with that name."""
    top = package.partition("/")[0]
    folder = None
    for root in roots:
        real = _directory_at(files, posixpath.join(root, package))
        if real is not None and files.resolve(posixpath.join(root, top, INIT)) is not None:
            return real
        names = _archived(files, root)
        if names is None or top in names or f"{top}.py" in names:
            raise Unlisted(
                f"The program may import {package} from {root}, which is not a directory, so that "
                "no state can be added to it.",
                hint="Install the project as files. If the program imports another copy, set "
                f"{_SELECT}",
            )
        folder = folder or real
    return folder


def _archived(files: Files, root: str) -> Sequence[str] | None:
    """The top-level names in an archive on the import path, of which a directory has none; None if
    they are unknown."""
    real = files.resolve(root)
    if real is None or files.is_directory(real):
        return ()
    node = files.lookup(real)
    return node.content.decode().split("\n") if node and node.content is not None else None


def _overridden(files: Files, place: str, override: str) -> str:
    name = posixpath.basename(place)
    folder = override.rstrip("/")
    if posixpath.basename(folder) == name:
        folder = posixpath.dirname(folder)
    real = _directory_at(files, folder)
    if real is None:
        raise ConfigurationError(
            f"image-path names {override}, but the image has no directory {folder}.",
            hint="Set it to the path of the defs module in the image.",
        )
    return posixpath.join(real, name)


def _only(found: Sequence[str], package: str, name: str, runs: RunsAs) -> str:
    """Raises `ConfigurationError` unless there is exactly one."""
    if len(found) == 1:
        return posixpath.join(found[0], name)
    hint = f"Select one with {_SELECT}"
    if found:
        candidates = ", ".join(found)
        unclear = (
            "" if runs.is_clear else ", and how its program starts does not show which is used"
        )
        raise ConfigurationError(
            f"{package} exists more than once in the image{unclear}: {candidates}.", hint=hint
        )
    raise Nowhere(
        f"{package} is not in the image: neither below its working directory "
        f"({runs.working_directory}), nor on PYTHONPATH, nor in a site-packages folder.",
        hint=f"Does the Dockerfile copy or install the project? {hint}",
    )


def _in_roots(files: Files, roots: Iterable[str], package: str) -> list[str]:
    found = [_directory_at(files, posixpath.join(root, package)) for root in roots]
    return list(dict.fromkeys(real for real in found if real is not None))


def _directory_at(files: Files, path: str) -> str | None:
    """A directory's real path. A package without ``__init__.py`` is a namespace package."""
    real = files.resolve(path)
    return real if real is not None and files.is_directory(real) else None


def _anywhere(files: Files, package: str) -> list[str]:
    """Every place of the package in the image; regular packages before plain folders."""
    ending = f"/{package}"
    found = [
        (path, INIT in node.children)
        for path, node in files.walk()
        if package and node.kind == "directory" and path.endswith(ending)
        if not _NOISE.search(path)
    ]
    modules = [path for path, is_module in found if is_module]
    return modules or [path for path, _ in found]


def shadowing(files: Files, runs: RunsAs, place: str, path: str) -> str | None:
    """What the program would import instead of the package whose state is at a path.

    place: of that state directory, relative to its import root. None if nothing hides it.
    """
    runs = as_started(files, runs)
    package, mine = posixpath.dirname(place), posixpath.dirname(path)
    first = first_roots(files, runs, place)
    unsure = runs.working_directory if first is None else None
    front = [runs.working_directory] if first is None else first
    for root in chain(front, import_roots(files, runs)):
        if _directory_at(files, posixpath.join(root, package)) == mine:
            if root != unsure:  # that folder is not always on the path
                return None
            continue
        other = _provided(files, root, package)
        if other is not None:
            return other
    return None


def _provided(files: Files, root: str, package: str) -> str | None:
    """What a root contains of a package: the package itself, or something that hides the other
    roots."""
    if not package:
        return None
    name = package.partition("/")[0]
    if {name, f"{name}.py"} & set(_archived(files, root) or ()):
        return root
    top = posixpath.join(root, name)
    candidates = (posixpath.join(root, package), posixpath.join(top, INIT), f"{top}.py")
    return next(filter(None, map(files.resolve, candidates)), None)


def import_roots(files: Files, runs: RunsAs) -> Iterator[str]:
    """The folders from which the image's program can import, in order, as far as files tell.

    Without those of `first_roots`, which depend on how the program is started. Raises `Unlisted` if
    the next ones can only be found by listing a folder.
    """
    if named := runs.variable("PYTHONPATH"):  # an empty entry is the working directory, too
        yield from (posixpath.join(runs.working_directory, it) for it in named.split(":"))
    seen = set()
    for prefix in _prefixes(runs):
        finders: list[str] = []
        for folder in _package_folders(files, runs, prefix):
            real = files.resolve(folder)
            if real is None or real in seen:
                continue
            seen.add(real)
            yield real
            if not files.lists:
                raise Unlisted(f"The .pth files in {real} are unknown.")
            for name, text in _pointers(files, real):
                if name.endswith(".pth"):
                    yield from _lines_of_pth(text, real)
                else:
                    finders += _mapped(text)
        yield from finders


def _package_folders(files: Files, runs: RunsAs, prefix: str) -> Iterator[str]:
    """The folders in which the Python at a prefix has its packages.

    A distribution's Python (prefix ``/usr``) has what pip installed below ``/usr/local``.
    """
    for version in _versions(files, runs, prefix):
        if files.resolve(f"{prefix}/pyvenv.cfg") is None:
            yield f"{_user_base(files, runs)}/lib/python{version}/site-packages"
        for base in ("/usr/local", "/usr") if prefix == "/usr" else (prefix,):
            for library in ("lib64", "lib"):
                for name in _PACKAGE_FOLDERS:
                    yield f"{base}/{library}/python{version}/{name}"
    yield f"{prefix}/lib/python3/dist-packages"


def _user_base(files: Files, runs: RunsAs) -> str:
    """The destination of ``pip install --user``."""
    named = runs.variable("PYTHONUSERBASE")
    return named or f"{runs.variable('HOME') or _home(files, runs.user)}/.local"


def _home(files: Files, user: str) -> str:
    name = user.partition(":")[0] or "root"
    if name in ("root", "0"):
        return "/root"
    return next((it[5] for it in passwd(files) if name in (it[0], it[2])), "/")


def _prefixes(runs: RunsAs) -> list[str]:
    """Where Pythons may be installed: next to every ``bin`` folder that is mentioned, the
    program's own first."""
    words = command_words(runs.program)
    names = [posixpath.basename(word) for word in words]
    own = posixpath.join(runs.working_directory, ".venv")
    folders = [posixpath.dirname(word) for word in words if "/" in word]
    folders += [f"{own}/bin"] if "uv" in names and "run" in words else []
    folders += [entry for entry in runs.variable("PATH").split(":") if entry]
    prefixes = [
        posixpath.dirname(folder) for folder in folders if posixpath.basename(folder) == "bin"
    ]
    prefixes += [runs.variable("VIRTUAL_ENV"), runs.variable("UV_PROJECT_ENVIRONMENT")]
    prefixes += [own, "/usr/local"]
    # Without a configured PATH, the engine's default includes /usr/bin.
    prefixes.append("/usr")
    absolute = [
        posixpath.join(runs.working_directory, prefix).rstrip("/") for prefix in prefixes if prefix
    ]
    return list(dict.fromkeys(prefix for prefix in absolute if prefix))


def _versions(files: Files, runs: RunsAs, prefix: str) -> list[str]:
    """The versions of Python at a prefix: a link ``python3`` leads to ``python3.11``."""
    found = [".".join(runs.variable("PYTHON_VERSION").split(".")[:2])]
    for name in ("python3", "python"):
        real = files.resolve(f"{prefix}/bin/{name}") or ""
        found += _INTERPRETER.findall(posixpath.basename(real))
    return list(dict.fromkeys(version for version in found if version))


def _pointers(files: Files, packages: str) -> Iterator[tuple[str, str]]:
    """The names and contents of the ``.pth`` files and editable finders in a site-packages
    folder."""
    node = files.lookup(packages)
    for name, child in sorted(node.children.items() if node is not None else ()):
        if name.endswith(".pth") or name.startswith(_FINDERS):
            yield name, (child.content or b"").decode(errors="replace")


def _lines_of_pth(text: str, folder: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "import ", "import\t")):
            yield posixpath.normpath(posixpath.join(folder, line.strip()))


def _mapped(finder: str) -> Iterator[str]:
    """The folder to which an editable finder maps a top-level package."""
    for path in _MAPPED_MODULE.findall(finder):
        yield posixpath.dirname(posixpath.dirname(path))
    for match in _FINDER_MAPPING.finditer(finder):
        try:
            mapping = ast.literal_eval(match[1])
        except (ValueError, SyntaxError):
            continue
        if isinstance(mapping, dict):
            yield from (posixpath.dirname(str(folder)) for folder in mapping.values())


def parents(files: Files, path: str) -> tuple[Owned, ...]:
    """The directories above a path, with their owner and mode in the image."""
    found = []
    files.fetch(parents_of(path))
    for parent in parents_of(path):
        node = files.lookup(parent)
        if node is None or node.kind != "directory":
            found.append(Owned(parent))
        else:
            found.append(Owned(parent, node.mode, node.uid, node.gid))
    return tuple(found)
