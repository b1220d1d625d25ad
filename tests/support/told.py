"""A listener that keeps what it is told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bundler.listener import KeyProgress, Listener


@dataclass
class Told(Listener):
    """Measures each key and keeps every word."""

    began: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.words.append(text)

    warning = phase = note

    def key(self, progress: KeyProgress) -> None:
        self.words.append(progress.detail)
        if progress.phase == "fetching":
            self.began.setdefault(progress.key, time.monotonic())
            self.attempts[progress.key] = progress.attempt
        if progress.phase in ("failed", "done"):
            self.took[progress.key] = time.monotonic() - self.began[progress.key]
