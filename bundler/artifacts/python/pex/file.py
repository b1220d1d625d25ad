"""A PEX, open for reading: its PEX-INFO, the user's code, and its distributions.

A PEX comes in three layouts. A *zipapp* is one zip file behind a ``#!`` line; *packed* and *loose*
are folders. In each the user's code lies at the top and the distributions below ``.deps``:

    zipapp    .deps/shop-1.0-py3-none-any.whl/shop/…    entries of the one zip
    packed    .deps/shop-1.0-py3-none-any.whl           a zip file of the installed wheel
    loose     .deps/shop-1.0-py3-none-any.whl/shop/…    a folder

With ``--no-pre-install-wheels`` the distribution is the wheel file itself in all three.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bundler.artifacts.python import zipfiles
from bundler.artifacts.python.pex.info import (
    BOOTSTRAP,
    DEPS,
    IMPORT_HOOK,
    MAIN,
    PEX_INFO,
    PexInfo,
    code_hash,
    is_user_file,
)
from bundler.artifacts.python.trees import (
    Leaf,
    Tree,
    TreeChange,
    ZipLeaves,
    folder_leaves,
    zip_tree,
)
from bundler.artifacts.python.zipfiles import STORED, ZipFile
from bundler.errors import InputOutputError, UsageError, VerificationFailed

_SCIE_SEARCH_BYTES = 4
# Sorted, each with its slash.
_PEXS_FOLDERS = (f"{BOOTSTRAP}/", f"{DEPS}/", IMPORT_HOOK[: IMPORT_HOOK.index("/") + 1])
_AFTER_SLASH = chr(ord("/") + 1)


# Which file it is, how large, and when it was written to last.
Stamp = tuple[int, int, int, int, int]


class PexFile(msgspec.Struct, frozen=True):
    """name: as the person named it. zip, stamp: of the one zip file of a zipapp, else None."""

    name: str
    info: PexInfo
    user: Tree
    distributions: tuple[Tree, ...]
    zip: ZipFile | None
    root: Path
    stamp: Stamp | None = None

    @property
    def trees(self) -> tuple[Tree, ...]:
        return (self.user, *self.distributions)

    def boot_file(self, name: str) -> tuple[bytes, int] | None:
        """The bytes and the permission bits of one of pex's own files; None where it has none."""
        if self.zip is None:
            path = self.root / name
            return (_read(path), path.stat().st_mode & 0o777) if path.is_file() else None
        entry = self.zip.get(name)
        return None if entry is None else (self.zip.read(entry), entry.permissions)

    def check_hashes(self) -> None:
        """Computes both hashes from what is there. Raises `VerificationFailed` if they differ."""
        files = self.user.changed(TreeChange({}))
        if (
            code_hash(files) != self.info.code_hash
            or self.info.computed_pex_hash() != self.info.pex_hash
        ):
            raise VerificationFailed(
                f"The hashes in the PEX-INFO of {self.name} are not those of its contents.",
                hint="Build it again: it was changed after pex made it, or another version of "
                "pex, which computes them differently, made it.",
            )


@contextmanager
def opened(path: Path, like: PexFile | None = None) -> Iterator[PexFile]:
    """Opens a PEX of any layout.

    like: one that is open and was this one but for its state: then it opens sooner.
    Raises `VerificationFailed` for what is no sound PEX, `InputOutputError` where it cannot be
    read, `UsageError` for a scie.
    """
    with ExitStack() as stack:
        if path.is_dir():
            yield _open_folder(path, stack)
        else:
            yield _open_zipapp(path, stack, None if like is None else like.zip)


def _open_zipapp(path: Path, stack: ExitStack, like: ZipFile | None) -> PexFile:
    _refuse_scie(path)
    file = stack.enter_context(zipfiles.opened(path, like=like))
    entry = file.get(PEX_INFO)
    if entry is None or MAIN not in file or IMPORT_HOOK not in file:
        raise VerificationFailed(f"{path} is no PEX: it has no {PEX_INFO}, or no boot code.")
    info = PexInfo.parse(file.read(entry), str(path))
    names = sorted([name for name in file.names if name[-1] != "/"])
    trees = tuple(_wheel_in_zip(file, name, names) for name in sorted(info.distributions))
    user = Tree("", ZipLeaves(file, [*_user_files(names)]))
    return PexFile(str(path), info, user, trees, file, path, _stamp(os.fstat(file.descriptor)))


def stamp_of(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _below(folder: str, names: Sequence[str]) -> slice:
    """Where the names below a folder stand in a sorted list; the folder with its slash."""
    return slice(bisect_left(names, folder), bisect_left(names, f"{folder[:-1]}{_AFTER_SLASH}"))


def _user_files(names: Sequence[str]) -> Iterator[str]:
    """Of sorted names those that are not pex's; its folders are passed over as a whole."""
    position = 0
    for folder in _PEXS_FOLDERS:
        found = _below(folder, names)
        yield from filter(is_user_file, names[position : found.start])
        position = found.stop
    yield from filter(is_user_file, names[position:])


def _wheel_in_zip(file: ZipFile, name: str, names: Sequence[str]) -> Tree:
    path = f"{DEPS}/{name}"
    whole = file.get(path)
    if whole is None:
        inside = names[_below(f"{path}/", names)]
        if not inside:
            raise VerificationFailed(f"{file.name} lacks {path}, which its {PEX_INFO} names.")
        return Tree(path, ZipLeaves(file, inside, f"{path}/"))
    if whole.method != STORED:
        raise VerificationFailed(f"{path} in {file.name} is compressed twice: pex stores wheels.")
    start = file.start + file.data_offset(whole)
    inner = zipfiles.read(file.descriptor, start, whole.size, f"{file.name}:{path}")
    return zip_tree(inner, path)


def _open_folder(path: Path, stack: ExitStack) -> PexFile:
    info_path = path / PEX_INFO
    if not info_path.is_file() or not (path / MAIN).is_file():
        raise VerificationFailed(f"{path} is no PEX: it has no {PEX_INFO}, or no boot code.")
    info = PexInfo.parse(_read(info_path), str(path))
    user = {
        name: leaf
        for name, leaf in _folder_user_leaves(path).items()
        if is_user_file(name) and name != "pex"
    }
    trees = tuple(_wheel_in_folder(path, name, stack) for name in sorted(info.distributions))
    return PexFile(str(path), info, Tree("", user), trees, None, path)


def _folder_user_leaves(root: Path) -> dict[str, Leaf]:
    leaves: dict[str, Leaf] = {}
    for child in sorted(root.iterdir()):
        if child.name in (BOOTSTRAP, DEPS):
            continue
        if child.is_dir() and not child.is_symlink():
            below = folder_leaves(child)
            leaves.update((f"{child.name}/{name}", leaf) for name, leaf in below.items())
        else:
            leaves[child.name] = zipless_leaf(child)
    return leaves


def zipless_leaf(path: Path) -> Leaf:
    return folder_leaves(path.parent)[path.name]


def _wheel_in_folder(root: Path, name: str, stack: ExitStack) -> Tree:
    where = root / DEPS / name
    path = f"{DEPS}/{name}"
    if os.path.basename(name) != name or not where.exists():
        raise VerificationFailed(f"{root} lacks {path}, which its {PEX_INFO} names.")
    if where.is_dir():
        return Tree(path, folder_leaves(where))
    return zip_tree(stack.enter_context(zipfiles.opened(where)), path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error


def _refuse_scie(path: Path) -> None:
    """A scie is an executable of the platform with a PEX somewhere in it."""
    magics = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ")
    try:
        with path.open("rb") as stream:
            start = stream.read(_SCIE_SEARCH_BYTES)
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
    if start.startswith(magics):
        raise UsageError(
            f"{path} is a scie, an executable around a PEX; its PEX cannot be changed in it.",
            hint="Build the PEX without `--scie`, then run `pex3 scie create` on it.",
        )
