"""The zip file of a wheel: its metadata, and how it is written anew with other files in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from bundler.artifacts.python.trees import NewFile, TreeChange, zip_tree
from bundler.artifacts.python.wheel import record as wheelrecord
from bundler.artifacts.python.zipfiles import Entry, ZipFile
from bundler.artifacts.python.zipwriter import ZipWriter
from bundler.errors import UsageError, VerificationFailed

_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


def metadata_of(file: ZipFile) -> str:
    """The name of the ``*.dist-info`` folder. Raises `VerificationFailed` where there is none."""
    found = {
        name.partition("/")[0]
        for name in file.names
        if wheelrecord.is_metadata(name) and name.endswith("/RECORD")
    }
    if len(found) != 1:
        raise VerificationFailed(f"{file.name} is no wheel: it does not have one RECORD.")
    return found.pop()


def rewrite(file: ZipFile, change: TreeChange, stream: BinaryIO) -> None:
    """Writes the changed wheel to a stream that is empty and can be read and moved about in.

    What is new comes before the wheel's metadata; RECORD, which names it, comes last.
    """
    metadata = metadata_of(file)
    record = f"{metadata}/RECORD"
    _refuse_signed(file, metadata)
    raw = wheelrecord.edited(zip_tree(file).read(record), change, f"{file.name}:{record}")
    writer = ZipWriter(stream)
    kept = [e for e in file.entries if change.keeps(e.name) and e.name != record]
    code, about = _split(kept)
    new_code = {n: f for n, f in change.added.items() if not wheelrecord.is_metadata(n)}
    writer.copy(file, code)
    _write_all(writer, new_code)
    writer.copy(file, about)
    _write_all(writer, {n: f for n, f in change.added.items() if n not in new_code})
    _write_all(writer, {record: NewFile.of(raw)})
    writer.finish()


def _split(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    code = [entry for entry in entries if not wheelrecord.is_metadata(entry.name)]
    return code, [entry for entry in entries if wheelrecord.is_metadata(entry.name)]


def _write_all(writer: ZipWriter, files: Mapping[str, NewFile]) -> None:
    for name, file in sorted(files.items()):
        with file.open() as source:
            writer.write_stream(name, source, mode=file.mode, size=file.size)


def _refuse_signed(file: ZipFile, metadata: str) -> None:
    for name in _SIGNATURES:
        if file.get(f"{metadata}/{name}") is not None:
            raise UsageError(
                f"{file.name} is signed ({name}), and state in it would break the signature.",
                hint="Put the state in first, then sign.",
            )
