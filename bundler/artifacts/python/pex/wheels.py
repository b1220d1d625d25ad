"""State in a distribution of a PEX: what else changes in it, and its new fingerprint.

pex keeps each installed wheel as a folder with a ``.layout.json`` that holds its fingerprint: the
sha256 over the sorted names of all its other files and over the bytes of each, without bytecode.
PEX-INFO repeats it, and a machine that knows a fingerprint does not look at the bytes again. Next
to the wheel's metadata is ``*.pex-info/original-whl-info.json``, from which pex rebuilds the wheel.

With ``--no-pre-install-wheels`` the distribution is the wheel, and the fingerprint its sha256.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Mapping
from typing import BinaryIO

from bundler.artifacts.python.pex.info import PexJson, is_bytecode
from bundler.artifacts.python.trees import NewFile, Tree, TreeChange
from bundler.artifacts.python.wheel import record as wheelrecord
from bundler.errors import VerificationFailed
from bundler.system.parallel import update

_LAYOUT = ".layout.json"
_WHEEL_INFO = "original-whl-info.json"
_DATE = [1980, 1, 1, 0, 0, 0]
_FILE_MODE = (stat.S_IFREG | 0o644) << 16


def seal(tree: Tree, change: TreeChange, fingerprint: str) -> tuple[TreeChange, str]:
    """Adds to a change of an installed wheel what keeps it consistent; with the new fingerprint.

    fingerprint: the present one, from PEX-INFO. Raises `VerificationFailed` if it does not match
    the files.
    """
    if not is_fingerprint(tree, fingerprint):
        raise VerificationFailed(
            f"{tree.path} does not match the fingerprint in PEX-INFO.",
            hint="Build the PEX again: it was changed after pex created it, or was created by "
            "another version of pex, which computes fingerprints differently.",
        )
    layout = _json(tree, _LAYOUT)
    change = change.and_also(_rebuilt_wheel_info(tree, change))
    record = str(layout.values.get("record_relpath"))
    if record in tree.leaves:  # older versions of pex write it when they install the wheel
        new_record = wheelrecord.edited(tree.read(record), change, tree.at(record))
        change = change.and_also({record: NewFile.of(new_record)})
    result = fingerprint_of(tree.changed(change))
    new_layout = layout.replaced(fingerprint=result).dump()
    return change.and_also({_LAYOUT: NewFile.of(new_layout)}), result


def is_fingerprint(tree: Tree, fingerprint: str) -> bool:
    """Whether an installed wheel has this fingerprint, and records it."""
    said = _json(tree, _LAYOUT).values.get("fingerprint")
    return bool(said == fingerprint == fingerprint_of(tree.changed()))


def fingerprint_of(files: Mapping[str, Callable[[], BinaryIO]]) -> str:
    """pex's hash of an installed wheel's files, by path."""
    names = sorted(name for name in files if name != _LAYOUT and not is_bytecode(name))
    digest = hashlib.sha256("".join(names).encode())
    for name in names:
        with files[name]() as stream:
            update(stream, [digest])
    return digest.hexdigest()


def _rebuilt_wheel_info(tree: Tree, change: TreeChange) -> dict[str, NewFile]:
    """The list of the wheel's entries, in order, with date and mode."""
    path = next((path for path in tree.leaves if _is_wheel_info(path)), None)
    if path is None:
        return {}
    info = _json(tree, path)
    entries = info.values.get("entries")
    if not isinstance(entries, list) or not all(
        isinstance(entry, list) and entry for entry in entries
    ):
        raise VerificationFailed(f"{tree.at(path)} is not in the format that pex writes.")
    kept = [entry for entry in entries if not change.removes(str(entry[0]))]
    known = {str(entry[0]) for entry in kept}
    fresh = [[name, _DATE, _FILE_MODE] for name in sorted(change.added) if name not in known]
    at = next(
        (index for index, entry in enumerate(kept) if wheelrecord.is_metadata(str(entry[0]))),
        len(kept),
    )
    return {path: NewFile.of(info.replaced(entries=kept[:at] + fresh + kept[at:]).dump())}


def _is_wheel_info(path: str) -> bool:
    folder, _, name = path.partition("/")
    return name == _WHEEL_INFO and folder.endswith(".pex-info")


def _json(tree: Tree, path: str) -> PexJson:
    raw = tree.read(path)
    try:
        document = PexJson.decode(raw)
    except (ValueError, RecursionError):
        document = None
    if document is None:
        raise VerificationFailed(f"{tree.at(path)} is not in the format that pex writes.")
    return document
