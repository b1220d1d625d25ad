"""The zip file of a wheel: its metadata, and how it is rewritten with other files in it."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from bundler.artifacts.python.trees import NewFile, Tree, TreeChange, zip_tree
from bundler.artifacts.python.wheel import record as wheelrecord
from bundler.artifacts.python.zipfiles import ZipFile
from bundler.artifacts.python.zipwriter import ZipWriter
from bundler.errors import UsageError, VerificationFailed
from bundler.state.manifest import Manifest

_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


def metadata_of(file: ZipFile) -> str:
    """The name of the ``*.dist-info`` folder. Raises `VerificationFailed` if there is none."""
    found = {
        name.partition("/")[0]
        for name in file.names
        if wheelrecord.is_metadata(name) and name.endswith("/RECORD")
    }
    folders = {name.partition("/")[0] for name in file.names if wheelrecord.is_metadata(name)}
    if len(found) != 1 or found != folders:
        raise VerificationFailed(
            f"{file.name} is not a wheel: it does not have exactly one RECORD."
        )
    return found.pop()


def deceptions(tree: Tree, file: ZipFile, found: Mapping[str, Manifest]) -> Iterator[str]:
    """Where an installer could write something other than the states that are read.

    Checks that RECORD matches the contents, and that no entry point is written elsewhere.
    `python_import_path` checks the wheel's ``*.data`` folder, as for all artifacts with packages.
    found: the manifests, by the artifact's path of their directory.
    """
    metadata = metadata_of(file)
    record = f"{metadata}/RECORD"
    rows = wheelrecord.read(tree.read(record), f"{file.name}:{record}")
    listed = rows.keys() - {record}
    there = tree.leaves.keys() - {record, *(f"{metadata}/{name}" for name in _SIGNATURES)}
    for path in sorted(listed ^ there):
        what = "does not name" if path in there else "names, but it is missing:"
        yield f"{file.name}:{record} {what} {path}."
    states = _state_files(tree, found)
    for path in sorted(listed & there):
        written, size = rows[path]
        leaf, expected = tree.leaves[path], states.get(path)
        if size not in ("", str(leaf.size)) or (
            expected is not None and not wheelrecord.matches(written, expected, leaf.open)
        ):
            yield f"{file.name}:{record} does not match {path}."
    yield from _stray_scripts(tree, metadata)


def _state_files(tree: Tree, found: Mapping[str, Manifest]) -> dict[str, str]:
    """The sha256 of every file that a manifest names, by its path in the wheel."""
    files: dict[str, str] = {}
    for directory in tree.state_directories():
        if directory.path in found:
            known = found[directory.path].known.files
            files.update((f"{directory.relative}/{path}", known[path][0]) for path in known)
    return files


def _stray_scripts(tree: Tree, metadata: str) -> Iterator[str]:
    """Entry points whose name leads out of the folder for scripts."""
    path = f"{metadata}/entry_points.txt"
    if path not in tree.leaves:
        return
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False, allow_no_value=True)
    try:
        parser.read_string(tree.read(path).decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        raise VerificationFailed(f"{tree.at(path)} cannot be read.") from error
    for group in ("console_scripts", "gui_scripts"):
        for name in parser.options(group) if parser.has_section(group) else ():
            if "/" in name or "\\" in name:
                yield f"{tree.at(path)} makes an installer write the script {name!r}."


def rewrite(file: ZipFile, change: TreeChange, stream: BinaryIO) -> None:
    """Writes the changed wheel to an empty stream that supports reading and seeking.

    New files come before the wheel's metadata; RECORD, which names them, comes last.
    """
    metadata = metadata_of(file)
    record = f"{metadata}/RECORD"
    _refuse_signed(file, metadata)
    raw = wheelrecord.edited(zip_tree(file).read(record), change, f"{file.name}:{record}")
    writer = ZipWriter(stream)
    kept = [e for e in file.entries if change.keeps(e.name) and e.name != record]
    for about in (False, True):
        writer.copy(file, [e for e in kept if wheelrecord.is_metadata(e.name) is about])
        added = {n: f for n, f in change.added.items() if wheelrecord.is_metadata(n) is about}
        _write_all(writer, added)
    _write_all(writer, {record: NewFile.of(raw)})
    writer.finish()


def _write_all(writer: ZipWriter, files: Mapping[str, NewFile]) -> None:
    for name, file in sorted(files.items()):
        with file.open() as source:
            writer.write_stream(name, source, mode=file.mode, size=file.size)


def _refuse_signed(file: ZipFile, metadata: str) -> None:
    for name in _SIGNATURES:
        if file.get(f"{metadata}/{name}") is not None:
            raise UsageError(
                f"{file.name} is signed ({name}), and adding state would break the signature.",
                hint="Add the state first, then sign.",
            )
