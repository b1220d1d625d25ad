"""The Docker CLI plugin, as docker calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerprojects import PLUGIN, Project
from tests.support.engine import Engine

pytestmark = pytest.mark.engine(offline=True)


def test_docker_lists_the_plugin(engine: Engine, plugged: dict[str, str]) -> None:
    for cli in engine.clis:
        done = subprocess.run([cli, "--help"], env=plugged, check=True, capture_output=True)
        line = next(line for line in done.stdout.decode().splitlines() if "bundle*" in line)
        assert "state of external systems" in line


def test_the_plugin_takes_global_options_and_passes_exit_codes(
    engine: Engine, plugged: dict[str, str], project: Project, tcp: str
) -> None:
    project.build()
    environment = {k: v for k, v in plugged.items() if k != "DOCKER_HOST"}
    for cli in engine.clis:
        environment["PATH"] = f"{Path(cli).parent}{os.pathsep}{plugged['PATH']}"
        for options, code in (
            (("-H", engine.host), 0),
            (("-H", tcp), 0),
            (("-H", "tcp://127.0.0.1:9"), 71),
        ):
            argv = [cli, *options, "bundle", "verify", f"docker-daemon:{project.name}"]
            done = subprocess.run(argv, env=environment, check=False, capture_output=True)
            assert done.returncode == code, done.stderr.decode()


def test_the_plugin_answers_before_it_imports_anything(engine: Engine) -> None:
    argv = [sys.executable, "-X", "importtime", PLUGIN, "docker-cli-plugin-metadata"]
    done = subprocess.run(argv, check=True, capture_output=True)
    metadata = json.loads(done.stdout)
    assert metadata["SchemaVersion"] == "0.1.0"
    assert metadata["Vendor"]
    imported = {line.rpartition(b"|")[2].strip() for line in done.stderr.splitlines()}
    assert {b"click", b"msgspec", b"docker", b"subprocess"}.isdisjoint(imported)


def test_init_installs_the_plugin_and_takes_it_away(
    engine: Engine, tmp_path: Path, project: Project
) -> None:
    config = tmp_path / "config of docker"
    environment = {**engine.environment, "DOCKER_CONFIG": str(config)}
    init = [PLUGIN.with_name("state-bundler"), "init", "--docker-plugin"]
    for _ in range(2):
        subprocess.run(init, env=environment, check=True, capture_output=True)
    for cli in engine.clis:
        done = subprocess.run([cli, "bundle", "--version"], env=environment, check=True,
                              capture_output=True)  # fmt: skip
        assert b"version" in done.stdout
    plugin = config / "cli-plugins" / "docker-bundle"
    text = plugin.read_text()
    plugin.write_text(re.sub(r"^exec .*$", "exit 1", text, flags=re.MULTILINE))
    asked = [plugin, "docker-cli-plugin-metadata"]
    said = subprocess.run(asked, check=True, capture_output=True).stdout
    assert json.loads(said)["SchemaVersion"] == "0.1.0"  # by the shell alone: no Python starts
    plugin.write_text(text)

    subprocess.run([*init, "--remove"], env=environment, check=True, capture_output=True)
    assert list((config / "cli-plugins").iterdir()) == []
    (config / "cli-plugins" / "docker-bundle").write_text("another's")
    refused = subprocess.run(init, env=environment, check=False, capture_output=True)
    assert refused.returncode == 78
    assert (config / "cli-plugins" / "docker-bundle").read_text() == "another's"
