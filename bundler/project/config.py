"""``[tool.state-bundler]`` of a project's pyproject.toml, as values.

Names are written with hyphens; underscores are accepted. Durations are a number and a unit:
``30s``, ``5m``, ``24h``, ``7d``. An unknown name is an error that suggests the nearest known one.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bundler.errors import ConfigurationError, io_failure
from bundler.project import environment_settings
from bundler.project.options import KeyOptions, RefreshMode, RefreshOptions, SourceOptions
from bundler.project.settings_docs import ROOT, SOURCE, described
from bundler.state.definitions import KINDS
from bundler.state.source_path import ADVICE, nested, path_problem
from bundler.system import toml
from bundler.system.git_directory import read_regular
from bundler.system.wording import nearest

TABLE = "tool.state-bundler"
STORE_VARIABLE = "STATE_BUNDLER_STORE"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"^[0-9]+(\.[0-9]+)?[smhd]$"

Duration = Annotated[str, msgspec.Meta(pattern=_DURATION, examples=["30s", "5m", "24h", "7d"])]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
# Without a pattern: msgspec 0.22 frees it too early in a union with a table.
Limit = int | str
_LIMIT = r"[0-9]+|[0-9]+(\.[0-9]+)?%"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A TOML table."""


class _KeyTable(_Table, frozen=True):
    """The settings of one key, or of all keys."""

    refresh: RefreshMode | None = None
    timeout: Duration | None = None
    attempts: Count | None = None
    allow_empty: bool | None = None
    shrink: Share | None = None
    min_entries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_removed: Limit | dict[str, Limit] | None = None
    allow_http: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    allow_key_material: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    json_schema: str | None = None
    validate: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()


class _GuardTable(_Table, frozen=True):
    """allow: patterns of paths that are committed on purpose."""

    allow: tuple[str, ...] = ()


class _SourceTable(_Table, frozen=True):
    path: str
    key: str | None = None
    command: tuple[str, ...] = ()
    component: str | None = None
    place: str | None = None


class _Root(_KeyTable, frozen=True):
    """``[tool.state-bundler]``; settings of keys apply to all keys here."""

    total_timeout: Duration | None = None
    jobs: Count | None = None
    kind_jobs: dict[str, Count] = {}
    baseline: str | None = None
    allow_stale: Duration | None = None
    secrets: tuple[str, ...] = ()
    not_secrets: tuple[str, ...] = ()
    allow_credential_files: tuple[str, ...] = ()
    image_path: str | None = None
    environment: str | None = None
    store: str | None = None
    guard: _GuardTable = _GuardTable()
    keys: dict[str, _KeyTable] = {}
    source: tuple[_SourceTable, ...] = ()


class Config(msgspec.Struct, frozen=True):
    """The settings in a project's pyproject.toml.

    file: where they were read. guard_allow: patterns of paths that are committed on purpose.
    credential_files: patterns of files with credentials that may be in a PEX or a wheel.
    image_path: the state directory in an image. environment: a name for the run record. store: the
    URL of the versioned state storage. given: the names that the file sets, for the summary of what
    differs from the default.
    """

    file: Path
    refresh: RefreshOptions = msgspec.field(default_factory=RefreshOptions)
    sources: tuple[SourceOptions, ...] = ()
    guard_allow: tuple[str, ...] = ()
    credential_files: tuple[str, ...] = ()
    image_path: str | None = None
    environment: str | None = None
    store: str | None = None
    given: tuple[str, ...] = ()

    @property
    def allowed_paths(self) -> tuple[str, ...]:
        """Patterns of whole paths that are committed on purpose."""
        root = glob.escape(str(self.file.parent))
        return tuple(f"{root}/{pattern}" for pattern in self.guard_allow)


# The settings that the environment replaces as a whole.
_PLAIN = ("sources", "guard_allow", "credential_files", "image_path", "environment", "store")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; empty if it does not exist. Raises `ConfigurationError`."""
    try:
        return toml.loads(read_regular(os.fsencode(path)).decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise io_failure(error, path) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error


def table(tables: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The table below these names; empty if there is none."""
    found: Any = tables
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def pyproject_of(root: Path) -> Path:
    """The project's own file, which may have our table."""
    return root / "pyproject.toml"


def load(root: Path) -> Config:
    """Reads the configuration of the project in `root`; defaults if there is none.

    Raises `ConfigurationError` naming file, table and key.
    """
    file = pyproject_of(root)
    return of_pyproject(read_toml(file), file)


def of_pyproject(
    tables: Mapping[str, Any], file: Path, environ: Mapping[str, str] = os.environ
) -> Config:
    """The settings in a parsed pyproject.toml and in the environment, which overrides it.

    Raises `ConfigurationError`.
    """
    ours = table(tables, "tool").get("state-bundler", {})
    return _with_environment(parse(ours, file), environ)


def _with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    if not any(name.startswith(environment_settings.PREFIX) for name in environ):
        return config
    given = environment_settings.given(environ, _Root)
    root = msgspec.convert(given, _Root, strict=False)
    over = _config(root, config.file, [f"{name} (from the environment)" for name in given])
    # The environment overrides a key's own table, as the command line does.
    options = msgspec.structs.replace(
        over.refresh, mode=root.refresh, defaults=KeyOptions(), over_all=over.refresh.defaults
    )
    merged = {name: getattr(over, name) or getattr(config, name) for name in _PLAIN}
    return msgspec.structs.replace(
        config,
        refresh=options.over(config.refresh),
        given=(*config.given, *over.given),
        **merged,
    )


def parse(table: Mapping[str, Any], file: Path) -> Config:
    """Validates the table and converts it. Raises `ConfigurationError`."""
    normal = _checked(table, _Root, TABLE, file)
    try:
        root = msgspec.convert(normal, _Root)
    except msgspec.ValidationError as error:
        raise _bad(file, str(error)) from error
    return _config(root, file, normal)


def _config(root: _Root, file: Path, given: Iterable[str]) -> Config:
    return Config(
        file=file,
        refresh=_refresh_options(root, file.parent),
        sources=_sources(root.source, file),
        guard_allow=root.guard.allow,
        credential_files=root.allow_credential_files,
        image_path=root.image_path,
        environment=root.environment,
        store=root.store,
        given=tuple(sorted(given)),
    )


def seconds(duration: str) -> float:
    """A duration such as ``24h`` in seconds. Raises `ConfigurationError`."""
    if not re.match(_DURATION, duration):
        raise ConfigurationError(
            f"{duration!r} is not a duration.", hint="Write a number and a unit: 30s, 5m, 24h, 7d."
        )
    return float(duration[:-1]) * _SECONDS[duration[-1]]


def json_schema() -> dict[str, Any]:
    return described(msgspec.json.schema(_Root))


def _checked(table: Any, model: type[msgspec.Struct], name: str, file: Path) -> dict[str, Any]:
    """The table with hyphens in its names. Raises for an unknown name."""
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{file}: [{name}] is not a table.")
    known = {field.encode_name for field in msgspec.structs.fields(model)}
    normal: dict[str, Any] = {}
    for key, value in table.items():
        normal_key = key.replace("_", "-")
        if normal_key not in known:
            near = nearest(normal_key, known)
            raise ConfigurationError(
                f"{file}: [{name}] has no {key!r}.",
                hint=f"Did you mean {near!r}?" if near else f"Known: {', '.join(sorted(known))}.",
            )
        normal[normal_key] = _checked_below(normal_key, value, name, file)
    return normal


def _checked_below(key: str, value: Any, name: str, file: Path) -> Any:
    below = f"{name}.{key}"
    if key == "guard":
        return _checked(value, _GuardTable, below, file)
    if key == "keys" and isinstance(value, Mapping):
        return {
            item: _checked(table, _KeyTable, f'{below}."{item}"', file)
            for item, table in value.items()
        }
    if key == "source" and isinstance(value, list):
        return [_checked(table, _SourceTable, below, file) for table in value]
    return value


def _bad(file: Path, reason: str) -> ConfigurationError:
    """For msgspec's message: the location in TOML's notation, and the meaning of the setting."""
    _, _, path = reason.partition(" - at `$")
    place = path.strip("`.").replace("[...]", "")
    settings = SOURCE if place.startswith("source[") else ROOT
    name = place.rpartition(".")[2].partition("[")[0]
    return ConfigurationError(
        f"{file}: [{TABLE}]: {place or 'the table'}: {environment_settings.readable(reason)}.",
        hint=f"Correct it. {settings.get(name, '')}".rstrip(),
    )


def _key_options(table: _KeyTable, root: Path) -> KeyOptions:
    values = {name: getattr(table, name) for name in KeyOptions.__struct_fields__}
    values["timeout"] = _maybe_seconds(table.timeout)
    values["max_removed"] = _max_removed(table.max_removed, root)
    values["json_schema"] = root / table.json_schema if table.json_schema else None
    return KeyOptions(**values)


def _max_removed(
    limit: int | str | Mapping[str, int | str] | None, root: Path
) -> Mapping[str, str] | None:
    """The limits by kind; a limit without a kind applies to assets."""
    if limit is None:
        return None
    by_kind = limit if isinstance(limit, Mapping) else {"assets": limit}
    known = {kind.replace(" ", "-"): kind for kind in KINDS}
    file = pyproject_of(root)
    for kind, value in by_kind.items():
        if kind not in known:
            raise ConfigurationError(
                f"{file}: max-removed has no {kind!r}.", hint=f"Known: {', '.join(known)}."
            )
        if not re.fullmatch(_LIMIT, str(value)):
            raise ConfigurationError(
                f"{file}: max-removed: {value!r} is neither a count nor a share.",
                hint='Write a number such as 5, or a share such as "20%".',
            )
    return {known[kind]: str(value) for kind, value in by_kind.items()}


def _maybe_seconds(duration: str | None) -> float | None:
    return None if duration is None else seconds(duration)


def _refresh_options(table: _Root, root: Path) -> RefreshOptions:
    return RefreshOptions(
        total_timeout=_maybe_seconds(table.total_timeout),
        jobs=table.jobs,
        kind_jobs=table.kind_jobs,
        defaults=_key_options(table, root),
        per_key={key: _key_options(item, root) for key, item in table.keys.items()},
        baseline=_baseline(table.baseline, root),
        allow_stale=_maybe_seconds(table.allow_stale),
        secrets=table.secrets,
        not_secrets=table.not_secrets,
    )


def _baseline(name: str | None, root: Path) -> str | None:
    """A path is relative to the project; anything else is an artifact's name."""
    return str(root / name) if name and (root / name).exists() else name


def _sources(tables: Sequence[_SourceTable], file: Path) -> tuple[SourceOptions, ...]:
    sources = tuple(_source_options(table, file) for table in tables)
    if pair := nested(source.path.as_posix() for source in sources):
        raise ConfigurationError(
            f"{file}: [[{TABLE}.source]]: one of the state directories {' and '.join(pair)} is "
            "inside the other.",
            hint="Give both the same path, or separate ones.",
        )
    return sources


def _source_options(table: _SourceTable, file: Path) -> SourceOptions:
    where = f"{file}: [[{TABLE}.source]]"
    if bool(table.command) == bool(table.component):
        raise ConfigurationError(f"{where} requires either `command` or `component`.")
    if table.command and not table.key:
        raise ConfigurationError(f"{where} with a command requires a `key`.")
    if problem := path_problem(table.path):
        raise ConfigurationError(f"{where}: path {table.path!r} {problem}.", hint=ADVICE)
    return SourceOptions(**{**msgspec.structs.asdict(table), "path": Path(table.path)})
