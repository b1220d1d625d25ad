"""Keeps what discovery found until anything that it depends on changes.

    <user cache>/discovery/      0700
      <query>.json.z             0600; one for each source of each project

A query is a source, its interpreter, and this version of state-bundler. The worker records what
the answer depends on (`bundler.worker.inputs`). An answer is used only if each of these paths and
variables is as it was. Everything else, a damaged or foreign file included, means to ask again.

For what only reports, such as ``status``; a refresh or a build always asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import InputOutputError
from bundler.refresh import model
from bundler.refresh.model import Found, Source, decoded, found_of
from bundler.system import home
from bundler.system.atomic import write_synced
from bundler.system.reading import scanned
from bundler.version import __version__
from bundler.worker import inputs

_WORKER = Path(inputs.__file__).parent
_MOST_ENTRIES = 512
_MOST_BYTES = 8 * 1024 * 1024
# What no record shows, such as an installed library that looks at a clock, is asked once a day.
_LONGEST_SECONDS = 86400.0
# A shell changes these from one command to the next.
_SHELL = ("OLDPWD", "PWD", "SHLVL", "_", "_STATE_BUNDLER_COMPLETE")


class CacheEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer and what it depends on.

    at: seconds since the epoch. digest: of the uses, as the worker's `digest_of` has it. variables:
    the names of those that were read; None for all. environment: a digest of their values.
    surroundings: of all variables but a shell's own, and of which the configuration calls secret.
    """

    at: float
    uses: tuple[inputs.Use, ...]
    digest: str
    variables: tuple[str, ...] | None
    environment: str
    surroundings: str
    found: Found


class CacheQuery(msgspec.Struct, frozen=True):
    """A source, and what was true before anything was asked.

    files: the ``.env`` files, which are read before the worker starts; digest: of them.
    """

    source: Source
    environment: Mapping[str, str]
    files: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, source: Source) -> CacheQuery:
        project = source.project
        folders = (project.root, project.workspace or project.root)
        files = tuple(dict.fromkeys(str(folder / ".env") for folder in folders))
        return cls(source, dict(os.environ), files, _digest(files) or "")

    def path(self, *, creates: bool = False) -> Path | None:
        """Where the answer is kept; None for a user without a cache.

        creates: whether to make the folder.
        """
        folder = _folder(creates=creates)
        own = sorted(map(str, (model.__file__, *_WORKER.glob("*.py"))))
        asked = (__version__, _digest(own), self.source.kind, str(self.source.python), self.files)
        text = json.dumps([*asked, self.source.load], sort_keys=True)
        return folder and folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json.z"

    @property
    def surroundings(self) -> str:
        """What decides which texts are secret."""
        config = self.source.project.config.refresh
        names = (*config.secrets, "", *config.not_secrets)
        decisive = {
            name: value
            for name, value in self.environment.items()
            if name in config.secrets or not (name in _SHELL or name.startswith("COMP_"))
        }
        return _of_variables(decisive, None, extra=names)


def recall(query: CacheQuery) -> Found | None:
    """The kept answer if nothing has changed since; else None."""
    path = query.path()
    answer = path and _read(path)
    if not answer or not 0 <= time.time() - answer.at < _LONGEST_SECONDS:
        return None
    if _of_variables(query.environment, answer.variables) != answer.environment:
        return None
    if _digest_of(answer.uses) != answer.digest:
        return None
    if query.surroundings == answer.surroundings:
        return answer.found
    from bundler.refresh.keys import withheld
    from bundler.refresh.surroundings import configured_surroundings

    return withheld(answer.found, configured_surroundings(query.source.project).secrets)


def keep(query: CacheQuery, event: dict[str, Any], shown: Found) -> None:
    """Keeps an answer, unless it depends on what cannot be compared, or holds a secret.

    event: the worker's; shown: what was made of it.
    """
    recorded = event.pop("inputs")
    if "reasons" in recorded or found_of(event) != shown:
        return
    if not query.digest or _digest(query.files) != query.digest:
        return
    variables = recorded["variables"]
    if any("$" in scanned(Path(file)) for file in query.files):  # it refers to any other variable
        variables = None
    answer = CacheEntry(
        at=time.time(),
        uses=tuple(map(tuple, recorded["uses"])),
        digest=recorded["digest"],
        variables=None if variables is None else tuple(variables),
        environment=_of_variables(query.environment, variables),
        surroundings=query.surroundings,
        found=shown,
    )
    # A text that is not UTF-8 has no JSON.
    with suppress(OSError, InputOutputError, UnicodeEncodeError):
        data = zlib.compress(msgspec.json.encode(answer, enc_hook=str), 1)
        path = query.path(creates=True)
        if path is not None and len(data) <= _MOST_BYTES:
            write_synced(path, data, 0o600)
            _prune(path.parent)


# --- digests ----------------------------------------------------------------------------------


def _of_variables(
    environment: Mapping[str, str], names: Sequence[str] | None, extra: Sequence[str] = ()
) -> str:
    """One digest of all values: a single one that is weak cannot be guessed by itself.

    names: None for all variables.
    """
    if names is None:
        chosen = set(environment)
    else:
        native = (name for name in environment if name.startswith(inputs.NATIVE_PREFIXES))
        chosen = {*names, *inputs.NATIVE_VARIABLES, *native}
    values = [(name, environment.get(name)) for name in sorted(chosen)]
    text = json.dumps([values, extra])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _digest(files: Iterable[str]) -> str | None:
    return _digest_of((file, False) for file in files)


def _digest_of(uses: Iterable[inputs.Use]) -> str | None:
    """None if one of them cannot be compared."""
    try:
        return inputs.digest_of(uses)
    except ValueError:
        return None


# --- the folder -------------------------------------------------------------------------------


def _folder(*, creates: bool) -> Path | None:
    """Ours alone; None if it does not exist, or others may write to it."""
    cache = home.cache(creates=creates)
    if cache is None:
        return None
    folder = cache / "discovery"
    with suppress(OSError):
        if creates:
            folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and _is_ours(status):
            return folder
    return None


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


def _read(path: Path) -> CacheEntry | None:
    """None if there is no answer, or one that is damaged or not ours."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_ours(status):
                return None
            data = stream.read(_MOST_BYTES + 1)
        return msgspec.json.decode(zlib.decompress(data), type=CacheEntry, dec_hook=decoded)
    except (OSError, zlib.error, msgspec.DecodeError):
        return None


def _prune(folder: Path) -> None:
    """Removes the oldest answers beyond the limit."""
    kept = sorted(folder.glob("*.json.z"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-_MOST_ENTRIES]:
        path.unlink(missing_ok=True)
