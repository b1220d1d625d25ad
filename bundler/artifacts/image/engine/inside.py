"""A program in a container, with a conversation over its stdin and stdout.

The engine removes the container when the program ends, and the program ends when its stdin is
closed, even if we are killed. Values of variables are neither in a process list nor in an image:
the CLI takes them from its own environment, by name.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.running import kept
from bundler.errors import ToolFailed

_PULL_SECONDS = 1800.0


@dataclass(frozen=True)
class RunningContainer:
    """A container that `start` creates. network: as ``docker run`` accepts it; None for its
    default."""

    image: str
    network: str | None = None
    docker: Docker = field(default_factory=Docker.from_environment)
    name: str = field(default_factory=lambda: f"state-bundler-{uuid.uuid4().hex[:12]}")

    def own_variables(self) -> dict[str, str]:
        """The variables that the image sets. Pulls the image if the engine does not have it."""
        engine = self.docker.connect()
        if not engine.has_image(self.image):
            self._pull()
        config = engine.image(self.image).get("Config") or {}
        return dict(item.split("=", 1) for item in config.get("Env") or () if "=" in item)

    def _pull(self) -> None:
        try:
            self.docker.ask("pull", "--quiet", self.image, timeout=_PULL_SECONDS)
        except ToolFailed as error:
            raise ToolFailed(
                f"The engine does not have the image {self.image} and cannot pull it: {error.what}",
                hint="Build it, or log in to its registry, first.",
            ) from error

    def start(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        *,
        commands: int,
        events: int,
        output: Path,
    ) -> subprocess.Popen[bytes]:
        """Runs a program as the image's user in the image's folder.

        program: the executable, then its arguments. commands, events: descriptors that become its
        stdin and stdout. output: a file for its stderr. Raises `OSError`.
        """
        names = [word for name in environment for word in ("--env", name)]
        network = ["--network", self.network] if self.network else []
        # No log: the engine would store the conversation on its disk.
        options = ["--rm", "--interactive", "--name", self.name, "--log-driver", "none"]
        with open(output, "ab") as stream:
            return subprocess.Popen(
                self.docker.argv(
                    "run",
                    *options,
                    *network,
                    *names,
                    *("--entrypoint", program[0], self.image, *program[1:]),
                ),
                env={**os.environ, **self.docker.environment, **environment, **kept()},
                stdin=commands,
                stdout=events,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is ours: we end it
            )

    def archive(self, path: str) -> AbstractContextManager[BinaryIO]:
        """The file or directory at a path of the running container, as a tar stream."""
        return self.docker.connect().archive(self.name, path)

    def put_archive(self, path: str, stream: BinaryIO) -> None:
        """Extracts a tar stream into a directory of the running container."""
        self.docker.connect().put_archive(self.name, path, stream)

    def remove(self) -> None:
        """Kills and removes it, if it still exists."""
        with suppress(ToolFailed):
            self.docker.ask("rm", "--force", self.name)
