"""Builds a wheel with the project's own backend, then adds the state to its result.

Backends differ in what they include of a directory that git ignores. So whatever they included is
replaced by the bytes that were verified.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python import credentials
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.replacing import publish
from bundler.artifacts.python.wheel import WheelArtifact, WheelDestination
from bundler.errors import ChildFailed, ToolFailed
from bundler.listener import Listener
from bundler.system import process
from bundler.system.atomic import io_errors, make_directories, temporary_folder


@contextmanager
def building(
    project: Path,
    interpreter: Path,
    output: Path,
    request: EmbedRequest,
    allowed: AllowedFiles = credentials.NOTHING,
) -> Iterator[tuple[WheelArtifact, Path]]:
    """Builds the project's wheel with the bundles in it; moves it to the folder `output` when the
    block succeeds.

    Yields the finished wheel, which has a temporary name, and its final path. allowed: files with
    credentials that may be in it. Raises `ChildFailed` with the backend's exit code, otherwise as
    `WheelDestination.embed` does.
    """
    with io_errors(output):
        make_directories(output)
    with temporary_folder(output / "wheel") as folder:
        _build(project, interpreter, folder, request.listener)
        made = _only_wheel(folder)
        destination = output / made.name
        with WheelArtifact(made) as plain:
            credentials.refuse(made.name, [plain.tree], allowed, request.listener)
        if request.bundles:
            request.listener.phase("Embedding the state in the wheel")
            with WheelDestination(made, destination).embed(request) as artifact:
                yield artifact, destination
            return
        with WheelArtifact(made) as artifact:
            yield artifact, destination
        publish(made, destination)


def _build(project: Path, interpreter: Path, folder: Path, listener: Listener) -> None:
    argv = command(interpreter, project, folder)
    listener.phase(f"Building the wheel with {Path(argv[0]).name}")
    with _without_earlier_builds(project, folder) as own:
        environ = {**own, **os.environ}
        code = process.pass_through(argv, cwd=project, env=environ, said=listener.output)
    if code:
        raise ChildFailed("The build of the wheel", code)


@contextmanager
def _without_earlier_builds(project: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Variables for setuptools, which packs everything that is in `build/lib`: also the modules and
    the components of an earlier build that the project does not have any more.

    The path is relative, so that what is built on the way, such as a requirement, has its own.
    """
    config, lib = folder / "setuptools.cfg", Path("build", folder.name)
    with io_errors(config):
        config.write_text(f"[build]\nbuild_lib = {lib}\n")
    try:
        yield {"DIST_EXTRA_CONFIG": str(config.resolve())}
    finally:
        shutil.rmtree(project / lib, ignore_errors=True)


def command(interpreter: Path, project: Path, folder: Path) -> list[str]:
    """The command that builds a project's wheel into a folder. Raises `ToolFailed` if there is
    none here."""
    uv = shutil.which("uv")
    if uv:
        return [uv, "build", "--wheel", "--out-dir", str(folder), str(project)]
    for module, arguments in (
        ("build", ["--wheel", "--outdir", str(folder), str(project)]),
        ("pip", ["wheel", "--no-deps", "--wheel-dir", str(folder), str(project)]),
    ):
        # A folder here with the name of the module has no such part.
        if process.run([interpreter, "-c", f"import {module}.__main__"]).exit_code == 0:
            return [str(interpreter), "-m", module, *arguments]
    raise ToolFailed(
        f"No program can build a wheel: no uv, and neither build nor pip in {interpreter}.",
        hint="Install uv, or `build` in the project.",
    )


def _only_wheel(folder: Path) -> Path:
    wheels = [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(".whl")]
    if len(wheels) != 1:
        raise ToolFailed(f"The build succeeded but created {len(wheels)} wheels instead of one.")
    return wheels[0]
