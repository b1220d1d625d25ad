"""What is read back out of an image in a real engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bundler.artifacts.image import ociread
from bundler.artifacts.image.blobs import copy, descriptor
from bundler.artifacts.image.engine.full_image_transfer import publish_only, saved
from bundler.artifacts.image.engine.opening import open_image
from bundler.artifacts.image.layout import LayoutFolder
from bundler.artifacts.image.ociread import LoadedImage
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import (
    UsageError,
)
from tests.support.bundles import PLACE, make_record
from tests.support.dockerprojects import Project
from tests.support.embedding import embed_layout
from tests.support.engine import PYTHON_BASE

pytestmark = pytest.mark.engine(offline=True)


def test_reading_an_image_that_a_plain_copy_filled(project: Project) -> None:
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY src /srv\n")
    project.new_state()
    environment = {**project.engine.environment, "DOCKER_BUILDKIT": "1"}
    argv = [project.engine.clis[0], "build", "-q", "-t", project.name, project.root]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    with open_image(project.name, project.docker()) as artifact:
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
    with open_image(worse, project.docker()) as artifact:
        (problem,) = verify(artifact).all_problems
    assert "Catalog/state has" in problem
    for name in ("app.pex", "./app", "/nowhere/app", "build/app.tar"):
        with pytest.raises(UsageError, match=f"^{name} does not exist"):
            open_artifact(name)
    with pytest.raises(UsageError, match="no image"):
        open_image("sbt/never-made", project.docker())


def test_an_image_as_a_whole_becomes_a_layout_with_its_state(
    project: Project, tmp_path: Path
) -> None:
    """What an engine that takes no single layer is sent: all but the last step, which is a load."""
    project.build()
    bundle = project.new_state()
    engine = project.docker().connect()
    layout = LayoutFolder.create(tmp_path / "layout")
    with saved(engine, project.inspect()["Id"]) as source:
        copy(source.store, layout, source.entry)
        layout.publish({"schemaVersion": 2, "manifests": [source.entry.raw]})
    made = embed_layout(layout.path, [bundle], make_record(bundle), layout.path, tag="made")
    entry = next(it for it in layout.index()["manifests"] if it["digest"] == made.digest)
    publish_only(layout, entry, "sbt/name:1", "host:5000/name")

    with ociread.open_layout(layout.path) as artifact:
        assert verify(artifact).all_problems == ()
        assert artifact.image.manifest["config"]["digest"] == made.config_digest
    entry, other = layout.index()["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/sbt/name:1"
    assert other["annotations"]["io.containerd.image.name"] == "host:5000/name:latest"
    assert made.paths == (f"/app/src/{PLACE}",)
    expected = project.inspect()["RootFS"]["Layers"]
    assert (
        LoadedImage(layout, descriptor(entry, "")).config["rootfs"]["diff_ids"][:-1]
        == expected[:-1]
    )
