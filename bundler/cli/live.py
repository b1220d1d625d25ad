"""Live progress on a terminal: one line per running key, drawn by rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bundler.cli.console import Console, ConsoleListener, safe, size
from bundler.listener import KeyProgress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_PER_SECOND = 8
_MOST_ROWS = 20


class LiveListener(ConsoleListener):
    """A `ConsoleListener` with a live table of the running keys below the log."""

    follows = True

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        super().__init__(console, quiet=quiet)
        self._under_way: dict[str, tuple[KeyProgress, float]] = {}
        self._live: Live | None = None

    def key(self, progress: KeyProgress) -> None:
        if self._quiet:
            return
        if progress.phase in ("done", "failed", "kept"):
            self._under_way.pop(progress.key, None)
            if (
                self._live is not None
            ):  # otherwise the line above would appear before the row is removed
                self._live.refresh()
        else:
            _, began = self._under_way.get(progress.key, (progress, time.monotonic()))
            self._under_way[progress.key] = (progress, began)
        super().key(progress)
        self._show()

    def close(self) -> None:
        """Removes the table when the command ends, even if keys are still running."""
        self._under_way.clear()
        self._show()

    def _show(self) -> None:
        if self._under_way and self._live is None:
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
        elif not self._under_way and self._live is not None:
            self._console.above(None)
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        rows = list(self._under_way.values())
        for progress, began in rows[:_MOST_ROWS]:
            attempt = f"attempt {progress.attempt}" if progress.attempt > 1 else ""
            table.add_row(
                Spinner("dots"),
                Text(safe(progress.key), overflow="ellipsis", no_wrap=True),
                Text(progress.phase),
                Text(attempt),
                Text(size(progress.size) if progress.size else "", justify="right"),
                Text(f"{now - began:.0f} s", justify="right"),
            )
        if len(rows) > _MOST_ROWS:
            table.add_row("", Text(f"and {len(rows) - _MOST_ROWS} more"))
        return table
