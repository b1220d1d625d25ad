"""State directories made by hand, as a refresh would have published them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY, Bundle
from bundler.state.manifest import (
    Contents,
    DirectoryRefresh,
    File,
    KeyRefresh,
    RunRecord,
    build,
    state_of,
)
from bundler.state.statedir import sanitize_key
from bundler.state.tree import dir_hash, hash_stream, scan
from bundler.state.volatile import Volatile, meaning

PLACE = f"shop/defs/{STATE_DIRECTORY}"
IGNORE = b"*\n*/\n.*\n"


def make_bundle(
    root: Path,
    states: Mapping[str, Mapping[str, bytes]],
    *,
    place: str = PLACE,
    writable: Mapping[str, tuple[str, ...]] | None = None,
    semantic: str | None = None,
    volatile: tuple[str, ...] = (),
) -> Bundle:
    """A published state directory at ``root``. states: by key, its files. volatile: members."""
    root.mkdir(parents=True, exist_ok=True)
    (root / ".gitignore").write_bytes(IGNORE)
    entries = []
    for key, files in states.items():
        name = sanitize_key(key)
        for path, content in files.items():
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / path).write_bytes(content)
        allowed = (writable or {}).get(key, ())
        tree = scan(root / name)
        meanings = [
            File(
                it.path,
                meaning(root / name / it.path, it.sha256, Volatile(frozenset(volatile))),
                0,
            )
            for it in tree.files
        ]
        meant = dir_hash(meanings) if volatile else semantic
        entries.append(state_of(key, name, tree, writable=allowed, semantic=meant))
    with (root / ".gitignore").open("rb", buffering=0) as stream:
        digest, size = hash_stream(stream)
    manifest = build(Contents(tuple(entries)), (File(".gitignore", digest, size),))
    (root / MANIFEST_NAME).write_bytes(manifest.raw)
    return Bundle(root, manifest, place)


def make_record(*bundles: Bundle) -> RunRecord:
    """A run record without times."""
    return RunRecord(
        refresh=tuple(
            DirectoryRefresh(
                bundle.place,
                tuple(KeyRefresh(state.key, attempts=1) for state in bundle.manifest.states),
            ).of(bundle.manifest)
            for bundle in bundles
        )
    )
