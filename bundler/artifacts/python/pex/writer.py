"""Rewrites a PEX with other state in it, in the same layout.

Computes the consequences of the changed files: the fingerprint of a distribution that changes,
``code_hash``, ``pex_hash``, and the boot code that repeats it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python import python_import_path, replacing
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.pex.info import BOOT_FILES, PEX_INFO, PexInfo, code_hashes
from bundler.artifacts.python.pex.zipapp import FileChanges, rewrite
from bundler.artifacts.python.trees import NO_CHANGE, NewFile, Tree, TreeChange
from bundler.artifacts.python.zipfiles import ZipFile
from bundler.state.tree import hash_stream
from bundler.system.walking import walk

_BUFFER_BYTES = 1024 * 1024


def write(pex: PexArtifact, request: EmbedRequest, path: Path) -> None:
    """Copies the PEX with the bundles in it to a new path."""
    pex.check_hashes()
    plan = python_import_path.plan(
        pex.name,
        pex.trees,
        pex.claims() or (),
        request.bundles,
        request.record,
        dagster=any(name.startswith("dagster-") for name in pex.info.distributions),
    )
    with ExitStack() as stack:
        changes = FileChanges()
        distributions = dict(pex.info.distributions)
        for tree in pex.distributions:
            if tree.path in plan.changes:
                change = plan.changes[tree.path]
                distributions[tree.name] = _distribution(pex, tree, change, changes, stack)
        user = plan.changes.get("", NO_CHANGE)
        changes.take(pex.user, user)
        states = (*pex.user_states, *user.replaced)
        code_hash, outside = code_hashes(pex.user.changed(user), states)
        info = pex.info.with_values(
            code_hash=code_hash,
            distributions=distributions,
            build_properties=pex.info.labelled(plan.claims, plan.record, outside),
        )
        changes.added.update(_boot_files(pex, info))
        _write(pex, info, changes, path)


def _distribution(
    pex: PexArtifact, tree: Tree, change: TreeChange, changes: FileChanges, stack: ExitStack
) -> str:
    """Records the changes of a distribution and returns its new fingerprint."""
    # With csv and configparser 8 ms, and not needed if the state is among the user's own files.
    from bundler.artifacts.python.pex.wheels import seal
    from bundler.artifacts.python.wheel import zip as wheelzip

    if pex.info.has_wheel_files and tree.zip is not None:
        made = _spooled(stack, partial(wheelzip.rewrite, tree.zip, change))
        changes.added[tree.path] = made
        changes.stored.add(tree.path)
        return made.sha256
    change, fingerprint = seal(tree, change, pex.info.distributions[tree.name])
    if tree.zip is not None:
        changes.added[tree.path] = _spooled(stack, partial(_packed, tree, tree.zip, change))
    else:
        changes.take(tree, change)
        changes.walked.append(f"{tree.path}/")
    return fingerprint


def _packed(tree: Tree, file: ZipFile, change: TreeChange, stream: BinaryIO) -> None:
    """A distribution of a packed PEX: the zip file of an installed wheel."""
    changes = FileChanges(walked=[""])
    changes.take(Tree("", tree.leaves), change)
    rewrite(file, changes, b"", stream)


def _spooled(stack: ExitStack, write_to: Callable[[BinaryIO], None]) -> NewFile:
    """Output goes to an unnamed file, from which it can be read repeatedly."""
    stream = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
    write_to(stream)
    descriptor = stream.fileno()

    def reopened() -> BinaryIO:
        stream.flush()
        os.lseek(descriptor, 0, os.SEEK_SET)
        return open(os.dup(descriptor), "rb", buffering=_BUFFER_BYTES)

    with reopened() as copy:
        sha256, size = hash_stream(copy)
    return NewFile(reopened, size, sha256)


def _boot_files(pex: PexArtifact, info: PexInfo) -> dict[str, NewFile]:
    """PEX-INFO and the code that repeats its hash, including compiled code."""
    added = {PEX_INFO: NewFile.of(info.dump())}
    for name in BOOT_FILES:
        if found := pex.boot_file(name):
            data, mode = found
            added[name] = NewFile.of(_with_hash(data, pex, info), mode)
    return added


def _with_hash(data: bytes, pex: PexArtifact, info: PexInfo) -> bytes:
    return data.replace(pex.info.pex_hash.encode(), info.pex_hash.encode())


def _write(pex: PexArtifact, info: PexInfo, changes: FileChanges, path: Path) -> None:
    if pex.zip is None:
        path.mkdir()
        replacing.take_mode(path, pex.root)
        _copy_folder(pex.root, path, changes)
        return
    # The #! line, and with --sh-boot a script that holds the hash.
    prefix = _with_hash(pex.zip.read_prefix(), pex, info)
    with path.open("x+b", buffering=_BUFFER_BYTES) as stream:
        rewrite(pex.zip, changes, prefix, stream)
    replacing.take_mode(path, pex.root)


def _copy_folder(source: Path, target: Path, changes: FileChanges) -> None:
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
