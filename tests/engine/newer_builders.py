"""Builders elsewhere, and bake for several platforms, with a newer Docker's buildx.

Run by ``make docker-newer``, as `newer_docker` is. The builder elsewhere is the engine's own
BuildKit, reached as buildx reaches any other (driver ``remote``): by gRPC at a TCP port, which the
engine offers behind an upgrade of HTTP. So it hands its result out as ``docker-container`` and
``kubernetes`` do: to the engine as an archive, to a registry by digest.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.blobs import images_of
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.opening import open_image
from bundler.artifacts.image.image import LABEL_LAYER
from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.verify import verify
from bundler.errors import UsageError, VerificationFailed
from tests.support import registries
from tests.support.bundles import PLACE, make_record
from tests.support.dockerprojects import Project, relay
from tests.support.embedding import build_image
from tests.support.engine import CLIENT_VARIABLE, Engine

pytestmark = pytest.mark.engine

CONTAINERD = os.environ["BUNDLER_TEST_STORE"] == "containerd"
FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"
PLATFORMS = "linux/amd64,linux/arm64"
_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.fixture(autouse=True)
def _scratch(project: Project) -> None:
    project.write("Dockerfile", FROM_SCRATCH)


@pytest.fixture
def elsewhere(engine: Engine) -> Iterator[str]:
    """The name of a builder that is reached by TCP."""

    def upgraded() -> socket.socket:
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(engine.host.removeprefix("unix://"))
        upstream.sendall(_UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += (byte := upstream.recv(1))
            assert byte, answer
        assert b" 101 " in answer
        return upstream

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _ = server.accept()
                    threading.Thread(target=relay, args=(line, upgraded()), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        name, address = "elsewhere", f"tcp://127.0.0.1:{server.getsockname()[1]}"
        docker(engine, "buildx", "create", "--driver", "remote", "--name", name, address)
        try:
            yield name
        finally:
            docker(engine, "buildx", "rm", name)
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def docker(engine: Engine, *words: str) -> str:
    """The newer docker, which has buildx."""
    argv = [engine.clis[-1], *words]
    return subprocess.run(
        argv, env=engine.environment, check=True, capture_output=True
    ).stdout.decode()


@pytest.mark.containerd  # the classic store's BuildKit hands out no archive
@pytest.mark.parametrize("words", [(), ("--load",)])
def test_a_builder_elsewhere_builds_for_the_engine(
    words: tuple[str, ...], project: Project, elsewhere: str
) -> None:
    far = project.docker(1, "")
    built = project.build("--builder", elsewhere, *words, "-t", project.name, docker=far)
    assert project.inspect()["Id"] == built.image_id
    with open_image(project.name, far) as artifact:
        assert verify(artifact).all_problems == ()


@pytest.mark.containerd  # the classic store's BuildKit pushes nothing
@pytest.mark.parametrize("platforms", [(), ("--platform", PLATFORMS)])
def test_a_builder_elsewhere_pushes_by_digest_and_the_tag_comes_last(
    platforms: tuple[str, ...], project: Project, elsewhere: str
) -> None:
    with registries.distribution() as host:
        names = [f"{host}/team/shop:1", f"{host}/team/shop:2"]
        words = ["--builder", elsewhere, *platforms, "--push", "-t", names[0], "-t", names[1]]

        def refuse(artifact: Any) -> None:
            raise VerificationFailed(f"{artifact.name} is not as it should be.")

        bundle = project.new_state()
        with pytest.raises(VerificationFailed, match="not as it should be"):
            build_image(
                parse([*words, str(project.root)]),
                EmbedRequest((bundle,), make_record(bundle)), project.docker(1, ""), check=refuse,
            )  # fmt: skip
        for name in names:
            # The code's image is there, by its digest alone.
            with pytest.raises(UsageError, match="has no image"):
                registry.open_image(name)

        built = project.build(*words, docker=project.docker(1, ""))
        for name in names:
            with registry.open_image(name) as artifact:
                assert artifact.digest == built.image_id
                assert platforms_in(artifact) == (2 if platforms else 1)


HCL = """
target "app" {
  platforms = ["linux/amd64", "linux/arm64"]
  tags = ["HOST/team/app:1", "HOST/team/app:2"]
}
target "inline" {
  dockerfile-inline = "FROM scratch\\nCOPY src /src\\nENV PYTHONPATH=/src\\n"
  tags = ["NAME"]
}
"""


class Baker:
    """``docker bundle bake`` in a project."""

    def __init__(
        self, project: Project, plugged: dict[str, str], host: str, definition: str = HCL,
        file: str = "docker-bake.hcl",
    ) -> None:  # fmt: skip
        project.write(file, definition.replace("NAME", project.name).replace("HOST", host))
        project.configure()
        config = Path(plugged["DOCKER_CONFIG"])
        theirs = Path(os.environ[CLIENT_VARIABLE])
        (config / "cli-plugins/docker-buildx").symlink_to(theirs / "cli-plugins/docker-buildx")
        if (theirs / "buildx").exists():  # the builders that it knows
            shutil.copytree(theirs / "buildx", config / "buildx")
        self._project = project
        self._environment = project.environment(DOCKER_CONFIG=str(config), DOCKER_BUILDKIT="")
        del self._environment["STATE_BUNDLER_DOCKER"]

    def bake(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [self._project.engine.clis[-1], "bundle", "bake", *words], input=stdin,
            env=self._environment, cwd=self._project.root, check=False, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return (done.stdout + done.stderr).decode()


def platforms_in(artifact: Any) -> int:
    assert verify(artifact).all_problems == ()
    return len(list(images_of(artifact.store, artifact.entry)))


@pytest.mark.containerd
def test_bake_pushes_several_platforms(
    project: Project, plugged: dict[str, str], elsewhere: str, tmp_path: Path
) -> None:
    with registries.distribution() as host:
        baker = Baker(project, plugged, host)
        for number, words in enumerate([(), ("--builder", elsewhere)], 1):
            metadata = tmp_path / f"{number}.json"
            baker.bake("--push", "--metadata-file", str(metadata), *words, "app")
            reported = json.loads(metadata.read_bytes())["app"]["containerimage.digest"]
            for tag in ("1", "2"):
                with registry.open_image(f"{host}/team/app:{tag}") as artifact:
                    assert artifact.digest == reported
                    assert platforms_in(artifact) == 2


def test_bake_makes_several_platforms_here(
    project: Project, plugged: dict[str, str], tmp_path: Path
) -> None:
    baker = Baker(project, plugged, "sbt.example")
    if CONTAINERD:
        baker.bake("app", "inline")
        ids = [project.inspect(f"sbt.example/team/app:{tag}")["Id"] for tag in ("1", "2")]
        assert ids[0] == ids[1]
        project.engine.docker("image", "rm", *(f"sbt.example/team/app:{tag}" for tag in "12"))
    else:
        said = baker.bake("app", "inline", code=2)
        assert "does not support several platforms" in said
        assert not project.engine.has_image(project.name)
        baker.bake("inline")
    assert LABEL_LAYER in project.inspect()["Config"]["Labels"]
    if CONTAINERD:
        target = tmp_path / "app.tar"
        baker.bake("--set", f"app.output=type=oci,dest={target}", "app")
        with open_layout(target) as artifact:
            assert platforms_in(artifact) == 2


_BASE = "FROM scratch\\nWORKDIR /app\\nENV PYTHONPATH=/app/src\\n"
# The same in each language, as far as it has words for it; compose has no groups and no matrix.
_DEFINITIONS = {
    "docker-bake.hcl": """
        group "default" { targets = ["app", "others"] }
        group "others" { targets = ["tool"] }
        target "common" { args = { FOLDER = "src" } }
        target "base" { dockerfile-inline = "BASE" }
        target "app" {
          inherits = ["common"]
          name = "app-${item}"
          matrix = { item = ["one", "two"] }
          dockerfile = "${item}.Dockerfile"
          contexts = { base = "target:base", extra = "extra" }
          tags = ["NAME:${item}"]
        }
        target "tool" { dockerfile-inline = "FROM scratch\\nCOPY extra /\\n" }
    """,
    "docker-bake.json": """{
        "group": {"default": {"targets": ["app", "others"]}, "others": {"targets": ["tool"]}},
        "target": {
            "common": {"args": {"FOLDER": "src"}},
            "base": {"dockerfile-inline": "BASE"},
            "app": {
                "inherits": ["common"], "name": "app-${item}", "matrix": {"item": ["one", "two"]},
                "dockerfile": "${item}.Dockerfile", "tags": ["NAME:${item}"],
                "contexts": {"base": "target:base", "extra": "extra"}
            },
            "tool": {"dockerfile-inline": "FROM scratch\\nCOPY extra /\\n"}
        }
    }""",
    "compose.yaml": """
        x-build: &build
          context: .
          args: {FOLDER: src}
          additional_contexts: {base: "service:base", extra: ./extra}
        services:
          base: {build: {context: ., dockerfile_inline: "BASE"}}
          app-one: {image: "NAME:one", build: {<<: *build, dockerfile: one.Dockerfile}}
          app-two: {image: "NAME:two", build: {<<: *build, dockerfile: two.Dockerfile}}
          tool: {build: {context: ., dockerfile_inline: "FROM scratch\\nCOPY extra /\\n"}}
    """,
}


@pytest.mark.parametrize("file", _DEFINITIONS)
def test_what_bake_cannot_build_is_refused_before_the_refresh(
    file: str, project: Project, plugged: dict[str, str]
) -> None:
    for name in ("one", "two"):
        code = "FROM scratch AS code\nARG FOLDER\nCOPY $FOLDER /src\n"
        lines = f"COPY --from=extra note /{name}\nCOPY --from=code /src /app/src\n"
        project.write(f"{name}.Dockerfile", f"{code}FROM base\n{lines}")
    project.write("extra/note")
    definition = _DEFINITIONS[file].replace("BASE", _BASE)
    baker = Baker(project, plugged, "sbt.example", definition, file)
    apps = ["app-one", "app-two"] if file == "compose.yaml" else ["app"]
    words = ["-f", file, *(f"--bundle-state-target={app}" for app in apps)]
    for change, code, message in (
        ("app-two.dockerfile=missing", 2, "There is no missing in"),
        ("app-two.contexts.extra=missing", 2, "--build-context extra is missing"),
        ("app-*.context=missing", 2, "The context is missing"),
    ):
        assert message in " ".join(baker.bake(*words, "--set", change, code=code).split())
    assert not (project.root / "src" / PLACE).exists()
    words_for_base = ("-f", file, "--bundle-state-target=base", "app-one")
    assert "does not build an image of 'base'" in baker.bake(*words_for_base, code=2)

    baker.bake(*words)
    for name in ("one", "two"):
        with open_image(f"{project.name}:{name}", project.docker(1, "")) as artifact:
            assert verify(artifact).all_problems == ()
        project.engine.docker("image", "rm", f"{project.name}:{name}")


@pytest.mark.parametrize("words", ["-f -", "-f-", "--file=-"])
def test_bakes_file_may_come_by_stdin(
    project: Project, plugged: dict[str, str], words: str
) -> None:
    baker = Baker(project, plugged, "sbt.example")
    baker.bake(*words.split(), "inline", stdin=(project.root / "docker-bake.hcl").read_bytes())
    assert LABEL_LAYER in project.inspect()["Config"]["Labels"]
