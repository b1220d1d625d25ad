"""Reports of a refresh: warnings, each failure, the conclusion. Prints nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from bundler.errors import BundlerError
from bundler.listener import KeyProgress, Listener
from bundler.refresh.attempts import Fetched, KeyFailedError, KeyJob
from bundler.refresh.declared import declared_at
from bundler.state.bundle import Bundle
from bundler.state.manifest import State
from bundler.system.wording import counted, nearest, size

_MOST_KNOWN = 10
_SHOWN_PATHS = 5
_MOST_SKEW_SECONDS = 300.0


def nearest_key(given: str, known: Collection[str]) -> str:
    """The key that the user may have meant, or the list of keys."""
    if near := nearest(given, known):
        return f"Did you mean {near!r}?"
    shown = ", ".join(sorted(known)[:_MOST_KNOWN])
    more = len(known) - _MOST_KNOWN
    return f"Known: {shown}{f' and {more} more' if more > 0 else ''}."


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
        listener.note(f"{key}: excluded {_shortened(checked.left_out, len(checked.left_out))}.")
    if checked.ignored:
        shown = _shortened(checked.ignored, checked.ignored_count)
        listener.note(f"{key}: excluded because git ignores them: {shown}.")
    done = KeyProgress(key, "done", fetched.attempts, state.size, fetched.seconds, detail, changed)
    listener.key(done)


def _shortened(paths: Sequence[str], count: int) -> str:
    more = count - _SHOWN_PATHS
    return ", ".join(paths[:_SHOWN_PATHS]) + (f" and {more} more" if more > 0 else "")


def declare(failures: Sequence[BundlerError], jobs: Sequence[KeyJob]) -> None:
    """Adds to each failure where its key is declared."""
    by_key = {job.component.key: job for job in jobs}
    for failure in failures:
        if (job := by_key.get(failure.key or "")) is not None:
            failure.where = declared_at(job.source.source, job.component)


class Failing:
    """Reports that a key has failed as soon as that is final; the caller reports why at the end.

    Running keys continue, so that one run names everything that has to be fixed.
    """

    def __init__(self, keys: int, listener: Listener) -> None:
        self.under_way = keys
        self.outputs: dict[str, Sequence[str]] = {}
        self._listener = listener
        self._told_what_follows = False

    def tell(self, key: str, failed: KeyFailedError) -> None:
        others = self.under_way - 1
        self.outputs[key] = failed.output
        title = f"{failed.error.title} ({failed.error.exit_code})"
        self._listener.key(KeyProgress(key, "failed", failed.attempts, detail=title))
        for line in failed.log:
            self._listener.note(f"{key} | {line}")
        if others and not self._told_what_follows:
            self._told_what_follows = True
            keys = "other key continues" if others == 1 else f"{others} other keys continue"
            self._listener.note(f"Nothing will be published. The {keys}, to find every failure.")


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
