"""Writing a zipapp PEX anew with other state in it: the order and bytes are those of pex itself.

pex writes the files sorted by path, each directory just before the first file in it, and a
distribution in one piece. What stays is copied without being unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from bundler.artifacts.pexfile import PexFile
from bundler.artifacts.pexinfo import (
    DEPS,
    IMPORT_HOOK,
    MAIN,
    PEX_INFO,
    PexInfo,
    code_hash,
    is_user_file,
    replace_hash,
)
from bundler.artifacts.trees import Tree
from bundler.artifacts.zipfiles import STORED, Entry, ZipFile, ZipWriter
from bundler.bundle import Bundle
from bundler.manifest import Claim, RunRecord

Source = Callable[[], BinaryIO]


@dataclass(frozen=True)
class Change:
    """What a PEX shall hold from now on.

    bundles: each with the tree that it goes into. files: further ones at the top, by path.
    claims, record: everything that PEX-INFO shall say.
    """

    bundles: tuple[tuple[Tree, Bundle], ...]
    files: Mapping[str, bytes]
    claims: tuple[Claim, ...]
    record: RunRecord


@dataclass(frozen=True)
class _New:
    """A file that is written instead of copied. mode: of the zip entry; None for the usual one."""

    open: Source
    mode: int | None = None


def rewrite(pex: PexFile, file: ZipFile, change: Change, stream: BinaryIO) -> None:
    """Writes the changed PEX to a stream that is empty and can be read and moved about in."""
    new = _new_files(change)
    replaced = tuple(f"{bundle.place}/" for _, bundle in change.bundles)
    info = _new_info(pex, change, new, replaced)
    new |= _boot_files(pex, file, info)
    writer = ZipWriter(stream, compress=_is_compressed(file))
    # The #! line, and with --sh-boot a script that holds the hash.
    writer.write_prefix(
        file.read_prefix().replace(pex.info.pex_hash.encode(), info.pex_hash.encode())
    )
    _write(file, writer, new, replaced)
    writer.finish()


def _new_files(change: Change) -> dict[str, _New]:
    new = {}
    for _, bundle in change.bundles:
        for member in bundle.members():
            new[f"{bundle.place}/{member.path}"] = _New(member.open)
    for path, data in change.files.items():
        new[path] = _New(_bytes(data))
    return new


def _bytes(data: bytes) -> Source:
    import io

    return lambda: io.BytesIO(data)


def _new_info(
    pex: PexFile, change: Change, new: Mapping[str, _New], replaced: tuple[str, ...]
) -> PexInfo:
    files: dict[str, Source] = {
        path: leaf.open for path, leaf in pex.user.leaves.items() if not path.startswith(replaced)
    }
    files.update((path, file.open) for path, file in new.items())
    return pex.info.with_values(
        code_hash=code_hash(files),
        build_properties=pex.info.labelled(change.claims, change.record),
    )


def _boot_files(pex: PexFile, file: ZipFile, info: PexInfo) -> dict[str, _New]:
    """PEX-INFO and the code that repeats its hash; compiled code, too, where there is any."""
    new = {PEX_INFO: _New(_bytes(info.dump()))}
    for name in (MAIN, IMPORT_HOOK, f"{MAIN}c", f"{IMPORT_HOOK}c"):
        entry = file.get(name)
        if entry is not None:
            data = replace_hash(
                file.read(entry), pex.info.pex_hash, info.pex_hash, f"{name} in {file.name}"
            )
            new[name] = _New(_bytes(data), entry.mode)
    return new


def _is_compressed(file: ZipFile) -> bool:
    entry = file.get(PEX_INFO)
    return entry is None or entry.method != STORED


# --- in pex's order -------------------------------------------------------------------------------


def _write(
    file: ZipFile, writer: ZipWriter, new: Mapping[str, _New], replaced: tuple[str, ...]
) -> None:
    kept, directories = _sorted_out(file, new, replaced)
    written: set[str] = set()
    run: list[Entry] = []
    for key in sorted({*kept, *new}):
        for directory in _parents(key):
            if directory in written or key.startswith(f"{DEPS}/"):
                continue
            written.add(directory)
            if directory in directories:
                run.append(directories[directory])
            else:
                writer.copy(file, _drain(run))
                writer.write_directory(directory)
        if key in new:
            writer.copy(file, _drain(run))
            _write_new(writer, key, new[key])
        else:
            run += kept[key]
    writer.copy(file, _drain(run))


def _write_new(writer: ZipWriter, path: str, file: _New) -> None:
    with file.open() as stream:
        if file.mode is None:
            writer.write_stream(path, stream)
        else:
            writer.write_stream(path, stream, file.mode)


def _drain(run: list[Entry]) -> Iterator[Entry]:
    entries = tuple(run)
    run.clear()
    return iter(entries)


def _sorted_out(
    file: ZipFile, new: Mapping[str, _New], replaced: tuple[str, ...]
) -> tuple[dict[str, list[Entry]], dict[str, Entry]]:
    """What stays, by the name that decides its place, and the directories outside ``.deps``."""
    kept: dict[str, list[Entry]] = {}
    directories: dict[str, Entry] = {}
    for entry in file.entries:
        if entry.name.startswith(f"{DEPS}/"):
            kept.setdefault(_distribution(entry.name), []).append(entry)
        elif entry.is_directory:
            directories[entry.name] = entry
        elif entry.name not in new and not _is_replaced(entry.name, replaced):
            kept[entry.name] = [entry]
    return kept, directories


def _is_replaced(name: str, replaced: tuple[str, ...]) -> bool:
    return is_user_file(name) and name.startswith(replaced)


def _distribution(name: str) -> str:
    return "/".join(name.split("/", 2)[:2])


def _parents(path: str) -> Iterator[str]:
    """The directories of a path, outermost first, each with its slash."""
    end = path.find("/")
    while end >= 0:
        yield path[: end + 1]
        end = path.find("/", end + 1)
