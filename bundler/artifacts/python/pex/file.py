"""A PEX, open for reading: its PEX-INFO, the user's code, and its distributions.

A PEX comes in three layouts. A *zipapp* is one zip file behind a ``#!`` line; *packed* and *loose*
are folders. In each the user's code is at the top and the distributions below ``.deps``:

    zipapp    .deps/shop-1.0-py3-none-any.whl/shop/…    entries of the one zip
    packed    .deps/shop-1.0-py3-none-any.whl           a zip file of the installed wheel
    loose     .deps/shop-1.0-py3-none-any.whl/shop/…    a folder

With ``--no-pre-install-wheels`` the distribution is the wheel file itself in all three.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from bundler.artifacts.python import python_import_path, zipfiles
from bundler.artifacts.python.pex.info import (
    BOOT_FILES,
    BOOTSTRAP,
    DEPS,
    IMPORT_HOOK,
    MAIN,
    PEX_INFO,
    PexInfo,
    below_any,
    code_hash,
    is_user_file,
)
from bundler.artifacts.python.trees import (
    Tree,
    TreeStateDirectory,
    folder_tree,
    zip_tree,
)
from bundler.artifacts.python.zipfiles import STORED, ZipFile
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import LABEL_CODE, Artifact, StateDirectory
from bundler.state.bundle import Bundle
from bundler.state.manifest import Claim, Manifest, RunRecord
from bundler.system.reading import reading

if TYPE_CHECKING:
    from hashlib import _Hash

_SCIE_SEARCH_BYTES = 4
_HASH = re.compile(rb"\b[0-9a-f]{40}\b")
_AFTER_SLASH = chr(ord("/") + 1)


class _Code(NamedTuple):
    """What the code hash covers. sha256: of each file of the states in it."""

    code_hash: str
    sha256: Mapping[str, str]


class PexArtifact(Artifact):
    """A PEX of any layout that is open for reading; nothing in it is run or unpacked.

    root: its path. named: its path in messages, if it is to be renamed. user: the code at the
    top. zip: a zipapp's only zip file, else None. Raises `VerificationFailed` for anything that is
    not a sound PEX, `InputOutputError` if it cannot be read, `UsageError` for a scie.
    """

    kind = "pex"
    zip: ZipFile | None

    def __init__(self, path: Path, named: Path | None = None) -> None:
        self.name = str(named or path)
        self.root = path
        self._reading = Lock()
        self.zip = None
        with ExitStack() as stack:  # what is refused is closed again
            if not path.is_dir():
                _refuse_scie(path)
                self.zip = stack.enter_context(zipfiles.opened(path))
            self._whole = folder_tree(path) if self.zip is None else zip_tree(self.zip)
            self.info = self._read_info()
            names = sorted([*self._whole.leaves, *(f"{it}/" for it in self._whole.folders)])
            self.user = self._whole.part([*self._user_names(names)])
            self.distributions = tuple(
                self._distribution(f"{DEPS}/{name}", names, stack)
                for name in sorted(self.info.distributions)
            )
            self._stack = stack.pop_all()

    def _read_info(self) -> PexInfo:
        required = (PEX_INFO, MAIN) if self.zip is None else (PEX_INFO, MAIN, IMPORT_HOOK)
        if not all(name in self._whole.leaves for name in required):
            raise VerificationFailed(
                f"{self.name} is not a PEX: it has no {PEX_INFO}, or no boot code.",
                hint="To verify the state in another zip file, such as one for AWS Lambda, unpack "
                "it and pass the folder.",
            )
        prefix = b"" if self.zip is None else self.zip.read_prefix()
        if prefix and not prefix.startswith(b"#!"):
            raise VerificationFailed(f"{self.name} is not a PEX: it does not start with a #! line.")
        return PexInfo.parse(self._whole.read(PEX_INFO), self.name)

    def _user_names(self, names: Sequence[str]) -> Iterator[str]:
        """Those of the sorted names that are not pex's, whose folders have most of the files."""
        boot, deps = (_below(f"{folder}/", names) for folder in (BOOTSTRAP, DEPS))
        others = (*names[: boot.start], *names[boot.stop : deps.start], *names[deps.stop :])
        # In a folder, pex makes a link to its boot code.
        return (it for it in others if is_user_file(it) and (self.zip or it != "pex"))

    def _distribution(self, path: str, names: Sequence[str], stack: ExitStack) -> Tree:
        if path not in self._whole.leaves:
            tree = self._whole.part(names[_below(f"{path}/", names)], path)
            if not tree.leaves:
                raise VerificationFailed(
                    f"{self.name} is missing {path}, which its {PEX_INFO} lists."
                )
            return tree
        if self.zip is None:
            return zip_tree(stack.enter_context(zipfiles.opened(self.root / path)), path)
        return zip_tree(_zip_in_zip(self.zip, path), path)

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def labels(self) -> Mapping[str, str]:
        return {name: str(value) for name, value in self.info.build_properties.items()}

    def claims(self) -> Sequence[Claim] | None:
        return self.info.claims(self.name)

    def run_record(self) -> RunRecord | None:
        return self.info.run_record(self.name)

    @property
    def trees(self) -> tuple[Tree, ...]:
        return (self.user, *self.distributions)

    def own_trees(self, bundles: Sequence[Bundle]) -> list[Tree]:
        """The trees with the user's code: the top, and the distributions that get a state."""
        own = [python_import_path.importable(self.name, self.trees, it.place) for it in bundles]
        return [self.user, *(tree for tree in own if tree is not self.user)]

    def boot_file(self, name: str) -> tuple[bytes, int | None] | None:
        """The bytes and the permission bits of one of pex's own files; None if it does not
        exist."""
        leaf = self._whole.leaves.get(name)
        return None if leaf is None else (self._whole.read(name), leaf.mode)

    def state_directories(self) -> Sequence[StateDirectory]:
        return [
            *(TreeStateDirectory(self.user, path, self._sha256_of) for path in self.user_states),
            *(found for tree in self.distributions for found in tree.state_directories()),
        ]

    def _sha256_of(self, path: str) -> str | None:
        with suppress(VerificationFailed):
            return self._code().sha256.get(path)
        return None

    @property
    def user_states(self) -> list[str]:
        """The state directories among the user's files."""
        return [found.relative for found in self.user.state_directories()]

    def _code(self) -> _Code:
        """Raises `VerificationFailed` if a file cannot be read."""
        with self._reading:  # several threads verify files
            code = self._read_code
        if isinstance(code, VerificationFailed):
            raise code
        return code

    @cached_property
    def _read_code(self) -> _Code | VerificationFailed:
        below = below_any(self.user_states)
        found: dict[str, _Hash] = {}

        def of_state(path: str) -> _Hash | None:
            return found.setdefault(path, hashlib.sha256()) if path.startswith(below) else None

        try:
            whole = code_hash(self.user.changed(), of_state)
        except VerificationFailed as error:
            return error
        return _Code(whole, {path: digest.hexdigest() for path, digest in found.items()})

    def check_hashes(self) -> None:
        """Computes the hashes from the contents. Raises `VerificationFailed` if any differs.

        State that is about to be replaced is not read, if what is outside has the recorded hash.
        """
        recorded = self.info.build_properties.get(LABEL_CODE)
        below = below_any(self.user_states)
        files = self.user.changed()
        outside = {path: files[path] for path in files if not path.startswith(below)}
        is_recorded = recorded is not None and code_hash(outside) == recorded
        for problem in self.hash_problems(with_states=not is_recorded):
            raise VerificationFailed(
                problem,
                hint="Build it again: it was changed after pex created it, or was created by "
                "another version of pex, which computes them differently.",
            )

    def problems(self, found: Mapping[str, Manifest]) -> Iterator[str]:
        """Where a run would find something other than what is read here, as messages."""
        yield from self.hash_problems()
        yield from self.info.path_problems()
        for tree in self.distributions:
            if self.info.has_wheel_files and tree.zip is not None and tree.has_state():
                # With csv and configparser, which it imports, 3 ms.
                from bundler.artifacts.python.wheel import zip as wheelzip

                yield from wheelzip.deceptions(tree, tree.zip, found)
        yield from python_import_path.deceptions(self.trees)

    def hash_problems(self, *, with_states: bool = True) -> Iterator[str]:
        """The hashes that do not match their contents, as messages.

        with_states: False to skip the code hash, which covers the states among the user's files. A
        machine that knows a hash runs what it has unpacked under it, not these contents.
        """
        code_differs = with_states and self._code().code_hash != self.info.code_hash
        if code_differs or self.info.computed_pex_hash() != self.info.pex_hash:
            yield f"The hashes in the PEX-INFO of {self.name} do not match its contents."
        pex_hash = self.info.pex_hash.encode()
        for name in BOOT_FILES:
            found = self.boot_file(name)
            if found is not None and pex_hash not in found[0]:
                yield f"{name} in {self.name} does not match the hash in PEX-INFO."
        prefix = b"" if self.zip is None else self.zip.read_prefix()
        if _HASH.search(prefix) and pex_hash not in prefix:
            yield f"The start script of {self.name} does not match the hash in PEX-INFO."
        for tree in self.distributions:
            if tree.has_state() and not self._is_fingerprinted(tree):
                yield f"{tree.path} does not match the fingerprint in PEX-INFO."

    def _is_fingerprinted(self, tree: Tree) -> bool:
        # Not needed if the state is among the user's own files.
        from bundler.artifacts.python.pex.wheels import is_fingerprint

        fingerprint = self.info.distributions[tree.name]
        if self.info.has_wheel_files and tree.zip is not None:
            return tree.zip.sha256() == fingerprint
        return is_fingerprint(tree, fingerprint)


def _below(folder: str, names: Sequence[str]) -> slice:
    """The position of the names below a folder in a sorted list; the folder with its slash."""
    return slice(bisect_left(names, folder), bisect_left(names, f"{folder[:-1]}{_AFTER_SLASH}"))


def _zip_in_zip(file: ZipFile, path: str) -> ZipFile:
    entry = file.get(path)
    if entry is None or entry.method != STORED:
        raise VerificationFailed(f"{path} in {file.name} is compressed twice: pex stores wheels.")
    start = file.start + file.data_offset(entry)
    return ZipFile(f"{file.name}:{path}", file.descriptor, start, entry.size)


def _refuse_scie(path: Path) -> None:
    """A scie is an executable of the platform with a PEX somewhere in it."""
    magics = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ")
    with reading(path), path.open("rb") as stream:
        start = stream.read(_SCIE_SEARCH_BYTES)
    if start.startswith(magics):
        raise UsageError(
            f"{path} is a scie, an executable that contains a PEX; that PEX cannot be changed.",
            hint="Build the PEX without `--scie`, then run `pex3 scie create` on it.",
        )
