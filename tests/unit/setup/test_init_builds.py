"""How `init` reads the files that say how images are built, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundler.setup.init.images import builds_in
from bundler.setup.init.workflow import needed
from tests.support.workdir import WorkDir


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("build.yaml", "locations: [foo]\n"),
        ("build.yaml", "locations: {foo: 5}\n"),
        ("dagster_cloud.yaml", "locations: [{build: 5}, {build: {directory: 5}}]\n"),
        ("compose.yaml", "services: {a: {build: {context: ., args: 5}}}\n"),
        ("compose.yaml", "services: {a: {build: {context: ., args: [5, null]}}}\n"),
        ("compose.yaml", "services: {a: 5}\n"),
        ("compose.yaml", "services: [5]\n"),
        ("compose.yaml", "services: [\n"),
        (".github/workflows/a.yml", "jobs: {a: {steps: [5, {with: 5, run: 5}], env: 5}}\n"),
    ],
)
def test_a_malformed_declaration_stops_nothing(name: str, text: str, wd: WorkDir) -> None:
    wd.write("Dockerfile", "FROM x\nCOPY . .\n")
    wd.write(name, text)
    assert {build.dockerfile for build in builds_in(wd.path)} == {"Dockerfile"}


def test_what_is_not_utf_8_and_what_is_no_file_is_passed_over(wd: WorkDir) -> None:
    wd.write("Dockerfile", "FROM x\nCOPY . .\n")
    for name in ("build.sh", "code.py", "compose.yaml"):
        text = "# -*- coding: latin-1 -*- für\ndocker build --target prod .\nenviron['API_URL']\n"
        (wd.path / name).write_bytes(text.encode("latin-1"))
    for name in ("pipe.sh", "pipe.py", "docker-compose.yml", "pipe.Dockerfile"):
        os.mkfifo(wd.path / name)
    assert "prod" in {build.target for build in builds_in(wd.path)}
    assert needed(Path(wd.path)) == {"API_URL"}
