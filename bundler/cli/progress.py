"""A run's progress as plain lines, for logs and for the user."""

from __future__ import annotations

import threading
import time

from bundler.cli.console import Console, safe, size
from bundler.cli.help import message_as_typed
from bundler.listener import KeyProgress, Listener
from bundler.system.wording import counted

# The indentation of a note's continuation lines.
_FOLLOWING = "    "
_FINAL = ("done", "failed", "kept")
_BEAT_SECONDS = 1.0
_FIRST_REPORT_SECONDS = 5.0


class ConsoleListener(Listener):
    """Prints what begins, what changed and what failed; every key with `verbose`.

    What takes longer than a second is announced, unless it is a phase; after 5 seconds it says how
    long it has taken, then after twice as long each time.
    finished: how each key's refresh ended.
    """

    def __init__(self, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._verbose = verbose
        self._activity = ""
        self._is_announced = False
        self._began = 0.0
        self._next_report = 0.0
        self._expected = 0
        self._beats: threading.Thread | None = None
        self._ended = threading.Event()
        self.finished: dict[str, KeyProgress] = {}

    def phase(self, text: str) -> None:
        if self._quiet:
            return
        arrow = self._console.sign("▸", ">")
        self._console.line(self._console.styled(f"{arrow} {safe(text)}", "bold"))
        self.working(text)
        self._is_announced = True

    def working(self, text: str) -> None:
        self._is_announced = False
        self._expected = 0
        self._activity = "" if self._quiet else text
        self._began = time.monotonic()
        self._next_report = _FIRST_REPORT_SECONDS
        if self._activity and self._beats is None:
            self._beats = threading.Thread(target=self._beat_on, daemon=True)
            self._beats.start()

    def hands_over(self, *, silent: bool) -> None:
        if not silent:
            self.working("")

    def expect(self, keys: int) -> None:
        self.finished.clear()
        self._expected = keys

    def note(self, text: str) -> None:
        if self._quiet:
            return
        self._console.paragraph(safe(message_as_typed(text)), indent=_FOLLOWING, first="  ")

    def output(self, line: str) -> None:
        self._console.line(safe(line))

    def warning(self, text: str) -> None:
        first = self._console.styled("warning:", "yellow") + " "
        self._console.paragraph(safe(message_as_typed(text)), indent=_FOLLOWING, first=first)

    def key(self, progress: KeyProgress) -> None:
        if progress.phase in _FINAL:
            self.finished[progress.key] = progress
        if self._quiet or progress.phase in ("waiting", "fetching", "checking"):
            return
        if not (progress.changed or self._verbose):
            return
        attempt = f"after attempt {progress.attempt}"
        phase = f"retrying {attempt}" if progress.phase == "retrying" else progress.phase
        parts = [progress.key, phase]
        if progress.phase in ("done", "kept"):
            parts += [size(progress.size), f"{progress.seconds:.1f} s"]
        if progress.attempt > 1 and progress.phase != "retrying":
            parts.append(f"attempt {progress.attempt}")
        if progress.detail:
            parts.append(progress.detail)
        styles = ("red",) if progress.phase == "failed" else ()
        self._console.paragraph(safe("  ".join(parts)), *styles, indent=_FOLLOWING, first="  ")

    def close(self) -> None:
        self._ended.set()
        self.working("")

    def _beat_on(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Reports what is still under way. Runs in a thread."""
        passed = time.monotonic() - self._began
        if self._activity and not self._is_announced:
            self._is_announced = True
            dots = self._console.sign("…", "...")
            self._console.line(self._console.styled(f"{safe(self._activity)} {dots}", "dim"))
        elif self._activity and passed >= self._next_report:
            self._next_report = 2 * passed
            self.note(f"{self._under_way()}, {duration(passed)} so far")

    def _under_way(self) -> str:
        """What is under way: how many of the keys, or the phase."""
        if not self._expected:
            return self._activity
        return f"{len(self.finished)}/{counted(self._expected, 'key')}"


def duration(seconds: float) -> str:
    """A human-readable duration: ``41 s``, ``2 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
