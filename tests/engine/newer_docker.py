"""What only a newer Docker does: several platforms, pushes by digest, bake.

Run by ``make docker-newer`` against the engine that `newer_engine` starts; not part of the usual
tests, since it needs its own root of an operating system.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.blobs import copy, descriptor, images_of, read_json
from bundler.artifacts.image.engine import full_image_transfer
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.full_image_transfer import pieces_of, publish_only, saved
from bundler.artifacts.image.engine.loading import load
from bundler.artifacts.image.engine.opening import open_image
from bundler.artifacts.image.image import LABEL_LAYER
from bundler.artifacts.image.layout import LayoutFolder, write_archive
from bundler.artifacts.image.ociread import LoadedImage, open_layout
from bundler.artifacts.verify import verify
from bundler.errors import ChildFailed, ToolFailed, UsageError
from tests.support import registries
from tests.support.bundles import make_record
from tests.support.dockerprojects import Project, verified
from tests.support.embedding import Made, build_image

pytestmark = pytest.mark.engine

CONTAINERD = os.environ["BUNDLER_TEST_STORE"] == "containerd"
# Nothing is run in it: so it can be made for every platform, without emulation.
FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"
PLATFORMS = "linux/amd64,linux/arm64"


@pytest.fixture(autouse=True)
def _scratch(project: Project) -> None:
    project.write("Dockerfile", FROM_SCRATCH)


def build(project: Project, *words: str) -> Made:
    return project.build(*words, docker=project.docker(1, ""))


def platforms_of(store: Any, entry: Any) -> dict[str, LoadedImage]:
    loaded = [LoadedImage(store, platform) for platform in images_of(store, entry)]
    return {image.config["architecture"]: image for image in loaded}


@pytest.mark.containerd
def test_several_platforms_into_a_file(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "app.tar"
    built = build(project, "--platform", PLATFORMS, "-o", f"type=oci,dest={target}")
    with open_layout(target) as artifact:
        assert verify(artifact).all_problems == ()
        found = platforms_of(artifact.store, artifact.entry)
        assert artifact.digest == built.image_id
    assert set(found) == {"amd64", "arm64"}
    layers = {image.config["rootfs"]["diff_ids"][-1] for image in found.values()}
    assert len(layers) == 1  # the state is the same for every platform
    with tarfile.open(target) as archive:
        assert "index.json" in archive.getnames()


@pytest.mark.containerd
def test_several_platforms_into_the_engine(project: Project) -> None:
    built = build(project, "--platform", PLATFORMS, "-t", project.name, "-t", f"{project.name}:b")
    assert project.inspect()["Id"] == project.inspect(f"{project.name}:b")["Id"] == built.image_id


@pytest.mark.containerd
@pytest.mark.parametrize(
    "words",
    [
        "-t NAME -o type=docker,dest=FILE",
        "-t NAME -o type=oci,dest=FILE",
        "-t NAME -o type=tar,dest=FILE",
        "-t NAME --load -o type=docker,dest=FILE",
        "-o type=docker,dest=FILE,name=NAME",
        "-o type=docker,dest=FILE,name=NAME --load",
        "-o type=docker,dest=FILE,name=NAME:a -o type=docker,name=NAME:b",
        "-t NAME:c -o type=docker,dest=FILE,name=NAME:a -o type=docker,name=NAME:b",
    ],
)
def test_an_image_has_the_names_in_the_engine_and_the_file_that_docker_gives_it(
    words: str, project: Project, tmp_path: Path
) -> None:
    def named() -> list[str]:
        listing = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{project.name}")
        found = sorted(project.engine.docker(*listing).stdout.decode().split())
        for name in found:
            project.engine.docker("image", "rm", "--force", name)
        file.unlink(missing_ok=True)
        return found

    file = tmp_path / "app.tar"
    words = words.replace("NAME", project.name).replace("FILE", str(file))
    argv = [project.engine.clis[-1], "build", *words.split(), project.root]
    subprocess.run(argv, env=project.environment(), check=True, capture_output=True)
    theirs, is_archive = _names_in(file), "type=docker,dest" in words
    theirs_here = named()
    build(project, *words.split())
    ours = _names_in(file)
    assert named() == theirs_here
    assert ours == theirs or not is_archive


def _names_in(file: Path) -> list[str]:
    with tarfile.open(file) as archive:
        if "manifest.json" not in archive.getnames():
            return []
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        return sorted(json.loads(listed.read())[0]["RepoTags"] or [])


@pytest.mark.containerd
def test_several_platforms_without_a_name_get_none(project: Project) -> None:
    def names() -> set[str]:
        listing = project.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        return {name for name in listing.stdout.decode().split() if "<none>" not in name}

    before = names()
    built = build(project, "--platform", PLATFORMS)
    assert project.engine.docker("image", "inspect", built.image_id).returncode == 0
    assert names() == before


def test_several_platforms_where_nothing_holds_them(project: Project) -> None:
    if not CONTAINERD:
        with pytest.raises(UsageError, match="does not support several"):
            build(project, "--platform", PLATFORMS, "-t", project.name)
    with pytest.raises(ToolFailed, match="requires buildx"):
        project.build("--platform", PLATFORMS, "-t", project.name, docker=project.docker(0, "0"))


@pytest.mark.containerd
@pytest.mark.parametrize("platforms", [(), ("--platform", PLATFORMS)])
def test_a_push_is_by_digest_and_the_tag_comes_last(
    platforms: tuple[str, ...], project: Project, tmp_path: Path
) -> None:
    with registries.running() as remote:
        names = [f"{remote.host}/team/shop:1", f"{remote.host}/other/shop:2"]
        output = "type=registry,compression=uncompressed,force-compression=1,annotation.a=b"
        words = [*platforms, "-o", output, "-t", names[0], "-t", names[1]]
        built = build(project, *words, "--metadata-file", str(tmp_path / "metadata"))
        for repository, tag in (("team/shop", "1"), ("other/shop", "2")):
            assert remote.tag(repository, tag) == built.image_id
        named = [line for line in remote.log if line.startswith("PUT") and "sha256" not in line]
        assert len([line for line in named if "manifests" in line]) == 2
        reported = json.loads((tmp_path / "metadata").read_text())
        assert reported["containerimage.digest"] == built.image_id
        with registry.open_image(names[1]) as artifact:
            assert verify(artifact).all_problems == ()
            types = [layer.media_type for layer in artifact.image.layers]
            assert {it.rpartition(".")[2] for it in types} == {"tar"}
            assert artifact.image.manifest["annotations"]["a"] == "b"

        remote.immutable = True
        with pytest.raises(ToolFailed):
            build(project, *words)
        assert remote.tag("team/shop", "1") == built.image_id


def test_a_push_through_the_engine(project: Project) -> None:
    """With the classic store, or where the image is to stay here, too."""
    with registries.distribution() as host:
        name = f"{host}/team/shop:1"
        build(project, "--push", "--load", "-t", name)
        with registry.open_image(name) as artifact:
            assert verify(artifact).all_problems == ()
        assert project.engine.has_image(name)
        project.engine.docker("image", "rm", name)


def test_a_failing_build_pushes_nothing(project: Project) -> None:
    project.write("Dockerfile", f'{FROM_SCRATCH}RUN ["/nothing"]\n')
    with registries.running() as remote:
        with pytest.raises(ChildFailed):
            build(project, "--push", "-t", f"{remote.host}/team/shop:1")
        assert not remote.tags
        assert not remote.manifests


def test_the_several_names_of_a_whole_image(project: Project) -> None:
    bundle = project.new_state()
    parsed = parse(["-t", f"{project.name}:one", "-t", f"{project.name}:two", str(project.root)])
    request = EmbedRequest((bundle,), make_record(bundle))
    built = build_image(parsed, request, project.docker(1, ""), check=verified)
    for tag in ("one", "two"):
        assert project.inspect(f"{project.name}:{tag}")["Id"] == built.image_id
    listing = project.engine.docker("image", "ls", "--format", "{{.Repository}}").stdout.decode()
    assert "state-bundler.invalid" not in listing
    project.engine.docker("image", "rm", f"{project.name}:one", f"{project.name}:two")


@pytest.mark.containerd
@pytest.mark.parametrize("way", ["saved", "_new_blobs"])
def test_only_what_is_new_is_sent_or_else_everything(
    way: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ToolFailed("Not this way.")

    monkeypatch.setattr(full_image_transfer, way, refuse)
    images = [build(project, "-t", project.name) for _ in range(2)]
    layers = [project.inspect(built.image_id)["RootFS"]["Layers"] for built in images]
    assert layers[0][:-1] == layers[1][:-1]
    with open_image(project.name, project.docker(1, "")) as artifact:
        assert verify(artifact).all_problems == ()
    assert project.inspect()["Id"] == images[1].image_id


@pytest.mark.containerd
def test_without_buildx_the_image_is_sent_as_a_whole(project: Project) -> None:
    built = project.build("-t", project.name, docker=project.docker(0, ""))
    assert project.inspect()["Id"] == built.image_id


HCL = """
variable "VERSION" { default = "1" }
group "default" { targets = ["app", "tool"] }
target "base" { dockerfile = "cwd://Base" }
target "app" {
  context = "cwd://"
  contexts = { base = "target:base" }
  tags = ["NAME:${VERSION}", "NAME:latest"]
  labels = { team = "shop" }
}
target "tool" {
  context = "tool"
  dockerfile-inline = "FROM scratch\\nCOPY . /"
  tags = ["NAME-tool"]
}
"""


def test_bake_puts_the_state_into_the_targets_with_the_code(
    project: Project, plugged: dict[str, str], tmp_path: Path
) -> None:
    project.write("Base", "FROM scratch\nENV PYTHONPATH=/app/src\nWORKDIR /app\nCOPY . /app\n")
    project.write("Dockerfile", "FROM base\nCOPY src /app/src\n")
    project.write(".env", "TOKEN=a-token-of-nobody")
    project.write("docker-bake.hcl", HCL.replace("NAME", project.name))
    project.write("tool/file")
    project.configure()
    (project.root / "tool").rename(tmp_path / "tool")  # a context that has nothing to do with it
    hcl = (project.root / "docker-bake.hcl").read_text()
    project.write("docker-bake.hcl", hcl.replace('"tool"\n', f'"{tmp_path / "tool"}"\n', 1))
    environment = project.environment(VERSION="7", CATALOG="rooibos")
    del environment["STATE_BUNDLER_DOCKER"]
    environment["DOCKER_CONFIG"] = plugged["DOCKER_CONFIG"]
    plugin = Path(os.environ["BUNDLER_TEST_DOCKER_CONFIG"]) / "cli-plugins/docker-buildx"
    (Path(plugged["DOCKER_CONFIG"]) / "cli-plugins/docker-buildx").symlink_to(plugin)
    metadata = tmp_path / "metadata.json"

    def bake(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [project.engine.clis[-1], "bundle", "bake", *words],
            env=environment, cwd=project.root, check=False, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr.decode()
        return done.stderr.decode()

    bake("--metadata-file", str(metadata), code=1)  # bake itself asks for leave, before any name
    assert not project.engine.has_image(f"{project.name}:7")
    bake("--metadata-file", str(metadata), f"--allow=fs.read={tmp_path}")
    labels = project.inspect(f"{project.name}:7")["Config"]["Labels"]
    assert labels["team"] == "shop"
    assert LABEL_LAYER in labels
    both = [project.inspect(f"{project.name}:{tag}")["Id"] for tag in ("latest", "7")]
    assert both[0] == both[1]
    assert json.loads(metadata.read_text())["app"]["image.name"].startswith(project.name)
    assert LABEL_LAYER not in (project.inspect(f"{project.name}-tool")["Config"]["Labels"] or {})
    with open_image(f"{project.name}:7", project.docker(1, "")) as artifact:
        assert verify(artifact).all_problems == ()

    environment["CATALOG"] = "coffee"
    assert "CACHED" in bake("app")
    everything = project.everything(f"{project.name}:7")
    assert b"coffee" in everything
    assert b"rooibos" not in everything  # nor does a target that this one is built from see it
    assert b"a-token-of-nobody" not in everything
    assert "does not build an image of" in bake("--bundle-state-target", "nothing", code=2)
    bake("--set", "app.dockerfile=Missing", code=2)
    for name in (f"{project.name}:7", f"{project.name}:latest", f"{project.name}-tool"):
        project.engine.docker("image", "rm", name)


@pytest.mark.containerd
def test_a_layer_that_is_not_what_its_digest_says_is_refused(
    project: Project, tmp_path: Path
) -> None:
    """containerd answers with 200 and says so in the stream; the name must not stay."""
    build(project)
    engine = project.docker(1, "").connect()
    layout = LayoutFolder.create(tmp_path / "layout")
    with saved(engine, project.inspect()["Id"]) as source:
        copy(source.store, layout, source.entry)
    (platform,) = images_of(layout, source.entry)
    manifest = read_json(layout, platform)
    config = read_json(layout, descriptor(manifest["config"], ""))
    config["rootfs"]["diff_ids"][-1] = f"sha256:{'0' * 64}"
    digest, size = layout.add_config(config)
    manifest["config"].update(digest=digest, size=size)
    digest, size = layout.add_config(manifest)
    publish_only(layout, {**platform.raw, "digest": digest, "size": size}, "docker.io/sbt/worse:1")
    write_archive(layout.path, tmp_path / "worse.tar")
    with pytest.raises(ToolFailed, match="rejected the image"):
        load(engine, pieces_of(tmp_path / "worse.tar"))
    project.engine.docker("image", "rm", "--force", "sbt/worse:1", check=False)
