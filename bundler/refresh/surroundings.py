"""What a project's processes see: the environment, with the project's ``.env`` over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from bundler.refresh import dotenv
from bundler.refresh.secret_values import collect
from bundler.refresh.secrets import Secrets

if TYPE_CHECKING:
    from bundler.project.projects import Project

# Names the file that one of several builds writes its result to; its presence prevents recursion.
ONE_OF_ALL = "STATE_BUNDLER_ONE_OF_ALL"


class Surroundings(msgspec.Struct, frozen=True):
    """What a project's processes see, and which of it is secret."""

    environment: Mapping[str, str]
    secrets: Secrets


def configured_surroundings(project: Project) -> Surroundings:
    """The same, with what the project's configuration says is secret and what is not."""
    config = project.config.refresh
    return surroundings_of(project, named=config.secrets, excluded=config.not_secrets)


def from_dotenv(project: Project) -> dict[str, str]:
    """The variables in the ``.env`` of the project and of its workspace."""
    found: dict[str, str] = {}
    for directory in (project.workspace, project.root):
        if directory is not None:
            known = {**os.environ, **found}
            found |= dotenv.read(directory / ".env", known, project.interpreter.path)
    return found


def surroundings_of(
    project: Project, *, named: Sequence[str], excluded: Sequence[str]
) -> Surroundings:
    """The environment with the project's ``.env`` over it, as Dagster's tools load it."""
    from_file = from_dotenv(project)
    environment = {**os.environ, **from_file}
    # What our own interpreter was started with is not the project's.
    for name in ("PYTHONHOME", "__PYVENV_LAUNCHER__", ONE_OF_ALL):
        environment.pop(name, None)
    environment["PATH"] = os.pathsep.join(
        [str(project.interpreter.path.parent), environment.get("PATH", os.defpath)]
    )
    return Surroundings(
        environment,
        collect(
            environment,
            named=named,
            from_file=from_file,
            excluded=excluded,
            root=project.root,
        ),
    )
