"""Runs the tutorial as it is written: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.test_demo import _first_difference, _uniform
from tests.support.engine import PYTHON_BASE, UV_IMAGE, Engine, make_python_base, make_uv_image
from tests.support.environments import ROOT

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent
BLOCK = re.compile(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
_DAGSTER = (ROOT / "tests/requirements/dagster.txt").read_text()


# A step that takes longer than a second, on this machine.
_ANNOUNCED = re.compile(
    r"^(?:(?:Verifying|Reading|Comparing|Checking|Loading)\b.* …|  .* so far)\n", re.MULTILINE
)


class Tutorial:
    """One who follows it: `project` is where the shell is, `server` what runs in the other one."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.project = folder / "shop"
        self.folder = folder
        self.server: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        docker = Path(engine.clis[0]).parent
        kept = {name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"}
        self.env = {
            **kept,
            **engine.environment,
            "DOCKER_BUILDKIT": "1",
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(BIN), str(docker), os.environ["PATH"]]),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip

    def here(self, text: str) -> str:
        """What differs on this machine: the port, the images, the newest Dagster that it has."""
        (version,) = re.findall(r"^dagster-dg-cli==(\S+)", _DAGSTER, re.MULTILINE)
        for one, other in (
            ("8000", str(self.port)),
            ("create-dagster@latest", f"create-dagster=={version}"),
            ("python:3.12-slim-bookworm", PYTHON_BASE),
            ("ghcr.io/astral-sh/uv:0.9", UV_IMAGE),
        ):
            text = text.replace(one, other)
        return text

    def write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(text))

    def start(self) -> None:
        argv = [sys.executable, "-m", "http.server", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--directory", str(self.folder / "vendor")]
        self.server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(60)
            self.server = None

    def console(self, text: str) -> None:
        for reported in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, output = reported.partition("\n")
            if command.startswith("cd "):
                continue
            where = self.project if self.project.exists() else self.folder
            done = subprocess.run(
                ["bash", "-c", self.here(command)], cwd=where, env=self.env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            code = re.search(r"✗ .*?\((\d+)\)", output)
            assert done.returncode == (int(code[1]) if code else 0), f"{command}\n{done.stdout}"
            if output:
                wanted, said = _uniform(self.here(output)), _uniform(done.stdout)
                said = _ANNOUNCED.sub("", said)
                if wanted.endswith("…\n"):
                    wanted = wanted.removesuffix("…\n")
                    assert _first_difference(wanted, said)[:17] in ("", "said at the end, "), said
                else:
                    assert _first_difference(wanted, said) == ""


def assert_example_is(reader: Tutorial) -> None:
    """The example is the project that the tutorial ends with."""
    example = ROOT / "examples/dagster-docker"
    files = [path for path in example.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        if path.name not in ("README.md", ".gitignore"):
            made = (reader.project / path.relative_to(example)).read_text()
            shown = re.sub(r"dagster==[\d.]+", "dagster==X", reader.here(path.read_text()))
            assert re.sub(r"dagster==[\d.]+", "dagster==X", made) == shown, path


def test_the_tutorial_does_what_it_says(tmp_path: Path, engine: Engine) -> None:
    make_python_base(engine)
    make_uv_image(engine)
    reader = Tutorial(tmp_path, engine)
    page = (ROOT / "docs/tutorial/first-image.md").read_text()
    try:
        for language, title, text in BLOCK.findall(page):
            if title in ("server", "with the server"):
                reader.start()
            if title == "without the server":
                reader.stop()
            if language == "console":
                reader.console(text)
            elif title != "server":
                reader.write(title, text)
        assert_example_is(reader)
    finally:
        reader.stop()
        for tag in ("1.0", "1.1"):
            engine.docker("image", "rm", "--force", f"shop:{tag}", check=False)
