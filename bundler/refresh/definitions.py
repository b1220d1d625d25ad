"""What a project's code location defines with given states: each load in its own process.

It is loaded in the project's interpreter, or inside an image, without network and without a
refresh. The states are copied first, so that no component can alter them.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.artifacts.definitions import Request, describe
from bundler.artifacts.image.engine.running import runner
from bundler.artifacts.running import TIMEOUT_SECONDS, Runner, without_network
from bundler.project.layout import import_roots
from bundler.refresh.inside import FIND_PYTHON, Image
from bundler.refresh.surroundings import Surroundings, configured_surroundings
from bundler.state.definitions import Definitions
from bundler.state.statedir import sanitize_key
from bundler.system import process
from bundler.system.atomic import io_errors
from bundler.system.process import Completed
from bundler.worker.definitions import AUTOLOAD, NEAR

if TYPE_CHECKING:
    from bundler.project.options import Inside
    from bundler.project.projects import Project

# Set by `dg dev`: a component would refresh during the load.
_DEVELOPMENT = ("DAGSTER_IS_DEV_CLI",)
_STATES = "/states-of-the-request"
# After `FIND_PYTHON`. Reads the program, then the states, from stdin: an engine may be on another
# machine.
_BOOTSTRAP = f"""\
import tarfile, tempfile
python = sys.executable if sys.argv[1:] else own()
if python != sys.executable:
    os.execv(python, [python, "-c", sys.orig_argv[2], "given"])
read = sys.stdin.buffer.read
program = read(int(read(10)))
folder = tempfile.mkdtemp(prefix="state-bundler-")
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as states:
    states.extractall(folder)
program = program.replace({_STATES.encode()!r}, folder.encode())
exec(compile(program, "definitions.py", "exec"), {{"__name__": "state_bundler_definitions"}})
"""

# The key directories of the states, by defs state key.
States = Mapping[str, Path]


def target_of(project: Project) -> str | None:
    """What a code server loads of a project; None if it is no Dagster project."""
    if project.dagster is None:
        return None
    module = project.dagster.target or f"{project.dagster.root}.definitions"
    path = module.replace(".", "/")
    for root in import_roots(project.root):
        if (root / f"{path}.py").exists() or (root / path / "__init__.py").exists():
            return module
    return f"{AUTOLOAD}:{project.dagster.root}"


def _target_inside(project: Project) -> str | None:
    """The same for an image: the code need not exist here."""
    if project.dagster is None or project.dagster.target is not None:
        return target_of(project)
    return f"{NEAR}:{project.dagster.defs.replace('.', '/')}"


def describe_with(
    project: Project, several: Sequence[States], inside: Inside | None = None
) -> tuple[Definitions, ...]:
    """What the code location defines with each of several sets of states, loaded concurrently.

    Raises `ToolFailed` if a load gives no answer.
    """
    surroundings = configured_surroundings(project)
    with ThreadPoolExecutor(max_workers=len(several)) as pool:
        return tuple(
            pool.map(lambda states: _describe(project, states, inside, surroundings), several)
        )


def _describe(
    project: Project, states: States, inside: Inside | None, surroundings: Surroundings
) -> Definitions:
    names = {key: sanitize_key(key) for key in states}
    package = project.dagster.root if project.dagster is not None else ""
    with _copied(states) as folder:
        request = Request(
            (_target_inside(project) if inside else target_of(project)) or "",
            root="" if inside else str(project.root),
            package=package,
            folder=_STATES if inside else str(folder),
            states=names,
        )
        environment = {
            name: value
            for name, value in surroundings.environment.items()
            if name not in _DEVELOPMENT
        }
        run = _in_image(inside, folder) if inside else _here(project)
        return describe(run, request, environment, project.name, surroundings.secrets.redact)


@contextmanager
def _copied(states: States) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        for key, directory in states.items():
            with io_errors(directory):
                shutil.copytree(directory, folder / sanitize_key(key), symlinks=True)
        yield folder


def _here(project: Project) -> Runner:
    """Runs in the project's own interpreter."""
    isolation = without_network()

    def run(arguments: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        return process.run(
            [*isolation, str(project.interpreter.path), *arguments],
            cwd=project.root,
            env=environment,
            stdin=program,
            timeout=TIMEOUT_SECONDS,
        )

    return run


def _in_image(inside: Inside, folder: Path) -> Runner:
    """Runs inside an image, which gets the states on stdin."""
    image = Image.find(inside)
    within = runner(inside.image, pythons=[inside.python or "python"])

    def run(_: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        given = ["given"] if inside.python else []
        sent = f"{len(program):010}".encode() + program + _packed(folder)
        return within(["-c", FIND_PYTHON + _BOOTSTRAP, *given], sent, image.given(environment))

    return run


def _packed(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in sorted(os.listdir(folder)):
            archive.add(folder / name, arcname=name)
    return stream.getvalue()
