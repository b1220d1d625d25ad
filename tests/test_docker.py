"""Images in a real engine: every builder that is here builds, the state goes on top, is read back.

The projects are a few files and their states are made by hand, so that a build takes seconds; the
real Dagster project is in ``test_docker_whole_way.py``.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundles import PLACE, make_bundle, make_record
from engine import PYTHON_BASE, Engine

from bundler.artifacts import docker as dockers
from bundler.artifacts import oci
from bundler.artifacts.blobs import descriptor
from bundler.artifacts.docker import Docker, building, embedding
from bundler.artifacts.docker.arguments import parse
from bundler.artifacts.docker.building import detect
from bundler.artifacts.docker.whole import fetch, keep_only
from bundler.artifacts.image import LABEL_LAYER
from bundler.artifacts.ociread import LoadedImage
from bundler.bundle import STATE_DIRECTORY, Bundle
from bundler.errors import (
    BundlerError,
    ChildFailed,
    ConfigurationError,
    ToolFailed,
    UsageError,
    VerificationFailed,
)
from bundler.verify import verify

EDITABLE = f"""\
FROM {PYTHON_BASE}
WORKDIR /app
COPY . /app
RUN mkdir -p /usr/local/lib/python3.11/dist-packages && \\
    echo /app/src > /usr/local/lib/python3.11/dist-packages/_shop.pth
USER 1000
"""
INSTALLED = f"""\
FROM {PYTHON_BASE} AS build
WORKDIR /build
COPY . .
RUN mkdir -p /out && cp -r src/shop /out/shop

FROM {PYTHON_BASE}
WORKDIR /app
COPY --from=build /out/ /usr/local/lib/python3.11/dist-packages/
"""


@dataclass
class Project:
    """A project with a Dockerfile and a state. name: of the image that its tests make."""

    root: Path
    engine: Engine
    name: str
    version: int = 0

    def write(self, path: str, text: str = "") -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def new_state(self) -> Bundle:
        """A state that no earlier test has seen, published in the project."""
        self.version += 1
        content = f"{self.name} {self.version}".encode()
        states = {"Catalog": {"state": content}}
        return make_bundle(self.root / "src" / PLACE, states, place=PLACE)

    def docker(self, cli: int = 0, buildkit: str = "1", *options: str) -> Docker:
        environment = {**self.engine.environment, "DOCKER_BUILDKIT": buildkit}
        program = self.engine.clis[min(cli, len(self.engine.clis) - 1)]
        return Docker(program, options, environment)

    def build(
        self, *arguments: str, bundle: Bundle | None = None, docker: Docker | None = None
    ) -> building.Built:
        given = bundle or self.new_state()
        parsed = parse([*(arguments or ("-t", self.name)), str(self.root)])
        building.preflight(parsed)
        return building.build(
            parsed, [given], make_record(given), docker=docker or self.docker(), check=verified
        )

    def inspect(self, name: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.engine.docker("image", "inspect", name or self.name).stdout
        )[0]
        return found

    def left_behind(self) -> tuple[set[str], set[str], set[str]]:
        """Containers, volumes and images."""
        asks = (("ps", "-aq"), ("volume", "ls", "-q"), ("image", "ls", "-q"))
        containers, volumes, images = (
            set(self.engine.docker(*ask).stdout.decode().split()) for ask in asks
        )
        return containers, volumes, images


def verified(artifact: Any) -> None:
    assert verify(artifact).all_problems == ()


@pytest.fixture
def project(tmp_path: Path, engine: Engine, request: pytest.FixtureRequest) -> Iterator[Project]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    project = Project(tmp_path / "shop", engine, f"sbt/{name}")
    project.write("Dockerfile", EDITABLE)
    project.write("src/shop/__init__.py")
    project.write("src/shop/defs/__init__.py")
    project.write(".dockerignore", ".dockerignore\nDockerfile\n")
    yield project
    engine.docker("image", "rm", "--force", project.name, check=False)


@pytest.fixture
def transcript(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What docker printed since the last time that it was asked."""
    return lambda: "".join(capfd.readouterr())


BUILDERS = [(0, "0"), (0, "1"), (1, "0"), (1, "")]


@pytest.mark.parametrize(("cli", "buildkit"), BUILDERS)
def test_every_builder_and_new_state_reuses_every_layer(
    cli: int, buildkit: str, project: Project, transcript: Callable[[], str]
) -> None:
    project.write(".dockerignore", f"**/.*\n!src/shop/defs/{STATE_DIRECTORY}\n")
    docker = project.docker(cli, buildkit)
    first = project.build(docker=docker)
    transcript()
    second = project.build(docker=docker)

    steps = EDITABLE.count("\n") - EDITABLE.count("\\\n") - 1
    said = transcript()
    cached = said.count("Using cache") + said.count(" CACHED")
    assert cached == (steps if "Using cache" in said else steps - 1)  # BuildKit: USER is no step
    before, after = (project.inspect(image) for image in (first.image_id, second.image_id))
    assert before["RootFS"]["Layers"][:-1] == after["RootFS"]["Layers"][:-1]
    assert before["RootFS"]["Layers"][-1] != after["RootFS"]["Layers"][-1]
    assert project.inspect()["Id"] == second.image_id
    assert second.paths == (f"/app/src/{PLACE}",)


def test_the_build_never_sees_the_state(project: Project) -> None:
    project.write(".dockerignore", "")
    for buildkit in ("0", "1"):
        project.build(docker=project.docker(0, buildkit))
        layers = project.inspect()["RootFS"]["Layers"]
        listing = project.engine.docker("history", "--format", "{{.CreatedBy}}", project.name)
        assert listing.stdout.decode().startswith("state-bundler embed")
        project.write("Plain", f"FROM {PYTHON_BASE}\nCOPY . /app\nRUN test ! -e /app/src/{PLACE}\n")
        project.build("-t", project.name, "-f", str(project.root / "Plain"),
                      docker=project.docker(0, buildkit))  # fmt: skip
        assert project.inspect()["RootFS"]["Layers"] != layers


def test_the_code_finds_its_state_where_it_is_imported(project: Project) -> None:
    for dockerfile in (EDITABLE, INSTALLED):
        project.write("Dockerfile", dockerfile)
        bundle = project.new_state()
        project.build(bundle=bundle)
        code = (
            "import shop.defs, pathlib;"
            "print(pathlib.Path(shop.defs.__file__).with_name('.local_defs_state')"
            ".joinpath('Catalog/state').read_text())"
        )
        run = ("run", "--rm", "--network", "none", "--user", "4321", project.name)
        said = project.engine.docker(*run, "python", "-c", code).stdout
        assert said.strip() == (bundle.root / "Catalog/state").read_bytes()


def test_nothing_else_changes(project: Project) -> None:
    project.write(
        "Dockerfile",
        EDITABLE
        + 'LABEL team="shop"\nENV A="b c"\nEXPOSE 4000\nSTOPSIGNAL SIGINT\nVOLUME /data\n'
        + 'HEALTHCHECK --interval=5s CMD true\nSHELL ["/bin/sh", "-ec"]\nONBUILD RUN false\n'
        + 'ENTRYPOINT ["python3"]\nCMD ["-V"]\n',
    )
    plain = f"{project.name}-plain"
    project.build()
    environment = {**project.engine.environment, "DOCKER_BUILDKIT": "1"}
    argv = [project.engine.clis[0], "build", "-q", "-t", plain, project.root]
    bundle = project.root / "src" / PLACE
    bundle.rename(project.root.parent / "aside")
    subprocess.run(argv, env=environment, check=True, capture_output=True)

    ours, theirs = project.inspect(), project.inspect(plain)
    labels = ours["Config"].pop("Labels")
    assert {k: v for k, v in labels.items() if not k.startswith("io.state-bundler.")} == (
        theirs["Config"].pop("Labels")
    )
    assert ours["Config"] == theirs["Config"]
    assert ours["RootFS"]["Layers"][:-1] == theirs["RootFS"]["Layers"]
    assert ours["Architecture"] == theirs["Architecture"]
    lines = [_history(project, name) for name in (project.name, plain)]
    assert lines[0][1:] == lines[1]


def _history(project: Project, name: str) -> list[str]:
    ask = ("history", "--no-trunc", "--human=false", "--format")
    said = project.engine.docker(*ask, "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", name)
    return said.stdout.decode().splitlines()


def test_the_same_state_at_the_same_time_is_the_same_image(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = project.new_state()
    layers = {project.build(bundle=bundle).image_id}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    images = {project.build(bundle=bundle).image_id for _ in range(2)}
    assert len(images) == 1
    found = {project.inspect(image)["RootFS"]["Layers"][-1] for image in layers | images}
    assert len(found) == 1


def test_an_update_replaces_the_layer_and_an_unchanged_state_makes_nothing(
    project: Project,
) -> None:
    first = project.build()
    engine = project.docker().connect()
    bundle = project.new_state()
    made = dockers.embed(engine, project.name, [bundle], make_record(bundle), check=verified)
    again = dockers.embed(
        engine, made.image_id, [bundle], make_record(bundle), keep_unchanged=True, check=verified
    )

    assert made.changed
    assert (again.image_id, again.changed) == (made.image_id, False)
    before, after = project.inspect(first.image_id), project.inspect(made.image_id)
    assert len(before["RootFS"]["Layers"]) == len(after["RootFS"]["Layers"])
    assert before["Config"]["Labels"][LABEL_LAYER] != after["Config"]["Labels"][LABEL_LAYER]
    engine.delete(f"/images/{made.image_id}", noprune="1")


def test_a_place_is_remembered_only_for_the_very_same_image(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.build()

    def build_again() -> tuple[int, str]:
        """How often the image's files were asked, and where the state went."""
        asked: list[str] = []
        plan = embedding.plan

        def counting(*arguments: Any) -> Any:
            asked.append("")
            return plan(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(embedding, "plan", counting)
            (path,) = project.build().paths
        return len(asked), path

    # The same files: what the earlier image's label says. plan is looked up when it is called.
    assert build_again() == (0, f"/app/src/{PLACE}")
    moved = "ENV PYTHONPATH=/two\nUSER 0\nRUN cp -r /app/src /two\nUSER 1000\n"
    for text, place in (
        (EDITABLE + moved, "/two"),
        (EDITABLE + "ENV OTHER=1\n", "/app/src"),
        (INSTALLED, "/usr/local/lib/python3.11/dist-packages"),
    ):
        project.write("Dockerfile", text)
        assert project.build().paths == (f"{place}/{PLACE}",)
        assert build_again()[1] == f"{place}/{PLACE}"


def test_a_failing_build_passes_its_code_and_leaves_the_name_alone(
    project: Project, transcript: Callable[[], str]
) -> None:
    before = project.build()
    for buildkit in ("0", "1"):
        left = project.left_behind()
        project.write("Dockerfile", EDITABLE + "RUN echo it went wrong >&2; exit 9\n")
        with pytest.raises(ChildFailed) as failure:
            project.build("-t", project.name, docker=project.docker(0, buildkit))
        assert failure.value.exit_code in (1, 9)
        assert "it went wrong" in transcript()
        assert project.inspect()["Id"] == before.image_id
        containers, volumes, _ = project.left_behind()
        assert volumes == left[1]
        assert containers == left[0] or buildkit == "0"  # the classic builder keeps the failed step


def test_a_failed_read_back_leaves_nothing(project: Project) -> None:
    project.write("Dockerfile", EDITABLE + "VOLUME /data\n")
    before = project.build()
    left = project.left_behind()

    def refuse(artifact: Any) -> None:
        raise VerificationFailed(f"{artifact.name} is not as it should be.")

    bundle = project.new_state()
    with pytest.raises(VerificationFailed, match="not as it should be"):
        building.build(
            parse(["-t", project.name, str(project.root)]),
            [bundle], make_record(bundle), docker=project.docker(), check=refuse,
        )  # fmt: skip
    assert project.inspect()["Id"] == before.image_id
    assert project.left_behind() == left


def test_a_state_that_changed_meanwhile_is_refused(project: Project) -> None:
    bundle = project.new_state()
    left = project.left_behind()
    (bundle.root / "Catalog/state").write_bytes(b"another")
    with pytest.raises(VerificationFailed, match="Catalog/state changed"):
        project.build(bundle=bundle)
    assert project.left_behind() == left


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("VOLUME /app/src\n", "VOLUME /app/src"),
        ("RUN rm -rf /app/src\n", "nowhere in the image"),
        (
            "ENV PYTHONPATH=/two\nRUN cp -r /app/src /two; cp -r /two/shop .\n",
            "/two/shop/defs, /app",
        ),
        ("USER nobody-knows\n", "nobody-knows"),
    ],
)
def test_a_place_that_cannot_be_decided_is_a_sentence(
    lines: str, message: str, project: Project
) -> None:
    project.write("Dockerfile", EDITABLE.replace("USER 1000\n", "") + lines)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        project.build()
    assert not project.engine.has_image(project.name)


def test_image_path_decides(project: Project) -> None:
    project.write("Dockerfile", EDITABLE.replace("USER 1000", "RUN cp -r /app/src /app/copy"))
    bundle = project.new_state()
    built = building.build(
        parse(["-t", project.name, str(project.root)]), [bundle], make_record(bundle),
        docker=project.docker(), places={PLACE: "/app/copy/shop/defs"}, check=verified,
    )  # fmt: skip
    assert built.paths == (f"/app/copy/{PLACE}",)


def test_a_link_among_the_parents_hides_nothing(project: Project) -> None:
    project.write(
        "Dockerfile",
        f"FROM {PYTHON_BASE}\nCOPY src /srv/code\nRUN mkdir /app && ln -s /srv/code /app/src\n"
        "ENV PYTHONPATH=/app/src\n",
    )
    built = project.build()
    assert built.paths == (f"/srv/code/{PLACE}",)
    code = "import shop.defs, os; print(os.listdir('/app/src/shop/defs'))"
    said = project.engine.docker("run", "--rm", project.name, "python", "-c", code).stdout.decode()
    assert STATE_DIRECTORY in said
    assert "__init__.py" in said


def test_parents_keep_owner_and_mode(project: Project) -> None:
    project.write(
        "Dockerfile",
        EDITABLE.replace(
            "USER", "RUN chown -R 7:8 /app/src/shop && chmod 2750 /app/src/shop\nUSER"
        ),
    )
    project.build()
    run = ("run", "--rm", "--user", "0", project.name, "stat", "-c", "%u %g %a", "/app/src/shop")
    assert project.engine.docker(*run).stdout.decode().split() == ["7", "8", "2750"]


def test_what_the_manifest_declares_is_writable_by_the_user(project: Project) -> None:
    states = {"Dbt": {"state": b"", "project/target/manifest.json": b"{}"}}
    bundle = make_bundle(
        project.root / "src" / PLACE, states, writable={"Dbt": ("project/target",)}
    )
    project.build(bundle=bundle)
    root = f"/app/src/{PLACE}/Dbt"
    script = (
        f"echo 1 > {root}/project/target/new && echo 2 > {root}/project/target/manifest.json"
        f" && ! (echo 3 > {root}/state) 2>/dev/null"
    )
    for user in ("1000", "54321:0"):
        project.engine.docker("run", "--rm", "--user", user, project.name, "sh", "-c", script)


def test_the_arguments_that_name_the_result_are_carried_out(
    project: Project, tmp_path: Path
) -> None:
    names = (f"{project.name}:one", f"{project.name}:two")
    built = project.build(
        "-t", names[0], f"--tag={names[1]}", "--iidfile", str(tmp_path / "iid"), "--metadata-file",
        str(tmp_path / "metadata"), "-o", f"type=tar,dest={tmp_path / 'app.tar'}", "-q",
        "--build-arg", "X=1", "--label", "a=b",
    )  # fmt: skip
    assert {project.inspect(name)["Id"] for name in names} == {built.image_id}
    assert (tmp_path / "iid").read_text() == built.image_id
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert metadata["containerimage.config.digest"] == built.image_id
    listing = subprocess.run(["tar", "-tf", tmp_path / "app.tar"], check=True, capture_output=True)
    assert f"app/src/{PLACE}/Catalog/state" in listing.stdout.decode().splitlines()
    assert project.inspect(names[0])["Config"]["Labels"]["a"] == "b"
    project.engine.docker("image", "rm", *names)


def test_a_dockerfile_outside_the_context_and_its_own_ignore_file(
    project: Project, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.Dockerfile"
    elsewhere.write_text(EDITABLE + "RUN test ! -e /app/secret\n")
    project.write("secret", "x")
    (tmp_path / "elsewhere.Dockerfile.dockerignore").write_text("secret\n")
    project.build("-t", project.name, "-f", str(elsewhere))
    project.write(".dockerignore", "secret\n")
    project.build("-t", project.name, "-f", str(elsewhere), docker=project.docker(0, "0"))
    found = project.engine.docker("run", "--rm", project.name, "ls", "-A", "/app").stdout.decode()
    assert "state-bundler" not in found


def test_the_classic_builder_gets_the_very_same_context(project: Project) -> None:
    """COPY makes the same layer of it as of what docker's own client sends."""
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nWORKDIR /app\nCOPY . /app\n")
    project.write(".dockerignore", "*.log\nbuild/**\n!build/keep\n/top\n**/deep?\n\\#odd\n**/.*\n")
    bundle = project.new_state()
    for path in ("a.log", "b/c.log", "build/x", "build/keep", "top", "b/top", "b/deep1", "#odd"):
        project.write(path, path)
    (project.root / "run").symlink_to("b/top")
    project.write("tool", "#!/bin/sh\n")
    (project.root / "tool").chmod(0o755)
    environment = {**project.engine.environment, "DOCKER_BUILDKIT": "0"}
    argv = [project.engine.clis[0], "build", "-q", project.root]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True)
    theirs = _layer(project, done.stdout.decode().strip(), -1)

    project.build(bundle=bundle, docker=project.docker(0, "0"))
    ours = _layer(project, project.name, -2)
    assert ours == theirs
    assert {"app/build/keep", "app/b/top", "app/run", "app/tool"} < ours.keys()


def _layer(project: Project, name: str, position: int) -> dict[str, tuple[object, ...]]:
    """What a layer holds, below the folder whose time is that of the build."""
    saved = io.BytesIO(project.engine.docker("save", name).stdout)
    with tarfile.open(fileobj=saved) as archive:
        listing = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]  # is there
        layer = archive.extractfile(listing[0]["Layers"][position])
        with tarfile.open(fileobj=layer) as members:
            return {
                item.name: (
                    item.mode & 0o7777,
                    item.uid,
                    item.gid,
                    item.size,
                    item.mtime,
                    item.linkname,
                )
                for item in members
                if item.name != "app"
            }


def test_a_copied_state_directory_is_found_before_anything_runs(project: Project) -> None:
    project.write("Dockerfile", EDITABLE + f"\nCOPY --chown=1:1 \\\n  src/{PLACE} /state\n")
    with pytest.raises(ConfigurationError, match=re.escape(f"Dockerfile:8 copies src/{PLACE}")):
        building.preflight(parse([str(project.root)]))


def test_reading_an_image_that_a_plain_copy_filled(project: Project) -> None:
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY src /srv\n")
    project.new_state()
    environment = {**project.engine.environment, "DOCKER_BUILDKIT": "1"}
    argv = [project.engine.clis[0], "build", "-q", "-t", project.name, project.root]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    with dockers.open_image(project.name, project.docker()) as artifact:
        assert artifact.claims() is None
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    assert [found.path for found in verdict.directories] == [f"/srv/{PLACE}"]


def test_an_altered_file_in_an_image_is_named(project: Project) -> None:
    project.build()
    project.write(
        "Worse", f"FROM {project.name}\nUSER 0\nRUN echo x >> /app/src/{PLACE}/Catalog/state\n"
    )
    worse = f"{project.name}-worse"
    argv = [project.engine.clis[0], "build", "-q", "-t", worse, "-f", project.root / "Worse"]
    subprocess.run([*argv, project.root], env=project.engine.environment, check=True)
    with dockers.open_image(worse, project.docker()) as artifact:
        (problem,) = verify(artifact).all_problems
    assert "Catalog/state has" in problem
    with pytest.raises(UsageError, match="no image"):
        dockers.open_image("sbt/never-made", project.docker())


def test_an_image_as_a_whole_becomes_a_layout_with_its_state(
    project: Project, tmp_path: Path
) -> None:
    """What an engine that takes no single layer is sent: all but the last step, which is a load."""
    project.build()
    bundle = project.new_state()
    engine = project.docker().connect()
    layout = fetch(engine, project.inspect()["Id"], tmp_path)
    made = oci.embed(layout.path, [bundle], make_record(bundle), layout.path, tag="made")
    name = keep_only(layout, made.digest, "sbt/name:1")

    with oci.open_layout(layout.path) as artifact:
        assert verify(artifact).all_problems == ()
        assert artifact.config_digest == made.config_digest
    (entry,) = layout.index()["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == name
    assert made.paths == (f"/app/src/{PLACE}",)
    expected = project.inspect()["RootFS"]["Layers"]
    assert (
        LoadedImage(layout, descriptor(entry, "")).config["rootfs"]["diff_ids"][:-1]
        == expected[:-1]
    )


# --- engines --------------------------------------------------------------------------------


@pytest.fixture
def tcp(engine: Engine) -> Iterator[str]:
    """The engine at a TCP port, as a remote one is reached."""
    path = engine.host.removeprefix("unix://")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _ = server.accept()
                    threading.Thread(target=_relay, args=(line, path), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _relay(line: socket.socket, path: str) -> None:
    with line, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(path)
        back = threading.Thread(target=_pump, args=(upstream, line))
        back.start()
        _pump(line, upstream)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_a_remote_engine_is_reached_through_the_cli(project: Project, tcp: str) -> None:
    environment = {k: v for k, v in project.engine.environment.items() if k != "DOCKER_HOST"}
    docker = Docker(project.engine.clis[-1], ("-H", tcp), environment)
    built = project.build(docker=docker)
    assert project.inspect()["Id"] == built.image_id


def test_no_engine_is_a_sentence(tmp_path: Path, engine: Engine) -> None:
    environment = {**engine.environment, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(ToolFailed, match=r"No Docker engine answers"):
        Docker(engine.clis[0], (), environment).connect()
    with pytest.raises(ToolFailed, match="not found"):
        Docker("docker-that-is-not-there", (), environment).connect()


def test_buildkit_without_buildx_is_said(engine: Engine) -> None:
    for cli in engine.clis:
        docker = Docker(cli, (), {**engine.environment, "DOCKER_BUILDKIT": "1"})
        try:
            builder = detect(docker, docker.connect())
        except BundlerError as error:
            assert "buildx" in error.what  # noqa: PT017  # either is right, by what is installed
        else:
            assert builder.is_buildkit


# --- the plugin -----------------------------------------------------------------------------

PLUGIN = Path(sys.executable).with_name("docker-bundle")


@pytest.fixture
def plugged(tmp_path: Path, engine: Engine) -> dict[str, str]:
    """An environment in which docker has the plugin."""
    folder = tmp_path / "config" / "cli-plugins"
    folder.mkdir(parents=True)
    (folder / "docker-bundle").symlink_to(PLUGIN)
    return {**engine.environment, "DOCKER_CONFIG": str(folder.parent)}


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
