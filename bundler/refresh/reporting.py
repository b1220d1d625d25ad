"""Reports of a refresh: warnings, where keys are declared, the conclusion. Prints nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bundler.listener import KeyProgress, Listener
from bundler.refresh.attempts import Fetched
from bundler.refresh.model import Component, Source
from bundler.state.bundle import Bundle
from bundler.state.manifest import State
from bundler.system import home
from bundler.system.atomic import save
from bundler.system.reading import scanned
from bundler.system.wording import counted, listed, size

_SHOWN_PATHS = 5
_MOST_SKEW_SECONDS = 300.0
_DECLARATION = re.compile(r"""\s*(?:key|component)\s*=\s*["'](.*)["']\s*(?:#.*)?$""")
_ONLY_OWNER = 0o600


def tell_fetched(
    key: str,
    fetched: Fetched,
    state: State,
    listener: Listener,
    *,
    detail: str = "",
    changed: bool = True,
) -> None:
    """Reports that a key was fetched, and what the user should know about its state."""
    for warning in fetched.checked.warnings:
        listener.warning(warning)
    if abs(fetched.skew) > _MOST_SKEW_SECONDS:
        listener.warning(
            f"{key}: the clocks of the server and this machine differ by {abs(fetched.skew):.0f} "
            "s: signatures and tokens may be rejected."
        )
    for note in fetched.notes:
        listener.note(f"{key}: {note}.")
    checked = fetched.checked
    if checked.left_out:
        listener.note(f"{key}: excluded {listed(checked.left_out, _SHOWN_PATHS)}.")
    if checked.ignored:
        shown = listed(checked.ignored, _SHOWN_PATHS, checked.ignored_count)
        listener.note(f"{key}: excluded because git ignores them: {shown}.")
    done = KeyProgress(key, "done", fetched.attempts, state.size, fetched.seconds, detail, changed)
    listener.key(done)


def conclude(
    bundles: Sequence[Bundle], changed: Sequence[str], seconds: float, listener: Listener
) -> None:
    """A line that says what was published, and where."""
    keys = sum(len(bundle.manifest.states) for bundle in bundles)
    if not keys:
        return
    total = size(sum(bundle.manifest.size for bundle in bundles))
    places = ", ".join(_from_here(bundle.root) for bundle in bundles)
    how_many = f"{len(changed) or 'none'} changed"
    listener.note(
        f"Published {counted(keys, 'key')} in {places}: {how_many}, {total}, {seconds:.1f} s."
    )


def _from_here(path: Path) -> str:
    shown = os.path.relpath(path)
    return str(path) if shown.startswith(os.pardir) else shown


def declared_at(source: Source, component: Component) -> str:
    """``file:line``, relative to the current directory if it is below; empty if unknown."""
    if source.kind == "dagster":
        file, line = source.project.root / component.location, component.line
        if not component.location:
            return ""
    else:
        file = source.project.config.file
        line = _line_of(file, {component.key, component.location})
    return f"{_from_here(file)}:{line}" if line else _from_here(file)


def _line_of(file: Path, names: set[str]) -> int:
    """The line of a configuration file that names a source's key or class; 0 if none does."""
    for number, text in enumerate(scanned(file).splitlines(), 1):
        if (found := _DECLARATION.match(text)) and found[1] in names:
            return number
    return 0


def write_failure_log(project: str, outputs: Mapping[str, Sequence[str]]) -> str:
    """Writes the log and returns its path; empty if there is no output, or it cannot be written.

    The project's next failure replaces it. outputs: lines without secrets, by key.
    """
    parts = ["".join(f"{it}\n" for it in (f"== {key}", *lines)) for key, lines in outputs.items()]
    folder = home.logs() if any(outputs.values()) else None
    if folder is not None:
        path = folder / f"refresh-{re.sub(r'[^A-Za-z0-9._-]', '_', project)}.log"
        with suppress(OSError):
            save(path, "\n".join(parts).encode(), _ONLY_OWNER)
            return str(path)
    return ""
