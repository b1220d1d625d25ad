"""Runs Python inside an image: without network, and nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.running import TIMEOUT_SECONDS, Runner
from bundler.system import process
from bundler.system.process import Completed


def runner(image: str, docker: Docker | None = None, python: str = "python") -> Runner:
    """What runs a program inside this image, as the image's own user in its own folder.

    python: the interpreter, by name on the image's PATH, or by path.
    """
    cli = docker or Docker.from_environment()

    def run(arguments: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        # By name, so that no value is in a process list.
        names = [word for name in environment for word in ("--env", name)]
        options = ["--rm", "--interactive", "--pull", "never", "--network", "none", *names]
        return process.run(
            cli.argv("run", *options, "--entrypoint", python, image, *arguments),
            env={**cli.environment, **environment, **kept()},
            stdin=program,
            timeout=TIMEOUT_SECONDS,
        )

    return run


def kept() -> dict[str, str]:
    """What docker itself goes by, whatever a component's variables are called."""
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
