"""Progress on a terminal: what is under way, and a line per running key, drawn by rich."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

from bundler.cli.console import Console, safe, size
from bundler.cli.progress import ConsoleListener, duration
from bundler.listener import KeyProgress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_PER_SECOND = 8
_PART_OF_SCREEN = 3


class LiveListener(ConsoleListener):
    """A `ConsoleListener` with a live table of the running keys below the log.

    A phase that takes more than a second gets a line there, too.
    """

    follows = True

    def __init__(self, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        super().__init__(console, quiet=quiet, verbose=verbose)
        self._running: dict[str, tuple[KeyProgress, float]] = {}
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._in_lines = False

    def working(self, text: str) -> None:
        with self._lock:
            self._in_lines = False
            self._running.clear()
            self._hide()
            super().working(text)

    def hands_over(self, *, silent: bool) -> None:
        """What the other program prints would mix with a live display: reports in lines."""
        with self._lock:
            self._hide()
            self._in_lines = True
            super().hands_over(silent=silent)

    def key(self, progress: KeyProgress) -> None:
        if self._quiet:
            super().key(progress)
            return
        with self._lock:
            if progress.phase in ("done", "failed", "kept"):
                self._running.pop(progress.key, None)
            else:
                _, began = self._running.get(progress.key, (progress, time.monotonic()))
                self._running[progress.key] = (progress, began)
            super().key(progress)
            if self._running:
                self._show()

    def _beat(self) -> None:
        with self._lock:
            if self._in_lines:
                super()._beat()
            elif self._activity and self._live is None:
                self._show()

    def _show(self) -> None:
        if self._live is not None:
            return
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._live = Live(
            console=RichConsole(stderr=True),
            get_renderable=self._table,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._console.above(self._live.console)
        Console.hide = self._give_way

    def _give_way(self) -> None:
        """A result is printed: what was under way has ended."""
        self.working("")

    def _hide(self) -> None:
        if self._live is not None:
            Console.hide = None
            self._console.above(None)
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        """At most a third of the screen: the running keys, and a line for the whole."""
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        rows = list(self._running.values())
        most = max(0, shutil.get_terminal_size().lines // _PART_OF_SCREEN - 2)
        for progress, began in rows[:most]:
            attempt = f"attempt {progress.attempt}" if progress.attempt > 1 else ""
            table.add_row(
                Spinner("dots"),
                Text(safe(progress.key), overflow="ellipsis", no_wrap=True),
                Text(progress.phase),
                Text(attempt),
                Text(size(progress.size) if progress.size else "", justify="right"),
                Text(f"{now - began:.0f} s", justify="right"),
            )
        if len(rows) > most:
            table.add_row("", Text(f"and {len(rows) - most} more", no_wrap=True))
        whole = Text(safe(self._under_way()), overflow="ellipsis", no_wrap=True)
        table.add_row(Spinner("dots"), whole, Text(duration(now - self._began), no_wrap=True))
        return table
