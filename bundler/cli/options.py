"""Options shared by several commands. A command receives each group of them as one value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import click

from bundler import listener
from bundler.cli import completion
from bundler.cli.console import Console
from bundler.cli.progress import ConsoleListener
from bundler.errors import ConfigurationError

if TYPE_CHECKING:
    from bundler.project.options import Inside, RefreshMode, RefreshOptions
    from bundler.project.selection import Selection
    from bundler.state.manifest import ManagementType

# The values of `RefreshMode` and `ManagementType`, copied to keep their import out of --help.
REFRESH_MODES = ("always", "missing", "never")
MANAGEMENT_TYPES = (
    "LOCAL_FILESYSTEM",
    "VERSIONED_STATE_STORAGE",
    "LEGACY_CODE_SERVER_SNAPSHOTS",
)

QUIET = "Print only warnings, errors and the result."
_WHEN = "When to fetch: always, only for keys without valid state, or never."

_Command = TypeVar("_Command", bound=Callable[..., Any])
# What an option's annotation says of a path: a directory that exists, a file, any directory.
Directory: TypeAlias = Path
File: TypeAlias = Path
NewDirectory: TypeAlias = Path


class _Option(NamedTuple):
    spec: str
    settings: Mapping[str, Any]


class Options:
    """The values of a command's options: attributes that `option` or `flag` declares, and other
    groups, by their annotation.

    A dataclass would take longer to import.
    """

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def option(spec: str, says: str | None = None, **settings: Any) -> Any:
    """An option as its help shows it: ``-t, --tag NAME``.

    The attribute's annotation says what it takes: a tuple makes it repeatable. settings: others of
    `click.option`.
    """
    return _Option(spec, {"help": says, **settings})


def flag(spec: str, says: str, **settings: Any) -> Any:
    return option(spec, says, is_flag=True, **settings)


def takes(parameter: str, group: type[Options]) -> Callable[[_Command], _Command]:
    """Adds the options of a group to a command, which receives them as one value."""
    known = dict(_options(group))

    def decorate(command: Any) -> Any:
        @wraps(command)
        def call(*args: Any, **given: Any) -> Any:
            others = {name: value for name, value in given.items() if name not in known}
            return command(*args, **others, **{parameter: _taken(group, given)})

        for add in reversed(known.values()):
            call = add(call)
        return call

    return decorate


def _declared(group: type[Options]) -> Mapping[str, tuple[_Option | type[Options], str]]:
    """With its annotation, in the order of --help: those of the base class first."""
    found: dict[str, tuple[_Option | type[Options], str]] = {}
    for each in reversed(group.__mro__[:-1]):
        known = vars(sys.modules[each.__module__])
        for name, annotation in each.__annotations__.items():
            it = vars(each).get(name, known.get(annotation))
            if isinstance(it, _Option) or (isinstance(it, type) and issubclass(it, Options)):
                found[name] = (it, annotation)
    return found


def _options(group: type[Options]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    for name, (declared, annotation) in _declared(group).items():
        if isinstance(declared, _Option):
            yield name, _decorator(name, declared, annotation)
        else:
            yield from _options(declared)


def _decorator(name: str, declared: _Option, annotation: str) -> Callable[[Any], Any]:
    *others, last = declared.spec.split(", ")
    long, _, metavar = last.partition(" ")
    is_many = annotation.startswith("tuple[")
    taken = annotation.removeprefix("tuple[").split(",")[0].removesuffix(" | None")
    if taken not in {*_TYPES, "str", "bool"} and "type" not in declared.settings:
        raise TypeError(f"{name}: no option takes {annotation}")
    settings = {"multiple": is_many, "metavar": metavar or None, "type": _TYPES.get(taken)}
    return click.option(*others, long, name, **{**settings, **declared.settings})


def _taken(group: type[Options], given: Mapping[str, Any]) -> Options:
    """The value of a group, from those of its options."""
    return group(
        **{
            name: given[name] if isinstance(it, _Option) else _taken(it, given)
            for name, (it, _) in _declared(group).items()
        }
    )


def formats(*names: str) -> Any:
    """``--format``: text by default, or one of these."""
    choice = click.Choice(["text", *names])
    return option("--format", type=choice, default="text", show_default=True)


EVERY_BYTE = flag(
    "--every-byte", "Read back every byte of the state instead of comparing its layer's digest."
)
IMAGE_PATH = option("--image-path", "Path of the state directory in the image.")
SIGNATURE_FILE = option(
    "--signature", "Path of the signature file.  [ARTIFACT.sig; for an image: its registry]"
)
NO_CACHE = flag(
    "--no-cache",
    "Load the project's components even if nothing has changed since the last time.",
    envvar="STATE_BUNDLER_NO_CACHE",
)
ARTIFACT = click.argument("artifact", shell_complete=completion.artifacts)
ARTIFACTS = click.argument(
    "artifacts", shell_complete=completion.artifacts, nargs=-1, required=True, metavar="ARTIFACT..."
)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A number and a unit, as in the configuration: ``30s``, ``5m``, ``24h``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from bundler.project.config import seconds

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ConfigurationError as error:
            self.fail(f"{error.what} {error.hint}", param, ctx)


# By the annotation of an option.
_TYPES: Mapping[str, Any] = {
    "Directory": click.Path(path_type=Path, exists=True, file_okay=False),
    "File": click.Path(path_type=Path, dir_okay=False),
    "NewDirectory": click.Path(path_type=Path, file_okay=False),
    "Path": click.Path(path_type=Path),
    "float": Duration(),
    "int": click.IntRange(1),
}


class ProjectArguments(Options):
    """The selected projects and their interpreter. everything: None if there is no ``--all``."""

    directories: tuple[Directory, ...] = option(
        "--project", "A project's directory (repeatable). Default: the current directory."
    )
    everything: bool | None = flag("--all", "All projects of the workspace.")
    python: Path | None = option(
        "--python",
        "The project's interpreter. Default: the one dg and uv would use.",
        envvar="STATE_BUNDLER_PYTHON",
    )

    def selection(self) -> Selection:
        from bundler.project.selection import Selection

        return Selection(self.directories, self.everything, self.python)


class RefreshArguments(Options):
    """Refresh options; None and empty values defer to the configuration."""

    mode: RefreshMode | None = option("--refresh", _WHEN, type=click.Choice(REFRESH_MODES))
    keys: tuple[str, ...] = option(
        "--key", "Only this key (repeatable).", shell_complete=completion.keys
    )
    management_types: tuple[ManagementType, ...] = option(
        "--management-type",
        "Only keys of this type (repeatable).",
        type=click.Choice(MANAGEMENT_TYPES),
    )
    timeout: float | None = option("--timeout", "Timeout per key, including retries.  [5m]")
    total_timeout: float | None = option("--total-timeout", "Timeout for the whole refresh.  [30m]")
    attempts: int | None = option("--attempts", "Maximum attempts per key.  [3]")
    jobs: int | None = option("--jobs", "Maximum number of keys refreshed concurrently.  [32]")
    allow_empty: tuple[str, ...] = option("--allow-empty KEY", "Accept an empty state for KEY.")
    allow_shrink: tuple[str, ...] = option(
        "--allow-shrink KEY", "Accept a much smaller state for KEY."
    )
    allow_removed: tuple[str, ...] = option(
        "--allow-removed KEY",
        "Allow KEY to exceed max-removed. Or pass the name of each removed definition.",
    )
    baseline: str | None = option(
        "--baseline ARTIFACT",
        "Compare with (and fall back to) its states. Default: the published states.",
        shell_complete=completion.artifacts,
    )
    allow_stale: float | None = option(
        "--allow-stale", "If a system is unavailable, use the last good state up to this age."
    )
    allow_http: tuple[str, ...] = option(
        "--allow-http 'METHOD PATH STATUS'", "A failed request to accept; * is a wildcard."
    )
    image: str | None = option(
        "--in IMAGE", "Run the components in this image, which has the project installed."
    )
    in_network: str | None = option("--in-network NETWORK", "Network for --in, such as host.")
    in_python: str | None = option("--in-python PATH", "Interpreter in the --in image.  [python]")

    def options(self) -> RefreshOptions:
        from bundler.project.options import KeyOptions, RefreshOptions

        return RefreshOptions(
            mode=self.mode,
            keys=self.keys,
            management_types=self.management_types,
            total_timeout=self.total_timeout,
            jobs=self.jobs,
            allow_empty=self.allow_empty,
            allow_shrink=self.allow_shrink,
            allow_removed=self.allow_removed,
            baseline=self.baseline,
            allow_stale=self.allow_stale,
            inside=self._inside(),
            is_one_of_all=bool(os.environ.get("STATE_BUNDLER_ONE_OF_ALL")),
            over_all=KeyOptions(
                timeout=self.timeout, attempts=self.attempts, allow_http=self.allow_http
            ),
        )

    def _inside(self) -> Inside | None:
        from bundler.project.options import Inside

        if self.image is None and (self.in_network or self.in_python):
            raise click.UsageError("--in-network and --in-python require --in.")
        return Inside(self.image, self.in_network, self.in_python) if self.image else None


class RefreshCommandArguments(RefreshArguments):
    """`refresh --refresh` would read badly."""

    mode: RefreshMode | None = option("--when", _WHEN, type=click.Choice(REFRESH_MODES))


def narrator(*, quiet: bool = False, verbose: bool = False) -> ConsoleListener:
    """The listener that reports progress on stderr, from now on also this process's."""
    told = _narrator(quiet=quiet, verbose=verbose)
    context = click.get_current_context(silent=True)
    if context is not None:  # also after an error or a signal
        context.call_on_close(told.close)
    listener.of_process = told
    return told


def _narrator(*, quiet: bool, verbose: bool) -> ConsoleListener:
    console = Console(sys.stderr)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        from bundler.cli.live import LiveListener

        return LiveListener(console, quiet=quiet, verbose=verbose)
    from bundler.cli.ci import CiListener, system

    where = system()
    if where is None:
        return ConsoleListener(console, quiet=quiet, verbose=verbose)
    return CiListener(console, where, quiet=quiet, verbose=verbose)
