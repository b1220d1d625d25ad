"""Keeps the states that a build embeds, while other runs publish in the same state directory.

A publish replaces files and never writes to one, so a second name is enough to keep a file: a
folder of hard links costs a millisecond for a hundred files. It is put where temporary files are,
or where new states are staged if that is another file system. Where neither can be written to,
as in a read-only checkout, nobody publishes with our rights: the states are read where they are.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.errors import InputOutputError, Locked
from bundler.state.bundle import MANIFEST_NAME, STAGING_NAME, Bundle
from bundler.system.atomic import temporary_folder

_NAME = "build"


def hold(bundle: Bundle, held: ExitStack) -> Bundle:
    """The bundle with files that do not change until the stack is closed."""
    for parent in (Path(tempfile.gettempdir()), bundle.root / STAGING_NAME):
        if parent.is_dir() and not parent.is_symlink():
            with ExitStack() as attempt:
                try:
                    folder = attempt.enter_context(temporary_folder(parent / _NAME))
                    _link(bundle, folder)
                except FileNotFoundError as error:
                    raise _published_meanwhile(bundle) from error
                except (OSError, InputOutputError):  # another file system, or no links, or full
                    continue
                if not _is_still_published(bundle):
                    raise _published_meanwhile(bundle)
                held.push(attempt.pop_all())
                return msgspec.structs.replace(bundle, held=folder)
    return bundle


def _is_still_published(bundle: Bundle) -> bool:
    """Whether no other publish has begun: its journal comes first, its manifest last."""
    staging = bundle.root / STAGING_NAME
    if any((staging / name).exists() for name in ("journal.json", "set.json")):
        return False
    return (bundle.root / MANIFEST_NAME).read_bytes() == bundle.manifest.raw


def _published_meanwhile(bundle: Bundle) -> Locked:
    return Locked(
        f"Another process published in {bundle.root} in the meantime.",
        hint="Try again.",
    )


def _link(bundle: Bundle, folder: Path) -> None:
    made = {folder}
    for member in bundle.members():
        if isinstance(member.source, Path):
            target = folder / member.path
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            os.link(member.source, target, follow_symlinks=False)
