"""The checks that a new state must pass before it is published.

In this order: what does not belong in a state is left out; what cannot be part of a state tree is
refused; its bytes contain no secret and no path of the staging area; it is neither empty nor much
smaller than before; it satisfies the project's own schema or command.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from bundler.errors import BadData, ConfigurationError, CredentialsRefused
from bundler.project.options import DEFAULT_SHRINK, KeyOptions
from bundler.refresh import dbt_projects
from bundler.refresh.command_output import refuse_no_data
from bundler.refresh.key_material import PRIVATE_KEY, is_container
from bundler.refresh.model import Component
from bundler.refresh.outcome.exchanges import CopiedDirectory
from bundler.refresh.outcome.losses import losses
from bundler.refresh.secret_forms import Secret
from bundler.refresh.secrets import Secrets
from bundler.refresh.vendors import Kind, kind_of
from bundler.state.json_entries import (
    TooLargeToCountError,
    count_values,
    is_empty,
    size_of,
)
from bundler.state.manifest import State, state_of
from bundler.state.statedir import sanitize_key
from bundler.state.tree import File, StateTree, dir_hash, scan
from bundler.state.volatile import NOTHING_VOLATILE, Volatile, meaning
from bundler.system.atomic import io_errors
from bundler.system.documents import read_document
from bundler.system.walking import walk
from bundler.system.wording import counted
from bundler.worker.copying import any_match

# Names that never belong in a state, wherever they are in it.
LEFT_OUT = (
    ".git",
    ".venv",
    "node_modules",
    ".idea",
    ".env",
    ".env.*",
    "*.log",
    "logs",
    "__pycache__",
    ".local_defs_state",
    ".DS_Store",
    ".user.yml",  # dbt's number for the user of this machine
    "*.concurrent-update-lock",
)
_DATABASES = ("*.duckdb", "*.duckdb.wal", "*.sqlite", "*.sqlite3", "*.db")
_STATE = "state"
MAX_FILES = 250_000
# Anything that shrinks to less than this share of its entries causes a warning.
_SHARE_WITHOUT_A_WORD = 0.8


class Baseline(msgspec.Struct, frozen=True):
    """The state of one key that a new one is compared with, and its key directory."""

    state: State
    directory: Path


class CheckedState(msgspec.Struct, frozen=True):
    """A state that may be published.

    left_out: paths that were removed, or not copied. ignored: those that were not copied because
    git ignores them; ignored_count: their number. warnings: for the user. shrunk: why it is refused
    if the definitions from it cannot be counted.
    """

    state: State
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    ignored_count: int = 0
    shrunk: BadData | None = None


def check(
    component: Component,
    directory: Path,
    options: KeyOptions,
    *,
    secrets: Secrets,
    baseline: Baseline | None,
    copies: Sequence[CopiedDirectory] = (),
    written_at: str | None = None,
    counts_definitions: bool = False,
) -> CheckedState:
    """Judges what a component wrote into its staged key directory.

    copies: the directories that it has copied there. written_at: the key directory's path for the
    component, if that was in a container. counts_definitions: whether a state that has shrunk is
    not refused here. Raises `BadData`, `CredentialsRefused`, `ConfigurationError` or
    `InputOutputError` naming key and file.
    """
    key, kind = component.key, kind_of(component)
    left_out = [path for copy in copies for path in copy.left_out]
    left_out += _tidy(key, directory, options)
    if kind.runs_dbt:
        dbt_projects.relocate(directory, [copy.source for copy in copies])
    try:
        tree = scan(directory)
    except BadData as error:
        raise BadData.of_key(key, error.what, hint=error.hint) from error
    _refuse_nothing(component, tree, directory)
    if component.is_command and (directory / _STATE).is_file():
        refuse_no_data(key, directory / _STATE, options)
    place = written_at or str(directory)
    _refuse_secrets(key, tree, directory, options, secrets=secrets, written_at=place)
    writable = (*kind.writable, *options.writable)
    if kind.runs_dbt:
        missing = dbt_projects.unshipped(directory, tree.files, copies, left_out)
        dbt_projects.refuse_unshipped(key, missing, options.exclude)
        writable += dbt_projects.target_directories(tree.files)
    state = state_of(
        key,
        sanitize_key(key),
        tree,
        semantic=semantic_digest(directory, tree, kind, options),
        writable=_writable(writable, tree),
    )
    shrunk, warnings = None, []
    try:
        new = _CountedState(state, directory, options, kind)
        warnings += new.refuse_loss(baseline)
    except _ShrunkError as error:
        if not counts_definitions:
            raise
        shrunk = error
    databases = [file.path for file in tree.files if any_match(file.path, _DATABASES)]
    warnings += [f"{key}: the state contains the database {path}." for path in databases]
    warnings += [f"{key}: {text}." for text in dbt_projects.warnings(copies)]
    return CheckedState(
        state,
        tuple(left_out),
        tuple(warnings),
        tuple(path for copy in copies for path in copy.ignored),
        sum(copy.ignored_count for copy in copies),
        shrunk,
    )


def _writable(patterns: tuple[str, ...], tree: StateTree) -> tuple[str, ...]:
    """The matching directories of the tree, without those inside another."""
    parents = {parent for file in tree.files for parent in PurePosixPath(file.path).parents}
    found: list[str] = []
    for path in sorted((str(parent) for parent in parents if parent.name), key=len):
        inside = any(path.startswith(f"{outer}/") for outer in found)
        if not inside and any(fnmatchcase(path, pattern) for pattern in patterns):
            found.append(path)
    return tuple(sorted(found))


def _tidy(key: str, directory: Path, options: KeyOptions) -> Iterator[str]:
    """Removes what does not belong in a state, then directories without any file."""
    count = 0
    with io_errors(directory):
        for parent, directories, files in walk(directory):
            below = Path(parent).relative_to(directory).as_posix()
            prefix = "" if below == "." else f"{below}/"
            count += len(files)
            if count > MAX_FILES:
                raise too_many_files(key)
            for name in [*directories, *files]:
                path = f"{prefix}{name}"
                if _is_left_out(directory / path, path, options):
                    _remove(directory / path)
                    directories[:] = [item for item in directories if item != name]
                    yield path
        for parent, _, _ in walk(directory, topdown=False):
            if parent != str(directory) and not os.listdir(parent):
                os.rmdir(parent)


def too_many_files(key: str) -> BadData:
    return BadData.of_key(
        key,
        f"the component wrote more than {MAX_FILES} files.",
        hint="Make it write fewer and larger files.",
    )


def _is_left_out(file: Path, path: str, options: KeyOptions) -> bool:
    if path == _STATE or any_match(path, options.include):
        return False
    if any(pattern.startswith(f"{path}/") for pattern in options.include):
        return False
    if any_match(path, (*LEFT_OUT, *options.exclude)):
        return True
    return not file.is_symlink() and (file / "pyvenv.cfg").is_file()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_nothing(component: Component, tree: StateTree, directory: Path) -> None:
    if (directory / _STATE).exists() and tree.files:
        return
    if component.is_command:
        writer, hint = "command", "The command must write a file or a directory to {state_path}."
    else:
        writer = "component"
        hint = "`write_state_to_path` must write a file or a directory at the path it is given."
    problem = f"the {writer} wrote nothing."
    if tree.files:
        problem = f"the {writer} wrote {tree.files[0].path}, but not the path it was given."
    raise BadData.of_key(component.key, problem, hint=hint)


def _refuse_secrets(
    key: str,
    tree: StateTree,
    directory: Path,
    options: KeyOptions,
    *,
    secrets: Secrets,
    written_at: str,
) -> None:
    """Raises for the first file that contains a secret, key material, or the staging path."""
    for file in tree.files:
        in_name = secrets.scanner.in_name(file.path)
        if in_name is not None:
            shown = secrets.redact(file.path)
            raise _credentials_refused(key, f"the name {shown!r}", in_name)
        allowed = any_match(file.path, options.allow_key_material)
        if is_container(file.path) and not allowed:
            raise _key_material_refused(key, file.path, f"{file.path} contains {PRIVATE_KEY}")
        with io_errors(directory / file.path):
            hit = secrets.scanner.first(
                directory / file.path,
                staged_at=os.fsencode(written_at),
                key_material_allowed=allowed,
            )
        if hit is None:
            continue
        if hit.secret is not None:
            raise _credentials_refused(key, file.path, hit.secret)
        if hit.what:
            what = f"{file.path}:{hit.line} contains {hit.what}"
            raise _key_material_refused(key, file.path, what)
        raise BadData.of_key(
            key,
            f"{file.path} contains the path of the staging directory, which is removed "
            "after the refresh.",
            hint="Make the component write relative paths, or exclude the file: "
            f'exclude = ["{file.path}"].',
        )


def _credentials_refused(key: str, where: str, secret: Secret) -> CredentialsRefused:
    return CredentialsRefused.of_key(
        key,
        f"{where} contains {secret.what}.",
        hint="Everyone who gets the artifact gets that credential. Make the component omit "
        f'it; if it is not a secret, set not-secrets = ["{secret.variable}"].',
    )


def _key_material_refused(key: str, path: str, what: str) -> ConfigurationError:
    return ConfigurationError.of_key(
        key,
        f"{what}.",
        hint=f'Exclude the file: exclude = ["{path}"]. If everyone who gets the artifact may '
        f'have it, set allow-key-material = ["{path}"].',
    )


# --- empty and shrunk -------------------------------------------------------------------------


def shrunk(
    component: Component, new: Baseline, options: KeyOptions, baseline: Baseline
) -> BadData | None:
    """Why a state is refused as empty or much smaller than a baseline's; None if it is not."""
    if _means_the_same(new.state, baseline):
        return None
    compared = msgspec.structs.replace(options, min_entries=None)
    counted_state = _CountedState(new.state, new.directory, compared, kind_of(component))
    try:
        counted_state.refuse_loss(baseline)
    except BadData as error:
        return error
    return None


def _means_the_same(state: State, baseline: Baseline) -> bool:
    """Whether the bytes are the baseline's, or not meaningfully different, so that those are
    kept."""
    now, before = state.digest, baseline.state.digest
    return now.dir_hash == before.dir_hash or now.semantic == before.semantic


class _ShrunkError(BadData):
    """The state is much smaller than it was."""


class _CountedState(msgspec.Struct, frozen=True):
    """A state whose contents are counted. directory: its key directory."""

    state: State
    directory: Path
    options: KeyOptions
    kind: Kind

    @property
    def file(self) -> Path:
        """Its main file."""
        return self.directory / _STATE

    @property
    def volatile(self) -> Volatile:
        return _volatile(self.kind, self.options)

    def refuse_loss(self, baseline: Baseline | None) -> list[str]:
        """Returns warnings: what is smaller than before, but not small enough to be refused."""
        key, options = self.state.key, self.options
        with io_errors(self.file):
            self._refuse_other_project()
            resources = self._resources(self.directory, self.state)
            nothing = resources is not None and not (resources.keys() - {dbt_projects.JOBS})
            empty = nothing or self.state.size == 0 or is_empty(self.file, self.volatile)
        if empty and not options.allow_empty:
            check = "model-paths, `enabled` and variables" if nothing else "what the API returns"
            raise BadData.of_key(
                key,
                "the dbt project defines nothing." if nothing else "the state is empty.",
                hint=f"Check {check}. If an empty state is expected: --allow-empty "
                f"{shlex.quote(key)}.",
            )
        if options.min_entries is not None:
            self._refuse_few(options.min_entries)
        if baseline is None or empty or _means_the_same(self.state, baseline):
            return []
        return self._refuse_shrunk(baseline)

    def _refuse_other_project(self) -> None:
        other = dbt_projects.other_cloud_project(self.file) if self.kind.is_dbt_cloud else ""
        if other:
            raise BadData.of_key(
                self.state.key,
                f"dbt Cloud sent the manifest of another project, {other}.",
                hint="Check project_id and environment_id of the component.",
            )

    def _refuse_few(self, least: int) -> None:
        key = self.state.key
        try:
            size = size_of(self.file, self.volatile)
        except TooLargeToCountError as error:
            raise BadData.of_key(
                key,
                "the state is too large to count its entries, which min-entries requires.",
                hint="Use `json-schema` or `validate` instead of `min-entries` for this key.",
            ) from error
        entries = len(self.state.files) if size is None else size.entries
        if entries < least:
            raise BadData.of_key(
                key,
                f"the state has {counted(entries, 'entry', 'entries')}, "
                f"fewer than min-entries = {least}.",
                hint="Check what the API returns.",
            )

    def _refuse_shrunk(self, baseline: Baseline) -> list[str]:
        key = self.state.key
        share = DEFAULT_SHRINK if self.options.shrink is None else self.options.shrink
        documents = self._both_resources(baseline)
        if documents is not None:
            counts = [_resource_counts(*documents)]
        else:
            documents = self._documents(baseline)
            counts = self._counts(documents, baseline)
        if lost := _first_loss(documents, counts, share):
            option = f"--allow-shrink {shlex.quote(key)}"
            hint = f"Check what the API returns. If this is expected: {option}."
            raise _ShrunkError.of_key(key, f"{lost}.", hint=hint)
        if share and (less := _first_loss(documents, counts, _SHARE_WITHOUT_A_WORD)):
            return [f"{key}: {less}. To change the limits, set `shrink` or `min-entries`."]
        return []

    def _resources(self, directory: Path, state: State) -> dict[str, list[str]] | None:
        """Of a dbt project: its main file is empty, or from dbt Cloud. None for any other
        state."""
        if self.kind.is_dbt_cloud:
            return dbt_projects.cloud_resources(directory / _STATE)
        return dbt_projects.resources(directory, state.files) if self.kind.runs_dbt else None

    def _both_resources(self, baseline: Baseline) -> tuple[Any, Any] | None:
        before = self._resources(baseline.directory, baseline.state)
        now = self._resources(self.directory, self.state)
        if before is None or now is None:
            return None
        return before, {**{kind: [] for kind in before}, **now}

    def _documents(self, baseline: Baseline) -> tuple[Any, Any] | None:
        paths = (baseline.directory / _STATE, self.file)
        one, other = (read_document(path, to_count=True) for path in paths)
        if one is None or other is None:
            return None
        for document in (one[0], other[0]):
            self.volatile.drop(document)
        return one[0], other[0]

    def _counts(
        self, documents: tuple[Any, Any] | None, baseline: Baseline
    ) -> list[tuple[str, int, int]]:
        """What is compared of the two states: a unit, and how many each has."""
        sizes = (baseline.state.size, self.state.size)
        try:
            one = size_of(baseline.directory / _STATE, self.volatile)
            other = size_of(self.file, self.volatile)
        except TooLargeToCountError:
            return [("bytes (one is too large to count its entries)", *sizes)]
        if one is not None and other is None and self.file.is_file():
            return [("entries (it is not JSON any more)", one.entries or 1, 0)]
        if one is None or other is None:
            return [("bytes", *sizes)]
        entries = ("entries", one.entries, other.entries)
        if documents is not None:
            return [entries, ("values", count_values(documents[0]), count_values(documents[1]))]
        return [entries, ("bytes without white space", one.length, other.length)]


def _resource_counts(
    before: dict[str, list[str]], now: dict[str, list[str]]
) -> tuple[str, int, int]:
    one, other = (
        sum(len(names) for kind, names in resources.items() if kind != dbt_projects.JOBS)
        for resources in (before, now)
    )
    return "models, seeds, tests and sources", one, other


def _first_loss(
    documents: tuple[Any, Any] | None, counts: list[tuple[str, int, int]], share: float
) -> str:
    """What has shrunk below that share: the state, or a collection in it; empty if nothing."""
    for unit, held, holds in counts:
        if holds < held * share:
            return f"the state has shrunk from {held} to {holds} {unit}"
    for loss in losses(*documents, share) if documents else ():
        return f"`{loss.name}` in the state has shrunk from {loss.before} to {loss.now} entries"
    return ""


# --- the semantic digest ----------------------------------------------------------------------


def semantic_digest(
    directory: Path, tree: StateTree, kind: Kind, options: KeyOptions
) -> str | None:
    """A ``dirHash`` of the meaningful parts; None if every byte is meaningful."""
    volatile = _volatile(kind, options)
    if volatile == NOTHING_VOLATILE:
        return None
    entries = [
        File(file.path, meaning(directory / file.path, file.sha256, volatile), 0)
        for file in tree.files
        if not any_match(file.path, kind.ignored)
    ]
    return dir_hash(entries)


def _volatile(kind: Kind, options: KeyOptions) -> Volatile:
    return Volatile(frozenset(kind.volatile), frozenset(options.volatile))
