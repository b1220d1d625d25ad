"""Builds a PEX: runs the real pex with the user's arguments, then adds the state to its result.

pex writes into a folder next to the destination. The state is added there, the caller verifies it
there, and only then does the file get the name that the user gave: no PEX with that name ever
exists without its state.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python import credentials
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.pex import PexDestination
from bundler.artifacts.python.pex.arguments import PexArguments
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.pex.info import LOWEST_PEX, LOWEST_PEX_VERSION, is_older
from bundler.artifacts.python.replacing import publish, refuse_foreign
from bundler.errors import ChildFailed, Locked, ToolFailed, UsageError
from bundler.listener import Listener
from bundler.project.projects import Project
from bundler.state.bundle import STAGING_NAME, Bundle
from bundler.system import process
from bundler.system.atomic import io_errors, make_directories, temporary_folder
from bundler.system.home import cache


def find_pex(interpreter: Path | None, named: str | None = None) -> str:
    """The pex command: the named one, the project's, the one next to us, or that on PATH.

    Raises `ToolFailed` if there is none.
    """
    import sys

    nearby = [path.parent / "pex" for path in (interpreter, Path(sys.executable)) if path]
    found = named or next((str(path) for path in nearby if os.access(path, os.X_OK)), None)
    command = shutil.which(found or "pex")
    if command is None:
        raise ToolFailed(
            f"{found or 'pex'} was not found.",
            hint="Install pex in the project's environment, or pass its path with --pex.",
        )
    return command


def refuse_unbuildable(
    arguments: PexArguments, projects: Sequence[Project], named: str | None
) -> None:
    """Raises for what would make the build fail, before anything is refreshed.

    named: the pex command, if the user names one.
    """
    credentials.refuse_below(arguments.sources, AllowedFiles.of(projects))
    refuse_old(find_pex(projects[0].interpreter.path, named))


def _installed_version(pex: str) -> str | None:
    """The version of the pex that is installed where the command is; None if that is not clear."""
    installation = Path(pex).resolve().parent.parent
    found = list(installation.glob("lib/python3*/site-packages/pex-*.dist-info"))
    return found[0].name[len("pex-") : -len(".dist-info")] if len(found) == 1 else None


def refuse_old(pex: str) -> None:
    """Raises `ToolFailed` for a version of pex whose files cannot get a state."""
    version = _installed_version(pex)
    if version is None:  # to start it takes most of a second
        version = process.check([pex, "--version"]).decode(errors="replace").strip()
    if is_older(version, LOWEST_PEX):
        raise ToolFailed(
            f"{pex} is version {version}; the lowest supported version is {LOWEST_PEX_VERSION}.",
            hint="Upgrade pex in the project's environment, or pass another one with --pex.",
        )


@contextmanager
def building(
    pex: str,
    arguments: PexArguments,
    request: EmbedRequest,
    allowed: AllowedFiles = credentials.NOTHING,
) -> Iterator[tuple[PexArtifact, Path]]:
    """Builds a PEX with the bundles in it, and gives it its name when the block succeeds.

    Yields the finished PEX, which has a temporary name, and its final path. allowed: files with
    credentials that may be in it. Without bundles the PEX is pex's own, byte for byte. Raises
    `ChildFailed` with pex's exit code, else as `PexDestination.embed` does.
    """
    if arguments.output is None:
        raise UsageError(
            "Without -o, pex creates no file.", hint="Pass the path of the file: -o app.pex."
        )
    output = Path(arguments.output).absolute()
    if "{" not in output.name:  # else pex decides on the name
        refuse_foreign(output)
    with _folder_next_to(output) as folder:
        request.listener.phase("Building the PEX")
        with _explaining(arguments, request.bundles):
            _run_pex(pex, arguments, folder / output.name, request.listener)
        made = _only_child(folder)
        destination = output.with_name(made.name)
        _advise(arguments, request)
        with PexArtifact(made, destination if request.bundles else None) as plain:
            own = plain.own_trees(request.bundles)
            credentials.refuse(destination.name, own, allowed, request.listener)
            if request.bundles:
                request.listener.phase("Embedding the state in the PEX")
                with PexDestination(plain, destination).embed(request) as artifact:
                    yield artifact, destination
                return
            yield plain, destination
        publish(made, destination)


@contextmanager
def _explaining(arguments: PexArguments, bundles: Sequence[Bundle]) -> Iterator[None]:
    """Raises `Locked` if pex fails while another process refreshes within what pex packs."""
    read = {folder.resolve() for folder in (*arguments.sources, *arguments.projects)}
    roots = [bundle.root.resolve() for bundle in bundles]
    inside = [root for root in roots if read & {root, *root.parents}]
    before = [_staged(root) for root in inside]
    try:
        yield
    except ChildFailed as error:
        for root, staged in zip(inside, before, strict=True):
            if _staged(root) != staged:
                raise Locked(
                    f"pex failed with exit code {error.exit_code} while another process refreshed "
                    f"{root}, which pex reads.",
                    hint="Try again.",
                ) from error
        raise


def _staged(root: Path) -> int | None:
    """When a refresh last created or removed something in the state directory."""
    with suppress(OSError):
        return (root / STAGING_NAME).stat().st_mtime_ns
    return None


def _advise(arguments: PexArguments, request: EmbedRequest) -> None:
    dagster = any(bundle.place.endswith("/.local_defs_state") for bundle in request.bundles)
    if dagster and not arguments.has_venv:
        request.listener.warning(
            "The PEX was built without --venv: Dagster's code server cannot load from it, because "
            "it starts a plain Python. Add --venv."
        )


@contextmanager
def _folder_next_to(output: Path) -> Iterator[Path]:
    if "{" in str(output.parent):
        raise UsageError(f"Only the file name may contain a placeholder, not {output.parent}.")
    with io_errors(output):
        make_directories(output.parent)
    with temporary_folder(output) as folder:
        yield folder


def _run_pex(pex: str, arguments: PexArguments, output: Path, listener: Listener) -> None:
    argv = [pex, *arguments.rest, "--output-file", str(output)]
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryDirectory(prefix="state-bundler-") as temporary,
    ):
        environment = _environment(arguments, os.environ, temporary, listener)
        code = process.pass_through(
            argv, env=environment, stdout=stdout.fileno(), said=listener.output
        )
        if code:
            stdout.seek(0)
            for line in stdout.read().decode(errors="replace").splitlines():
                listener.note(line)
            raise ChildFailed("pex", code)


def _environment(
    arguments: PexArguments, environ: Mapping[str, str], temporary: str, listener: Listener
) -> dict[str, str]:
    """The environment with a PEX_ROOT that no run uses: the next build would include what a run
    writes there."""
    own = arguments.pex_root or environ.get("PEX_ROOT")
    if own:
        listener.warning(
            f"{own} is used as pex's cache, as configured. If a PEX ever runs with this PEX_ROOT, "
            "what it writes into its own files can end up in the next build."
        )
        return dict(environ)
    return {**environ, "PEX_ROOT": str((cache() or Path(temporary)) / "pex-root")}


def _only_child(folder: Path) -> Path:
    children = list(folder.iterdir())
    if len(children) != 1:
        raise ToolFailed(f"pex succeeded but created {len(children)} files instead of one PEX.")
    return children[0]
