"""A listener that records what it hears."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bundler.listener import KeyProgress, Listener


@dataclass
class RecordingListener(Listener):
    """Records every text, notes and warnings also separately, and measures each key.

    began: of each key, on the monotonic clock; took: seconds.
    """

    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    progress: list[KeyProgress] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.texts.append(text)
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.texts.append(text)
        self.warnings.append(text)

    def phase(self, text: str) -> None:
        self.texts.append(text)

    def key(self, progress: KeyProgress) -> None:
        self.texts.append(progress.detail)
        self.progress.append(progress)
        if progress.phase == "fetching":
            self.began.setdefault(progress.key, time.monotonic())
            self.attempts[progress.key] = progress.attempt
        if progress.phase in ("failed", "done"):
            self.took[progress.key] = time.monotonic() - self.began[progress.key]
