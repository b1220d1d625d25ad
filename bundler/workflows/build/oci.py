"""``build oci``: the state on an image in an OCI layout, or alone in one; no engine is needed."""

from __future__ import annotations

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.names import LATEST, ArtifactName
from bundler.listener import Listener
from bundler.workflows.build_all import is_one_of_all
from bundler.workflows.embed import embed
from bundler.workflows.image_places import refuse_relative
from bundler.workflows.pipeline import StateRequest, prepare


def build(
    request: StateRequest,
    output: str,
    listener: Listener,
    *,
    base: str | None = None,
    image_path: str | None = None,
) -> EmbedResult | None:
    """None if one of many projects has no state, and no base: then there is nothing to make.

    output: ``LAYOUT[:TAG]``. base: the same of the base image; None for the state alone.
    Raises as `prepare` and `embed` do.
    """
    target = ArtifactName.layout(output)
    sources = [str(ArtifactName.layout(base))] if base else []
    tags = [str(target.tagged(target.tag or LATEST))]
    projects = request.selection.find(listener)
    refuse_relative(image_path, projects)
    with prepare(projects, request, listener) as prepared:
        if not (sources or prepared.bundles) and is_one_of_all():
            return None
        return embed(sources, tags, prepared, listener, image_path=image_path)
