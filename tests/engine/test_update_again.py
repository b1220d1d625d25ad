"""An update with the same state makes nothing, in every kind of artifact, by whatever name."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from bundler.artifacts.embedding import EmbedRequest, EmbedResult
from bundler.artifacts.image.engine import opening
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.embedding import EngineDestination
from bundler.artifacts.image.engine.opening import EngineImage, open_image
from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import ToolFailed
from bundler.listener import SILENT
from bundler.refresh.run import Refreshed
from bundler.state.bundle import Bundle
from bundler.workflows.pipeline import Prepared
from bundler.workflows.update import update
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.dockerprojects import Project
from tests.support.embedding import embed_layout
from tests.support.layouts import LayoutMaker, layer

pytestmark = pytest.mark.engine(offline=True)


def with_state(root: Path, text: str) -> Prepared:
    bundle = make_bundle(root / f"state-{text}", {"A": {"state": text.encode()}}, place=PLACE)
    return Prepared((), Refreshed((bundle,), make_record(bundle).refresh, ()))


def renew(name: str, prepared: Prepared, *, in_place: bool = False) -> EmbedResult:
    return update(
        ArtifactName.parse(name), None, in_place=in_place, prepared=prepared, listener=SILENT
    )


def holds(name: str, bundle: Bundle) -> bool:
    with open_artifact(name) as artifact:
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    (directory,) = verdict.directories
    assert directory.manifest is not None
    return directory.manifest.content_digest == bundle.manifest.content_digest


def files_of(path: Path) -> dict[str, tuple[int, int]]:
    paths = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return {str(item): (item.stat().st_ino, item.stat().st_mtime_ns) for item in paths}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout with one image, called ``1.4``, of two platforms, with the state A."""
    maker = LayoutMaker(tmp_path / "base")
    files = {"app/src/shop/defs/__init__.py": b""}
    made = [
        maker.manifest([layer(files)], {"WorkingDir": "/app"}, architecture=architecture)
        for architecture in ("amd64", "arm64")
    ]
    maker.tag(maker.index(made))
    first = with_state(tmp_path, "A").bundles
    embed_layout(maker.path, first, make_record(*first), tmp_path / "layout", tag="1.4")
    return tmp_path / "layout"


def archived(layout: Path) -> Path:
    path = layout.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(layout, ".")
    shutil.rmtree(layout)
    return path


@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize("tag", ["", ":1.4"])
def test_a_layout(tmp_path: Path, layout: Path, *, is_archive: bool, tag: str) -> None:
    path = archived(layout) if is_archive else layout
    name, first, second = f"oci:{path}", with_state(tmp_path, "A"), with_state(tmp_path, "B")
    assert not renew(name + tag, first).changed
    made = renew(name + tag, second)
    digits = second.bundles[0].manifest.content_digest[:12]
    assert (made.name, made.changed) == (f"{name}:1.4-s{digits}", True)
    # Without a tag it is the one program that is there, as it was updated last.
    assert holds(name, second.bundles[0])
    assert holds(f"{name}:1.4", first.bundles[0])
    before = files_of(path)
    for again in (name + tag, made.name):
        unchanged = renew(again, second)
        assert (unchanged.changed, unchanged.digest) == (False, made.digest)
    assert files_of(path) == before


def test_a_layout_in_place(tmp_path: Path, layout: Path) -> None:
    second = with_state(tmp_path, "B")
    made = renew(f"oci:{layout}", second, in_place=True)
    assert (made.name, made.changed) == (f"oci:{layout}:1.4", True)
    before = files_of(layout)
    assert not renew(f"oci:{layout}", second, in_place=True).changed
    assert files_of(layout) == before
    assert holds(f"oci:{layout}", second.bundles[0])


def test_an_engine(tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, project.engine.environment[name])
    project.build()
    prepared = with_state(tmp_path, "B")
    name = f"docker-daemon:{project.name}:latest"
    made = renew(name, prepared)
    try:
        before = project.left_behind()
        for again in (name, made.name, project.name):
            unchanged = renew(again, prepared)
            assert (unchanged.name, unchanged.changed) == (made.name, False)
            assert unchanged.digest == made.digest
        assert project.left_behind() == before
        # Other code of the same name is another program.
        project.write("src/shop/more.py")
        project.build()
        newer = renew(name, prepared)
        assert newer.changed
        assert newer.digest != made.digest
        # A build in the meantime is not undone.
        destination = EngineDestination(project.docker().connect(), project.name, (project.name,))
        request = EmbedRequest(prepared.bundles, make_record(*prepared.bundles))
        project.write("src/shop/even_more.py")
        with pytest.raises(ToolFailed, match="replaced by another"), destination.embed(request):
            latest = project.build()
        assert project.inspect()["Id"] == latest.image_id
    finally:
        project.engine.docker("image", "rm", "--force", made.name, check=False)


@pytest.mark.parametrize("host", ["", "registry.invalid/"])
def test_an_image_in_the_engine_is_opened_once(
    host: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose name might be a registry's."""
    name = f"{host}{project.name}:1.4"
    project.build("-t", name)
    for variable, value in project.environment().items():
        monkeypatch.setenv(variable, value)
    opened: list[str] = []

    def noted(image: str, docker: Docker | None = None) -> EngineImage:
        opened.append(image)
        return open_image(image, docker)

    monkeypatch.setattr(opening, "open_image", noted)
    made = renew(name, with_state(tmp_path, "one"))
    project.engine.docker("image", "rm", "--force", name, made.name)
    assert opened == [name, made.name]
