"""``build pex``: pex builds, with its own arguments, and the state is added."""

from __future__ import annotations

import msgspec

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.pex.arguments import PexArguments
from bundler.artifacts.python.pex.building import building, find_pex, refuse_unbuildable
from bundler.listener import Listener
from bundler.workflows.pipeline import StateRequest, prepare, verify_and_load


class PexRequest(msgspec.Struct, frozen=True):
    """arguments: pex's own, with the output. command: pex, or None for the project's."""

    arguments: PexArguments
    states: StateRequest
    command: str | None = None


def build(request: PexRequest, listener: Listener) -> EmbedResult:
    """Raises as `refuse_unbuildable`, `prepare` and `building` do."""
    projects = request.states.selection.find(listener)
    refuse_unbuildable(request.arguments, projects, request.command, listener)
    with prepare(projects, request.states, listener, loads=True) as prepared:
        command = find_pex(projects[0].interpreter.path, request.command)
        embedding, allowed = prepared.request(listener), AllowedFiles.of(projects)
        with building(command, request.arguments, embedding, allowed) as built:
            name = str(built.destination)
            verdict = verify_and_load(built.artifact, prepared, listener, before=name)
        return EmbedResult(name, changed=True, verdict=verdict)
