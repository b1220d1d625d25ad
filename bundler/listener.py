"""How the core tells what it is doing. It never prints; a surface passes a listener that does."""

from __future__ import annotations

from typing import Literal

from bundler.system.fast_tuple import NamedTuple

Phase = Literal["waiting", "fetching", "retrying", "checking", "done", "failed", "kept"]


class KeyProgress(NamedTuple):
    """Where the refresh of one key is. Sizes in bytes, times in seconds."""

    key: str
    phase: Phase
    attempt: int = 0
    size: int = 0
    seconds: float = 0.0
    detail: str = ""


class Listener:
    """Receives the narrative. This one drops it; the command line's writes it to stderr.

    follows: whether it wants to be told twice a second how far a key is.
    """

    follows: bool = False

    def phase(self, text: str) -> None:
        """A new step of the run begins."""

    def note(self, text: str) -> None:
        """A fact worth a line."""

    def warning(self, text: str) -> None:
        """Something that the person should act on, though the run goes on."""

    def key(self, progress: KeyProgress) -> None:
        """A key's refresh moved on."""


SILENT = Listener()

# Of this process, for what is too deep inside to be passed one: waiting for git. The command line
# sets it.
of_process = SILENT
