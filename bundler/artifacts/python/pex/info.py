"""PEX-INFO, and the hashes by which a PEX's runtime decides whether it has seen a file before.

On a machine where a PEX has run, its code is unpacked under PEX_ROOT, by ``code_hash`` and by
``pex_hash``. New bytes under old hashes are never looked at, so both are computed as pex does
(`pex_code_hash` in pex/util.py, `_prepare_code` in pex/pex_builder.py, 2.24 to 2.105):

- ``code_hash``: sha1 over the sorted names of the user's files, one after the other, then over the
  bytes of each; without bytecode and without files whose own name begins with a dot. Before 2.24
  other files count, too;
- ``pex_hash``: sha1 over PEX-INFO as sorted JSON before it holds the ``pex_hash``.

The boot code also contains the second, as 40 hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from bundler.errors import VerificationFailed
from bundler.state.artifact import LABEL_CODE, LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.manifest import (
    Claim,
    RunRecord,
    canonical,
    decode_claims,
    decode_record,
    encode_claims,
)
from bundler.system.parallel import update

if TYPE_CHECKING:
    from hashlib import _Hash

    from typing_extensions import Self

PEX_INFO = "PEX-INFO"
MAIN = "__main__.py"
IMPORT_HOOK = "__pex__/__init__.py"
# Files that repeat the hash, if they exist: code, and its compiled form.
BOOT_FILES = (MAIN, IMPORT_HOOK, f"{MAIN}c", f"{IMPORT_HOOK}c")
BOOTSTRAP = ".bootstrap"
DEPS = ".deps"

_MAX_INFO_BYTES = 16 * 1024 * 1024
# The first version whose code hash covers only the user's files.
LOWEST_PEX = (2, 24, 0)
LOWEST_PEX_VERSION = ".".join(map(str, LOWEST_PEX))
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_HEX_SHA1 = re.compile("[0-9a-f]{40}")
_BYTECODE = re.compile(r"(?:^|/)__pycache__/|\.py[co]$|\.pyc\.[0-9]+$")


class PexJson(msgspec.Struct, frozen=True):
    """A JSON object as pex writes it: sorted, on one line, before 2.60 with spaces in it."""

    values: Mapping[str, Any]
    separators: tuple[str, str]

    @classmethod
    def decode(cls, raw: bytes) -> Self | None:
        """None if encoding it again gives other bytes: pex did not write them.

        Raises `ValueError` or `RecursionError` if they are not JSON.
        """
        values = json.loads(raw)
        if not isinstance(values, dict):
            return None
        styles = (cls(values, separators) for separators in ((",", ":"), (", ", ": ")))
        return next((style for style in styles if style.dump() == raw), None)

    def dump(self) -> bytes:
        return json.dumps(self.values, sort_keys=True, separators=self.separators).encode()

    def replaced(self, **changes: Any) -> Self:
        return msgspec.structs.replace(self, values={**self.values, **changes})


class PexInfo(PexJson, frozen=True):
    """The contents of PEX-INFO."""

    @classmethod
    def parse(cls, raw: bytes, name: str) -> PexInfo:
        """Parses PEX-INFO as pex writes it.

        Raises `VerificationFailed` unless encoding it again gives the same bytes: otherwise pex did
        not write it, or we could not write it the same way.
        """
        try:
            info = cls.decode(raw) if len(raw) <= _MAX_INFO_BYTES else None
        except (ValueError, RecursionError) as error:
            raise VerificationFailed(f"The PEX-INFO of {name} is not JSON.") from error
        if info is None or not info.is_plausible():
            raise VerificationFailed(
                f"The PEX-INFO of {name} is not in the format that pex writes."
            )
        if is_older(info.pex_version, LOWEST_PEX):
            raise VerificationFailed(
                f"{name} was created by pex {info.pex_version}; the lowest supported version is "
                f"{LOWEST_PEX_VERSION}.",
                hint="Build it again with a newer pex.",
            )
        return info

    def is_plausible(self) -> bool:
        hashes = (self.values.get("code_hash"), self.values.get("pex_hash"))
        return (
            all(isinstance(value, str) and _HEX_SHA1.fullmatch(value) for value in hashes)
            and isinstance(self.values.get("build_properties"), dict)
            and isinstance(self.values.get("distributions"), dict)
            and not any("/" in name for name in self.values["distributions"])
        )

    @property
    def code_hash(self) -> str:
        return str(self.values["code_hash"])

    @property
    def pex_hash(self) -> str:
        return str(self.values["pex_hash"])

    @property
    def build_properties(self) -> dict[str, Any]:
        return dict(self.values["build_properties"])

    @property
    def distributions(self) -> dict[str, str]:
        """The fingerprint of each distribution, by its name below ``.deps``."""
        return dict(self.values["distributions"])

    @property
    def pex_version(self) -> str:
        """The version of pex that built it; empty if it does not say."""
        return str(self.build_properties.get("pex_version", ""))

    @property
    def has_wheel_files(self) -> bool:
        """Whether ``.deps`` contains wheel files instead of installed wheels."""
        return bool(self.values.get("deps_are_wheel_files"))

    def computed_pex_hash(self) -> str:
        without = {key: value for key, value in self.values.items() if key != "pex_hash"}
        document = PexJson(without, self.separators)
        return hashlib.sha1(document.dump(), usedforsecurity=False).hexdigest()

    def with_values(self, **changes: Any) -> PexInfo:
        """A PEX-INFO with these values and the resulting ``pex_hash``."""
        changed = self.replaced(**changes)
        return changed.replaced(pex_hash=changed.computed_pex_hash())

    def path_problems(self) -> Iterator[str]:
        """Paths outside of the PEX from which it imports code before its own."""
        if self.values.get("pex_path") or self.values.get("pex_paths"):
            yield "It was built with --pex-path, and another PEX may contain the same package."
        if self.values.get("inherit_path") == "prefer":
            yield "It was built with --inherit-path=prefer: the machine's packages replace its own."

    # --- what we say in it --------------------------------------------------------------------

    def claims(self, name: str) -> tuple[Claim, ...] | None:
        """The claims about the state directories; None if there are none at all."""
        text = self._text(LABEL_STATES, name)
        if text is None:
            # We write both or neither: a run record alone means that the claims were removed.
            return () if LABEL_RUN_RECORD in self.build_properties else None
        return decode_claims(text, name)

    def run_record(self, name: str) -> RunRecord | None:
        text = self._text(LABEL_RUN_RECORD, name)
        return None if text is None else decode_record(text, name)

    def _text(self, label: str, name: str) -> bytes | None:
        text = self.build_properties.get(label)
        try:
            return None if text is None else str.encode(text)
        except (TypeError, UnicodeEncodeError) as error:  # a surrogate without its other half
            raise VerificationFailed(
                f"The build property {label} of {name} is not text."
            ) from error

    def labelled(self, claims: tuple[Claim, ...], record: RunRecord, code: str) -> dict[str, Any]:
        """The build properties with these claims, this run record, and the hash of the files
        outside the states."""
        return {
            **self.build_properties,
            LABEL_CODE: code,
            LABEL_STATES: encode_claims(claims).decode(),
            LABEL_RUN_RECORD: canonical(record).decode(),
        }


def is_older(version: str, than: tuple[int, ...]) -> bool:
    """Whether this is a version of pex that precedes the other."""
    parts = _VERSION.match(version)
    return parts is not None and tuple(map(int, parts[0].split("."))) < than


def code_hash(
    files: Mapping[str, Callable[[], BinaryIO]],
    also: Callable[[str], _Hash | None] = lambda _: None,
) -> str:
    """pex's hash of the user's files, by path. also: another hash for the bytes of a file."""
    names = sorted(filter(counts, files))
    whole = _sha1(names)
    for name in names:
        other = also(name)
        with files[name]() as stream:
            update(stream, [whole] if other is None else [whole, other])
    return whole.hexdigest()


def code_hashes(
    files: Mapping[str, Callable[[], BinaryIO]], states: Iterable[str]
) -> tuple[str, str]:
    """pex's hash of the user's files, and of those outside these state directories. Reads each
    file once."""
    below = below_any(states)
    outside = _sha1(sorted(name for name in files if counts(name) and not name.startswith(below)))
    whole = code_hash(files, lambda name: None if name.startswith(below) else outside)
    return whole, outside.hexdigest()


def _sha1(names: Iterable[str]) -> _Hash:
    return hashlib.sha1("".join(names).encode(), usedforsecurity=False)


def below_any(folders: Iterable[str]) -> tuple[str, ...]:
    """What the paths below these folders start with."""
    return tuple(f"{folder}/" for folder in folders)


def counts(name: str) -> bool:
    """Whether pex's ``code_hash`` covers a file."""
    return not name.rpartition("/")[2].startswith(".") and not is_bytecode(name)


def is_bytecode(name: str) -> bool:
    """Whether pex leaves a file out of every hash."""
    return _BYTECODE.search(name) is not None


def is_user_file(name: str) -> bool:
    """Whether a path at the top of a PEX is the user's, and not pex's own."""
    top = name.partition("/")[0]
    if top in (BOOTSTRAP, DEPS, "__pex__", PEX_INFO):
        return False
    return name not in (MAIN, f"{MAIN}c")
