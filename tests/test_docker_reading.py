"""What is read back out of an image in a real engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundles import PLACE, make_bundle, make_record
from dockerprojects import Project
from engine import PYTHON_BASE

from bundler.artifacts import docker as dockers
from bundler.artifacts import oci
from bundler.artifacts.blobs import descriptor
from bundler.artifacts.docker.transport import Request, Transport
from bundler.artifacts.docker.whole import fetch, keep_only
from bundler.artifacts.ociread import LoadedImage
from bundler.artifacts.opening import open_artifact
from bundler.errors import (
    UsageError,
)
from bundler.verify import verify


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
    for name in ("app.pex", "./app", "/nowhere/app", "build/app.tar"):
        with pytest.raises(UsageError, match=f"^{name} does not exist"):
            open_artifact(name)
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


MEGABYTE = 1_000_000
READ_ONCE = ["GET _ping", "GET json", "POST create", "GET archive", "DELETE container"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The requests that the engine is sent, and how many bytes were taken of each archive."""
    seen: dict[str, list[Any]] = {"requests": [], "taken": []}
    send = Transport.send

    @contextmanager
    def watched(self: Transport, request: Request) -> Iterator[Any]:
        last = request.path.partition("?")[0].rpartition("/")[2]
        what = "container" if request.method == "DELETE" else last
        seen["requests"].append(f"{request.method} {what}")
        with send(self, request) as response:
            try:
                yield response
            finally:
                if (request.method, last) == ("GET", "archive"):
                    seen["taken"].append(response.raw.tell())

    monkeypatch.setattr(Transport, "send", watched)
    return seen


def test_a_state_directory_is_asked_for_once(project: Project, asked: dict[str, list[Any]]) -> None:
    """Each archive costs the engine tenths of a second before its first byte."""
    state = bytes(40 * MEGABYTE)
    project.build(bundle=make_bundle(project.root / "src" / PLACE, {"Catalog": {"state": state}}))
    asked["requests"].clear()
    asked["taken"].clear()

    with dockers.open_image(project.name, project.docker()) as artifact:
        assert verify(artifact).all_problems == ()
    assert asked["requests"] == READ_ONCE
    assert asked["taken"].pop() > len(state)

    asked["requests"].clear()
    with dockers.open_image(project.name, project.docker()) as artifact:
        (directory,) = artifact.state_directories()
        assert directory.read_manifest() == directory.read_manifest()
    assert asked["requests"] == READ_ONCE
    assert asked["taken"].pop() < MEGABYTE, "only the manifest was wanted"


def test_a_manifest_behind_a_large_state_is_asked_for_by_itself(
    project: Project, asked: dict[str, list[Any]]
) -> None:
    """The engine sorts by name; a key may begin with a digit."""
    states = {"1st": {"state": bytes(20 * MEGABYTE)}, "Catalog": {"state": b"tea"}}
    project.build(bundle=make_bundle(project.root / "src" / PLACE, states))
    asked["requests"].clear()
    asked["taken"].clear()
    with dockers.open_image(project.name, project.docker()) as artifact:
        assert verify(artifact).all_problems == ()
    begun, _, *rest = asked["requests"][3:-1]
    assert [begun, *rest] == ["GET archive"] * 3
    assert asked["taken"][0] < asked["taken"][2]


def test_what_is_gone_from_an_image_is_named(project: Project) -> None:
    project.build()
    place = f"/app/src/{PLACE}"
    for gone, problem in (
        (f"{place}/@manifest.json", f"{place}/@manifest.json is missing."),
        (place, f"The label names {place}, which is not there."),
    ):
        project.write("Dockerfile", f"FROM {project.name}\nUSER 0\nRUN rm -r {gone}\n")
        project.engine.docker("build", "-q", "-t", project.name, str(project.root))
        with dockers.open_image(project.name, project.docker()) as artifact:
            assert problem in verify(artifact).all_problems


def test_directories_may_be_read_in_any_order(project: Project) -> None:
    """While an archive is open, the engine answers nothing else of its container."""
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY src /one\nCOPY src /two\n")
    project.new_state()
    project.engine.docker("build", "-q", "-t", project.name, str(project.root))
    with dockers.open_image(project.name, project.docker()) as artifact:
        directories = artifact.state_directories()
        manifests = [directory.read_manifest() for directory in directories]
        names = [[member.path for member in each.members()] for each in directories]
        again = [directory.read_manifest() for directory in reversed(directories)]
        assert verify(artifact).all_problems == ()
    assert len(directories) == 2
    assert manifests == again
    assert names[0] == names[1] == [".gitignore", "@manifest.json", "Catalog", "Catalog/state"]
