"""Tiny projects that images are made of, with states made by hand: a build takes seconds."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import building
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.dockerbuild import BuildInput
from bundler.artifacts.verify import verify
from bundler.listener import SILENT, Listener
from bundler.state.bundle import STATE_DIRECTORY, Bundle
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.embedding import Made, build_image
from tests.support.engine import PYTHON_BASE, Engine

EDITABLE = f"""\
FROM {PYTHON_BASE}
WORKDIR /app
COPY . /app
RUN mkdir -p /usr/local/lib/python3.11/dist-packages && \\
    echo /app/src > /usr/local/lib/python3.11/dist-packages/_shop.pth
USER 1000
"""


INSTALLED = f"""\
FROM {PYTHON_BASE} AS build
WORKDIR /build
COPY . .
RUN mkdir -p /out && cp -r src/shop /out/shop

FROM {PYTHON_BASE}
WORKDIR /app
COPY --from=build /out/ /usr/local/lib/python3.11/dist-packages/
"""


PLUGIN = Path(sys.executable).with_name("docker-bundle")


@dataclass
class Project:
    """A project with a Dockerfile and a state. name: of the image that its tests make."""

    root: Path
    engine: Engine
    name: str
    version: int = 0

    def write(self, path: str, text: str = "") -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def new_state(self) -> Bundle:
        """A state that no earlier test has seen, published in the project."""
        self.version += 1
        content = f"{self.name} {self.version}".encode()
        states = {"Catalog": {"state": content}}
        return make_bundle(self.root / "src" / PLACE, states, place=PLACE)

    def configure(self) -> None:
        """Makes it a repository whose state a command writes, for our own commands."""
        code = "import os, sys; open(sys.argv[1], 'w').write(os.environ.get('CATALOG', 'tea'))"
        command = json.dumps([sys.executable, "-c", code, "{state_path}"])
        self.write(
            "pyproject.toml",
            '[project]\nname = "shop"\nversion = "1"\n'
            f'[[tool.state-bundler.source]]\nkey = "Catalog"\ncommand = {command}\n'
            f'path = "src/{PLACE}"\n',
        )
        self.write(".gitignore", f"{STATE_DIRECTORY}/\n")
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "All")):
            argv = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *words]
            subprocess.run(argv, cwd=self.root, check=True, env=self.environment())

    def environment(self, **more: str) -> dict[str, str]:
        """For our own commands, with docker talking to the tests' engine and no other."""
        kept = {name: v for name, v in self.engine.environment.items() if "GIT_" not in name}
        own = {"STATE_BUNDLER_DOCKER": self.engine.clis[0], "DOCKER_BUILDKIT": "1"}
        return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, **own, **more}

    def docker(self, cli: int = 0, buildkit: str = "1", *options: str) -> Docker:
        environment = {**self.engine.environment, "DOCKER_BUILDKIT": buildkit}
        program = self.engine.clis[min(cli, len(self.engine.clis) - 1)]
        return Docker(program, options, environment)

    def build(
        self,
        *arguments: str,
        bundle: Bundle | None = None,
        docker: Docker | None = None,
        listener: Listener = SILENT,
    ) -> Made:
        given = bundle or self.new_state()
        parsed = parse([*(arguments or ("-t", self.name)), str(self.root)])
        building.preflight(BuildInput(parsed))
        request = EmbedRequest((given,), make_record(given), listener=listener)
        return build_image(parsed, request, docker or self.docker(), check=verified)

    def inspect(self, name: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.engine.docker("image", "inspect", name or self.name).stdout
        )[0]
        return found

    def everything(self, name: str = "") -> bytes:
        """All that the image consists of: its layers unpacked, configuration, manifests."""
        name = name or self.name
        found = [self.engine.docker("image", "inspect", name).stdout]
        found.append(self.engine.docker("history", "--no-trunc", name).stdout)
        saved = self.engine.docker("save", name).stdout
        with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
            for member in archive:
                if (stream := archive.extractfile(member)) is not None:
                    data = stream.read()
                    found.append(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        return b"\n".join(found)

    def left_behind(self) -> tuple[set[str], set[str], set[str]]:
        """Containers, volumes and images."""
        asks = (("ps", "-aq"), ("volume", "ls", "-q"), ("image", "ls", "-q"))
        containers, volumes, images = (
            set(self.engine.docker(*ask).stdout.decode().split()) for ask in asks
        )
        return containers, volumes, images


def verified(artifact: Any) -> None:
    verify(artifact).raise_for_problems()


@pytest.fixture
def project(tmp_path: Path, engine: Engine, request: pytest.FixtureRequest) -> Iterator[Project]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    project = Project(tmp_path / "shop", engine, f"sbt/{name}")
    project.write("Dockerfile", EDITABLE)
    project.write("src/shop/__init__.py")
    project.write("src/shop/defs/__init__.py")
    project.write(".dockerignore", ".dockerignore\nDockerfile\n")
    yield project
    engine.docker("image", "rm", "--force", project.name, check=False)


@pytest.fixture
def transcript(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What docker printed since the last time that it was asked."""
    return lambda: "".join(capfd.readouterr())


@pytest.fixture
def tcp(engine: Engine) -> Iterator[str]:
    """The engine at a TCP port, as a remote one is reached."""
    path = engine.host.removeprefix("unix://")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _ = server.accept()
                    upstream = socket.socket(socket.AF_UNIX)
                    upstream.connect(path)
                    threading.Thread(target=relay, args=(line, upstream), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def relay(line: socket.socket, upstream: socket.socket) -> None:
    """Carries bytes both ways until either ends."""
    with line, upstream:
        back = threading.Thread(target=_pump, args=(upstream, line))
        back.start()
        _pump(line, upstream)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def plugged(tmp_path: Path, engine: Engine) -> dict[str, str]:
    """An environment in which docker has the plugin."""
    folder = tmp_path / "config" / "cli-plugins"
    folder.mkdir(parents=True)
    (folder / "docker-bundle").symlink_to(PLUGIN)
    return {**engine.environment, "DOCKER_CONFIG": str(folder.parent)}
