"""``build pex``: pex builds, with its own arguments, and the state is added."""

from __future__ import annotations

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.pex.arguments import PexArguments
from bundler.artifacts.python.pex.building import building, find_pex, refuse_unbuildable
from bundler.listener import Listener
from bundler.workflows.pipeline import StateRequest, prepare, verify_and_load


def build(
    arguments: PexArguments, request: StateRequest, listener: Listener, *, pex: str | None = None
) -> EmbedResult:
    """arguments: pex's own, with the output. pex: its command; None for the project's.

    Raises as `refuse_unbuildable`, `prepare` and `building` do.
    """
    projects = request.selection.find(listener)
    refuse_unbuildable(arguments, projects, pex)
    with prepare(projects, request, listener, loads=True) as prepared:
        command = find_pex(projects[0].interpreter.path, pex)
        embedding, allowed = prepared.request(listener), AllowedFiles.of(projects)
        with building(command, arguments, embedding, allowed) as (made, path):
            verdict = verify_and_load(made, prepared, listener, before=str(path))
        return EmbedResult(str(path), changed=True, verdict=verdict)
