"""Runs Python inside an image, without network and without leaving anything behind."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.image_program import DECIDING, RunsAs, command_words
from bundler.artifacts.running import NOT_STARTED, TIMEOUT_SECONDS, Runner
from bundler.errors import ToolFailed
from bundler.system import process
from bundler.system.process import Completed

_SITE_PACKAGES = re.compile(r"(/.+)/lib/python[^/]+/site-packages/")
# The folders of a system's programs, besides those of Python.
_SYSTEM = ("/bin", "/usr/bin", "/sbin", "/usr/sbin")
_PROGRAM = b"""\
import importlib.util, json, os, sys
first, package = sys.argv[1:]
sys.path[:] = [first] * bool(first) + [path for path in sys.path if path]
top, _, below = package.partition("/")
spec = importlib.util.find_spec(top)
folders = spec.submodule_search_locations if spec else None
inside = [(folder, os.path.join(folder, below)) for folder in folders or ()]
# An archive's folders are no directories.
found = [path for folder, path in inside if os.path.isdir(path) or not os.path.isdir(folder)]
sys.stdout.write("\\n" + json.dumps([os.path.realpath(path) for path in found]))
"""


def runner(
    image: str,
    docker: Docker | None = None,
    pythons: Sequence[str] = ("python",),
    folder: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Runner:
    """Runs programs inside this image, as the image's own user.

    pythons: the interpreter is the first of these that exists, by name on the image's PATH, or by
    path. folder: to start in, if not the image's own. settings: variables that replace the image's
    own and are no secrets.
    """
    cli = docker or Docker.from_environment()
    given = [f"--env={name}={value}" for name, value in (settings or {}).items()]

    def run(arguments: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        # By name, so that no value is in a process list.
        names = [word for name in environment for word in ("--env", name)]
        options = ["--rm", "--interactive", "--pull", "never", "--network", "none", *given]
        options += names
        options += ["--workdir", folder] if folder else []
        environ = {**cli.environment, **environment, **kept()}
        done = Completed(NOT_STARTED[-1], b"", b"")
        for python in pythons:
            # The container ends at the deadline, too.
            name = f"state-bundler-load-{secrets.token_hex(8)}"
            words = ["run", "--name", name, *options, "--entrypoint", python, image, *arguments]
            try:
                done = process.run(
                    cli.argv(*words), env=environ, stdin=program, timeout=TIMEOUT_SECONDS
                )
            except BaseException:
                cli.succeeds("rm", "--force", name)
                raise
            if done.exit_code not in NOT_STARTED:
                break
        return done

    return run


def interpreters(runs: RunsAs, places: Iterable[str] = ()) -> list[str]:
    """The Pythons that an image's program may run with, by path or by name, the likeliest first.

    A virtual environment that the image's program starts from, or that contains its state, need not
    be on its PATH.
    """
    words = command_words(runs.program)
    folders = [posixpath.dirname(word) for word in words if "/" in word]
    programs = [folder for folder in folders if posixpath.basename(folder) == "bin"]
    found = [posixpath.join(runs.working_directory, folder) for folder in programs]
    environments = [runs.variable("VIRTUAL_ENV"), runs.variable("UV_PROJECT_ENVIRONMENT")]
    environments += [match[1] for place in places if (match := _SITE_PACKAGES.match(place))]
    if any(posixpath.basename(word) == "uv" for word in words):
        environments.append(".venv")
    found += [posixpath.join(runs.working_directory, each, "bin") for each in environments if each]
    named = [f"{folder}/python" for folder in found if folder not in _SYSTEM]
    return [*dict.fromkeys(named), "python", "python3"]


def deciding(runs: RunsAs) -> dict[str, str]:
    """The variables that decide which interpreter runs, and its import path."""
    return {name: value for name, value in runs.environment if DECIDING.fullmatch(name)}


def kept() -> dict[str, str]:
    """The variables that docker itself uses, whatever a component's variables are called."""
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}


def imported_from(docker: Docker, image: str, runs: RunsAs, first: str, package: str) -> str | None:
    """The folder of a package in the image; None if its interpreter finds none, or cannot be run.

    Nothing of the project is run: only the top-level package is looked up, with what the
    interpreter and its site-packages do at every start. first: the front of ``sys.path``. package:
    as a path, such as ``shop/defs``.
    """
    settings = deciding(runs)
    for python in interpreters(runs):
        with suppress(ToolFailed, msgspec.DecodeError):
            run = runner(image, docker, [python], runs.working_directory, settings)
            done = run(["-", first, package], _PROGRAM, {})
            if done.exit_code == 0:
                last = done.stdout.rpartition(b"\n")[2]  # a .pth file may print, too
                return next(iter(msgspec.json.decode(last, type=list[str])), None)
    return None
