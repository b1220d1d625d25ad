"""The template for CodeBuild as it stands: every command, in order, with a real docker.

`aws` alone is played: it prints the password that a registry of ECR's would take.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import registries
from tests.support.dockerprojects import Project
from tests.support.environments import ROOT

pytestmark = pytest.mark.engine

_PASSWORD = "of-the-hour/with+signs=="
_PROGRAMS = {
    "aws": f"[ \"$*\" = 'ecr get-login-password' ] && echo '{_PASSWORD}'",
    "uvx": 'test "$1" = --from && test -n "$2" && shift 2 && exec "$@"',
    # What they would install is here already.
    "pip": "exit 0",
    "uv": "exit 0",
}


@pytest.fixture
def programs(tmp_path: Path, project: Project) -> Path:
    """A folder for the front of PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in _PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "docker").symlink_to(project.engine.clis[0])
    return folder


def test_every_command_runs_in_order(project: Project, programs: Path, tmp_path: Path) -> None:
    project.configure()
    template = yaml.safe_load((ROOT / "templates/ci/buildspec.yml").read_text())
    lines = [line for phase in template["phases"].values() for line in phase["commands"]]
    with registries.running() as registry:
        registry.user = ("AWS", _PASSWORD)
        environment = project.environment(
            PATH=f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            HOME=str(tmp_path),
            DOCKER_CONFIG=str(tmp_path / "docker"),
            IMAGE=f"{registry.host}/acme/shop",
            CODEBUILD_RESOLVED_SOURCE_VERSION="1f3870be",
            STATE_BUNDLER="state-bundler @ file:///ours",
            **dict.fromkeys(template["env"]["secrets-manager"], "a-token-of-the-example"),
        )
        done = subprocess.run(
            ["sh", "-exc", "\n".join(lines)],  # CodeBuild's shell, one for all phases
            cwd=project.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        code, whole = (registry.manifest("acme/shop", f"{tag}1f3870be") for tag in ("code-", ""))
    project.engine.docker("image", "rm", f"{registry.host}/acme/shop:code-1f3870be")

    assert "Login Succeeded" in done.stdout
    assert whole["layers"][:-1] == code["layers"], "the state is one layer above the code"
    assert "1 state, 3 B" in done.stdout, "verify reports what it has read"
