"""``build wheel``: the project's own backend builds, and the state is added."""

from __future__ import annotations

from pathlib import Path

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.wheel.building import building, command
from bundler.errors import UsageError
from bundler.listener import Listener
from bundler.workflows.pipeline import StateRequest, prepare, verify_and_load


def build(request: StateRequest, directory: Path, listener: Listener) -> EmbedResult:
    """directory: gets the wheel.

    Raises `UsageError` for several projects, and as `prepare` and `building` do.
    """
    projects = request.selection.find(listener)
    if len(projects) > 1:
        raise UsageError(
            "A wheel contains one project, but several are selected.",
            hint="Select it with --project.",
        )
    (project,) = projects
    python, output = project.interpreter.path, directory.resolve()
    command(python, project.root, directory)  # refuses what cannot be built
    with prepare(projects, request, listener, loads=True) as prepared:
        embedding, allowed = prepared.request(listener), AllowedFiles.of(projects)
        with building(project.root, python, output, embedding, allowed) as (made, path):
            verdict = verify_and_load(made, prepared, listener)
        return EmbedResult(str(path), changed=True, verdict=verdict)
