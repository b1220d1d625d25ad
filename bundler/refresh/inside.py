"""Refreshes inside an image: ``--in IMAGE``, where the project is not installed on this machine.

The worker (`bundler.worker.worker`) runs in a container of the image, in the environment and with
the code that the image has, and speaks over stdin and stdout what it else speaks over pipes:

1. A bootstrap takes the worker's own files from stdin, since nothing of ours is in the image, puts
   them into a temporary folder, and becomes the worker.
2. The worker looks for the project where the image's working directory is, and reports it.
3. Each attempt writes into that folder; the state, the report and the log are then copied out.
4. The worker ends when its stdin is closed, and the engine removes the container.

The states are judged and published here, like all others.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from bundler.artifacts.image.engine.inside import RunningContainer
from bundler.errors import BadData, InputOutputError, ToolFailed
from bundler.project.layout import import_roots
from bundler.project.options import Inside
from bundler.refresh.checks import MAX_FILES, too_many_files
from bundler.refresh.model import Source
from bundler.refresh.workers import END_SECONDS, WorkerProcess, Write
from bundler.system.atomic import io_errors
from bundler.system.process import last_word

_WORKER_FILES = Path(__file__).parent.parent / "worker"
# The files of a worker, besides the one of its kind.
_FILES = (
    *("start.py", "worker.py", "watching.py", "copying.py", "state_use.py", "endings.py"),
    *("recorder.py", "patches.py", "processes.py", "wrapping.py", "bodies.py", "error_objects.py"),
)
# Variables that describe this machine and would break the image's.
_MACHINE = frozenset(
    {
        *("PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "USER", "LOGNAME", "SHELL", "HOSTNAME"),
        *("TERM", "TMPDIR", "TEMP", "TMP", "LANG", "LANGUAGE", "EDITOR", "PAGER", "DISPLAY"),
        *("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "SSL_CERT_FILE", "SSL_CERT_DIR", "PS1", "MANPATH"),
        *("MAIL", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "DAGSTER_HOME"),
    }
)
_MACHINE_PREFIXES = (
    *("LC_", "PYTHON", "LD_", "DYLD_", "XDG_", "SSH_", "DOCKER_", "BUILDKIT_", "UV_", "PIP_"),
    *("CONDA", "GIT_", "DBUS_", "STATE_BUNDLER_", "PYENV_", "npm_", "MAKE", "PYTEST_"),
)
_PYTHON = "python"
_BUFFER_BYTES = 256 * 1024
# In a container: the interpreter of the project's environment, as it would be on this machine.
FIND_PYTHON = """\
import glob, os, sys
def pythons(places):
    found = [os.path.abspath(os.path.join(place, "bin/python")) for place in places]
    return list(filter(os.path.exists, found))
def own():
    cache = os.environ.get("POETRY_CACHE_DIR") or os.path.expanduser("~/.cache/pypoetry")
    poetry = os.environ.get("POETRY_VIRTUALENVS_PATH") or os.path.join(cache, "virtualenvs")
    found = pythons([".venv", ".pixi/envs/default"])[:1]
    found = found or pythons(glob.glob(os.path.join(glob.escape(poetry), "*")))
    if len(found) > 1 and sys.executable not in found:
        sys.exit("it has several Poetry environments: " + ", ".join(sorted(found)))
    return found[0] if len(found) == 1 else sys.executable
"""
_BOOTSTRAP = f"""\
{FIND_PYTHON}
import json, tempfile
def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data
files = json.loads(take(int(take(10))))
folder = tempfile.mkdtemp(prefix="state-bundler-")
for name in files:
    with open(os.path.join(folder, name), "w") as stream:
        stream.write(files[name])
commands, events = os.dup(0), os.dup(1)
os.set_inheritable(commands, True)
os.set_inheritable(events, True)
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
python = sys.executable if sys.argv[2] == "given" else own()
os.write(events, json.dumps({{"event": "ready", "folder": folder}}).encode() + b"\\n")
start = os.path.join(folder, "start.py")
os.execv(python, [python, start, sys.argv[1], str(commands), str(events)])
"""


@dataclass(frozen=True)
class Image:
    """An image that the engine has. variables: those that the image sets."""

    inside: Inside
    variables: Mapping[str, str]

    @classmethod
    def find(cls, inside: Inside) -> Image:
        """Looks up an image, or pulls it. Raises `ToolFailed`."""
        return cls(inside, RunningContainer(inside.image).own_variables())

    def given(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables that are the project's, and not this machine's or the image's."""
        return {
            name: value
            for name, value in environment.items()
            if name not in self.variables
            and name not in _MACHINE
            and not name.startswith(_MACHINE_PREFIXES)
        }


class InsideWorker(WorkerProcess):
    """A worker in a container."""

    shares_processes = False

    def __init__(
        self, source: Source, image: Image, environment: Mapping[str, str], output: Path
    ) -> None:
        """environment: this machine's. Raises `ToolFailed`."""
        self._source = source
        self._output = output
        inside = image.inside
        self._container = RunningContainer(inside.image, inside.network)
        self._folder = self._root = ""
        program, given = program_of(source.kind, inside.python), image.given(environment)

        def start(commands: int, events: int) -> subprocess.Popen[bytes]:
            return self._container.start(
                program, given, commands=commands, events=events, output=output
            )

        super().__init__(start, inside.image)

    def written_at(self, write: Write) -> str:
        return str(self._inside(write).state_path.parent)

    async def load(self, command: Mapping[str, Any]) -> dict[str, Any]:
        names = (*_FILES, f"{self._source.kind}_worker.py")
        files = json.dumps({name: (_WORKER_FILES / name).read_text() for name in names}).encode()
        self._send(f"{len(files):010}".encode() + files)
        self._folder = (await self._reply())["folder"]
        found = await super().load({**command, "root": ""})
        self._root = found.get("root", "")
        if found["event"] == "found":
            found["directory"] = str(self._on_this_machine(found))
        return found

    async def _reply(self) -> dict[str, Any]:
        try:
            return await super()._reply()
        except ToolFailed as error:
            said = last_word(self._output.read_text(errors="replace")) or "it printed nothing"
            raise ToolFailed(
                f"{self._container.image} cannot run the refresh: {said.rstrip('.')}.",
                hint="The image must contain the project and its Python; --in-python selects that.",
            ) from error

    def _on_this_machine(self, found: Mapping[str, Any]) -> Path:
        """The local state directory that corresponds to the one in the image."""
        project = self._source.project
        if self._source.kind != "dagster":
            return Path(found["directory"])
        place = PurePosixPath(found["place"])
        for root in import_roots(project.root):
            if (root / place.parent).is_dir():
                return root / place
        return project.root / place

    async def write(self, write: Write) -> int:
        """Makes one attempt like the local worker, and copies out the result."""
        inside = self._inside(write)
        if write.previous_path is not None and inside.previous_path is not None:
            await asyncio.to_thread(
                self._copy_in, write.previous_path.parent, inside.previous_path.parent
            )
        try:
            status = await super().write(inside)
        except asyncio.CancelledError:
            with suppress(ToolFailed, BadData, InputOutputError):
                await asyncio.to_thread(self._copy_said, inside, write)
            raise
        await asyncio.to_thread(self._copy_said, inside, write)
        if status == 0:
            staged = (inside.state_path.parent, write.state_path.parent, write.key)
            await asyncio.to_thread(self._copy_out, *staged)
        return status

    def _inside(self, write: Write) -> Write:
        """The same attempt with the paths that it has in the container."""
        home = PurePosixPath(self._folder) / write.report.stem
        return msgspec.structs.replace(
            write,
            root=Path(self._root),
            state_path=Path(home / "tree" / write.state_path.parent.name / write.state_path.name),
            report=Path(home / "said" / "report"),
            log=Path(home / "said" / "log"),
            previous_path=write.previous_path
            and Path(home / "tree" / write.previous_path.parent.name / write.previous_path.name),
        )

    def _copy_in(self, directory: Path, target: Path) -> None:
        """Copies a directory of this machine into the container, where its user may change it."""
        if not directory.exists():
            return
        name = target.relative_to(self._folder)
        with tempfile.TemporaryFile() as file:
            with io_errors(directory), tarfile.open(fileobj=file, mode="w") as archive:
                for parent in reversed(name.parents[:-1]):
                    folder = tarfile.TarInfo(str(parent))
                    folder.type = tarfile.DIRTYPE
                    archive.addfile(_open_to_all(folder))
                archive.add(directory, str(name), filter=_open_to_all)
            file.seek(0)
            self._container.put_archive(self._folder, file)

    def _copy_out(self, directory: Path, target: Path, key: str) -> None:
        with self._container.archive(str(directory)) as stream:
            _unpack(stream, target, key)

    def _copy_said(self, inside: Write, write: Write) -> None:
        said = write.report.with_suffix(".said")
        self._copy_out(inside.report.parent, said, write.key)
        for name, path in (("report", write.report), ("log", write.log)):
            if (said / name).is_file() and not (said / name).is_symlink():
                os.replace(said / name, path)
        shutil.rmtree(said)

    async def close(self) -> None:
        self._hang_up()
        await asyncio.to_thread(self._remove_unless_gone)
        await super().close()

    def _remove_unless_gone(self) -> None:
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._container.remove()


def program_of(kind: str, python: str | None) -> list[str]:
    """The argv that starts a worker of this kind. python: the interpreter that the user names."""
    return [python or _PYTHON, "-c", _BOOTSTRAP, kind, "given" if python else "search"]


def _open_to_all(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Makes a path accessible to all: the image's user is unknown, and nobody else is in the
    container."""
    info.uid = info.gid = 0
    info.mode = 0o777 if info.isdir() else 0o666
    return info


def _unpack(stream: Any, target: Path, key: str) -> None:
    """Extracts a tar stream whose top is one directory; nothing leads out of the target.

    Links and FIFOs are created, for the check that refuses them by name. Raises `BadData` for what
    cannot be created, and for too many files.
    """
    made = {""}
    with io_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER_BYTES) as archive:
                for count, info in enumerate(archive):
                    if count > MAX_FILES:
                        raise too_many_files(key)
                    _unpack_one(archive, info, target, made, key)
                    archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out
        except tarfile.TarError as error:
            raise ToolFailed.of_key(
                key, "the state could not be copied out of the image."
            ) from error


def _unpack_one(
    archive: tarfile.TarFile, info: tarfile.TarInfo, target: Path, made: set[str], key: str
) -> None:
    _, _, path = info.name.strip("/").partition("/")
    parent, _, name = path.rpartition("/")
    if not path:
        return
    if parent not in made or name in ("", ".", ".."):
        raise BadData.of_key(key, f"{path!r} leads outside the state.")
    here = target / path
    if info.isdir():
        if path not in made:
            here.mkdir()  # fails if a link with that name would lead elsewhere
        made.add(path)
    elif info.isreg():
        with open(here, "xb") as stream:
            shutil.copyfileobj(archive.extractfile(info) or io.BytesIO(), stream, _BUFFER_BYTES)
        here.chmod(stat.S_IMODE(info.mode) | 0o600)
    elif info.issym():
        os.symlink(info.linkname, here)
    elif info.isfifo():
        os.mkfifo(here)
    else:
        kind = "a hard link" if info.islnk() else "a device"
        raise BadData.of_key(
            key,
            f"{path} is {kind}, which a state must not contain.",
            hint="Make the component write regular files.",
        )
