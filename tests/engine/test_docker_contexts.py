"""Contexts that are no folder here: by URL, and by stdin."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import building, stdin_context
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.dockerbuild import BuildInput
from bundler.errors import ConfigurationError, UsageError
from tests.support.bundles import PLACE, make_record
from tests.support.dockerprojects import PLUGIN, Project, verified
from tests.support.embedding import build_image
from tests.support.owndockerd import free_port, wait_for_port

pytestmark = pytest.mark.engine(offline=True)

BUILDERS = [(0, "0"), (0, "1"), (1, "")]
# Nothing is run in it, which would take most of the time.
FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"


def build(project: Project, words: list[str], stdin: bytes, cli: int, buildkit: str) -> None:
    """As our command does. What the context had as state before is not in the image."""
    before = f"{project.name} {project.version}".encode()
    bundle = project.new_state()
    arguments = parse(["-t", project.name, *words])
    docker = project.docker(cli, buildkit)
    with stdin_context.take(arguments, io.BytesIO(stdin)) as given:
        building.preflight(BuildInput(arguments, given))
        request = EmbedRequest((bundle,), make_record(bundle))
        built = build_image(arguments, request, docker, check=verified, piped=given)
    assert built.paths == (f"/app/src/{PLACE}",)
    assert project.inspect()["Id"] == built.image_id
    saved = project.everything()
    assert f"{project.name} {project.version}".encode() in saved
    assert before not in saved


def archived(root: Path) -> bytes:
    """A folder as ``tar czC FOLDER .`` gives it out, state and all."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(root, ".")
    return packed.getvalue()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def repository(project: Project) -> Iterator[str]:
    """The project's own repository, by git's daemon."""
    port = free_port()
    argv = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all",
            f"--base-path={project.root.parent}", str(project.root.parent)]  # fmt: skip
    with subprocess.Popen(argv, env=project.environment(), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield f"git://127.0.0.1:{port}/{project.root.name}/.git"
        finally:
            process.terminate()


@pytest.mark.parametrize(("cli", "buildkit"), BUILDERS)
def test_a_context_by_url(cli: int, buildkit: str, project: Project, tmp_path: Path) -> None:
    project.write("Other", FROM_SCRATCH)
    project.configure()
    (tmp_path / "served").mkdir()
    (tmp_path / "served/code.tar.gz").write_bytes(archived(project.root))
    project.new_state()
    with repository(project) as url:
        build(project, ["-f", "Other", url], b"", cli, buildkit)
    with served(tmp_path / "served") as url:
        build(project, ["-f", "Other", f"{url}/code.tar.gz"], b"", cli, buildkit)


@pytest.mark.parametrize(("cli", "buildkit"), BUILDERS)
def test_a_context_or_a_dockerfile_by_stdin(cli: int, buildkit: str, project: Project) -> None:
    project.new_state()
    build(project, ["-f", "-", str(project.root)], FROM_SCRATCH.encode(), cli, buildkit)
    project.write("Other", FROM_SCRATCH)
    build(project, ["-f", "Other", "-"], archived(project.root), cli, buildkit)
    build(project, ["-"], f"FROM {project.name}\n".encode(), cli, buildkit)


def test_the_state_is_that_of_the_project_here(project: Project, tmp_path: Path) -> None:
    project.configure()
    project.write("Dockerfile", FROM_SCRATCH)
    argv = [str(PLUGIN), "bundle", "build", "-q", "-t", project.name, "-"]

    def run(*more: str, cwd: Path) -> tuple[int, str, str]:
        done = subprocess.run(
            [*argv, *more], input=archived(project.root), env=project.environment(), cwd=cwd,
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode().strip(), done.stderr.decode()

    code, said, problems = run(cwd=project.root)
    assert (code, said) == (0, project.inspect()["Id"]), problems
    code, said, _ = run("--bundle-project", str(project.root), cwd=tmp_path)
    assert (code, said) == (0, project.inspect()["Id"])
    code, _, problems = run(cwd=tmp_path)
    assert code == 78
    assert f"{tmp_path} is not a Dagster project, and it configures no sources" in problems
    assert "1 project is below: shop." in problems
    assert "--bundle-project shop" in problems


def test_what_docker_gets_is_every_byte_but_the_state(tmp_path: Path) -> None:
    for path in ("src/a.py", "src/shop/defs/x.py", f"src/{PLACE}/Key/state", f"{PLACE}/state",
                 f"src/{PLACE}-not/state"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / ("long" * 40)).write_text("a name that takes its own header")
    raw = gzip.decompress(archived(tmp_path))
    arguments = parse(["-"])
    for packed in (raw, gzip.compress(raw, mtime=0)):
        with stdin_context.take(arguments, io.BytesIO(packed)) as given:
            assert given is not None
            everything, left = io.BytesIO(), io.BytesIO()
            given.write(everything, [])
            given.write(left, [PLACE])
            assert gzip.decompress(everything.getvalue()) == raw
    with tarfile.open(fileobj=io.BytesIO(raw)) as before:
        names = [name for name in before.getnames() if f"/{PLACE}/" not in f"{name}/"]
    with tarfile.open(fileobj=io.BytesIO(left.getvalue())) as archive:
        after = archive.getnames()
    assert after == names
    assert f"./src/{PLACE}-not/state" in after


@pytest.mark.parametrize(
    ("words", "stdin", "sentence"),
    [
        ("-f - -", b"FROM x", "both the Dockerfile"),
        ("-", b"", "The standard input is empty"),
        ("-", gzip.compress(b"x" * 3000, mtime=0)[:-9], "cannot be extracted"),
        ("-", gzip.compress(b"FROM scratch", mtime=0), "cannot be read"),
        ("-f Other -", gzip.compress(b"\0" * 1024, mtime=0), "has no Other"),
        ("-f http://127.0.0.1/Dockerfile .", b"", "is not a local file"),
    ],
)
def test_what_cannot_be_built_is_an_error(words: str, stdin: bytes, sentence: str) -> None:
    arguments = parse(words.split())
    with (
        pytest.raises(UsageError, match=sentence),
        stdin_context.take(arguments, io.BytesIO(stdin)) as given,
    ):
        building.preflight(BuildInput(arguments, given))


def test_a_dockerfile_by_stdin_that_copies_state_is_refused_first(tmp_path: Path) -> None:
    text = f"FROM scratch\nCOPY src/{PLACE} /state\n"
    (tmp_path / "Dockerfile").write_text(text)
    for words, stdin in (
        ("-", text.encode()),
        ("-f - .", text.encode()),
        ("-", archived(tmp_path)),
    ):
        arguments = parse(words.split())
        with (
            stdin_context.take(arguments, io.BytesIO(stdin)) as given,
            pytest.raises(ConfigurationError, match="Dockerfile:2 copies"),
        ):
            building.preflight(BuildInput(arguments, given))


@pytest.mark.parametrize(("here", "file", "context"), [
    ("projects/shop", "Dockerfile", "../.."), (".", "projects/shop/Dockerfile", "."),
])  # fmt: skip
def test_a_context_above_the_project(project: Project, here: str, file: str, context: str) -> None:
    text = "FROM scratch\nCOPY lib /lib\nCOPY projects/shop/src /app/src\nENV PYTHONPATH=/app/src\n"
    monorepo = project.root.parent / "monorepo"
    (monorepo / "projects").mkdir(parents=True)
    project.root.rename(monorepo / "projects/shop")
    shop = Project(monorepo / "projects/shop", project.engine, project.name)
    shop.write("Dockerfile", text)
    shop.configure()
    (monorepo / "lib").mkdir()
    (monorepo / "lib/shared.py").touch()
    (monorepo / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["projects/*"]\n')
    argv = [PLUGIN.with_name("state-bundler"), "build", "docker", "-f", file, "-t", project.name]
    done = subprocess.run(
        [*argv, context], cwd=monorepo / here, env=shop.environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"/app/src/{PLACE}: 1 state" in done.stdout


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_a_lower_case_dockerfile_counts(project: Project, buildkit: str) -> None:
    (project.root / "Dockerfile").unlink()
    project.write("dockerfile", FROM_SCRATCH)
    made = project.build(docker=project.docker(0, buildkit))
    assert made.paths == (f"/app/src/{PLACE}",)


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_a_fifo_in_the_context_holds_nobody(project: Project, buildkit: str) -> None:
    """The builder would wait for one."""
    project.write("Dockerfile", FROM_SCRATCH)
    project.configure()
    for name in ("src/shop/fifo", "src/shop/.dockerignore"):
        os.mkfifo(project.root / name)
    words = ["build", "docker", "--no-guard", "--no-load-check", "-t", project.name, "."]
    done = subprocess.run(
        [sys.executable, "-m", "bundler", *words], cwd=project.root, timeout=300,
        env=project.environment(DOCKER_BUILDKIT=buildkit), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
