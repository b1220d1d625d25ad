"""Every builder that is here builds, the state goes on top, and nothing else changes.

The real Dagster project is in ``test_docker_whole_way.py``.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import building
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.dockerbuild import BuildInput
from bundler.errors import (
    ChildFailed,
    ConfigurationError,
    VerificationFailed,
)
from bundler.state.bundle import STATE_DIRECTORY
from tests.support import forked
from tests.support.bundles import PLACE, make_record
from tests.support.dockerprojects import EDITABLE, Project
from tests.support.embedding import build_image
from tests.support.engine import PYTHON_BASE
from tests.support.recording import RecordingListener

pytestmark = pytest.mark.engine(offline=True)

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


def test_a_failed_build_passes_its_exit_code_on_and_does_not_move_the_name(
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


def test_a_failed_read_back_leaves_nothing_behind(project: Project) -> None:
    project.write("Dockerfile", EDITABLE + "VOLUME /data\n")
    before = project.build()
    left = project.left_behind()

    def refuse(artifact: Any) -> None:
        raise VerificationFailed(f"{artifact.name} is not as it should be.")

    bundle = project.new_state()
    with pytest.raises(VerificationFailed, match="not as it should be"):
        build_image(
            parse(["-t", project.name, str(project.root)]),
            EmbedRequest((bundle,), make_record(bundle)), project.docker(), check=refuse,
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


def test_the_arguments_that_name_the_result_are_carried_out(
    project: Project, tmp_path: Path
) -> None:
    names = (f"{project.name}:one", f"{project.name}:two")
    built = project.build(
        "-t", names[0], f"--tag={names[1]}", "--iidfile", str(tmp_path / "iid"), "--metadata-file",
        str(tmp_path / "metadata"), "-o", f"type=tar,dest={tmp_path / 'app.tar'}", "-q", "--load",
        "--build-arg", "X=1", "--label", "a=b",
    )  # fmt: skip
    assert {project.inspect(name)["Id"] for name in names} == {built.image_id}
    assert (tmp_path / "iid").read_text() == built.image_id
    metadata = json.loads((tmp_path / "metadata").read_text())
    is_containerd = os.environ.get("BUNDLER_TEST_STORE") == "containerd"
    key = "digest" if is_containerd else "config.digest"  # by which the store identifies an image
    assert metadata[f"containerimage.{key}"] == built.image_id
    listing = subprocess.run(["tar", "-tf", tmp_path / "app.tar"], check=True, capture_output=True)
    assert f"app/src/{PLACE}/Catalog/state" in listing.stdout.decode().splitlines()
    assert project.inspect(names[0])["Config"]["Labels"]["a"] == "b"
    project.engine.docker("image", "rm", *names)


@pytest.mark.parametrize("kind", ["docker", "oci", "tar"])
@pytest.mark.parametrize(
    "words", ["-t NAME -o type=KIND,dest=FILE", "-o type=KIND,dest=FILE,name=NAME"]
)
def test_an_image_that_goes_into_a_file_gets_no_name_in_the_engine(
    project: Project, tmp_path: Path, words: str, kind: str
) -> None:
    """Whatever had the name keeps it, as with docker itself."""
    project.engine.docker("tag", PYTHON_BASE, project.name)
    file = tmp_path / "app.tar"
    left, before = project.left_behind(), project.inspect()["Id"]
    words = words.replace("KIND", kind).replace("FILE", str(file)).replace("NAME", project.name)
    built = project.build(*words.split())
    assert project.left_behind() == left
    assert project.inspect()["Id"] == before
    if kind == "docker":  # it has the name
        project.engine.docker("load", stdin=file.read_bytes())
        assert project.inspect()["Id"] == built.image_id


@pytest.mark.parametrize("kind", ["docker", "oci", "tar"])
def test_an_archive_on_stdout_is_everything_that_is_printed_there(
    project: Project, kind: str
) -> None:
    project.configure()
    argv = [forked.BIN / "state-bundler", "build", "docker", "-o", f"type={kind},dest=-", "."]
    done = forked.run(argv, cwd=project.root, env=project.environment())
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames()
    assert done.stdout.endswith(bytes(2 * tarfile.BLOCKSIZE))
    assert b"1 state" in done.stderr


@pytest.mark.parametrize("words", ["-qt=NAME", "-qtNAME", "-o type=docker,name=NAME"])
def test_no_way_to_write_a_name_gives_it_to_the_image_without_state(
    project: Project, words: str
) -> None:
    built = project.build(*words.replace("NAME", project.name).split())
    assert project.inspect()["Id"] == built.image_id
    bundle = project.new_state()
    (bundle.root / "Catalog/state").write_bytes(b"another")
    with pytest.raises(VerificationFailed, match="Catalog/state changed"):
        project.build(*words.replace("NAME", f"{project.name}:no").split(), bundle=bundle)
    assert not project.engine.has_image(f"{project.name}:no")


def test_an_archive_has_every_name(project: Project, tmp_path: Path) -> None:
    names = [f"{project.name}:one", f"{project.name}:two"]
    docker, oci = tmp_path / "docker.tar", tmp_path / "oci.tar"
    outputs = ("-o", f"type=docker,dest={docker}", "-o", f"type=oci,dest={oci}")
    project.build("-t", names[0], "-t", names[1], *outputs)
    with tarfile.open(docker) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        assert sorted(json.loads(listed.read())[0]["RepoTags"]) == names
    with tarfile.open(oci) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        found = [entry["annotations"] for entry in json.loads(index.read())["manifests"]]
    assert [each["io.containerd.image.name"] for each in found] == [
        f"docker.io/{name}" for name in names
    ]
    assert [each["org.opencontainers.image.ref.name"] for each in found] == ["one", "two"]


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


_SECRETS = (".env", ".env.production", "tls/server.pem", "src/shop/id_rsa", ".aws/credentials")


@pytest.mark.parametrize(("cli", "buildkit"), BUILDERS)
def test_no_credentials_and_nothing_that_git_ignores_gets_into_the_image(
    cli: int, buildkit: str, project: Project
) -> None:
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY . /app\nCOPY dist/*.whl /dist/\n")
    project.write(".dockerignore", "Dockerfile\n.dockerignore\n")
    project.configure()
    project.write(".gitignore", f"{STATE_DIRECTORY}/\ndist/\n*.log\n")
    for path in (*_SECRETS, "a.log", "dist/old.pex", "dist/shop.whl", ".env.example"):
        project.write(path, path)
    listener = RecordingListener()
    project.build(docker=project.docker(cli, buildkit), listener=listener)
    listing = project.engine.docker(
        "run", "--rm", project.name, "find", "/app", "/dist", "-type", "f"
    )
    found = listing.stdout.decode().split()
    assert {path for path in found if "/defs/" not in path} == {
        *("/app/.env.example", "/app/.gitignore", "/app/dist/shop.whl", "/app/pyproject.toml"),
        *("/app/src/shop/__init__.py", "/dist/shop.whl"),
    }
    excluded = "Excluded from the build context: "
    (note,) = [text for text in listener.notes if text.startswith(excluded)]
    assert note.endswith(
        ".aws, .env, .env.production, .git and 2 more, and files that git ignores (a.log, "
        "dist/old.pex). To include one, name it in a COPY, or add a rule to "
        f"{project.root / '.dockerignore'}: !.aws"
    )


def test_a_build_that_needs_what_was_left_out_says_so(project: Project) -> None:
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY . /app\nRUN test -e /app/needed.log\n")
    project.configure()
    project.write(".gitignore", f"{STATE_DIRECTORY}/\n*.log\n")
    project.write("needed.log", "x")
    with pytest.raises(ChildFailed) as failed:
        project.build()
    assert "files that git ignores (needed.log)" in failed.value.hint
    project.write(".dockerignore", "!needed.log\n")
    project.build()


def test_a_copied_state_directory_is_found_before_anything_runs(project: Project) -> None:
    project.write("Dockerfile", EDITABLE + f"\nCOPY --chown=1:1 \\\n  src/{PLACE} /state\n")
    with pytest.raises(ConfigurationError, match=re.escape(f"Dockerfile:8 copies src/{PLACE}")):
        building.preflight(BuildInput(parse([str(project.root)])))


# As their makers recommend them, with what takes a network replaced by what it comes down to.
_INSTALL = "mkdir -p $P && echo /app/src > $P/shop.pth"
RECOMMENDED = {
    "documentation": f"""\
FROM {PYTHON_BASE}
ENV P=/usr/local/lib/python3.11/dist-packages
WORKDIR /app
COPY pyproject.toml .
COPY . .
RUN {_INSTALL}
""",
    "scaffold": f"""\
FROM {PYTHON_BASE} AS builder
WORKDIR /app
ENV P=/app/.venv/lib/python3.11/site-packages
ADD . /app
RUN mkdir -p .venv/bin && ln -s /usr/bin/python3.11 .venv/bin/python && cp -r src $P 2>/dev/null; \\
    mkdir -p $P && cp -r src/. $P
FROM {PYTHON_BASE}
WORKDIR /srv
ENV PATH=/srv/env/bin:$PATH
COPY --from=builder /app/.venv /srv/env
""",
    "uv": f"""\
FROM {PYTHON_BASE}
WORKDIR /app
ENV P=/usr/local/lib/python3.11/dist-packages UV_PROJECT_ENVIRONMENT=/usr/local
RUN --mount=type=cache,target=/root/.cache/uv \\
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml mkdir -p $P
ADD . /app
RUN --mount=type=cache,target=/root/.cache/uv {_INSTALL}
""",
    "poetry": f"""\
FROM {PYTHON_BASE}
ENV P=/usr/local/lib/python3.11/dist-packages
WORKDIR /app
COPY pyproject.toml ./
RUN mkdir -p $P
COPY src/ src/
RUN {_INSTALL}
USER 1000
""",
}


@pytest.mark.parametrize("name", RECOMMENDED)
def test_new_state_reuses_every_layer_of_the_dockerfiles_that_people_have(
    name: str, project: Project, transcript: Callable[[], str]
) -> None:
    project.write("pyproject.toml", "[project]\n")
    project.write("Dockerfile", RECOMMENDED[name])
    first = project.build()
    transcript()
    second = project.build()
    said = transcript()
    steps = re.findall(r"^(#\d+) \[(?:\S+ )?\d+/\d+\] (?!FROM)", said, re.MULTILINE)
    assert steps
    assert [step for step in steps if f"\n{step} CACHED" not in said] == []
    layers = [project.inspect(built.image_id)["RootFS"]["Layers"] for built in (first, second)]
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]
    assert first.paths == second.paths
