"""Compares what artifacts define: ``diff A B --definitions``.

An artifact with code is loaded in itself. One with only states, such as a store or a directory, is
loaded with the code of the project here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.definitions import Request, describe
from bundler.artifacts.extract import extract
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import Listener
from bundler.project.projects import Project
from bundler.refresh.definitions import States, describe_with
from bundler.refresh.secret_values import collect
from bundler.refresh.surroundings import Surroundings, configured_surroundings
from bundler.state.artifact import Artifact
from bundler.state.definitions import Definitions, DefinitionsDifference, compare, merge
from bundler.worker.definitions import NEAR
from bundler.workflows.loadcheck import environment_of, runners


@dataclass(frozen=True)
class Loader:
    """Describes artifacts.

    project: whose code loads states that have none; None if there is no project here. python: for a
    PEX; None for the project's. modules: what to load; else what the states belong to.
    """

    project: Project | None
    python: Path | None
    modules: Sequence[str]
    listener: Listener

    def difference(self, before: Artifact, after: Artifact) -> DefinitionsDifference:
        """Raises `VerificationFailed` if one of them does not load."""
        return compare(self.describe(before), self.describe(after))

    def describe(self, artifact: Artifact) -> Definitions:
        self.listener.phase(f"Loading {artifact.name} without network")
        with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
            folder = Path(name)
            found = self._in_itself(artifact, folder)
            return _loaded(found or self._with_code_here(artifact, folder / "states"), artifact)

    def _in_itself(self, artifact: Artifact, folder: Path) -> Definitions | None:
        here = self.project.interpreter.path if self.project else Path(sys.executable)
        runner = runners(artifact, self.python or here, folder, self.listener)
        if runner is None:
            return None
        run = runner(artifact.digest if artifact.kind == "docker" else artifact.name)
        surroundings = self._surroundings()
        record = artifact.run_record()
        environment = environment_of(record.refresh if record else (), surroundings.environment)
        redact = surroundings.secrets.redact
        targets = {name: name for name in self.modules} or _targets(artifact)
        return merge(
            {
                name: describe(run, Request(target), environment, artifact.name, redact)
                for name, target in targets.items()
            }
        )

    def _surroundings(self) -> Surroundings:
        if self.project is not None:
            return configured_surroundings(self.project)
        secrets = collect(os.environ, root=Path.cwd())
        return Surroundings(dict(os.environ), secrets)

    def _with_code_here(self, artifact: Artifact, folder: Path) -> Definitions:
        if self.project is None or self.project.dagster is None:
            raise UsageError(
                f"{artifact.name} contains states and no code, but this is not a Dagster project.",
                hint="Select the project whose code loads them with --project.",
            )
        self.listener.note(
            f"{artifact.name} does not run by itself: its states are loaded with the code of "
            f"{self.project.name}."
        )
        (found,) = describe_with(self.project, [_states(artifact, folder)])
        return found


def _targets(artifact: Artifact) -> dict[str, str]:
    """By a name that does not depend on where the artifact has the package, if there is one.

    Raises `UsageError` for an artifact without states: what it loads is unknown then.
    """
    paths = [item.path.rpartition("/")[0] for item in artifact.state_directories()]
    if not paths:
        raise UsageError(
            f"{artifact.name} contains no states, which show what a code server loads.",
            hint="Name the module that makes its definitions with --load-module.",
        )
    short = ["/".join(path.split("/")[-2:]) for path in paths]
    return {
        name if short.count(name) == 1 else path: f"{NEAR}:{path}"
        for name, path in zip(short, paths, strict=True)
    }


def _states(artifact: Artifact, folder: Path) -> States:
    return {
        state.key: item.target / state.path
        for item in extract(artifact, folder)
        for state in item.manifest.states
    }


def _loaded(found: Definitions, artifact: Artifact) -> Definitions:
    if found.error is not None:
        raise VerificationFailed(
            f"{artifact.name} does not load: {found.error}",
            hint="If another module makes its definitions, name it with --load-module.",
        )
    return found
