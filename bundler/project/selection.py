"""Which projects a command is about, as the user names them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bundler.listener import Listener
from bundler.project.projects import Project, find
from bundler.project.stateful import with_state


class Selection(msgspec.Struct, frozen=True):
    """Projects and their interpreter.

    directories: empty for the current one. everything: all projects of the workspace; None if the
    command has no ``--all``. python: None for the interpreter that dg and uv would use.
    """

    directories: tuple[Path, ...] = ()
    everything: bool | None = None
    python: Path | None = None

    def find(self, listener: Listener, start: Path | None = None) -> tuple[Project, ...]:
        """The projects, with the interpreter of each reported. Raises as `projects.find` does."""
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
    found = with_state(projects)
    others = [project.name for project in projects if project not in found]
    if others:
        listener.note(f"no state-backed components: {', '.join(others)}")
    return found
