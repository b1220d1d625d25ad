"""Exports states for other jobs: ``refresh -o states.tar``, ``refresh -o oci:DIR:TAG``.

The result is an image with only the states, as a layout's folder or archive: everything that reads
artifacts reads it (``verify``, ``diff``, ``extract``, ``--state-from``, ``--baseline``), ``COPY
--from`` copies the states from it, and the layer is identical for identical states.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.oci import LayoutDestination
from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.names import LATEST, ArtifactName
from bundler.artifacts.python.replacing import named_at_end
from bundler.artifacts.verify import read_back
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.project.selection import Selection
from bundler.refresh.run import Refreshed, refresh
from bundler.state import run_record
from bundler.system.atomic import io_errors, make_directories

_ARCHIVE = ".tar"


def destination_of(text: str) -> ArtifactName:
    """Parses ``FILE.tar`` or ``oci:DIR[:TAG]``, the destination of the states.

    Raises `UsageError` for anything else, and for an existing file that is no such archive.
    """
    if text.startswith("oci:"):
        name = ArtifactName.layout(text)
        return name.tagged(name.tag or LATEST)
    path = Path(text)
    if path.suffix != _ARCHIVE or path.is_dir():
        raise UsageError(
            f"{text} is neither FILE.tar nor oci:DIR[:TAG].",
            hint="Use -o states.tar or -o oci:build/states.",
        )
    _refuse_foreign(path)
    return ArtifactName("path", text)


def _refuse_foreign(path: Path) -> None:
    """Refuses to overwrite another program's file, or an image without states."""
    if not path.exists():
        return
    try:
        with open_layout(path) as artifact:
            ours = artifact.claims() is not None
    except VerificationFailed:
        ours = False
    if not ours:
        raise UsageError(
            f"{path} already exists and contains no states.", hint="Choose another file with -o."
        )


def refresh_and_export(
    selection: Selection, options: RefreshOptions, listener: Listener, output: str
) -> tuple[Refreshed, str, str]:
    """Refreshes and publishes, then writes these very states.

    output: see `destination_of`. Returns its full name and the digest of the image there, too.
    """
    to = destination_of(output)
    projects = selection.find(listener)
    with ExitStack() as held:
        refreshed = refresh(projects, options, listener, held=held)
        listener.phase(f"Writing the states to {to}")
        return refreshed, str(to), export_states(refreshed, projects, to)


def export_states(refreshed: Refreshed, projects: Sequence[Project], to: ArtifactName) -> str:
    """Writes the states, reads them back, and returns the digest of their image.

    The destination changes atomically. Raises `InputOutputError`.
    """
    record = run_record.make(
        run_record.code_of(projects[0].root, required=False),
        refreshed.record,
        guarded=False,
        environment=projects[0].config.environment,
    )
    request = EmbedRequest(refreshed.bundles, record)
    with ExitStack() as stack:
        path = to.path
        if to.kind == "path":  # nothing of an older archive stays in the new one
            with io_errors(path):
                make_directories(path.parent)
            path = stack.enter_context(named_at_end(path))
        with LayoutDestination(path, to.tag or LATEST).embed(request) as made:
            read_back(made, refreshed.bundles)
    return str(made.digest)
