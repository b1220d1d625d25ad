"""How the core reports progress. It never prints; the caller passes a listener that does."""

from __future__ import annotations

from typing import Literal

from bundler.system.fast_tuple import NamedTuple

Phase = Literal["waiting", "fetching", "retrying", "checking", "done", "failed", "kept"]


class KeyProgress(NamedTuple):
    """The progress of one key's refresh. Sizes in bytes, times in seconds.

    changed: whether its state differs from the one before.
    """

    key: str
    phase: Phase
    attempt: int = 0
    size: int = 0
    seconds: float = 0.0
    detail: str = ""
    changed: bool = True


class Listener:
    """Receives progress reports. This one ignores them; the command line's prints to stderr.

    follows: whether to report the progress of running keys twice a second.
    """

    follows: bool = False

    def phase(self, text: str) -> None:
        """A new step of the run begins."""

    def working(self, text: str) -> None:
        """Work begins that may take more than a second; empty when no work is under way."""

    def hands_over(self, *, silent: bool) -> None:
        """Another program uses the terminal until the next phase. silent: it prints nothing."""

    def output(self, line: str) -> None:
        """A line that another program printed."""

    def expect(self, keys: int) -> None:
        """The number of keys that will be refreshed."""

    def note(self, text: str) -> None:
        """An informational message."""

    def warning(self, text: str) -> None:
        """A problem that the user should fix, although the run continues."""

    def key(self, progress: KeyProgress) -> None:
        """A key's refresh made progress."""


SILENT = Listener()

# The listener of this process, for code that is too deep to be passed one, such as waiting for git.
# The command line sets it.
of_process = SILENT
