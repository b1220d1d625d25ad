"""Options shared by several commands. A command receives each group of them as one value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from bundler import listener
from bundler.cli import completion
from bundler.cli.console import Console
from bundler.cli.progress import ConsoleListener

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.project.options import Inside, RefreshMode, RefreshOptions
    from bundler.project.projects import Project
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
DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
PATH = click.Path(path_type=Path)


class _Option(NamedTuple):
    names: tuple[str, ...]
    settings: Mapping[str, Any]


class _Nested(NamedTuple):
    group: type[Options]


class Options:
    """The values of a command's options: attributes that `option`, `flag` or `nested` declares.

    A dataclass would take longer to import.
    """

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def option(*names: str, **settings: Any) -> Any:
    """`click.option` with these names and settings."""
    return _Option(names, settings)


def flag(*names: str, **settings: Any) -> Any:
    return option(*names, is_flag=True, **settings)


def nested(group: type[Options]) -> Any:
    return _Nested(group)


def takes(parameter: str, group: type[Options]) -> Callable[[_Command], _Command]:
    """Adds the options of a group to a command, which receives them as one value."""
    known = dict(_options(group))

    def decorate(command: Any) -> Any:
        @wraps(command)
        def call(*args: Any, **given: Any) -> Any:
            others = {name: value for name, value in given.items() if name not in known}
            return command(*args, **others, **{parameter: _taken(group, given)})

        for name, (names, settings) in reversed(known.items()):
            call = click.option(*names, name, **settings)(call)
        return call

    return decorate


def _declared(group: type[Options]) -> Mapping[str, _Option | _Nested]:
    """In the order of --help: those of the base class first."""
    every = {name: value for each in reversed(group.__mro__) for name, value in vars(each).items()}
    return {name: it for name, it in every.items() if isinstance(it, (_Option, _Nested))}


def _options(group: type[Options]) -> Iterator[tuple[str, _Option]]:
    for name, declared in _declared(group).items():
        if isinstance(declared, _Nested):
            yield from _options(declared.group)
        else:
            yield name, declared


def _taken(group: type[Options], given: Mapping[str, Any]) -> Options:
    """The value of a group, from those of its options."""
    return group(
        **{
            name: _taken(it.group, given) if isinstance(it, _Nested) else given[name]
            for name, it in _declared(group).items()
        }
    )


def formats(*names: str) -> Any:
    """``--format``: text by default, or one of these."""
    choice = click.Choice(["text", *names])
    return option("--format", type=choice, default="text", show_default=True)


def every_byte() -> Any:
    return flag(
        "--every-byte",
        help="Read back every byte of the state instead of comparing its layer's digest.",
    )


def image_path() -> Any:
    return option("--image-path", help="Path of the state directory in the image.")


def no_cache() -> Any:
    return flag(
        "--no-cache",
        envvar="STATE_BUNDLER_NO_CACHE",
        help="Load the project's components even if nothing has changed since the last time.",
    )


format_option = click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)


class ProjectArguments(Options):
    """The selected projects and their interpreter. everything: None if there is no ``--all``."""

    directories: tuple[Path, ...] = option(
        "--project",
        type=DIRECTORY,
        multiple=True,
        help="A project's directory (repeatable). Default: the current directory.",
    )
    everything: bool | None = flag("--all", help="All projects of the workspace.")
    python: Path | None = option(
        "--python",
        type=PATH,
        envvar="STATE_BUNDLER_PYTHON",
        help="The project's interpreter. Default: the one dg and uv would use.",
    )

    def find(self, listener: Listener, start: Path | None = None) -> tuple[Project, ...]:
        """Finds the projects and reports the interpreter of each."""
        from bundler.project.projects import find

        projects = find(
            self.directories, start=start, everything=self.everything, python=self.python
        )
        if self.everything and len(projects) > 1:
            projects = _with_state(projects, listener)
        for project in projects:
            interpreter = project.interpreter
            listener.note(f"{project.name}: {interpreter.path} (by {interpreter.found_by})")
            if project.config.given:
                listener.note(f"{project.name}: settings: {', '.join(project.config.given)}")
        return projects


def _with_state(projects: tuple[Project, ...], listener: Listener) -> tuple[Project, ...]:
    """Without the projects that have none: they need no environment here."""
    from bundler.project.stateful import with_state

    found = with_state(projects)
    others = [project.name for project in projects if project not in found]
    if others:
        listener.note(f"no state-backed components: {', '.join(others)}")
    return found


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A number and a unit, as in the configuration: ``30s``, ``5m``, ``24h``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from bundler.errors import ConfigurationError
        from bundler.project.config import seconds

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ConfigurationError as error:
            self.fail(f"{error.what} {error.hint}", param, ctx)


class RefreshArguments(Options):
    """Refresh options; None and empty values defer to the configuration."""

    mode: RefreshMode | None = option("--refresh", type=click.Choice(REFRESH_MODES), help=_WHEN)
    keys: tuple[str, ...] = option(
        "--key", multiple=True, shell_complete=completion.keys, help="Only this key (repeatable)."
    )
    management_types: tuple[ManagementType, ...] = option(
        "--management-type",
        multiple=True,
        type=click.Choice(MANAGEMENT_TYPES),
        help="Only keys of this type (repeatable).",
    )
    timeout: float | None = option(
        "--timeout", type=Duration(), help="Timeout per key, including retries.  [5m]"
    )
    total_timeout: float | None = option(
        "--total-timeout", type=Duration(), help="Timeout for the whole refresh.  [30m]"
    )
    attempts: int | None = option(
        "--attempts", type=click.IntRange(1), help="Maximum attempts per key.  [3]"
    )
    jobs: int | None = option(
        "--jobs",
        type=click.IntRange(1),
        help="Maximum number of keys refreshed concurrently.  [32]",
    )
    allow_empty: tuple[str, ...] = option(
        "--allow-empty", multiple=True, metavar="KEY", help="Accept an empty state for KEY."
    )
    allow_shrink: tuple[str, ...] = option(
        "--allow-shrink", multiple=True, metavar="KEY", help="Accept a much smaller state for KEY."
    )
    allow_removed: tuple[str, ...] = option(
        "--allow-removed",
        multiple=True,
        metavar="KEY",
        help="Allow KEY to exceed max-removed. Or pass the name of each removed definition.",
    )
    baseline: str | None = option(
        "--baseline",
        shell_complete=completion.artifacts,
        metavar="ARTIFACT",
        help="Compare with (and fall back to) its states. Default: the published states.",
    )
    allow_stale: float | None = option(
        "--allow-stale",
        type=Duration(),
        help="If a system is unavailable, use the last good state up to this age.",
    )
    allow_http: tuple[str, ...] = option(
        "--allow-http",
        multiple=True,
        metavar="'METHOD PATH STATUS'",
        help="A failed request to accept; * is a wildcard.",
    )
    image: str | None = option(
        "--in",
        metavar="IMAGE",
        help="Run the components in this image, which has the project installed.",
    )
    in_network: str | None = option(
        "--in-network", metavar="NETWORK", help="Network for --in, such as host."
    )
    in_python: str | None = option(
        "--in-python", metavar="PATH", help="Interpreter in the --in image.  [python]"
    )

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

    mode: RefreshMode | None = option("--when", type=click.Choice(REFRESH_MODES), help=_WHEN)


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
