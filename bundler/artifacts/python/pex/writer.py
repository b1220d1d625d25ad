"""Rewrites a PEX with other state in it, in the same layout.

Computes the consequences of the changed files: the fingerprint of a distribution that changes,
``code_hash``, ``pex_hash``, and the boot code that repeats it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from bundler.artifacts.python import replacing
from bundler.artifacts.python.pex.file import PexFile
from bundler.artifacts.python.pex.info import (
    BOOT_FILES,
    PEX_INFO,
    PexInfo,
    code_hash,
    outside,
    replace_hash,
)
from bundler.artifacts.python.pex.zipapp import ZipChange, rewrite
from bundler.artifacts.python.python_import_path import TreePlan
from bundler.artifacts.python.trees import NewFile, Tree, TreeChange
from bundler.artifacts.python.zipfiles import ZipFile
from bundler.system.walking import walk

_NOTHING = TreeChange({})
_BUFFER_BYTES = 1024 * 1024


class _Changes(msgspec.Struct):
    """The changes of the whole PEX, by paths from its top. folders: of distributions."""

    added: dict[str, NewFile] = msgspec.field(default_factory=dict)
    removed: set[str] = msgspec.field(default_factory=set)
    folders: list[str] = msgspec.field(default_factory=list)
    wheels: set[str] = msgspec.field(default_factory=set)

    def take(self, tree: Tree, change: TreeChange) -> None:
        self.added.update((tree.at(path), file) for path, file in change.added.items())
        self.removed.update(tree.at(path) for path in tree.leaves if change.removes(path))


def write(pex: PexFile, plan: TreePlan, destination: Path) -> None:
    """Writes the changed PEX; the destination may be the PEX itself.

    Raises `VerificationFailed` if its hashes do not match its contents.
    """
    with ExitStack() as stack:
        changes = _Changes()
        distributions = dict(pex.info.distributions)
        for tree in pex.distributions:
            if tree.path in plan.changes:
                change = plan.changes[tree.path]
                name = tree.path.rpartition("/")[2]
                distributions[name] = _distribution(pex, tree, change, changes, stack)
        user = plan.changes.get("", _NOTHING)
        changes.take(pex.user, user)
        code = pex.user.changed(user)
        rest = outside(code, {*pex.user_states, *user.replaced})
        info = pex.info.with_values(
            code_hash=code_hash(code),
            distributions=distributions,
            build_properties=pex.info.labelled(plan.claims, plan.record, code_hash(rest)),
        )
        changes.added.update(_boot_files(pex, info))
        _write(pex, info, changes, destination)


def _distribution(
    pex: PexFile, tree: Tree, change: TreeChange, changes: _Changes, stack: ExitStack
) -> str:
    """Records the changes of a distribution and returns its new fingerprint."""
    # Not needed if the state is among the user's own files, as with --sources-directory.
    from bundler.artifacts.python.pex.wheels import seal
    from bundler.artifacts.python.wheel import zip as wheelzip

    fingerprint = pex.info.distributions[tree.path.rpartition("/")[2]]
    if pex.info.has_wheel_files and tree.zip is not None:
        made = _spooled(stack, partial(wheelzip.rewrite, tree.zip, change))
        changes.added[tree.path] = made
        changes.wheels.add(tree.path)
        return made.sha256
    sealed = seal(tree, change, fingerprint)
    if tree.zip is not None:
        changes.added[tree.path] = _spooled(stack, partial(_packed, tree, tree.zip, sealed.change))
    else:
        changes.take(tree, sealed.change)
        changes.folders.append(f"{tree.path}/")
    return sealed.fingerprint


def _packed(tree: Tree, file: ZipFile, change: TreeChange, stream: BinaryIO) -> None:
    """A distribution of a packed PEX: the zip file of an installed wheel."""
    removed = frozenset(path for path in tree.leaves if change.removes(path))
    rewrite(file, ZipChange(change.added, removed, walked=("",)), b"", stream)


def _spooled(stack: ExitStack, write_to: Callable[[BinaryIO], None]) -> NewFile:
    """Output goes to an unnamed file, from which it can be read repeatedly."""
    stream = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
    write_to(stream)
    size = stream.seek(0, os.SEEK_END)
    descriptor = stream.fileno()

    def reopened() -> BinaryIO:
        stream.flush()
        os.lseek(descriptor, 0, os.SEEK_SET)
        return open(os.dup(descriptor), "rb", buffering=_BUFFER_BYTES)

    with reopened() as copy:
        digest = hashlib.sha256()
        while piece := copy.read(_BUFFER_BYTES):
            digest.update(piece)
    return NewFile(reopened, size, digest.hexdigest())


def _boot_files(pex: PexFile, info: PexInfo) -> dict[str, NewFile]:
    """PEX-INFO and the code that repeats its hash, including compiled code."""
    added = {PEX_INFO: NewFile.of(info.dump())}
    for name in BOOT_FILES:
        found = pex.boot_file(name)
        if found is not None:
            data, mode = found
            where = f"{name} in {pex.name}"
            data = replace_hash(data, pex.info.pex_hash, info.pex_hash, where)
            added[name] = NewFile.of(data, mode)
    return added


def _write(pex: PexFile, info: PexInfo, changes: _Changes, destination: Path) -> None:
    if pex.zip is None:
        with replacing.folder(pex.root, destination) as folder:
            _copy_folder(pex.root, folder, changes)
        return
    # The #! line, and with --sh-boot a script that holds the hash.
    prefix = pex.zip.read_prefix().replace(pex.info.pex_hash.encode(), info.pex_hash.encode())
    change = ZipChange(
        changes.added,
        frozenset(changes.removed),
        walked=tuple(changes.folders),
        stored=frozenset(changes.wheels),
    )
    with replacing.file(pex.root, destination) as stream:
        rewrite(pex.zip, change, prefix, stream)


def _copy_folder(source: Path, target: Path, changes: _Changes) -> None:
    """Copies, never links: pex itself links to the user's sources, which change."""
    for directory, folders, names in walk(source):
        folders.sort()
        below = Path(directory).relative_to(source)
        for name in [*names, *(name for name in folders if Path(directory, name).is_symlink())]:
            path = (below / name).as_posix()
            if path not in changes.added and path not in changes.removed:
                (target / below).mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(directory, name), target / path, follow_symlinks=name != "pex")
    for path, file in changes.added.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with file.open() as stream, (target / path).open("wb") as written:
            shutil.copyfileobj(stream, written, _BUFFER_BYTES)
        (target / path).chmod(0o644 if file.mode is None else file.mode)
